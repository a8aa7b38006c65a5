"""Runs that are read back: configuration, environment, metrics and results, as far as they are there."""

import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel

from vsml.runs.directory import RunDirectory, open_run
from vsml.runs.metrics import is_number
from vsml.runs.metrics_sample import MetricsSample, sample_metrics
from vsml.runs.result_files import (
    BROKEN_ARCHIVE,
    check_archive,
    read_curve,
    read_figure,
    read_list,
    read_object,
    read_settings,
)
from vsml.runs.result_rows import Environment, EvaluationRow, OtherRow, mistakes
from vsml.system.files import check_own

T = TypeVar("T")

TABLES = {
    "Clones": "clone.json",
    "Networks of clones": "trajectories.json",
    "Inside": "introspection.json",
}
"""What runs of other calls than train and evaluate come to: headings, and the files that have the rows."""

OLD_KEYS = {
    "most": "max",
    "right_at_first_sight": "right_at_first_exposure",
    "right_at_second_sight": "right_at_second_exposure",
    "right_at_last_sight": "right_at_last_exposure",
    "switched_off": "ablation",
    "true_after_truth": "true_after_clean",
}
"""Keys in the results of version 0.1, and what they are called now."""

_OLD_FILES = {
    "trajectories.json": "followed.json",
    "trajectories.npz": "followed.npz",
}

_META_TRAINED = ("meta-trained", "evolved")  # the latter in runs of version 0.1


@dataclass(frozen=True)
class Run:
    """What a run left behind, as far as it is there and whole.

    Attributes:
        name: of the run on the page, unlike that of any other.
        path: its folder.
        config: as it was resolved.
        environment: what it ran on.
        metrics: lines of metrics.jsonl, of many some, with `minutes` added.
        evaluation: rows of evaluation.json.
        tables: rows of the other files, by the headings of `TABLES`.
        curves: of evaluation.npz, share of right answers, or squared errors of values, [episodes, examples],
            by "learner/data set".
        baselines: of values, squared errors of the mean of the targets so far, likewise.
        complete: whether it did all that it was to do.
        metrics_total: lines of metrics.jsonl.
        metrics_every: at least every so-manieth of its lines is in `metrics`.
        figures: what its `*.png` hold, by their names.
        damage: what could not be read and is left out, each with file and place.
    """

    name: str
    path: Path
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    metrics: Sequence[Mapping[str, Any]]
    evaluation: Sequence[Mapping[str, Any]]
    tables: Mapping[str, Sequence[Mapping[str, Any]]]
    curves: Mapping[str, np.ndarray]
    baselines: Mapping[str, np.ndarray]
    complete: bool
    metrics_total: int = 0
    metrics_every: int = 1
    figures: Mapping[str, bytes] = field(default_factory=dict)
    damage: Sequence[str] = ()


def read_runs(folders: Iterable[str | Path]) -> list[Run]:
    """Read the folders of runs, complete ones or not; what is damaged is left out, and is in `damage`.

    Raises:
        ValueError: one is no folder of a run, or one is named twice.
    """
    paths = [Path(folder) for folder in folders]
    if doubled := [str(path) for path in paths if paths.count(path) > 1]:
        raise ValueError(f"runs: got {doubled[0]} twice, expected different folders")
    names = [path.resolve().name for path in paths]
    runs = []
    for path, name in zip(paths, names, strict=True):
        is_only_one = names.count(name) == 1
        reader = _Reader(open_run(path))
        runs.append(reader.read(name if is_only_one else str(path)))
    return runs


@dataclass(frozen=True)
class _Reader:
    """Reads a run file by file, and notes what is damaged.

    Attributes:
        run: its folder.
        damage: what was found to be damaged so far.
    """

    run: RunDirectory
    damage: list[str] = field(default_factory=list)

    def read(self, name: str) -> Run:
        """Return the run."""
        sample = self._sample()
        evaluation = self._evaluation()
        curves, baselines = self._curves(evaluation)
        tables = {}
        for heading, file in TABLES.items():
            rows = self._rows(result_file(self.run, file), OtherRow)
            tables[heading] = [_with_present_keys(row) for row in rows]
        return Run(
            name=name,
            path=self.run.path,
            config=self._attempt(self.run.config, read_settings, {}),
            environment=self._environment(),
            metrics=list(map(_with_minutes, sample.lines)),
            evaluation=evaluation,
            tables=tables,
            curves=curves,
            baselines=baselines,
            complete=self.run.complete.exists(),
            metrics_total=sample.total,
            metrics_every=sample.every,
            figures=self._figures(),
            damage=tuple(self.damage),
        )

    def _attempt(
        self,
        path: Path,
        read: Callable[[Path], T],
        absent: T,
    ) -> T:
        """Read a file that may be absent; note it where it is damaged or not the run's own."""
        if not path.exists() and not path.is_symlink():
            return absent
        try:
            check_own(path)
            return read(path)
        except (ValueError, OSError) as error:
            self.damage.append(str(error))
            return absent

    def _sample(self) -> MetricsSample:
        sample = self._attempt(self.run.metrics, sample_metrics, MetricsSample())
        self.damage.extend(sample.damage)
        return sample

    def _environment(self) -> dict[str, Any]:
        path = self.run.environment
        nothing: dict[str, Any] = {}
        environment = self._attempt(path, read_object, nothing)
        for key, mistake in list(mistakes(Environment, environment)):
            self.damage.append(f"{path}, {mistake}")
            environment.pop(key, None)
        return environment

    def _rows(
        self,
        path: Path,
        kind: type[BaseModel],
    ) -> list[dict[str, Any]]:
        """Return the rows of a file of results that are as they have to be."""
        rows = []
        nothing: list[Any] = []
        for number, row in enumerate(self._attempt(path, read_list, nothing), start=1):
            found = [mistake for _, mistake in mistakes(kind, row)]
            if found:
                self.damage.append(f"{path}, row {number}, {found[0]}")
            else:
                rows.append(row)
        return rows

    def _evaluation(self) -> list[dict[str, Any]]:
        """Return the rows of evaluation.json, each learner once on each data set."""
        path = self.run.path / "evaluation.json"
        rows = {}
        for row in self._rows(path, EvaluationRow):
            place = row["learner"], row["dataset"]
            if place in rows:
                self.damage.append(f"{path}: got two rows of {' on '.join(place)}, expected one")
            else:
                rows[place] = row
        return list(rows.values())

    def _curves(
        self,
        evaluation: Sequence[Mapping[str, Any]],
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return the curves and the baselines of the rows of evaluation.json."""
        path = self.run.path / "evaluation.npz"
        if not evaluation or not self._attempt(path, check_archive, False):
            return {}, {}
        curves = {}
        baselines = {}
        counts = Counter(map(curve_key, evaluation))
        with zipfile.ZipFile(path) as archive:
            for row in evaluation:
                key = curve_key(row)
                try:
                    if counts[key] > 1:
                        raise ValueError("is of several rows of evaluation.json, expected names of their own")
                    curve, baseline = _read_curve(archive, row)
                except BROKEN_ARCHIVE as error:
                    self.damage.append(f"{path}, {key}: {error}")
                    continue
                if curve is not None:
                    curves[key] = curve
                if baseline is not None:
                    baselines[key] = baseline
        return curves, baselines

    def _figures(self) -> dict[str, bytes]:
        figures = {}
        for path in sorted(self.run.path.glob("*.png")):
            content = self._attempt(path, read_figure, None)
            if content is not None:
                figures[path.name] = content
        return figures


def _read_curve(
    archive: zipfile.ZipFile,
    row: Mapping[str, Any],
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return the curve of a row of evaluation.json, and the baseline of values, as far as they are there."""
    names = {name.removesuffix(".npy") for name in archive.namelist()}
    key = curve_key(row)
    if row.get("metric", "accuracy") == "accuracy":
        name = f"{key}/correct"
        return (read_curve(archive, name) if name in names else None), None
    name = f"{key}/squared_error"
    if name not in names:
        return None, None
    curve = read_curve(archive, name)
    baseline = read_curve(archive, f"{key}/squared_error_of_mean")
    if baseline.shape != curve.shape:
        raise ValueError(f"got shapes {curve.shape} and {baseline.shape}, expected the same")
    return curve, baseline


def curve_key(row: Mapping[str, Any]) -> str:
    """Return what the curve of a row of evaluation.json goes by: "learner/data set"."""
    return f"{row['learner']}/{row['dataset']}"


def result_file(run: RunDirectory, name: str) -> Path:
    """Return the path of a file of results, which has another name in runs of version 0.1."""
    path = run.path / name
    old = run.path / _OLD_FILES.get(name, name)
    return old if old.exists() and not path.exists() else path


def read_evaluation(run: RunDirectory) -> list[dict[str, Any]]:
    """Return the rows of evaluation.json.

    Raises:
        ValueError: the file is damaged; the message says where.
        OSError: it cannot be read.
    """
    path = run.path / "evaluation.json"
    rows = read_list(path)
    for number, row in enumerate(rows, start=1):
        for _, mistake in mistakes(EvaluationRow, row):
            raise ValueError(f"{path}, row {number}, {mistake}")
    return rows


def is_meta_trained(row: Mapping[str, Any]) -> bool:
    """Whether a row of evaluation.json is of what the run itself has found."""
    return row["learner"] in _META_TRAINED


def _with_minutes(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line of metrics with the time in minutes, where the time is a number."""
    wall_s = line.get("wall_s")
    if not is_number(wall_s):
        return dict(line)
    return {**line, "minutes": wall_s / 60}


def _with_present_keys(row: Mapping[str, Any]) -> dict[str, Any]:
    return {OLD_KEYS.get(key, key): value for key, value in row.items()}

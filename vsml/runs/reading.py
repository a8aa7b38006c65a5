"""Runs that are read back: configuration, environment, metrics and results, as far as they are there."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from vsml.runs.directory import RunDirectory, open_run
from vsml.runs.metrics import read_metrics
from vsml.system.files import check_own

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
    """What a run left behind, as far as it is there.

    Attributes:
        name: of the run on the page, unlike that of any other.
        path: its folder.
        config: as it was resolved.
        environment: what it ran on.
        metrics: lines of metrics.jsonl, with `minutes` added.
        evaluation: rows of evaluation.json.
        tables: rows of the other files, by the headings of `TABLES`.
        curves: of evaluation.npz, share of right answers, or squared errors of values, [episodes, examples],
            by "learner/data set".
        baselines: of values, squared errors of the mean of the targets so far, likewise.
        complete: whether it did all that it was to do.
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


def read_runs(folders: Iterable[str | Path]) -> list[Run]:
    """Read the folders of runs, complete ones or not.

    Raises:
        ValueError: one is no folder of a run, a file in it is damaged, or one is named twice.
        OSError: a file cannot be read, or is a link that leads out of its folder.
    """
    paths = [Path(folder) for folder in folders]
    if doubled := [str(path) for path in paths if paths.count(path) > 1]:
        raise ValueError(f"runs: got {doubled[0]} twice, expected different folders")
    names = [path.resolve().name for path in paths]
    return [
        _read(open_run(path), name if names.count(name) == 1 else str(path))
        for path, name in zip(paths, names, strict=True)
    ]


def _read(run: RunDirectory, name: str) -> Run:
    for path in (run.config, run.metrics):
        check_own(path)
    metrics = read_metrics(run.metrics) if run.metrics.exists() else []
    answers = _answers(run.path / "evaluation.npz")
    return Run(
        name=name,
        path=run.path,
        config=yaml.safe_load(run.config.read_text(encoding="utf-8")),
        environment=_json(run.environment, {}),
        metrics=[{**line, "minutes": line["wall_s"] / 60} if "wall_s" in line else line for line in metrics],
        evaluation=_json(run.path / "evaluation.json", []),
        tables={heading: read_rows(run, name) for heading, name in TABLES.items()},
        curves=_arrays(answers, "/correct") | _arrays(answers, "/squared_error"),
        baselines=_arrays(answers, "/squared_error_of_mean"),
        complete=run.complete.exists(),
    )


def result_file(run: RunDirectory, name: str) -> Path:
    """Return the path of a file of results, which has another name in runs of version 0.1."""
    path = run.path / name
    old = run.path / _OLD_FILES.get(name, name)
    return old if old.exists() and not path.exists() else path


def read_rows(run: RunDirectory, name: str) -> list[dict[str, Any]]:
    """Return the rows of a file of results, with present keys; none where it is not there.

    Raises:
        ValueError: the file is damaged.
    """
    rows = _json(result_file(run, name), [])
    return [{OLD_KEYS.get(key, key): value for key, value in row.items()} for row in rows]


def is_meta_trained(row: Mapping[str, Any]) -> bool:
    """Whether a row of evaluation.json is of what the run itself has found."""
    return row["learner"] in _META_TRAINED


def _json(path: Path, absent: Any) -> Any:
    check_own(path)
    if not path.exists():
        return absent
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: got a damaged file, expected JSON: {error}") from error


def _answers(path: Path) -> dict[str, np.ndarray]:
    check_own(path)
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            wanted = ("/correct", "/squared_error", "/squared_error_of_mean")
            return {name: arrays[name] for name in arrays if name.endswith(wanted)}
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path}: got a damaged file, expected arrays of numpy: {error}") from error


def _arrays(answers: Mapping[str, np.ndarray], suffix: str) -> dict[str, np.ndarray]:
    """Return the arrays whose names end so, by the rest of their names."""
    return {name.removesuffix(suffix): array for name, array in answers.items() if name.endswith(suffix)}

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

TABLES = {"Clones": "clone.json", "Networks of clones": "followed.json", "Inside": "introspection.json"}
"""What runs of other calls than train and evaluate come to: headings, and the files that have the rows."""


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
        curves: of evaluation.npz, share of right answers [episodes, examples], by "learner/data set".
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
    complete: bool


def read_runs(folders: Iterable[str | Path]) -> list[Run]:
    """Read the folders of runs, complete ones or not.

    Raises:
        ValueError: one is no folder of a run, a file in it is damaged, or one is named twice.
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
    metrics = read_metrics(run.metrics) if run.metrics.exists() else []
    return Run(
        name=name,
        path=run.path,
        config=yaml.safe_load(run.config.read_text(encoding="utf-8")),
        environment=_json(run.environment, {}),
        metrics=[{**line, "minutes": line["wall_s"] / 60} if "wall_s" in line else line for line in metrics],
        evaluation=_json(run.path / "evaluation.json", []),
        tables={heading: _json(run.path / name, []) for heading, name in TABLES.items()},
        curves=_answers(run.path / "evaluation.npz"),
        complete=run.complete.exists(),
    )


def _json(path: Path, absent: Any) -> Any:
    if not path.exists():
        return absent
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: got a damaged file, expected JSON: {error}") from error


def _answers(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {
                name.removesuffix("/correct"): arrays[name] for name in arrays if name.endswith("/correct")
            }
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path}: got a damaged file, expected arrays of numpy: {error}") from error

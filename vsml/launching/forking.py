"""Forks: a new run that goes on from a checkpoint of a search, with other settings."""

import json
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from vsml.calls.searching import DATABASE
from vsml.config.files import dump
from vsml.config.schema import Config
from vsml.launching.schema import load_config
from vsml.runs import checkpoint
from vsml.runs.checkpoint import CheckpointStore
from vsml.runs.directory import RunDirectory, new_run, open_run
from vsml.runs.environment import describe_environment
from vsml.search.changing import SETTINGS
from vsml.settings import differences

_ALSO = ("search.database", "search.breeding.children", "search.breeding.method")
"""Settings of the search that may change in a fork, besides those that may change while it runs."""


def points_of(source: Path) -> list[int]:
    """Return the generations that a run can be forked at, ascending: those of its checkpoints.

    Raises:
        ValueError: it is no run.
    """
    return CheckpointStore(open_run(source).checkpoints).steps()


def fork(
    source: Path,
    generation: int | None = None,
    changes: Sequence[str] = (),
    target: Path | None = None,
) -> RunDirectory:
    """Make the folder of a new run that goes on from a checkpoint of a search, and return it.

    The new run is a row of the database of the old one, unless it is given another database. What was set,
    pinned and banned goes along. `--resume` starts it.

    Args:
        source: folder of the search, which may run.
        generation: of the checkpoint; None: the newest one.
        changes: settings, as `key=value`.
        target: the new folder; None: one in `runs/`.

    Raises:
        ValueError: there is no such checkpoint, or a setting cannot change.
        OSError: the folder cannot be made.
        StoreError: the database cannot be used.
    """
    from vsml.search.funnel import Funnel
    from vsml.search.store import Database, RunRow, insert_all

    run = open_run(source)
    points = points_of(source)
    if not points:
        raise ValueError(f"{source}: got a run without checkpoints, expected a search with one")
    point = points[-1] if generation is None else generation
    if point not in points:
        listed = ", ".join(map(str, points))
        raise ValueError(f"generation: got {point}, expected one of {listed}, whose checkpoints are there")
    tree, metadata = checkpoint.load(CheckpointStore(run.checkpoints).path(point))
    if "breeder" not in metadata:
        raise ValueError(f"{source}: got a run of call: {metadata['config'].get('call')}, expected a search")
    config = _config(run, metadata, changes)
    new = new_run(target, name=f"{config.name or config.call}-fork")
    id_ = f"{new.path.name} {uuid.uuid4().hex[:8]}"
    steering = {**(metadata.get("steering") or {}), "answers": {}, "settings": {}, "paused": False}
    settings = config.model_dump(mode="json")
    # What was done before the fork is counted for the run that did it.
    counted = metadata["breeder"]["judge"]
    ended = {(stage, why): count for stage, why, count in counted["ended"]}
    parent = {
        "run": metadata["run"],
        "generation": point,
        "wall_s": metadata["wall_s"],
        "counters": Funnel(counted["proposed"], ended, counted["passed"]).counters(),
    }
    metadata |= {
        "config": settings,
        "run": id_,
        "fork_of": parent,
        "steering": {"banned": {}, "proposals": [], **steering},
    }
    environment = describe_environment(1)
    commit = str((environment["git"] or {}).get("commit", ""))
    row = RunRow(id_, parent["run"], point, json.dumps(settings), commit)
    with Database(settings["search"]["database"], create=True) as database:
        with database.reading():
            pass  # a database that cannot be used is told before there is a folder
        with new.lock():
            new.start(dump(config), environment)
            CheckpointStore(new.checkpoints).save(point, tree, metadata)
            if run.metrics.exists():
                shutil.copyfile(run.metrics, new.metrics)
                new.truncate_metrics(point)
        with database.writing() as connection:
            insert_all(connection, {"run": [row.values()]})
    return new


def _config(run: RunDirectory, metadata: dict[str, Any], changes: Sequence[str]) -> Config:
    """Return the configuration of a fork.

    Raises:
        ValueError: a setting has a mistake, or cannot change.
    """
    before = load_config([run.config], default=None)
    was_set = (metadata.get("steering") or {}).get("settings", {})
    entries = [f"{name}={_as_yaml(value)}" for name, value in was_set.items()]
    if before.model_dump()["search"]["database"] is None:
        entries.append(f"search.database={_as_yaml(str((run.path / DATABASE).absolute()))}")
    config = load_config([run.config], [*entries, *changes], default=None)
    mistakes = [
        f"{path}: got {now!r}, which a fork cannot change, as arrays and scores of the checkpoint go with "
        f"{then!r}"
        for path, then, now in differences(before.model_dump(mode="json"), config.model_dump(mode="json"))
        if (path.startswith("search.") and path not in (*SETTINGS, *_ALSO)) or path == "call"
    ]
    if mistakes:
        raise ValueError("; ".join(mistakes))
    return config


def _as_yaml(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6)
    return text.removesuffix("\n").removesuffix("\n...")

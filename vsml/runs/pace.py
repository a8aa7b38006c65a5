"""The pace of earlier runs: how long a meta step took that was like those of a run to be."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import yaml

from vsml.runs.metrics import read_metrics

_LOOKED_AT = 12
"""Earlier runs that are looked at, the latest first: to read one takes some tens of milliseconds."""

_SAME = ("call", "model", "clone", "optimizer.type", "optimizer.truncation_length", "data.preprocess")
_SAME_IN_TRAINING = ("dataset", "batch_size", "episode_length", "population_size", "objective")
"""Settings that the time of a meta step depends on."""


@dataclass(frozen=True)
class Pace:
    """How long a meta step took.

    Attributes:
        step_s: seconds, with the evaluations in between.
        where: the folder of the run.
    """

    step_s: float
    where: Path


def measured_pace(settings: Mapping[str, Any], ranks: int, root: Path = Path("runs")) -> Pace | None:
    """Return the pace of the latest run like this one, on devices and ranks like these; None without any.

    Args:
        settings: of the run to be, as a configuration is written.
        ranks: number of its ranks.
        root: where earlier runs are.
    """
    asked = _what_matters(settings)
    runs = sorted(root.glob("*/metrics.jsonl"), key=lambda path: path.parent.name, reverse=True)
    for path in runs[:_LOOKED_AT]:
        try:
            earlier = yaml.safe_load((path.parent / "config.yaml").read_text(encoding="utf-8"))
            environment = json.loads((path.parent / "environment.json").read_text(encoding="utf-8"))
            is_alike = _what_matters(earlier) == asked and _is_here(environment, ranks)
            step_s = _step_s(path) if is_alike else None
        except (OSError, ValueError, LookupError, TypeError, AttributeError, yaml.YAMLError):
            continue  # a folder that is damaged, or of another version
        if step_s is not None:
            return Pace(step_s, path.parent)
    return None


def _what_matters(settings: Mapping[str, Any]) -> list[Any]:
    """Return the settings that the time of a meta step depends on."""
    found: list[Any] = [settings["training"][key] for key in _SAME_IN_TRAINING]
    for path in _SAME:
        value: Any = settings
        for key in path.split("."):
            value = value[key]
        found.append(value)
    return found


def _is_here(environment: Mapping[str, Any], ranks: int) -> bool:
    """Return whether a run was on as many ranks, and on devices like those of this process."""
    devices = jax.local_devices()
    device = environment["device"]
    here = (devices[0].device_kind, len(devices), ranks)
    return (device["kind"], device["count"], environment["world_size"]) == here


def _step_s(metrics: Path) -> float | None:
    """Return seconds a meta step, from the second line on: the first has the time of compiling."""
    lines = read_metrics(metrics)
    if len(lines) < 3:
        return None
    first, last = lines[1], lines[-1]
    steps = last["step"] - first["step"]
    return (last["wall_s"] - first["wall_s"]) / steps if steps > 0 else None

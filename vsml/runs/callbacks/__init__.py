"""Callbacks of a training run, one a file. A new one is a file here and a line in `CALLBACKS`."""

from collections.abc import Callable

from vsml.registry import Registry
from vsml.runs.callbacks.base import Callback, Evaluated, Event, Finished, StepTaken
from vsml.runs.callbacks.snapshots import Snapshots

CALLBACKS: Registry[Callable[..., Callback]] = Registry(
    "callback",
    "vsml.callbacks",
    {
        "snapshots": Snapshots,
    },
)
"""What `training.callbacks` may name, and what builds it from the run's directory and config, a section."""

__all__ = ["CALLBACKS", "Callback", "Evaluated", "Event", "Finished", "StepTaken"]

"""Objectives, one a file. A new one is a file here and a line in `OBJECTIVES`."""

from collections.abc import Iterator, Mapping
from typing import Any

from vsml.meta.objectives.base import EpisodeShape, HasTasks, MemberResult, Objective, OwnTask
from vsml.meta.objectives.battery import BatteryLoss
from vsml.meta.objectives.clone import CloneLoss
from vsml.meta.objectives.episode import EpisodeConfig, EpisodeLoss
from vsml.options import builder_of, member_problems, read_options
from vsml.registry import Registry
from vsml.settings import Problem

OBJECTIVES: Registry[Any] = Registry(
    "objective",
    "vsml.objectives",
    {
        "episode": EpisodeLoss,
        "clone": CloneLoss,
        "battery": BatteryLoss,
    },
)
"""What `training.objective` may name, and what builds it from config, a section."""

__all__ = [
    "OBJECTIVES",
    "BatteryLoss",
    "CloneLoss",
    "EpisodeConfig",
    "EpisodeLoss",
    "EpisodeShape",
    "HasTasks",
    "MemberResult",
    "Objective",
    "OwnTask",
    "build_objective",
    "objective_problems",
]

_NAME_PATH = "training.objective"
_OPTIONS_PATH = "training.objective_options"


def build_objective(name: str, options: Mapping[str, Any]) -> Objective:
    """Build an objective.

    Args:
        name: of `OBJECTIVES`, of an entry point, or `package.module:Name`.
        options: its settings by name.

    Raises:
        ValueError: it is unknown, or refuses its settings; a `SettingsError` has the path of each mistake.
    """
    kind = OBJECTIVES.resolve(name)
    return builder_of(kind)(read_options(kind, options, _OPTIONS_PATH))


def objective_problems(name: str, options: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong with the settings of an objective before it is built, with whole paths."""
    yield from member_problems(OBJECTIVES, name, options, _NAME_PATH, _OPTIONS_PATH)

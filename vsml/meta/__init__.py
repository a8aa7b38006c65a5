"""The outer loop: what finds meta-parameters (`optimizers`) by minimising something (`objectives`)."""

from typing import Any

from vsml.meta.objectives import (
    OBJECTIVES,
    CloneLoss,
    EpisodeConfig,
    EpisodeLoss,
    build_objective,
)
from vsml.meta.optimizers import (
    OPTIMIZERS,
    AntitheticEvolution,
    BackPropagation,
    OptimizerConfig,
    build_optimizer,
    meta_adam,
)
from vsml.meta.step import meta_train
from vsml.meta.trials import group_trials
from vsml.moved import old_names

__all__ = [
    "OBJECTIVES",
    "OPTIMIZERS",
    "AntitheticEvolution",
    "BackPropagation",
    "CloneLoss",
    "EpisodeConfig",
    "EpisodeLoss",
    "Evolution",
    "OptimizerConfig",
    "build_objective",
    "build_optimizer",
    "group_trials",
    "meta_adam",
    "meta_train",
]


def __getattr__(name: str) -> Any:
    if name == "Evolution":  # not before it is asked for, as evosax takes long to import
        from vsml.meta.optimizers.evosax import Evolution

        return Evolution
    return old_names(__name__)(name)

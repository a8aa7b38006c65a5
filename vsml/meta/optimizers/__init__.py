"""Meta-optimizers, one a file. A new one is a file here and a line in `OPTIMIZERS`."""

from collections.abc import Iterator
from typing import Any

from vsml.meta.objectives.base import Objective
from vsml.meta.optimizers.antithetic import AntitheticEvolution
from vsml.meta.optimizers.base import MetaOptimizer, OuterLoop, meta_adam
from vsml.meta.optimizers.evolution import EvolutionStrategies
from vsml.meta.optimizers.gradient import BackPropagation
from vsml.meta.optimizers.settings import OptimizerConfig
from vsml.options import builder_of, member_problems, read_options
from vsml.registry import Registry
from vsml.settings import Problem
from vsml.types import Params

OPTIMIZERS: Registry[Any] = Registry(
    "meta-optimizer",
    "vsml.optimizers",
    {
        "es": EvolutionStrategies,
        "gradient": BackPropagation,
    },
)
"""What `optimizer.type` may name; see `MetaOptimizer` for how one is built."""

__all__ = [
    "OPTIMIZERS",
    "AntitheticEvolution",
    "BackPropagation",
    "MetaOptimizer",
    "OptimizerConfig",
    "OuterLoop",
    "build_optimizer",
    "meta_adam",
    "optimizer_problems",
]


def build_optimizer(
    settings: OptimizerConfig,
    objective: Objective,
    params: Params,
    trials: int,
    iterations: int,
) -> MetaOptimizer:
    """Build a meta-optimizer from its settings.

    Args:
        settings: of the section `optimizer`.
        objective: what is minimised.
        params: meta-parameters, as a template.
        trials: how many a meta step has.
        iterations: how many meta steps there are.

    Raises:
        ValueError: it is unknown, or refuses its settings; a `SettingsError` has the path of each mistake.
        MemoryError: it would need more memory than there is.
    """
    kind = OPTIMIZERS.resolve(settings.type)
    config = read_options(kind, dict(settings.options), "optimizer.options")
    return builder_of(kind)(config, OuterLoop(settings, objective, params, trials, iterations))


def optimizer_problems(settings: OptimizerConfig) -> Iterator[Problem]:
    """Yield what is wrong with the settings of a meta-optimizer before it is built, with whole paths."""
    name_path = "optimizer.type"
    options = dict(settings.options)
    problems = list(
        member_problems(
            OPTIMIZERS,
            settings.type,
            options,
            name_path,
            "optimizer.options",
        )
    )
    yield from problems
    if any(problem.path == name_path for problem in problems):
        return
    length = settings.truncation_length
    if length is not None and not OPTIMIZERS.resolve(settings.type).differentiates:
        expected = f"null, as {settings.type} does not back-propagate"
        yield Problem("optimizer.truncation_length", length, expected, (name_path,))

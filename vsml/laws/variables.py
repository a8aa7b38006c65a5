"""Sizes that laws of meta-training are about, and where a run has them.

Three kinds are told apart: how much is learned from (meta-steps, tasks, examples), how large what learns is
(its state; its meta-parameters are few, and another thing), and what that costs (counted operations, measured
time).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Variable:
    """A size of a run.

    Attributes:
        name: as users type it.
        label: at the axis of a figure, with its unit.
        setting: dotted path of what a user sets to change it.
        is_set: whether the setting is the size; else it follows from that, and is counted or measured.
    """

    name: str
    label: str
    setting: str
    is_set: bool = True


VARIABLES = {
    each.name: each
    for each in (
        Variable("meta_steps", "meta-steps", "training.iterations"),
        Variable("tasks", "distinct tasks", "data.num_tasks"),
        Variable("state_size", "state size of a synapse", "model.vsml.synapse.state_size"),
        Variable("episode_length", "steps of an episode", "training.episode_length"),
        Variable("population", "trials of a meta-step", "training.population_size"),
        Variable("examples", "examples seen by all members", "training.iterations", is_set=False),
        Variable("flops", "counted operations", "training.iterations", is_set=False),
        Variable("seconds", "measured seconds", "training.iterations", is_set=False),
    )
}
"""Sizes by name."""


def variables_of(names: Sequence[str]) -> tuple[Variable, ...]:
    """Return the variables of some names.

    Raises:
        ValueError: there is none of a name, or two would be changed by the same setting.
    """
    unknown = [name for name in names if name not in VARIABLES]
    if unknown:
        raise ValueError(f"variables: got {', '.join(unknown)}, expected some of {', '.join(VARIABLES)}")
    found = tuple(VARIABLES[name] for name in names)
    settings = [variable.setting for variable in found]
    if len(set(settings)) < len(settings):
        raise ValueError(f"variables: got {', '.join(names)}, expected sizes that have settings of their own")
    return found


def setting(config: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path; None where there is none."""
    value: Any = config
    for key in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def without(config: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return settings without the one at a dotted path."""
    key, _, rest = path.partition(".")
    if key not in config:
        return dict(config)
    if not rest:
        return {name: value for name, value in config.items() if name != key}
    below = config[key]
    if not isinstance(below, Mapping):
        return dict(config)
    return {**config, key: without(below, rest)}

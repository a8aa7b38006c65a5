"""Learning algorithms, one a file. A new one is a file here and a line in `LEARNERS`."""

from typing import Any

from vsml.config_types import Section
from vsml.learners.base import Learner, continue_episode, run_episode
from vsml.learners.vsml import Vsml, VsmlState

LEARNERS: dict[str, Any] = {
    "vsml": Vsml,
}
"""Each has `config_type`, the section of its settings, and `from_config`, which builds it from one."""

__all__ = ["LEARNERS", "Learner", "Vsml", "VsmlState", "continue_episode", "make_learner", "run_episode"]


def make_learner(name: str, settings: Section, input_shape: tuple[int, ...], num_classes: int) -> Learner:
    """Build a learner.

    Args:
        name: of `LEARNERS`.
        settings: its section of the configuration.
        input_shape: shape of one input.
        num_classes: number of classes.
    """
    return LEARNERS[name].from_config(settings, input_shape, num_classes)

"""Learning algorithms, one a file. A new one is a file here and a line in `LEARNERS`."""

from typing import Any

from vsml.config import ModelConfig
from vsml.learners.base import Learner, continue_episode, run_episode
from vsml.learners.vsml import Vsml, VsmlState

LEARNERS: dict[str, Any] = {"vsml": Vsml}

__all__ = ["LEARNERS", "Learner", "Vsml", "VsmlState", "continue_episode", "make_learner", "run_episode"]


def make_learner(model: ModelConfig, input_shape: tuple[int, ...], num_classes: int) -> Learner:
    """Build the learner that the configuration describes.

    Args:
        model: its type, and a section of settings for each type.
        input_shape: shape of one input.
        num_classes: number of classes.
    """
    settings = getattr(model, model.type)
    return LEARNERS[model.type].from_config(settings, input_shape, num_classes)

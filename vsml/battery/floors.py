"""Answers that need no learning from inputs, and the oracle's: what every test is held against."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from vsml.battery.learning_test import Outcome
from vsml.battery.measures import mean_so_far
from vsml.types import Values

SURE = 30.0
"""The logit of the right class of an oracle; the others have 0."""


def constant(outcome: Outcome) -> np.ndarray:
    """Return the same answer always: all classes alike, of which the first is taken, or the value 0."""
    size = outcome.outputs.size
    return np.zeros((*outcome.weight.shape, size), np.float32)


def majority(outcome: Outcome) -> np.ndarray:
    """Return the logarithm of how often each class came so far, or the mean of the values so far."""
    if isinstance(outcome.outputs, Values):
        return mean_so_far(outcome).astype(np.float32)
    told = _one_hot(outcome) * outcome.taught[..., None]
    counts_before = np.cumsum(told, axis=1) - told
    return np.log(counts_before + 1)


def oracle(outcome: Outcome) -> np.ndarray:
    """Return the right answers: no learner can do better."""
    if isinstance(outcome.outputs, Values):
        return outcome.targets
    return SURE * _one_hot(outcome)


FLOORS: dict[str, Callable[[Outcome], np.ndarray]] = {"majority": majority, "constant": constant}
"""What `LearningTest.floors` may name."""


def answered(outcome: Outcome, by: Callable[[Outcome], np.ndarray]) -> Outcome:
    """Return the outcome of the same episodes with other answers."""
    return replace(outcome, answers=by(outcome))


def _one_hot(outcome: Outcome) -> np.ndarray:
    """Return the labels as one-hot vectors [S, T, C]."""
    return np.eye(outcome.outputs.size, dtype=np.float32)[outcome.targets]

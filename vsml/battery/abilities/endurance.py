"""Endurance: 16,000 examples without a decline."""

import jax.numpy as jnp
import numpy as np

from vsml.battery.clusters import clusters
from vsml.battery.episodes import stream
from vsml.battery.learning_test import LearningTest, Outcome, Task
from vsml.battery.measures import accuracy
from vsml.types import Array, Classes, Episode

INPUTS = 8
CLASSES = 4
NOISE = 0.7
PART = 1000
"""Examples that are compared: after a first part in which is learned, and at the end."""


def task(steps: int) -> Task:
    """Return the task of so many examples of clusters that stay."""

    def draw(key: Array) -> Episode:
        x, labels = clusters(key, steps, INPUTS, CLASSES, NOISE)
        return stream(x, labels, weight=jnp.ones(steps))

    return Task((INPUTS,), Classes(CLASSES), steps, draw)


def score(outcome: Outcome) -> np.ndarray:
    """Return the accuracy at the end, less what it has declined by, [S]; answers not finite are wrong."""
    early = accuracy(outcome, PART, 2 * PART)
    late = accuracy(outcome, outcome.weight.shape[1] - PART)
    return late - np.maximum(early - late, 0)


ENDURANCE = LearningTest(
    name="endurance",
    tags=("endurance",),
    levels=(16_000,),
    task=task,
    score=score,
    about="clusters for 16,000 examples: the accuracy at the end, less what it has declined by",
)

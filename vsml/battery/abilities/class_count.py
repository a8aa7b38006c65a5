"""Many classes: 2 to 64 clusters."""

import math

import jax.numpy as jnp

from vsml.battery.clusters import clusters
from vsml.battery.episodes import stream
from vsml.battery.learning_test import LearningTest, Task
from vsml.battery.measures import accuracy
from vsml.types import Array, Classes, Episode

INPUTS = 32
NOISE = 1.0
EXAMPLES = 10
"""Of a class, on average, before answers count; at least 50 of all."""

SCORED = 100


def task(classes: int) -> Task:
    """Return the task of so many clusters."""
    # In whole segments, which compile least.
    before = math.ceil(EXAMPLES * classes / 50) * 50
    steps = before + SCORED

    def draw(key: Array) -> Episode:
        x, labels = clusters(key, steps, INPUTS, classes, NOISE)
        return stream(x, labels, weight=jnp.arange(steps) >= before)

    return Task((INPUTS,), Classes(classes), steps, draw)


CLASS_COUNT = LearningTest(
    name="class_count",
    tags=("scale",),
    levels=(2, 8, 32, 64),
    task=task,
    score=accuracy,
    about="n clusters, after 10 examples of each",
)

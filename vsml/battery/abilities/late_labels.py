"""Late labels: what is told is the label of d examples ago."""

import jax.numpy as jnp

from vsml.battery.clusters import clusters
from vsml.battery.episodes import stream
from vsml.battery.learning_test import LearningTest, Task
from vsml.battery.measures import accuracy
from vsml.types import Array, Classes, Episode

INPUTS = 8
CLASSES = 3
NOISE = 0.3
STEPS = 600
SCORED_FROM = 400


def task(delay: int) -> Task:
    """Return the task: the class of the input so many examples ago is asked for, and told."""

    def draw(key: Array) -> Episode:
        x, labels = clusters(key, delay + STEPS, INPUTS, CLASSES, NOISE)
        return stream(x[delay:], labels[:STEPS], weight=jnp.arange(STEPS) >= SCORED_FROM)

    return Task((INPUTS,), Classes(CLASSES), STEPS, draw)


LATE_LABELS = LearningTest(
    name="late_labels",
    tags=("shift",),
    levels=(1, 2, 4, 8),
    task=task,
    score=accuracy,
    about="labels come n examples late, and so are asked for: the largest n",
    span=True,
)

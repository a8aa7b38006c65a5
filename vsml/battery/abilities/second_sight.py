"""Second sight: what one example of a class is worth."""

import jax
import jax.numpy as jnp

from vsml.battery.clusters import clusters
from vsml.battery.episodes import stream
from vsml.battery.learning_test import LearningTest, Task
from vsml.battery.measures import accuracy
from vsml.types import Array, Classes, Episode

STEPS = 50
INPUTS = 32
CLASSES = 10


def task(noise: float) -> Task:
    """Return the task: clusters, of which answers count where a class is seen for the second time."""

    def draw(key: Array) -> Episode:
        x, labels = clusters(key, STEPS, INPUTS, CLASSES, noise)
        seen = jax.nn.one_hot(labels, CLASSES)
        seen_before = (jnp.cumsum(seen, axis=0) - seen)[jnp.arange(STEPS), labels]
        return stream(x, labels, weight=seen_before == 1)

    return Task((INPUTS,), Classes(CLASSES), STEPS, draw)


SECOND_SIGHT = LearningTest(
    name="second_sight",
    tags=("memory",),
    levels=(0.3, 0.6, 1.0),
    task=task,
    score=accuracy,
    about="one-shot: accuracy at the second sight of a class, by the noise within classes",
)

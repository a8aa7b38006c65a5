"""Growth: a network gets more nodes in the middle of a stream."""

import jax
import jax.numpy as jnp

from vsml.battery.clusters import clusters
from vsml.battery.episodes import stream
from vsml.battery.growing import Growth
from vsml.battery.learning_test import LearningTest, Task
from vsml.battery.measures import accuracy
from vsml.types import Array, Classes, Episode

INPUTS = 8
CLASSES = 4
NOISE = 0.5
LESSON = 300
ASKED = 50


def task(nodes: int) -> Task:
    """Return the task: X is learned, nodes are added, X is asked for; then Y is learned, and asked for.

    X and Y are clusters at other places with the same labels. Right answers to X show what stays, those to Y
    what can still be learned.
    """
    steps = 2 * (LESSON + ASKED)

    def draw(key: Array) -> Episode:
        parts = [clusters(own, LESSON + ASKED, INPUTS, CLASSES, NOISE) for own in jax.random.split(key)]
        x = jnp.concatenate([part[0] for part in parts])
        labels = jnp.concatenate([part[1] for part in parts])
        asked = jnp.arange(steps) % (LESSON + ASKED) >= LESSON
        return stream(x, labels, weight=asked, taught=~asked)

    return Task((INPUTS,), Classes(CLASSES), steps, draw, (Growth(LESSON, nodes),))


GROWTH = LearningTest(
    name="growth",
    tags=("growth",),
    levels=(8, 32),
    task=task,
    score=accuracy,
    about="n nodes more in the middle of a stream: what was known stays, and more is learned",
)

"""Forgetting: X is learned, then Y, and X is asked for again."""

import jax
import jax.numpy as jnp

from vsml.battery.clusters import clusters
from vsml.battery.episodes import stream
from vsml.battery.learning_test import LearningTest, Task
from vsml.battery.measures import accuracy
from vsml.types import Array, Classes, Episode

INPUTS = 16
CLASSES = 4
NOISE = 0.7
LESSON = 200
ASKED = 50


def task(examples_of_y: int) -> Task:
    """Return the task: 200 examples of X, so many of Y, then questions about X without any lesson.

    X and Y are clusters at other places with the same labels, so both can be known at once.
    """
    steps = LESSON + examples_of_y + ASKED

    def draw(key: Array) -> Episode:
        x_key, y_key = jax.random.split(key)
        x, labels = clusters(x_key, LESSON + ASKED, INPUTS, CLASSES, NOISE)
        other_x, other_labels = clusters(y_key, examples_of_y, INPUTS, CLASSES, NOISE)
        inputs = jnp.concatenate([x[:LESSON], other_x, x[LESSON:]])
        targets = jnp.concatenate([labels[:LESSON], other_labels, labels[LESSON:]])
        asked = jnp.arange(steps) >= LESSON + examples_of_y
        return stream(inputs, targets, weight=asked, taught=~asked)

    return Task((INPUTS,), Classes(CLASSES), steps, draw)


# What is left of X, times the skill that there was, is the accuracy afterwards.
FORGETTING = LearningTest(
    name="forgetting",
    tags=("forgetting",),
    levels=(50, 200, 800),
    task=task,
    score=accuracy,
    about="accuracy on X after n examples of Y have come in between",
)

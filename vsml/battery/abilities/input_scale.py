"""Inputs of another scale: ten times smaller or larger, or shifted."""

import jax.numpy as jnp

from vsml.battery.clusters import clusters
from vsml.battery.episodes import stream
from vsml.battery.learning_test import LearningTest, Task
from vsml.battery.measures import accuracy
from vsml.types import Array, Classes, Episode

STEPS = 300
SCORED_FROM = 200
INPUTS = 16
CLASSES = 5
NOISE = 0.6

SCALES = {"x 0.1": (0.1, 0.0), "x 10": (10.0, 0.0), "shifted": (1.0, 3.0)}
"""What inputs of mean square 1 are multiplied with, and what is added."""


def task(level: str) -> Task:
    """Return the task: clusters on inputs of another scale."""
    scale, shift = SCALES[level]

    def draw(key: Array) -> Episode:
        x, labels = clusters(key, STEPS, INPUTS, CLASSES, NOISE)
        return stream(scale * x + shift, labels, weight=jnp.arange(STEPS) >= SCORED_FROM)

    return Task((INPUTS,), Classes(CLASSES), STEPS, draw)


INPUT_SCALE = LearningTest(
    name="input_scale",
    tags=("noise",),
    levels=tuple(SCALES),
    task=task,
    score=accuracy,
    about="inputs ten times smaller, ten times larger, or shifted by three deviations, after 200 examples",
)

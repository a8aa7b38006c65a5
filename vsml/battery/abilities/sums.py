"""Sums and differences of two numbers."""

import jax
import jax.numpy as jnp

from vsml.battery.episodes import stream
from vsml.battery.learning_test import LearningTest, Task
from vsml.battery.measures import explained
from vsml.types import Array, Episode, Values

STEPS = 200
SCORED_FROM = 100

WEIGHTS = {"a + b": (1.0, 1.0), "a - b": (1.0, -1.0), "b - a": (-1.0, 1.0)}
"""What each of the numbers is multiplied with."""


def task(level: str) -> Task:
    """Return the task of a sum of two normal numbers."""
    weights = WEIGHTS[level]

    def draw(key: Array) -> Episode:
        x = jax.random.normal(key, (STEPS, 2))
        y = x @ jnp.array(weights)[:, None]
        return stream(x, y, weight=jnp.arange(STEPS) >= SCORED_FROM)

    return Task((2,), Values(1), STEPS, draw)


SUMS = LearningTest(
    name="sums",
    tags=("arithmetic",),
    levels=tuple(WEIGHTS),
    task=task,
    score=explained,
    about="a + b, a - b and b - a of two numbers, after 100 examples",
)

"""Parity: the label says whether an odd number of n bits is set."""

import jax
import jax.numpy as jnp

from vsml.battery.episodes import stream
from vsml.battery.learning_test import LearningTest, Task
from vsml.battery.measures import accuracy
from vsml.types import Array, Classes, Episode

STEPS = 1000
SCORED_FROM = 800


def task(bits: int) -> Task:
    """Return the task of so many bits, each -1 or 1."""

    def draw(key: Array) -> Episode:
        x = jax.random.bernoulli(key, 0.5, (STEPS, bits)).astype(jnp.int32)
        label = x.sum(1) % 2
        return stream(2.0 * x - 1, label, weight=jnp.arange(STEPS) >= SCORED_FROM)

    return Task((bits,), Classes(2), STEPS, draw)


PARITY = LearningTest(
    name="parity",
    tags=("basic",),
    levels=(2, 3, 4, 5, 6, 8),
    task=task,
    score=accuracy,
    about="parity of n bits after 800 examples: the largest n",
    span=True,
)

"""Bits back: the bit of n steps ago."""

import jax
import jax.numpy as jnp

from vsml.battery.circuits import as_inputs
from vsml.battery.episodes import stream
from vsml.battery.learning_test import LearningTest, Task
from vsml.battery.measures import accuracy
from vsml.types import Array, Classes, Episode

STEPS = 600
SCORED_FROM = 500


def task(back: int) -> Task:
    """Return the task: random bits, of which the one so many steps ago is the label."""

    def draw(key: Array) -> Episode:
        bits = jax.random.bernoulli(key, 0.5, (back + STEPS,)).astype(jnp.int32)
        x = as_inputs(bits[back:])[:, None]
        return stream(x, bits[:STEPS], weight=jnp.arange(STEPS) >= SCORED_FROM)

    return Task((1,), Classes(2), STEPS, draw)


BITS_BACK = LearningTest(
    name="bits_back",
    tags=("credit in time",),
    levels=(1, 2, 3, 4, 6, 8, 16),
    task=task,
    score=accuracy,
    about="the bit that was shown n steps ago, after 500 examples: the largest n",
    span=True,
)

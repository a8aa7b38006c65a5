"""A copied bit: the label is one of the inputs."""

import jax
import jax.numpy as jnp

from vsml.battery.episodes import stream
from vsml.battery.learning_test import LearningTest, Task
from vsml.battery.measures import accuracy
from vsml.types import Array, Classes, Episode

STEPS = 200
SCORED_FROM = 100


def task(bits: int) -> Task:
    """Return the task of so many bits, each -1 or 1; each episode draws which one is copied."""

    def draw(key: Array) -> Episode:
        x_key, place_key = jax.random.split(key)
        x = jax.random.bernoulli(x_key, 0.5, (STEPS, bits)).astype(jnp.int32)
        place = jax.random.randint(place_key, (), 0, bits)
        return stream(2.0 * x - 1, x[:, place], weight=jnp.arange(STEPS) >= SCORED_FROM)

    return Task((bits,), Classes(2), STEPS, draw)


COPIED_BIT = LearningTest(
    name="copied_bit",
    tags=("basic",),
    levels=(1, 4, 16),
    task=task,
    score=accuracy,
    about="the label is one of n bits, after 100 examples",
)

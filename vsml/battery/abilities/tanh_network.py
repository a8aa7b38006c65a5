"""A small random network of tanh units, to be imitated."""

import jax
import jax.numpy as jnp

from vsml.battery.episodes import stream
from vsml.battery.learning_test import LearningTest, Task
from vsml.battery.measures import explained
from vsml.types import Array, Episode, Values

STEPS = 1000
SCORED_FROM = 800
INPUTS = 4
HIDDEN = 16
GAIN = 2.0
"""Standard deviation of what enters a hidden unit: enough to saturate some."""


def task(level: int) -> Task:
    """Return the task: two layers, normal weights and inputs, one output of variance about 1."""
    del level

    def draw(key: Array) -> Episode:
        x_key, first_key, second_key = jax.random.split(key, 3)
        x = jax.random.normal(x_key, (STEPS, INPUTS))
        first = GAIN * jax.random.normal(first_key, (INPUTS, HIDDEN)) / INPUTS**0.5
        second = jax.random.normal(second_key, (HIDDEN, 1)) / HIDDEN**0.5
        y = jnp.tanh(x @ first) @ second
        return stream(x, y, weight=jnp.arange(STEPS) >= SCORED_FROM)

    return Task((INPUTS,), Values(1), STEPS, draw)


TANH_NETWORK = LearningTest(
    name="tanh_network",
    tags=("arithmetic",),
    levels=(1,),
    task=task,
    score=explained,
    about="a random network of 16 tanh units, after 800 examples",
)

"""A random linear map."""

import jax
import jax.numpy as jnp

from vsml.battery.episodes import stream
from vsml.battery.learning_test import LearningTest, Task
from vsml.battery.measures import explained
from vsml.types import Array, Episode, Values

STEPS = 300
SCORED_FROM = 200
OUTPUTS = 2


def task(inputs: int) -> Task:
    """Return the task of a map from so many normal inputs, whose targets have variance 1."""

    def draw(key: Array) -> Episode:
        x_key, map_key = jax.random.split(key)
        x = jax.random.normal(x_key, (STEPS, inputs))
        matrix = jax.random.normal(map_key, (inputs, OUTPUTS)) / inputs**0.5
        return stream(x, x @ matrix, weight=jnp.arange(STEPS) >= SCORED_FROM)

    return Task((inputs,), Values(OUTPUTS), STEPS, draw)


LINEAR_MAP = LearningTest(
    name="linear_map",
    tags=("arithmetic",),
    levels=(4, 16, 64),
    task=task,
    score=explained,
    about="a random linear map from n inputs to two outputs, after 200 examples",
)

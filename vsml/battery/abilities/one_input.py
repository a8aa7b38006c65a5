"""One input, one output: the answer follows the input."""

import jax
import jax.numpy as jnp

from vsml.battery.episodes import stream
from vsml.battery.learning_test import LearningTest, Task
from vsml.battery.measures import explained
from vsml.types import Array, Episode, Values

STEPS = 200
SCORED_FROM = 100


def task(level: int) -> Task:
    """Return the task: `y = x` of normal inputs."""
    del level

    def draw(key: Array) -> Episode:
        x = jax.random.normal(key, (STEPS, 1))
        return stream(x, x, weight=jnp.arange(STEPS) >= SCORED_FROM)

    return Task((1,), Values(1), STEPS, draw)


ONE_INPUT = LearningTest(
    name="one_input",
    tags=("basic",),
    levels=(1,),
    task=task,
    score=explained,
    about="one input, one output: the answer follows the input, after 100 examples",
)

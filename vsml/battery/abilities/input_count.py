"""Many inputs: a simple function of 2 to 3,072 of them."""

import jax
import jax.numpy as jnp

from vsml.battery.episodes import stream
from vsml.battery.learning_test import LearningTest, Task
from vsml.battery.measures import accuracy
from vsml.types import Array, Classes, Episode

STEPS = 100
SCORED_FROM = 50


def task(inputs: int) -> Task:
    """Return the task: two clouds on both sides of 0, about as hard for any number of inputs.

    What a mean of few examples is off grows with the number of inputs, so the clouds are further apart.
    """
    distance = (4 + 1.5 * inputs**0.5) ** 0.5

    def draw(key: Array) -> Episode:
        side_key, label_key, noise_key = jax.random.split(key, 3)
        direction = jax.random.normal(side_key, (inputs,))
        direction = direction / jnp.linalg.norm(direction)
        label = jax.random.bernoulli(label_key, 0.5, (STEPS,)).astype(jnp.int32)
        side = 2.0 * label - 1
        noise = jax.random.normal(noise_key, (STEPS, inputs))
        x = distance * side[:, None] * direction[None, :] + noise
        return stream(x, label, weight=jnp.arange(STEPS) >= SCORED_FROM)

    return Task((inputs,), Classes(2), STEPS, draw)


INPUT_COUNT = LearningTest(
    name="input_count",
    tags=("scale",),
    levels=(2, 32, 784, 3072),
    task=task,
    score=accuracy,
    about="two clouds in n dimensions, after 50 examples",
)

"""Irrelevant inputs: most of what a learner sees is noise."""

import jax
import jax.numpy as jnp

from vsml.battery.clusters import clusters
from vsml.battery.episodes import stream
from vsml.battery.learning_test import LearningTest, Task
from vsml.battery.measures import accuracy
from vsml.types import Array, Classes, Episode

STEPS = 300
SCORED_FROM = 200
RELEVANT = 16
CLASSES = 5
NOISE = 0.6


def task(times: int) -> Task:
    """Return the task: clusters in 16 inputs, and so many times as many inputs of noise, mixed in."""
    inputs = RELEVANT * (1 + times)

    def draw(key: Array) -> Episode:
        task_key, noise_key, order_key = jax.random.split(key, 3)
        x, labels = clusters(task_key, STEPS, RELEVANT, CLASSES, NOISE)
        irrelevant = jax.random.normal(noise_key, (STEPS, RELEVANT * times))
        order = jax.random.permutation(order_key, inputs)
        mixed = jnp.concatenate([x, irrelevant], axis=1)[:, order]
        return stream(mixed, labels, weight=jnp.arange(STEPS) >= SCORED_FROM)

    return Task((inputs,), Classes(CLASSES), STEPS, draw)


IRRELEVANT_INPUTS = LearningTest(
    name="irrelevant_inputs",
    tags=("noise",),
    levels=(1, 10),
    task=task,
    score=accuracy,
    about="n times as many inputs are noise as are not, after 200 examples",
)

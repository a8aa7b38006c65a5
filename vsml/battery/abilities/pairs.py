"""Random pairs: inputs and labels that have nothing to do with each other are kept in mind."""

import jax
import jax.numpy as jnp

from vsml.battery.episodes import stream
from vsml.battery.learning_test import LearningTest, Task
from vsml.battery.measures import accuracy
from vsml.types import Array, Classes, Episode

INPUTS = 16
CLASSES = 8
SIGHTS = 5
"""Times that each pair is shown before it is asked for."""


def task(pairs: int) -> Task:
    """Return the task of so many pairs: each is shown in every round, and asked for in the last one."""
    rounds = SIGHTS + 1
    steps = rounds * pairs

    def draw(key: Array) -> Episode:
        x_key, label_key, order_key = jax.random.split(key, 3)
        x = jax.random.normal(x_key, (pairs, INPUTS))
        labels = jax.random.randint(label_key, (pairs,), 0, CLASSES)
        keys = jax.random.split(order_key, rounds)
        order = jax.vmap(lambda key: jax.random.permutation(key, pairs))(keys).ravel()
        asked = jnp.arange(steps) >= SIGHTS * pairs
        return stream(x[order], labels[order], weight=asked, taught=~asked)

    return Task((INPUTS,), Classes(CLASSES), steps, draw)


PAIRS = LearningTest(
    name="pairs",
    tags=("memory",),
    levels=(4, 8, 16, 32, 64, 128),
    task=task,
    score=accuracy,
    about="k random pairs, each shown five times: the largest k",
    span=True,
)

"""Same everywhere: each output is the same function of the inputs around its place, as in a convolution."""

import jax
import jax.numpy as jnp

from vsml.battery.episodes import stream
from vsml.battery.learning_test import LearningTest, Task
from vsml.battery.measures import explained
from vsml.types import Array, Episode, Values

STEPS = 100
SCORED_FROM = 20
REACH = 1
"""Neighbours on each side that an output depends on."""


def task(places: int) -> Task:
    """Return the task: a random kernel of three numbers, on a ring of so many places.

    Three numbers are to be learned, of which every example shows as many lessons as there are places. Who
    learns each place by itself needs more examples.
    """

    def draw(key: Array) -> Episode:
        x_key, kernel_key = jax.random.split(key)
        x = jax.random.normal(x_key, (STEPS, places))
        width = 2 * REACH + 1
        kernel = jax.random.normal(kernel_key, (width,)) / width**0.5
        shifted = jnp.stack([jnp.roll(x, shift, axis=1) for shift in range(-REACH, REACH + 1)])
        y = jnp.einsum("k,ktp->tp", kernel, shifted)
        return stream(x, y, weight=jnp.arange(STEPS) >= SCORED_FROM)

    return Task((places,), Values(places), STEPS, draw)


SAME_EVERYWHERE = LearningTest(
    name="same_everywhere",
    tags=("redundancy",),
    levels=(8, 32),
    task=task,
    score=explained,
    about="the same three numbers at each of n places: the explained share after 20 examples",
)

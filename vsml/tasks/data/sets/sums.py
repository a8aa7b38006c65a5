"""Sums: noise images around a mean; the class is whether their pixels sum to more than 0."""

import jax.numpy as jnp
from jax import random

from vsml.tasks.data.generator import Generator
from vsml.types import Array, Classes


def _draw(key: Array, n: int, num_classes: int) -> tuple[Array, Array]:
    """Draw normal images, cut at +-2, around a mean ~ U(-1, 1); the class is whether they sum to above 0."""
    del num_classes
    mean_key = random.fold_in(key, 0)
    noise_key = random.fold_in(key, 1)
    mean = random.uniform(mean_key, (n, 1, 1, 1), minval=-1.0, maxval=1.0)
    noise = random.truncated_normal(noise_key, -2.0, 2.0, (n, 28, 28, 1))
    images = mean + noise
    sums = images.sum(axis=(1, 2, 3))
    return images, (sums > 0).astype(jnp.int32)


SUM = Generator(
    draw=_draw,
    name="sum",
    outputs=Classes(2),
)

"""Standardising: inputs, and targets that are values, of mean 0 and deviation 1."""

import jax.numpy as jnp

from vsml.settings import Bool
from vsml.tasks.transforms.base import Context, Transform
from vsml.types import Array, Values


def standardise(images: Array, mean: float, std: float) -> Array:
    """Return `(images - mean) / std`."""
    return (images - mean) / std


def _act(x: Array, y: Array, on: bool, context: Context) -> tuple[Array, Array]:
    del on
    if isinstance(context.outputs, Values):
        # One of each for every value [outputs]; targets are [N, outputs].
        mean = jnp.asarray(context.y_mean)[None]
        std = jnp.asarray(context.y_std)[None]
        y = (y - mean) / std
    return standardise(x, context.mean, context.std), y


NORMALIZE = Transform(
    name="normalize",
    setting=Bool,
    default=True,
    description="standardise by the data set's mean and deviation, targets that are values too",
    act=_act,
)

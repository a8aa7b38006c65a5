"""Rotation: images turned by quarter turns, which makes further classes in few-shot episodes."""

import jax.numpy as jnp

from vsml.types import Array


def rotate(images: Array, turns: Array) -> Array:
    """Turn each of the square images [n, H, H, Ch] by its number of quarter turns, int [n] in 0..3.

    Counter-clockwise, as `numpy.rot90`.
    """
    turned = [jnp.rot90(images, k, axes=(1, 2)) for k in range(4)]
    places = jnp.arange(len(images))
    return jnp.stack(turned)[turns, places]

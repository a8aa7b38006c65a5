"""Distances between inputs, as learners measure them that compare an input with others."""

from typing import Annotated, Literal

import jax.numpy as jnp
from pydantic import Field

from vsml.types import Array

Metric = Annotated[
    Literal["cosine", "euclidean"],
    Field(
        description="distance of inputs. cosine: 1 - cosine of inputs less their own mean; euclidean: "
        "squared difference, averaged over the numbers of an input"
    ),
]
"""The setting that chooses a distance."""


def normalised(x: Array) -> Array:
    """Return inputs less their own mean, scaled to norm 1; 0 where all numbers of an input are equal.

    Args:
        x: [K, *input_shape].

    Returns:
        [K, D].
    """
    flat_KxD = x.reshape(len(x), -1)
    centred_KxD = flat_KxD - flat_KxD.mean(-1, keepdims=True)
    norm_Kx1 = jnp.linalg.norm(centred_KxD, axis=-1, keepdims=True)
    # What rounding leaves of a constant input is no direction.
    size_Kx1 = jnp.abs(flat_KxD).max(-1, keepdims=True)
    is_constant = norm_Kx1 <= 1e-6 * size_Kx1 * flat_KxD.shape[-1] ** 0.5
    return jnp.where(is_constant, 0.0, centred_KxD / jnp.where(is_constant, 1.0, norm_Kx1))


def prepared(
    x: Array,
    metric: str,
) -> Array:
    """Return inputs as `distances` takes them, which is how they are kept.

    Args:
        x: [K, *input_shape].
        metric: "cosine" or "euclidean".

    Returns:
        [K, D].
    """
    return normalised(x) if metric == "cosine" else x.reshape(len(x), -1)


def distances(
    a: Array,
    b: Array,
    metric: str,
) -> Array:
    """Return the distances between all of two sets of prepared inputs; 0 or more.

    An input of norm 0 has distance 1 to everything by the cosine, itself included.

    Args:
        a: [K, D].
        b: [N, D].
        metric: "cosine" or "euclidean".

    Returns:
        [K, N].
    """
    products_KxN = a @ b.T
    if metric == "cosine":
        return jnp.maximum(1 - products_KxN, 0)
    squares_K = jnp.square(a).sum(-1)
    squares_N = jnp.square(b).sum(-1)
    squared_KxN = squares_K[:, None] + squares_N[None] - 2 * products_KxN
    return jnp.maximum(squared_KxN, 0) / a.shape[-1]

"""Episodes that tests are made of: examples on which all answers count."""

import jax.numpy as jnp

from vsml.types import Array, Episode


def stream(
    x: Array,
    y: Array,
    weight: Array | None = None,
    taught: Array | None = None,
) -> Episode:
    """Return an episode with an inner batch of 1.

    Args:
        x: inputs [T, *input_shape].
        y: labels int [T], or values [T, D].
        weight: how much each answer counts [T]; None: 1.
        taught: 1 where the learner is told the target [T]; None: always.
    """
    counts = jnp.ones(len(x)) if weight is None else weight
    return Episode(
        x=jnp.asarray(x, jnp.float32)[:, None],
        y=y[:, None],
        weight=jnp.asarray(counts, jnp.float32)[:, None],
        taught=None if taught is None else jnp.asarray(taught, jnp.float32)[:, None],
    )

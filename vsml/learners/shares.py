"""Shares of probability as logits, for learners whose answers are shares that may be 0."""

from typing import Annotated

import jax.numpy as jnp
from pydantic import Field

from vsml.settings import Float
from vsml.types import Array

Doubt = Annotated[
    Float,
    Field(
        gt=0,
        lt=1,
        description="share of the probability that is spread evenly over all classes, so that no loss is "
        "infinite",
    ),
]
"""The setting of how much is spread evenly."""


def share_logits(
    shares: Array,
    doubt: float,
) -> Array:
    """Return the logits `log((1 - doubt) share / sum of shares + doubt / C)`, even ones if all shares are 0.

    Args:
        shares: [..., C], of which negative ones count as 0.
        doubt: share of the probability that is spread evenly.
    """
    size = shares.shape[-1]
    positive = jnp.maximum(shares, 0)
    total = positive.sum(-1, keepdims=True)
    known = jnp.where(total > 0, positive / jnp.where(total > 0, total, 1.0), 1 / size)
    return jnp.log((1 - doubt) * known + doubt / size)

"""The types that rooms exchange: pytrees, episodes and what an episode is judged by.

Dimension letters in names and docstrings: P population, T time, B inner batch, I fan-in, O fan-out,
M message channels, N synapse state size, C classes.
"""

from typing import Any

import jax
from flax import struct

Array = jax.Array
"""A JAX array; shapes are in the docstrings."""

Params = Any
"""Meta-parameters: a pytree (nested dict) of float32 arrays; empty for a learner without any."""

State = Any
"""Inner state of a learner within one episode: a pytree of arrays."""


@struct.dataclass
class Episode:
    """A stream of examples of one task.

    Attributes:
        x: inputs, float32 [T, B, *input_shape].
        labels: classes, int32 [T, B].
        weight: how much each answer counts in the loss, float32 [T, B].
    """

    x: Array
    labels: Array
    weight: Array


@struct.dataclass
class EpisodeResult:
    """What the outer loop is told of one episode.

    Attributes:
        loss: weighted mean cross-entropy in nats, float32 [].
        accuracy: weighted share of right answers, float32 [].
    """

    loss: Array
    accuracy: Array

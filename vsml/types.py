"""The types that rooms exchange: pytrees, episodes and what an episode is judged by.

Dimension letters in names and docstrings: P population, T time, B inner batch, I fan-in, O fan-out,
M message channels, N synapse state size, C classes, D values.
"""

import warnings
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

Array = jax.Array
"""A JAX array; shapes are in the docstrings."""

Params = Any
"""Meta-parameters: a pytree (nested dict) of float32 arrays; empty for a learner without any."""

State = Any
"""Inner state of a learner within one episode: a pytree of arrays."""


@dataclass(frozen=True)
class Classes:
    """Outputs that are classes: an answer is C logits, a target is the number of a class, int.

    Attributes:
        size: number of classes C.
    """

    size: int


@dataclass(frozen=True)
class Values:
    """Outputs that are values: an answer is D numbers, unbounded, and so is a target, float32.

    Attributes:
        size: number of values D.
    """

    size: int


Outputs = Classes | Values
"""What a learner answers with."""


def as_outputs(outputs: Outputs | int) -> Outputs:
    """Return outputs, of which a number means so many classes.

    Raises:
        ValueError: it is no kind of outputs, or has no size.
    """
    known = Classes(int(outputs)) if isinstance(outputs, Integral) else outputs
    if not isinstance(known, Classes | Values) or known.size < 1:
        raise ValueError(f"outputs: got {outputs!r}, expected Classes(C), Values(D) or a number of classes")
    return known


def target_shape(outputs: Outputs, *batch: int) -> jax.ShapeDtypeStruct:
    """Return shape and type of targets: int32 [*batch] of classes, float32 [*batch, D] of values."""
    if isinstance(outputs, Values):
        return jax.ShapeDtypeStruct((*batch, outputs.size), jnp.float32)
    return jax.ShapeDtypeStruct(batch, jnp.int32)


@struct.dataclass
class Episode:
    """A stream of examples of one task.

    Attributes:
        x: inputs, float32 [T, B, *input_shape].
        y: targets: of classes int32 [T, B], of values float32 [T, B, D].
        weight: how much each answer counts in the loss, float32 [T, B].
        taught: 1 where the learner is told the target, 0 where it answers and is told nothing, float32
            [T, B]; None: it is always told.
    """

    x: Array
    y: Array
    weight: Array
    taught: Array | None = None

    @property
    def labels(self) -> Array:
        """The old name of `y`."""
        warnings.warn(
            "Episode.labels is Episode.y now; the old name goes with version 0.3",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.y


@struct.dataclass
class EpisodeResult:
    """What the outer loop is told of one episode.

    Attributes:
        loss: weighted mean cross-entropy in nats, float32 [].
        accuracy: weighted share of right answers, float32 [].
    """

    loss: Array
    accuracy: Array

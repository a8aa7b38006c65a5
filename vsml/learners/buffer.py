"""A buffer of the latest examples: first in, first out."""

import dataclasses

import jax.numpy as jnp
from flax import struct

from vsml.losses import known_targets
from vsml.types import Array, Outputs, target_shape


@struct.dataclass
class Buffer:
    """The latest K examples that were taught.

    Attributes:
        inputs: as a learner keeps them, float32 [K, D]; 0 where there is no example yet.
        targets: of classes int32 [K], of values float32 [K, V].
        count: how many examples came so far, int32 []; example number n is in slot `n % K`.
    """

    inputs: Array
    targets: Array
    count: Array

    @staticmethod
    def empty(
        size: int,
        input_size: int,
        outputs: Outputs,
    ) -> "Buffer":
        """Return a buffer for K examples of D numbers each."""
        kind = target_shape(outputs, size)
        return Buffer(
            inputs=jnp.zeros((size, input_size)),
            targets=jnp.zeros(kind.shape, kind.dtype),
            count=jnp.zeros((), jnp.int32),
        )

    @property
    def size(self) -> int:
        """How many examples it holds at most, K."""
        return self.inputs.shape[0]

    @property
    def filled(self) -> Array:
        """Which slots hold an example, bool [K]."""
        return jnp.arange(self.size) < self.count

    @property
    def newest_first(self) -> Array:
        """The slots in the order of their examples, the newest one first, int32 [K]; empty ones are last."""
        return (self.count - 1 - jnp.arange(self.size)) % self.size

    def add(
        self,
        inputs: Array,
        y: Array,
        taught: Array | None,
    ) -> "Buffer":
        """Put in a batch of examples, in place of the oldest ones; those that are not taught stay outside.

        Args:
            inputs: [B, D].
            y: labels int [B], or values [B, V].
            taught: which elements are told their target, [B]; None: all.
        """
        is_taught = jnp.ones(len(y), bool) if taught is None else taught > 0
        # Which of the taught ones each is. Others get a slot that does not exist, and are dropped.
        order = jnp.cumsum(is_taught) - 1
        slot = jnp.where(is_taught, (self.count + order) % self.size, self.size)
        targets = known_targets(y, taught).astype(self.targets.dtype)
        return Buffer(
            inputs=self.inputs.at[slot].set(inputs, mode="drop"),
            targets=self.targets.at[slot].set(targets, mode="drop"),
            count=self.count + is_taught.sum(dtype=jnp.int32),
        )

    def with_inputs(self, inputs: Array) -> "Buffer":
        """Return the buffer with other inputs [K, D]."""
        return dataclasses.replace(self, inputs=inputs)


def check_batch(
    batch_size: int,
    size: int,
    where: str,
) -> None:
    """Raise ValueError if one batch of examples does not fit into a buffer.

    Args:
        batch_size: B.
        size: K.
        where: path of the setting, for the message.
    """
    if batch_size > size:
        raise ValueError(f"{where}: got {size}, expected at least the inner batch, {batch_size}")

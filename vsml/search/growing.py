"""New instructions under construction, and what the holes in them want.

New operators wait in a row until their turn comes, so that an operand always has a higher number than what
reads it; at the end the row is turned around.
"""

from dataclasses import replace

import jax.numpy as jnp
from flax import struct

from vsml.rules.rule import FIRST_PORT
from vsml.search.genome import NOTHING
from vsml.types import Array

# What a hole wants, beside the three types.
REV, TRUTH_OF_NODE, TRUTH_OF_EDGE = range(3, 6)
"""What the other end shows; something that is 0 or 1, for a guard or a filter."""

NEW = 1000
"""Registers of new instructions, in the order of the row, as long as their place is not known."""


@struct.dataclass
class Growing:
    """New instructions under construction. M is their room.

    Attributes:
        rows: operator and operands, int32 [M, 4].
        wanted: what each has to be, int32 [M].
        count: how many there are, int32 [].
        slots: slots that they read, as bits, uint32 [].
        limit: how many there may be, int32 [].
        base: probability that an expression is a leaf, [].
    """

    rows: Array
    wanted: Array
    count: Array
    slots: Array
    limit: Array
    base: Array

    @staticmethod
    def none(room: int, limit: Array | int, base: Array) -> "Growing":
        """Return none."""
        return Growing(
            rows=jnp.full((room, 4), NOTHING, jnp.int32),
            wanted=jnp.full(room, NOTHING, jnp.int32),
            count=jnp.int32(0),
            slots=jnp.uint32(0),
            limit=jnp.minimum(jnp.int32(limit), room),
            base=base,
        )

    def reading(self, register: Array) -> "Growing":
        """Return the same with a register noted, if it is a slot's."""
        is_slot = (register >= 0) & (register < FIRST_PORT)
        bit = jnp.uint32(1) << jnp.clip(register, 0, FIRST_PORT - 1).astype(jnp.uint32)
        return replace(self, slots=jnp.where(is_slot, self.slots | bit, self.slots))

    def turned(self, registers: Array) -> tuple[Array, Array]:
        """Return the instructions in the order they are computed in, and registers of new ones in it."""
        last = self.count - 1

        def turn(register: Array) -> Array:
            return jnp.where(register >= NEW, NEW + last - (register - NEW), register)

        order = last - jnp.arange(self.rows.shape[0])
        rows = self.rows[jnp.maximum(order, 0)]
        rows = jnp.where((order >= 0)[:, None], rows.at[:, 1:].set(turn(rows[:, 1:])), NOTHING)
        return rows, turn(registers)


def placed(register: Array, first: Array) -> Array:
    """Return registers with those of new instructions counted from the register of the first of them."""
    return jnp.where(register >= NEW, register - NEW + first, register)

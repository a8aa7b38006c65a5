"""Choices by chance inside of one kernel: weighted tables, and places in arrays.

Numbers come from a counter that is hashed, as `jax.random` does it, by fewer operations: MurmurHash3 in place
of Threefry, which takes longer than all that is done with a number. It is good enough to choose by; what
rules themselves draw comes from `jax.random`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from vsml.types import Array

_FACTORS = (0x9E3779B1, 0x85EBCA6B)


def mixed(lanes: Array, value: Array) -> Array:
    """Return two lanes [2] of 32 bits with a value [2] mixed in, as MurmurHash3 does."""
    value = value * jnp.array(_FACTORS, jnp.uint32)
    value = (value << 15) | (value >> 17)
    lanes = lanes ^ (value * jnp.uint32(0xC2B2AE35))
    lanes = (lanes << 13) | (lanes >> 19)
    return lanes * jnp.uint32(5) + jnp.uint32(0xE6546B64)


def finished(lanes: Array) -> Array:
    """Return lanes whose every bit depends on every bit of theirs: MurmurHash3's finaliser."""
    lanes = (lanes ^ (lanes >> 16)) * jnp.uint32(0x85EBCA6B)
    lanes = (lanes ^ (lanes >> 13)) * jnp.uint32(0xC2B2AE35)
    return lanes ^ (lanes >> 16)


def both_lanes(value: Array | int) -> Array:
    """Return a whole number as two lanes [2]."""
    return jnp.broadcast_to(jnp.asarray(value).astype(jnp.uint32), (2,))


class Chances:
    """Numbers by chance, each taken once.

    Args:
        seed: two lanes, uint32 [2]; `seeds_of` makes them.
    """

    def __init__(self, seed: Array) -> None:
        self.seed = seed
        self.taken = 0

    def part(self, number: Array | int) -> "Chances":
        """Return numbers for a part of the work, such as a turn of a loop; other parts have others."""
        return Chances(finished(mixed(self.seed ^ jnp.uint32(0x5BD1E995), both_lanes(number))))

    def take(self) -> Array:
        """Return the next number, uniform in [0, 1), float32 []."""
        self.taken += 1
        lanes = finished(mixed(self.seed, both_lanes(self.taken)))
        return ((lanes[0] ^ lanes[1]) >> 8).astype(jnp.float32) / 2**24

    def below(self, size: Array | int) -> Array:
        """Return a whole number from 0 to below a size, int32 []; 0 where the size is 0."""
        number = jnp.floor(self.take() * size).astype(jnp.int32)
        # Rounding may give the size itself.
        return jnp.clip(number, 0, jnp.maximum(size - 1, 0))

    def happens(self, share: Array | float) -> Array:
        """Return whether something of a probability happens, bool []."""
        return self.take() < share

    def one_of(self, table: np.ndarray | Array) -> Array:
        """Return a place in a table of `cumulative` weights, int32 []."""
        return (self.take() >= jnp.asarray(table[:-1])).sum().astype(jnp.int32)

    def where(self, mask: Array) -> tuple[Array, Array]:
        """Return one of the places where a mask [n] is true, int32 [], and whether there is one."""
        count = mask.sum()
        chosen = self.below(count)
        ranks = jnp.cumsum(mask) - 1
        places = jnp.arange(mask.shape[0], dtype=jnp.int32)
        place = jnp.where(mask & (ranks == chosen), places, 0).sum()
        return place, count > 0


def seeds_of(key: Array, count: int) -> Array:
    """Return a seed for each of some rules, uint32 [count, 2]; it depends on key and place alone."""
    return jax.random.bits(key, (count, 2), jnp.uint32)


def cumulative(weights: Sequence[float]) -> np.ndarray:
    """Return cumulative shares of weights, float32 [n]; the last is 1.

    Raises:
        ValueError: there is no weight above 0.
    """
    total = float(sum(weights))
    if not total > 0:
        raise ValueError(f"weights: got {list(weights)}, expected one above 0")
    return np.cumsum(np.asarray(weights, float) / total).astype(np.float32)

"""Noise by the million: nearly normal draws that cost a hash and a count of bits."""

import math

import jax
import jax.numpy as jnp

from vsml.types import Array

_BITS = 32


def binomial_noise(
    key: Array,
    shape: tuple[int, ...],
) -> Array:
    """Draw numbers with mean 0 and variance 1 that are nearly normal.

    Each is the number of bits that are set among 32 random ones, less 16, by the square root of 8: a binomial
    distribution of 33 values, whose kurtosis is 1/16 below that of the normal one. The bits are a hash of the
    key and the place (the finalizer of MurmurHash3): no generator for cryptography, and enough for noise.

    Args:
        key: of the draw.
        shape: of the result.

    Returns:
        float32 [*shape].
    """
    first, second = jax.random.key_data(key)[:2]
    place = jax.lax.iota(jnp.uint32, math.prod(shape))
    bits = (place ^ first) * jnp.uint32(0x9E3779B1) + second
    bits ^= bits >> 16
    bits *= jnp.uint32(0x85EBCA6B)
    bits ^= bits >> 13
    bits *= jnp.uint32(0xC2B2AE35)
    bits ^= bits >> 16
    count = jax.lax.population_count(bits).astype(jnp.float32)
    return ((count - _BITS / 2) / math.sqrt(_BITS / 4)).reshape(shape)

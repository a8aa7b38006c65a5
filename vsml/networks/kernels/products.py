"""The product of an LSTM's weights with hidden states, in the type that the settings ask for."""

from typing import Literal

import jax
import jax.numpy as jnp
from jax.lax import Precision

from vsml.types import Array

ProductType = Literal["float32", "bfloat16"]
"""Type that both operands of a product are rounded to; sums are in float32."""


def product(
    dtype: ProductType,
    hidden_KxN: Array,
    h: Array,
    precision: Precision | None = None,
) -> Array:
    """Return the product of weights [4N, N] and hidden states [N, ...].

    With bfloat16 the operands of its two derivatives are rounded, too.

    Args:
        dtype: type of the operands.
        hidden_KxN: weights.
        h: hidden states, float32.
        precision: of float32 on accelerators.
    """
    if dtype == "float32":
        return jnp.einsum("kn,n...->k...", hidden_KxN, h, precision=precision)
    return _rounded(hidden_KxN, h)


@jax.custom_vjp
def _rounded(hidden_KxN: Array, h: Array) -> Array:
    return _sum_of_products(hidden_KxN, h, 1)


def _remember(hidden_KxN: Array, h: Array) -> tuple[Array, tuple[Array, Array]]:
    return _rounded(hidden_KxN, h), (hidden_KxN, h)


def _differentiate(operands: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    hidden_KxN, h = operands
    synapses = tuple(range(1, h.ndim))
    return _sum_of_products(slope, h, (synapses, synapses)), _sum_of_products(hidden_KxN.T, slope, 1)


_rounded.defvjp(_remember, _differentiate)


def _sum_of_products(a: Array, b: Array, axes: int | tuple[tuple[int, ...], tuple[int, ...]]) -> Array:
    # Not at the highest precision: the shorter operands that accelerators take by default hold all 8 bits.
    return jnp.tensordot(bfloat16(a), bfloat16(b), axes)


def bfloat16(x: Array) -> Array:
    """Round to the nearest number of bfloat16, and stay in float32.

    XLA for CPUs has no products of bfloat16 with sums in float32; products of these numbers are the same. It
    may leave out conversions that it finds needless, but not this.
    """
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)

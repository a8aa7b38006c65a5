"""Ticks of all synapses of a dense layer in plain JAX, in tiles that stay in a core's cache.

The exact rewrites: messages are multiplied with their part of the LSTM's kernel once per unit and visit, not
once per synapse and tick; only `hidden @ h` is left per synapse. Synapses are contiguous, and processed in
tiles small enough that the four gates of a tile never leave the cache; all micro ticks of a visit are done
while the tile is there. Under differentiation a tile is recomputed, so that only its state is kept.
"""

import functools

import jax
import jax.numpy as jnp
from flax import struct

from vsml.networks.kernels.activations import coarse_tanh, tanh
from vsml.networks.kernels.products import ProductType, product
from vsml.types import Array

TILE_SYNAPSES = 1024
"""Most synapses in a tile (unless one output unit alone has more): with 64 gates in float32, 256 kB."""


NORM_EPSILON = 1e-5
"""What the layer norm of messages adds to their variance."""


@struct.dataclass
class CellWeights:
    """The LSTM of a synapse, rewritten so that `tanh(hidden @ h + messages)` gives all that its gates need.

    Attributes:
        forward: [4N, M], applied to a forward message once per input unit.
        backward: [4N, M], applied to a backward message once per output unit.
        hidden: [4N, N], applied to h per synapse and tick.
        bias: [4N]; rows (i, g, f, o), the rows of i, f and o halved in all four.
        product_dtype: type that `hidden` and h are rounded to where they are multiplied; with bfloat16 tanh
            is `coarse_tanh`.
    """

    forward: Array
    backward: Array
    hidden: Array
    bias: Array
    product_dtype: ProductType = struct.field(pytree_node=False, default="float32")


@struct.dataclass
class Ticked:
    """What a visit of a dense layer leaves.

    Attributes:
        h: new hidden states [G, N, R, I].
        c: new cell states, likewise.
        forward: mean over I of the new h, float32 [O, N], before h is rounded to the type that is kept.
        backward: mean over O, float32 [I, N].
    """

    h: Array
    c: Array
    forward: Array
    backward: Array


def cell(gates: Array, c: Array, product_dtype: ProductType = "float32") -> tuple[Array, Array]:
    """Return the new h and c [N, ...] of synapses with gate inputs [4N, ...] (see `CellWeights`) and c."""
    squash = tanh if product_dtype == "float32" else coarse_tanh
    i, g, f, o = jnp.split(squash(gates), 4)
    c = (0.5 + 0.5 * f) * c + (0.5 + 0.5 * i) * g
    return (0.5 + 0.5 * o) * squash(c), c


def tile_rows(fan_in: int, fan_out: int) -> int:
    """Return R, the number of output units in a tile: the largest divisor of fan-out that fits in a tile."""
    return max(
        (rows for rows in range(1, fan_out + 1) if fan_out % rows == 0 and rows * fan_in <= TILE_SYNAPSES),
        default=1,
    )


def tick(
    weights: CellWeights,
    h_GNRI: Array,
    c_GNRI: Array,
    forward_IxM: Array,
    backward_OxM: Array,
    micro_ticks: int,
) -> Ticked:
    """Let all synapses of a dense layer tick, with the messages they receive held fixed.

    Args:
        weights: the shared LSTM.
        h_GNRI: hidden states [G, N, R, I] of G tiles of R output units each; output b is `b // R, b % R`.
            Of any floating-point type; all arithmetic is in float32.
        c_GNRI: cell states, likewise.
        forward_IxM: message of each input unit.
        backward_OxM: message of each output unit.
        micro_ticks: how many ticks.

    """
    G, N, R, fan_in = h_GNRI.shape
    exact = jax.lax.Precision.HIGHEST  # float32 on a GPU, too
    einsum = functools.partial(jnp.einsum, precision=exact)
    from_input_4NxI = einsum("km,im->ki", weights.forward, forward_IxM) + weights.bias[:, None]
    from_output_Gx4NxR = einsum("km,grm->gkr", weights.backward, backward_OxM.reshape(G, R, -1))

    @jax.checkpoint
    def tick_tile(h_NRI: Array, c_NRI: Array, from_output_4NxR: Array) -> tuple[Array, ...]:
        kept = h_NRI.dtype, c_NRI.dtype
        h_NRI, c_NRI = h_NRI.astype(jnp.float32), c_NRI.astype(jnp.float32)
        # Not flattened to [4N, R * I]: recovering r and i by division would keep XLA from vectorising.
        messages = from_input_4NxI[:, None, :] + from_output_4NxR[:, :, None]
        for _ in range(micro_ticks):
            recurrent = product(weights.product_dtype, weights.hidden, h_NRI, exact)
            h_NRI, c_NRI = cell(recurrent + messages, c_NRI, weights.product_dtype)
        return h_NRI.astype(kept[0]), c_NRI.astype(kept[1]), h_NRI.mean(2).T, h_NRI.sum(1)

    def visit_tile(total_NxI: Array, tile: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
        h_NRI, c_NRI, forward_RxN, part_NxI = tick_tile(*tile)
        return total_NxI + part_NxI, (h_NRI, c_NRI, forward_RxN)

    total_NxI, (h_GNRI, c_GNRI, forward_GxRxN) = jax.lax.scan(
        visit_tile, jnp.zeros((N, fan_in)), (h_GNRI, c_GNRI, from_output_Gx4NxR), unroll=G == 1
    )
    return Ticked(h=h_GNRI, c=c_GNRI, forward=forward_GxRxN.reshape(G * R, N), backward=total_NxI.T / (G * R))

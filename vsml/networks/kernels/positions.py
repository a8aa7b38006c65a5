"""Ticks of synapses that a layer uses at many positions (a convolution), in plain JAX: `tiled`, continued.

All positions start a tick from the same state, so `hidden @ h` is computed once per synapse; per position and
synapse only additions and the gates are left. They are computed for a group of positions at a time, small
enough to stay in a core's cache, and what is kept of a group is the sum of its states and the messages that
it sends. Under differentiation groups are recomputed.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from vsml.networks.kernels.products import product
from vsml.networks.kernels.tiled import TILE_SYNAPSES, CellWeights, cell
from vsml.types import Array

Send = Callable[[Array], tuple[Array, Array]]
"""From the h [Q, N, R, I] of synapses at Q positions to their mean messages [Q, R, M] and [Q, I, M]."""

GROUP_SYNAPSES = 4096
"""Most synapses, each counted at every position, in a group that has its positions last."""


def group_positions(rows: int, fan_in: int, positions: int) -> tuple[int, bool]:
    """Return how many positions are in a group, a divisor of all, and whether they are the last axis.

    XLA vectorises the last axis, so it should be long: that of positions where a patch has few pixels. Then
    many positions make up for a larger group; else a group is no larger than a tile of a dense layer.

    Args:
        rows: output units in a tile of synapses.
        fan_in: synapses of an output unit.
        positions: how many there are.
    """

    def most(limit: int) -> int:
        fitting = (q for q in range(1, positions + 1) if positions % q == 0 and q * rows * fan_in <= limit)
        return max(fitting, default=1)

    many = most(GROUP_SYNAPSES)
    return (many, True) if many > fan_in else (most(TILE_SYNAPSES), False)


def tick(
    weights: CellWeights,
    send: Send,
    h_GNRI: Array,
    c_GNRI: Array,
    forward_PxIxM: Array,
    backward_PxOxM: Array,
    micro_ticks: int,
) -> tuple[Array, Array, Array, Array]:
    """Let all synapses of a layer tick at P positions, with the messages they receive held fixed.

    Args:
        weights: the shared LSTM.
        send: the messages of Q positions from the h of the synapses there: forward [Q, R, M], the mean over
            I, and backward [Q, I, M], the mean over R.
        h_GNRI: hidden states in tiles, as in `tiled.tick`.
        c_GNRI: cell states, likewise.
        forward_PxIxM: message of each input unit of each position.
        backward_PxOxM: message of each output unit of each position.
        micro_ticks: how many ticks.

    Returns:
        The new h and c, means over the positions; the forward messages [P, O, M] and the backward messages
        [P, I, M] that each position sends, from its own h after the last tick.
    """
    tiles, _, rows, fan_in = h_GNRI.shape
    P, _, M = forward_PxIxM.shape
    Q, positions_last = group_positions(rows, fan_in, P)
    order = "riq" if positions_last else "qri"
    # Transposed once, as transposing in the innermost loop would keep XLA from vectorising it.
    forward = jnp.einsum(f"pqim->pm{order.replace('r', '')}", forward_PxIxM.reshape(-1, Q, fan_in, M))
    backward = backward_PxOxM.reshape(-1, Q, tiles, rows, M)
    backward = jnp.einsum(f"pqgrm->gpm{order.replace('i', '')}", backward)

    def visit_tile(back_PxIxM: Array, tile: tuple[Array, Array, Array]) -> tuple[Array, tuple[Array, ...]]:
        h_NRI, c_NRI, backward = tile
        for turn in range(1, micro_ticks + 1):
            tick_tile = functools.partial(_tick_tile, order, send if turn == micro_ticks else None)
            # Checkpointed, as `hidden @ h` is twice as large as the state, and cheap to compute again.
            h_sum, c_sum, sent = jax.checkpoint(tick_tile)(weights, h_NRI, c_NRI, forward, backward)
            h_NRI, c_NRI = h_sum / P, c_sum / P
        out, back = sent
        return back_PxIxM + back.reshape(P, fan_in, M), (h_NRI, c_NRI, out.reshape(P, rows, M))

    zeros = jnp.zeros_like(forward_PxIxM)
    back_PxIxM, (h_GNRI, c_GNRI, out_GxPxRxM) = jax.lax.scan(
        visit_tile, zeros, (h_GNRI, c_GNRI, backward), unroll=tiles == 1
    )
    return h_GNRI, c_GNRI, out_GxPxRxM.swapaxes(0, 1).reshape(P, tiles * rows, M), back_PxIxM / tiles


def _tick_tile(
    order: str,
    send: Send | None,
    weights: CellWeights,
    h_NRI: Array,
    c_NRI: Array,
    forward: Array,
    backward: Array,
) -> tuple[Array, Array, tuple[Array, ...]]:
    """Tick once: the sums of h and of c over the positions, and the messages of each group, if asked for.

    Args:
        order: of the axes after that of the gates: output units r, input units i and positions q.
        send: see `tick`; None for no messages.
        weights: the shared LSTM.
        h_NRI: hidden states of one tile.
        c_NRI: cell states.
        forward: messages of each group, [groups, M, Q, I] or as `order` has them.
        backward: likewise with R for I.
    """
    r, i, q = (1 + order.index(axis) for axis in "riq")
    recurrent_4NxRxI = product(weights.product_dtype, weights.hidden, h_NRI) + weights.bias[:, None, None]

    @jax.checkpoint
    def tick_group(
        recurrent_4NxRxI: Array, c_NRI: Array, forward: Array, backward: Array
    ) -> tuple[Array, Array, tuple[Array, ...]]:
        from_input = jnp.tensordot(weights.forward, forward, 1)
        from_output = jnp.tensordot(weights.backward, backward, 1)
        messages = jnp.expand_dims(from_input, r) + jnp.expand_dims(from_output, i)
        gates = jnp.expand_dims(recurrent_4NxRxI, q) + messages
        h, c = cell(gates, jnp.expand_dims(c_NRI, q), weights.product_dtype)
        return h.sum(q), c.sum(q), send(jnp.moveaxis(h, q, 0)) if send else ()

    def add_group(
        sums: tuple[Array, Array], messages: tuple[Array, Array]
    ) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
        h, c, sent = tick_group(recurrent_4NxRxI, c_NRI, *messages)
        return (sums[0] + h, sums[1] + c), sent

    nothing = (jnp.zeros_like(h_NRI), jnp.zeros_like(c_NRI))
    (h, c), sent = jax.lax.scan(add_group, nothing, (forward, backward), unroll=len(forward) == 1)
    return h, c, sent

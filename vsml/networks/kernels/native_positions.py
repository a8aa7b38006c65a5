"""Ticks of synapses that a layer uses at many positions (a convolution) on a CPU: `native`, continued.

`native_positions.cpp` beside this file has the derivation. Where it cannot be compiled, `positions` computes
the same.
"""

import functools
from typing import Any

import jax

from vsml.networks.kernels import native
from vsml.networks.kernels.tiled import CellWeights
from vsml.types import Array

Visited = tuple[Array, Array, Array, Array]
"""The new h and c [G, N, R, I]; means over I [P, O, S] and over O [P, I, S] of what synapses send."""


def tick(
    weights: CellWeights,
    h_GNRI: Array,
    c_GNRI: Array,
    forward_PxIxM: Array,
    backward_PxOxM: Array,
    micro_ticks: int,
    senders: Array | None = None,
) -> Visited:
    """Let all synapses of a layer tick at P positions, with the messages they receive held fixed.

    Under differentiation the state before the visit is kept, and the visit is recomputed.

    Args:
        weights: the shared LSTM.
        h_GNRI: hidden states in tiles, as in `tiled.tick`. Of any floating-point type; all arithmetic is in
            float32.
        c_GNRI: cell states, likewise.
        forward_PxIxM: message of each input unit of each position.
        backward_PxOxM: message of each output unit of each position.
        micro_ticks: how many ticks.
        senders: as in `native.tick`; None for means of h.

    Returns:
        The new h and c, means over the positions; of each position's own h after the last tick the means over
        I, float32 [P, O, N], and over O [P, I, N]. With senders the means are of layer-normalised messages,
        with M in place of N.

    Raises:
        ValueError: shapes that do not fit together, which compiled code would not notice; no position, or no
            tick.
    """
    G, N, R, fan_in = h_GNRI.shape
    P, _, M = forward_PxIxM.shape
    if micro_ticks < 1:
        raise ValueError(f"micro_ticks: got {micro_ticks}, expected at least 1")
    if P < 1:
        raise ValueError(f"forward_PxIxM: got shape {forward_PxIxM.shape}, expected at least one position")
    native.check_shapes(
        {
            "c_GNRI": (c_GNRI, (G, N, R, fan_in)),
            "forward_PxIxM": (forward_PxIxM, (P, fan_in, M)),
            "backward_PxOxM": (backward_PxOxM, (P, G * R, M)),
            **native.shapes_of_weights(weights, senders, N, M),
        }
    )
    # Positions last, as they are the lanes of vectors.
    forward_IxMxP = forward_PxIxM.transpose(1, 2, 0)
    backward_OxMxP = backward_PxOxM.transpose(1, 2, 0)
    h, c, out_OxSxP, back_IxSxP = _tick(
        micro_ticks, weights, h_GNRI, c_GNRI, forward_IxMxP, backward_OxMxP, senders
    )
    return h, c, out_OxSxP.transpose(2, 0, 1), back_IxSxP.transpose(2, 0, 1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _tick(micro_ticks: int, *operands: Any) -> Visited:
    return _visit(micro_ticks, *operands)


def _visit(
    micro_ticks: int,
    weights: CellWeights,
    h_GNRI: Array,
    c_GNRI: Array,
    forward_IxMxP: Array,
    backward_OxMxP: Array,
    senders: Array | None,
) -> Visited:
    N = h_GNRI.shape[1]
    fan_in, _, P = forward_IxMxP.shape
    fan_out = len(backward_OxMxP)
    sent = N if senders is None else senders.shape[-1]
    results = [h_GNRI.shape, h_GNRI.shape, (fan_out, sent, P), (fan_in, sent, P)]
    products = weights.product_dtype
    call = native.function("positions", "forward", senders, results, N, {6: 0, 7: 1}, products)
    messages = (forward_IxMxP, backward_OxMxP)
    h, c, out_OxSxP, back_IxSxP = call(micro_ticks, *_in_order(weights), *messages, h_GNRI, c_GNRI)
    return h.astype(h_GNRI.dtype), c.astype(c_GNRI.dtype), out_OxSxP, back_IxSxP


def _in_order(weights: CellWeights) -> tuple[Array, ...]:
    """Return the weights as compiled functions take them."""
    return weights.hidden, weights.forward, weights.backward, weights.bias


def _remember(micro_ticks: int, *operands: Any) -> tuple[Visited, tuple[Any, ...]]:
    return _visit(micro_ticks, *operands), operands


def _differentiate(micro_ticks: int, operands: tuple[Any, ...], cotangent: Visited) -> tuple[Any, ...]:
    weights, h_GNRI, c_GNRI, *messages, senders = operands
    inputs = (*_in_order(weights), *messages, h_GNRI, c_GNRI)
    results = [each.shape for each in inputs]
    N, products = h_GNRI.shape[1], weights.product_dtype
    call = native.function("positions", "backward", senders, results, N, {9: 6, 10: 7}, products)
    *d_inputs, d_senders = call(micro_ticks, *inputs, *cotangent)
    # The kernel computes in float32, whatever its operands are of.
    d_inputs = [d_each.astype(each.dtype) for d_each, each in zip(d_inputs, inputs, strict=True)]
    d_hidden, d_forward, d_backward, d_bias, d_forward_messages, d_backward_messages, d_h, d_c = d_inputs
    d_weights = weights.replace(forward=d_forward, backward=d_backward, hidden=d_hidden, bias=d_bias)
    d_messages = (d_forward_messages, d_backward_messages)
    return d_weights, d_h, d_c, *d_messages, None if senders is None else d_senders.astype(senders.dtype)


_tick.defvjp(_remember, _differentiate)

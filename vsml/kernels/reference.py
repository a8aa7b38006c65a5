"""Ticks of all synapses of a dense layer as the paper writes them: one synapse, vmapped over both sides.

Slow and short: what the fast kernels are tested and measured against.
"""

from collections.abc import Callable

import jax

from vsml.types import Array


def visit(
    cell: Callable[[Array, Array, Array, Array], tuple[Array, Array]],
    messages: Callable[[Array], tuple[Array, Array]],
    h_IxOxN: Array,
    c_IxOxN: Array,
    forward_IxM: Array,
    backward_OxM: Array,
    micro_ticks: int,
) -> tuple[Array, Array, Array, Array]:
    """Visit a dense layer: let its synapses tick, and average the messages they send.

    Args:
        cell: one tick of one synapse, `(h [N], c [N], forward [M], backward [M]) -> (h, c)`.
        messages: what one synapse sends, `h [N] -> (forward [M], backward [M])`.
        h_IxOxN: hidden states of the synapses.
        c_IxOxN: cell states.
        forward_IxM: message of each input unit.
        backward_OxM: message of each output unit.
        micro_ticks: how many ticks.

    Returns:
        The new h and c, the forward messages [O, M] and the backward messages [I, M].
    """
    over_outputs = jax.vmap(cell, in_axes=(0, 0, None, 0))
    over_both = jax.vmap(over_outputs, in_axes=(0, 0, 0, None))
    for _ in range(micro_ticks):
        h_IxOxN, c_IxOxN = over_both(h_IxOxN, c_IxOxN, forward_IxM, backward_OxM)
    forward_IxOxM, backward_IxOxM = jax.vmap(jax.vmap(messages))(h_IxOxN)
    return h_IxOxN, c_IxOxN, forward_IxOxM.mean(0), backward_IxOxM.mean(1)

"""Ticks of all synapses of a layer as the paper writes them: one synapse, vmapped over all its places.

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
    forward_PxIxM: Array,
    backward_PxOxM: Array,
    micro_ticks: int,
) -> tuple[Array, Array, Array, Array]:
    """Let the synapses of a layer tick at P positions at once, and average the messages they send.

    At every tick each position starts from the same state; the mean of what becomes of it is the state of
    the next tick. A dense layer has one position.

    Args:
        cell: one tick of one synapse, `(h [N], c [N], forward [M], backward [M]) -> (h, c)`.
        messages: what one synapse sends, `h [N] -> (forward [M], backward [M])`.
        h_IxOxN: hidden states of the synapses.
        c_IxOxN: cell states.
        forward_PxIxM: message of each input unit of each position.
        backward_PxOxM: message of each output unit of each position.
        micro_ticks: how many ticks.

    Returns:
        The new h and c; the forward messages [P, O, M] and the backward messages [P, I, M] that each position
        sends, from its own h after the last tick.
    """
    over_outputs = jax.vmap(cell, in_axes=(0, 0, None, 0))
    over_both = jax.vmap(over_outputs, in_axes=(0, 0, 0, None))
    send = jax.vmap(jax.vmap(messages))
    if len(forward_PxIxM) == 1:
        # XLA takes a quarter longer where an axis of one position is carried along.
        for _ in range(micro_ticks):
            h_IxOxN, c_IxOxN = over_both(h_IxOxN, c_IxOxN, forward_PxIxM[0], backward_PxOxM[0])
        forward_IxOxM, backward_IxOxM = send(h_IxOxN)
        return h_IxOxN, c_IxOxN, forward_IxOxM.mean(0)[None], backward_IxOxM.mean(1)[None]
    everywhere = jax.vmap(over_both, in_axes=(None, None, 0, 0))
    for _ in range(micro_ticks):
        h_PxIxOxN, c_PxIxOxN = everywhere(h_IxOxN, c_IxOxN, forward_PxIxM, backward_PxOxM)
        h_IxOxN, c_IxOxN = h_PxIxOxN.mean(0), c_PxIxOxN.mean(0)
    forward_PxIxOxM, backward_PxIxOxM = jax.vmap(send)(h_PxIxOxN)
    return h_IxOxN, c_IxOxN, forward_PxIxOxM.mean(1), backward_PxIxOxM.mean(2)

"""A synapse that does back-propagation: meta-parameters that are written down instead of found.

The gates of an LSTM multiply, and `sigmoid(z) - sigmoid(-z) = tanh(z / 2)`; that is all it takes. With x what
arrives from the input side and e from the output side (channel 0 of the messages), the synapse stores a
weight w as the difference of two kinds of cells, `w = (tanh(c+) - tanh(c-)) / SCALE`, whose input gates are
open by sigmoid(2 x) and sigmoid(-2 x), and a bias b likewise in one whose gate is half open. Then

    w' = w - rate e tanh(x),   b' = b - BIAS_RATE rate e    by input gates, g = -SCALE rate e
    y = tanh(x) w + b                                       by output gates sigmoid(+-2 x)
    e' = e d y / d x = e w (1 - tanh(x)^2)                  by output gates sigmoid(+-2 x +- NUDGE e)

where the last is a difference quotient. In a sweep without feedback e is 0, and nothing changes. What a unit
sends is the mean over its synapses, not the sum, so with a fan-in of I a rate here is one of `rate / I` in a
network of plain weights `w / I`, whose sizes are 1 / I of those here; and a bias is learned I times as fast
as a weight, hence BIAS_RATE. All of it is exact as long as SCALE w, SCALE rate e and NUDGE e are small; large
weights are squashed to at most 2 / SCALE.

So meta-training need not search for what learns at all: it starts with gradient descent. Cloning it into a
synapse by examples is in Kirsch & Schmidhuber (2021), section 4; that it can be written down is our own.
"""

import itertools

import jax.numpy as jnp
import numpy as np

from vsml.types import Array, Params

CELLS = 9
"""Cells that it takes: the last ones. All others are as they were, and no part of this."""

SCALE = 0.05
"""Of a weight as it is stored: small enough for tanh to be linear; weights go up to 2 / SCALE = 40."""

NUDGE = 0.3
"""How far an error moves an output gate, for the derivative."""

BIAS_RATE = 0.02

_OPEN = 5.0  # what an input gate is lower by; see GATE_OFFSET
_KEEP = 10.0  # added to the forget gate, of which sigmoid(15) is 1 - 3e-7
_SLOPE = 2.0  # sigmoid(2 x) - sigmoid(-2 x) = tanh(x)
_OUT = (0, 1)  # channels that carry y: to the next layer, and the logit


def back_propagating(synapse: Params, rate: float, learns: bool = True) -> Params:
    """Return a synapse whose last `CELLS` cells do back-propagation.

    Args:
        synapse: meta-parameters of one synapse, without norms.
        rate: of learning, for weights as they are here (see above).
        learns: whether it takes notice of e; else it answers only, which is what synapses of a forward sweep
            do that have others for the backward sweep.
    """
    N, M = synapse["forward_message"]["kernel"].shape
    kernel, bias = np.zeros((2 * M + N, 4, CELLS)), np.zeros((4, CELLS))
    forward, backward = np.zeros((CELLS, M)), np.zeros((CELLS, M))
    i, g, f, o = range(4)
    x, e = 0, M  # rows of the kernel
    bias[i], bias[f] = _OPEN, _KEEP
    for cell, (stores, reads, nudged) in enumerate(itertools.product((1, -1), repeat=3)):
        kernel[x, i, cell] = stores * _SLOPE
        kernel[x, o, cell] = reads * _SLOPE
        kernel[e, o, cell] = learns * nudged * NUDGE
        kernel[e, g, cell] = -learns * SCALE * rate
        forward[cell, _OUT] = stores * reads / (2 * SCALE)
        backward[cell, 0] = learns * stores * nudged * _SLOPE / (2 * NUDGE * SCALE)
    kernel[e, g, -1] = -learns * 2 * SCALE * rate * BIAS_RATE
    forward[-1, _OUT] = 2 / SCALE

    def put(old: Array, new: np.ndarray, axis: int = -1) -> Array:
        """Replace the last cells of an axis of length N."""
        return jnp.concatenate([jnp.split(old, [N - CELLS], axis)[0], jnp.asarray(new, old.dtype)], axis)

    lstm = synapse["lstm"]
    old_kernel = lstm["kernel"].at[2 * M + N - CELLS :].set(0.0)  # no other cell reads what these hold
    return {
        **synapse,
        "lstm": {
            "kernel": put(old_kernel.reshape(-1, 4, N), kernel).reshape(-1, 4 * N),
            "bias": put(lstm["bias"].reshape(4, N), bias).reshape(-1),
        },
        "forward_message": {
            **synapse["forward_message"],
            "kernel": put(synapse["forward_message"]["kernel"], forward, 0),
        },
        "backward_message": {
            **synapse["backward_message"],
            "kernel": put(synapse["backward_message"]["kernel"], backward, 0),
        },
    }

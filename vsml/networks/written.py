"""A synapse that does back-propagation: meta-parameters that are written down instead of found.

The gates of an LSTM multiply, and an activation is a sum of sigmoids, `act(x) = sum_r a_r sigmoid(k_r x +
d_r)`: exactly so for `tanh(x) = sigmoid(2 x) - sigmoid(-2 x)`. That is all it takes. With x what arrives
from the input side and e from the output side (channel 0 of the messages), the synapse stores a weight w in
cells whose input gates are the terms of the sum, `w = sum_s a_s tanh(c_s) / s`, and a bias b in one
whose gate is half open:

    w' = w - rate e act(x),   b' = b - bias_rate rate e     by input gates, g = -s rate e
    y = act(x) w + b                                        by output gates sigmoid(k_r x + d_r)
    e' = e w' act'(x)                                       by output gates sigmoid(k_r x + d_r +- NUDGE e)

where the last is a difference quotient, of the weight that has just moved. A weight is stored once for each
term that it is read by, and for each sign of the nudge. In a sweep without feedback e is 0, and nothing
changes. What a unit sends is the mean over its synapses, not the sum, so with a fan-in of I a rate here is
one of `rate / I` in a network of plain weights `w / I`, whose sizes are 1 / I of those here; and a bias, of
which a unit has one in each synapse, is learned I times as fast as a weight, unless its own rate is lower.
The scale s is 2 / max_weight. All of it is exact as long as w and rate e are far below max_weight, and NUDGE
e below 1; beyond a quarter of max_weight weights move more and more slowly.

So meta-training need not search for what learns at all: it starts with gradient descent. Cloning it into a
synapse by examples is in Kirsch & Schmidhuber (2021), section 4; that it can be written down is our own.
"""

import itertools
from typing import Literal

import jax.numpy as jnp
import numpy as np

from vsml.types import Array, Params

Activation = Literal["tanh", "relu", "relu3", "relu4"]

TERMS: dict[Activation, tuple[tuple[float, float, float], ...]] = {
    "tanh": ((1.0, 2.0, 0.0), (-1.0, -2.0, 0.0)),
    "relu": ((2.909, 1.598, -4.247), (1.216, 3.418, -2.62)),
    "relu3": ((-4.221, -0.989, 2.729), (4.887, 2.287, -0.379), (4.195, -2.342, -0.051)),
    "relu4": (
        (1.835, 4.136, -0.592),
        (1.44, -4.129, -0.048),
        (2.943, 1.337, -4.375),
        (-1.446, -2.049, 2.682),
    ),
}
"""Sigmoids whose sum an activation is: (a, k, d). Those of relu are fitted for |x| < 4, by least squares."""

MAX_WEIGHT = 40.0
"""Weights that the cells can hold, unless told otherwise: in a network of means those of 40 / fan-in."""

NUDGE = 0.3
"""How far an error moves an output gate, for the derivative."""

_OPEN = 5.0  # what an input gate is lower by; see GATE_OFFSET
_KEEP = 10.0  # added to the forget gate, of which sigmoid(15) is 1 - 3e-7
_OUT = (0, 1)  # channels that carry y: to the next layer, and the logit


def cells_of(activation: Activation) -> int:
    """Return how many cells it takes: the last ones. All others are no part of this."""
    return 2 * len(TERMS[activation]) ** 2 + 1


def activate(x: Array, activation: Activation) -> Array:
    """Return the sum of sigmoids that stands for an activation, elementwise."""
    z = jnp.asarray(x)[..., None]
    a, k, d = jnp.asarray(TERMS[activation]).T
    return (a / (1 + jnp.exp(-(k * z + d)))).sum(-1)


def encode(w: Array, b: Array, activation: Activation, max_weight: float = MAX_WEIGHT) -> Array:
    """Return the cells [..., cells] of synapses with weights w [...] and biases b [...].

    What max_weight has no room for is cut.
    """
    scale = 2 / max_weight
    a = np.array([term[0] for term in TERMS[activation]])
    stored = jnp.asarray(w)[..., None] * scale * a / (a**2).sum()
    cells = jnp.repeat(stored, 2 * len(a), axis=-1)
    bias = jnp.asarray(b)[..., None] * scale
    return jnp.arctanh(jnp.clip(jnp.concatenate([cells, bias], axis=-1), -0.999, 0.999))


def decode(c: Array, activation: Activation, max_weight: float = MAX_WEIGHT) -> tuple[Array, Array]:
    """Return the weights and the biases [...] that cells [..., cells] hold, means over copies."""
    scale = 2 / max_weight
    a = np.array([term[0] for term in TERMS[activation]])
    stored = jnp.tanh(c)
    copies = stored[..., :-1].reshape(*c.shape[:-1], len(a), 2 * len(a)).mean(-1)
    return (copies * a).sum(-1) / scale, stored[..., -1] / scale


def back_propagating(
    synapse: Params,
    rate: float,
    bias_rate: float,
    activation: Activation = "tanh",
    learns: bool = True,
    max_weight: float = MAX_WEIGHT,
) -> Params:
    """Return a synapse whose last cells do back-propagation.

    Args:
        synapse: meta-parameters of one synapse, without norms.
        rate: of learning, for weights as they are here (see above).
        bias_rate: that of biases, as a share of it.
        activation: what inputs go through.
        learns: whether it takes notice of e; else it answers only, which is what synapses of a forward sweep
            do that have others for the backward sweep.
        max_weight: what the cells can hold.
    """
    scale, cells = 2 / max_weight, cells_of(activation)
    N, M = synapse["forward_message"]["kernel"].shape
    kernel, bias = np.zeros((2 * M + N, 4, cells)), np.zeros((4, cells))
    forward, backward = np.zeros((cells, M)), np.zeros((cells, M))
    i, g, f, o = range(4)
    x, e = 0, M  # rows of the kernel
    bias[i], bias[f] = _OPEN, _KEEP
    terms = TERMS[activation]
    for cell, (stores, reads, nudged) in enumerate(itertools.product(terms, terms, (1, -1))):
        (a_s, k_s, d_s), (a_r, k_r, d_r) = stores, reads
        kernel[x, i, cell], bias[i, cell] = k_s, d_s + _OPEN
        kernel[x, o, cell], bias[o, cell] = k_r, d_r
        kernel[e, o, cell] = learns * nudged * NUDGE
        kernel[e, g, cell] = -learns * scale * rate
        forward[cell, _OUT] = a_s * a_r / (2 * scale)
        backward[cell, 0] = learns * nudged * a_s * a_r * k_r / (2 * NUDGE * scale)
    kernel[e, g, -1] = -learns * 2 * scale * rate * bias_rate
    forward[-1, _OUT] = 2 / scale

    def put(old: Array, new: np.ndarray, axis: int = -1) -> Array:
        """Replace the last cells of an axis of length N."""
        return jnp.concatenate([jnp.split(old, [N - cells], axis)[0], jnp.asarray(new, old.dtype)], axis)

    lstm = synapse["lstm"]
    old_kernel = lstm["kernel"].at[2 * M + N - cells :].set(0.0)  # no other cell reads what these hold
    senders = {
        name: {**synapse[name], "kernel": put(synapse[name]["kernel"], new, 0)}
        for name, new in (("forward_message", forward), ("backward_message", backward))
    }
    return {
        **synapse,
        "lstm": {
            "kernel": put(old_kernel.reshape(-1, 4, N), kernel).reshape(-1, 4 * N),
            "bias": put(lstm["bias"].reshape(4, N), bias).reshape(-1),
        },
        **senders,
    }

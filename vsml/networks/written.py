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


def activate(
    x: Array,
    activation: Activation,
) -> Array:
    """Return the sum of sigmoids that stands for an activation, elementwise."""
    z = jnp.asarray(x)[..., None]
    a, k, d = jnp.asarray(TERMS[activation]).T
    exponent = -(k * z + d)
    return (a / (1 + jnp.exp(exponent))).sum(-1)


def encode(
    w: Array,
    b: Array,
    activation: Activation,
    max_weight: float = MAX_WEIGHT,
) -> Array:
    """Return the cells [..., cells] of synapses with weights w [...] and biases b [...].

    What max_weight has no room for is cut.
    """
    scale = 2 / max_weight
    a = _amplitudes(activation)
    stored = jnp.asarray(w)[..., None] * scale * a / (a**2).sum()
    # Once for each term that reads it, and for each sign of the nudge.
    copies = jnp.repeat(stored, 2 * len(a), axis=-1)
    bias = jnp.asarray(b)[..., None] * scale
    held = jnp.concatenate([copies, bias], axis=-1)
    return jnp.arctanh(jnp.clip(held, -0.999, 0.999))


def decode(
    c: Array,
    activation: Activation,
    max_weight: float = MAX_WEIGHT,
) -> tuple[Array, Array]:
    """Return the weights and the biases [...] that cells [..., cells] hold, means over copies."""
    scale = 2 / max_weight
    a = _amplitudes(activation)
    stored = jnp.tanh(c)
    copies = stored[..., :-1].reshape(*c.shape[:-1], len(a), 2 * len(a))
    weights = (copies.mean(-1) * a).sum(-1)
    return weights / scale, stored[..., -1] / scale


def _amplitudes(activation: Activation) -> np.ndarray:
    """Return the factor of each sigmoid."""
    return np.array([amplitude for amplitude, _, _ in TERMS[activation]])


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
    scale = 2 / max_weight
    cells = cells_of(activation)
    N, M = synapse["forward_message"]["kernel"].shape
    kernel = np.zeros((2 * M + N, 4, cells))
    bias = np.zeros((4, cells))
    forward = np.zeros((cells, M))
    backward = np.zeros((cells, M))
    # Gates, and rows of the kernel: channel 0 of the forward and of the backward message.
    i, g, f, o = range(4)
    x = 0
    e = M
    notices = int(learns)
    bias[i] = _OPEN
    bias[f] = _KEEP

    # A weight is stored by each term of the activation, and read by each, with the error nudged up and down.
    terms = TERMS[activation]
    ways = itertools.product(terms, terms, (1, -1))
    for cell, (stores, reads, nudged) in enumerate(ways):
        a_s, k_s, d_s = stores
        a_r, k_r, d_r = reads
        # Input gate: the term by which an input is noticed.
        kernel[x, i, cell] = k_s
        bias[i, cell] = d_s + _OPEN
        # Output gate: the term by which an input is answered.
        kernel[x, o, cell] = k_r
        bias[o, cell] = d_r
        kernel[e, o, cell] = notices * nudged * NUDGE
        # What is written: minus the rate times the error.
        kernel[e, g, cell] = -notices * scale * rate
        forward[cell, _OUT] = a_s * a_r / (2 * scale)
        slope = a_s * a_r * k_r / (2 * NUDGE * scale)
        backward[cell, 0] = notices * nudged * slope

    # The last cell is the bias, whose gate is half open.
    kernel[e, g, -1] = -notices * 2 * scale * rate * bias_rate
    forward[-1, _OUT] = 2 / scale

    lstm = synapse["lstm"]
    # No other cell reads what these hold.
    first = 2 * M + N - cells
    old_kernel = lstm["kernel"].at[first:].set(0.0)
    gates_kernel = _with_last(old_kernel.reshape(-1, 4, N), kernel)
    gates_bias = _with_last(lstm["bias"].reshape(4, N), bias)
    written = dict(synapse)
    written["lstm"] = {
        "kernel": gates_kernel.reshape(-1, 4 * N),
        "bias": gates_bias.reshape(-1),
    }
    for name, new in (("forward_message", forward), ("backward_message", backward)):
        sender = dict(synapse[name])
        sender["kernel"] = _with_last(sender["kernel"], new, axis=0)
        written[name] = sender
    return written


def _with_last(
    old: Array,
    new: np.ndarray,
    axis: int = -1,
) -> Array:
    """Return an array whose last entries along an axis are replaced."""
    kept = old.shape[axis] - new.shape[axis]
    first, _ = jnp.split(old, [kept], axis)
    return jnp.concatenate([first, jnp.asarray(new, old.dtype)], axis)

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
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np

from vsml.types import Array, Params

Activation = Literal["tanh", "relu", "relu3", "relu4"]


class Term(NamedTuple):
    """One sigmoid of an activation, `amplitude * sigmoid(gain * x + shift)`."""

    amplitude: float
    gain: float
    shift: float


TERMS: dict[Activation, tuple[Term, ...]] = {
    "tanh": (
        Term(1.0, 2.0, 0.0),
        Term(-1.0, -2.0, 0.0),
    ),
    "relu": (
        Term(2.909, 1.598, -4.247),
        Term(1.216, 3.418, -2.62),
    ),
    "relu3": (
        Term(-4.221, -0.989, 2.729),
        Term(4.887, 2.287, -0.379),
        Term(4.195, -2.342, -0.051),
    ),
    "relu4": (
        Term(1.835, 4.136, -0.592),
        Term(1.44, -4.129, -0.048),
        Term(2.943, 1.337, -4.375),
        Term(-1.446, -2.049, 2.682),
    ),
}
"""Sigmoids whose sum an activation is. Those of relu are fitted for |x| < 4, by least squares."""

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
    terms = jnp.asarray(TERMS[activation]).T
    # Each [1, ..., 1, terms], beside z [..., 1].
    a, k, d = jnp.expand_dims(terms, range(1, z.ndim))
    exponent = -(k * z + d)
    sigmoids = a / (1 + jnp.exp(exponent))
    return sigmoids.sum(-1)


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
    weights = jnp.asarray(w)[..., None]
    biases = jnp.asarray(b)[..., None]
    # [1, ..., 1, terms], beside weights [..., 1].
    a = np.expand_dims(_amplitudes(activation), tuple(range(weights.ndim - 1)))
    power = (a**2).sum()
    stored = weights * scale * a / power
    # Once for each term that reads it, and for each sign of the nudge.
    copies = jnp.repeat(stored, 2 * a.size, axis=-1)
    held = jnp.concatenate([copies, biases * scale], axis=-1)
    room = jnp.clip(held, -0.999, 0.999)
    return jnp.arctanh(room)


def decode(
    c: Array,
    activation: Activation,
    max_weight: float = MAX_WEIGHT,
) -> tuple[Array, Array]:
    """Return the weights and the biases [...] that cells [..., cells] hold, means over copies."""
    scale = 2 / max_weight
    a = _amplitudes(activation)
    stored = jnp.tanh(c)
    bias = stored[..., -1]
    copies = stored[..., :-1]
    shape = (len(a), 2 * len(a))
    by_term = copies.reshape(*c.shape[:-1], *shape)
    weights = (by_term.mean(-1) * a).sum(-1)
    return weights / scale, bias / scale


def _amplitudes(activation: Activation) -> np.ndarray:
    """Return the factor of each sigmoid."""
    terms = TERMS[activation]
    return np.array([term.amplitude for term in terms])


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
    i, g, f, o = range(4)
    # What gates read: channel 0 of the forward message x, and of the backward message e. [4, cells] each.
    from_x = kernel[0]
    from_e = kernel[M]
    step = scale * rate if learns else 0.0
    bias[i] = _OPEN
    bias[f] = _KEEP

    # A weight is stored by each term of the activation, and read by each, with the error nudged up and down.
    terms = TERMS[activation]
    ways = itertools.product(terms, terms, (1, -1))
    for cell, (stores, reads, sign) in enumerate(ways):
        nudge = sign * NUDGE if learns else 0.0
        share = stores.amplitude * reads.amplitude
        # Input gate: the term by which an input is noticed.
        from_x[i, cell] = stores.gain
        bias[i, cell] = stores.shift + _OPEN
        # Output gate: the term by which an input is answered.
        from_x[o, cell] = reads.gain
        bias[o, cell] = reads.shift
        from_e[o, cell] = nudge
        # What is written: minus the rate times the error.
        from_e[g, cell] = -step
        # What is sent: the answer, and the difference quotient.
        forward[cell, _OUT] = share / (2 * scale)
        if learns:
            backward[cell, 0] = share * reads.gain / (2 * nudge * scale)

    # The last cell is the bias, whose gate is half open.
    from_e[g, -1] = -2 * step * bias_rate
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

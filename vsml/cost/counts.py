"""What a step of a learner costs: arithmetic and memory traffic, from the shapes of its layers.

Of one example (a step, for one element of the inner batch). A layer has S = I O synapses with states of size
N and messages of M channels, used at P positions (1 in a dense layer; I is what one output unit reads); a
visit has k micro ticks. One forward visit, with the rewrites of `vsml.networks.kernels.tiled`:

    matrix products, 2 FLOP a multiply-add
        hidden @ h         2 N 4N           k S       once for all positions
        from messages      2 M 4N           P (I + O)   in a convolution at every tick: too large to keep
        messages           2 N M            P (I + O)   with layer norm 2 P S: each synapse's own
    elementwise, one FLOP an operation
        gates              4N               k P S     added to what messages give
        from messages      4N               P S       both sides added; in a convolution at every tick
        cell               10N              k P S     three affine maps, four products, one sum (tanh apart)
        mean of h          2N               P S       over either side
        mean of states     2N               k P S     over positions; in a convolution only
        layer norm         2 * 7M           P S       if there is one
    transcendentals        5N               k P S     the gates and c
    state                  4 * 2N bytes     S         2 * 2N if it is kept in 16 bits
    moved                  2 states         S         read and written once a visit, gates on the chip

`unfused_bytes` is what a formulation moves that writes its gates to memory: at every tick the state is read
and written, and the gates are written and read, `k (4 * 4N * 2 P S + 2 states)`. In the plain formulation,
one LSTM for each synapse, the products are `2 (2M + N) 4N` FLOP in k P S for the gates and `2 * 2 N M` in P S
for the messages, nothing is done once per unit, and the cell is 10N in k P S, in a convolution 14N.

Its gradient, recomputed tile by tile: the forward visit twice; the derivatives of a matrix product are two
of its size; those of the cell are `25N` FLOP in k P S (five tanh 3 each, products and sums the rest),
and the gates' are summed over either side, `12N` in P S. There is nothing transcendental in them. Memory: the
forward visit reads a state and writes one, the backward one reads it again, and reads and writes the
derivatives of the state: 5 states. With gates in memory: the ticks twice, and the gates' derivatives are
written once and read twice. Where an episode is cut into segments, there is one more forward visit.

An inner batch adds the mean of half of the state over it: N in S, and half of the state is read and written
once more. A memory of K examples of d numbers adds, forward and where it is written,

    similarities       2 K d
    readings           2 (2 N I O)    at each visit: products of states with two weights (three with a ridge)
    keys               4 K d bytes    of state
    ridge regression   2 K^2 d + K^3 / 3 + 4 K^2    forward, if slots are read by it: kernel, factor, solution

Regression on R random features of inputs with d numbers, or of H tanh features of them, F = R in all or
R + d + 1 with a linear part, adds, forward alone, as it has no derivatives,

    features           2 (d H + H R / 2), or d R        products; R cosines and sines, H tanh
    learning           6 F^2, and 4 F C                 S^T phi, S f, S - k f^T; answers and weights
    root               4 F^2 bytes                      of state, read twice and written once

and the last two for each ridge.

Left out: units' messages, the example, the loss and the logits (below one part in a hundred, but
for layers with few units), and the meta-parameters, which stay on the chip.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.extend.core import jaxprs_in_params

from vsml.learners import Ensemble, Learner, Vsml
from vsml.meta.trials import params_shapes, state_bytes
from vsml.networks.graph import GraphNetwork
from vsml.networks.layered import Network
from vsml.networks.regression import Regression
from vsml.networks.wirings.base import HasExtent
from vsml.types import target_shape

What = Literal["forward", "gradient"]
Formulation = Literal["rewritten", "plain"]

FLOAT_BYTES = 4

NORM_FLOPS = 7
"""Of the layer norm of one channel: twice a mean, the difference, the square, the factor, the sum."""

PLAIN_CELL_FLOPS = 10
"""Of a state's entry in the plain formulation: bias, offsets, products of the gates."""

PLAIN_MEAN_FLOPS = 4
"""Of the mean of a state's entry of h and of c over positions there, where a layer has more than one."""

CELL_DERIVATIVE_FLOPS = 25
"""Of the derivatives of one entry of a state: 15 for five tanh, 10 for products and sums."""

SUMMED_DERIVATIVE_FLOPS = 12
"""Of the derivatives of the four gates: added over ticks, and summed over either side of the layer."""

_TRANSCENDENTAL = frozenset(["tanh", "exp", "log", "logistic", "pow", "erf_inv"])

_ELEMENTWISE = frozenset(
    [
        "abs",
        "add",
        "add_any",
        "clamp",
        "div",
        "integer_pow",
        "max",
        "min",
        "mul",
        "neg",
        "rsqrt",
        "sqrt",
        "square",
        "sub",
    ]
)


@dataclass(frozen=True)
class Cost:
    """What something costs; see the top of this file.

    Attributes:
        synapses: how many there are, each counted once; 0 for a learner that has none.
        matrix_flops: in matrix products.
        elementwise_flops: all other arithmetic, but for transcendentals.
        transcendentals: evaluations of tanh and the like.
        state_bytes: size of the state.
        moved_bytes: read from and written to memory, at the least.
        unfused_bytes: the same where gates are written to memory.
    """

    synapses: int = 0
    matrix_flops: float = 0.0
    elementwise_flops: float = 0.0
    transcendentals: float = 0.0
    state_bytes: float = 0.0
    moved_bytes: float = 0.0
    unfused_bytes: float = 0.0

    @property
    def flops(self) -> float:
        """All floating-point operations but for transcendentals."""
        return self.matrix_flops + self.elementwise_flops

    def __add__(self, other: "Cost") -> "Cost":
        """Return the cost of both; synapses and state of both."""
        mine, theirs = dataclasses.astuple(self), dataclasses.astuple(other)
        return Cost(*(a + b for a, b in zip(mine, theirs, strict=True)))

    def times(self, count: float) -> "Cost":
        """Return the cost of doing it so often with the same state."""
        work = ("matrix_flops", "elementwise_flops", "transcendentals", "moved_bytes", "unfused_bytes")
        return dataclasses.replace(self, **{name: count * getattr(self, name) for name in work})


def cost_of(learner: Learner, batch_size: int = 1, what: What = "forward", segments: int = 1) -> Cost:
    """Return the cost of a step for each example of the inner batch.

    By formula for VSML; for any other learner what its step is made of is counted, and its gradient is taken
    to cost three times as much, four times in segments.

    Args:
        learner: any.
        batch_size: B, examples in a step.
        what: the step alone, or the step and the gradient of what follows from it.
        segments: into how many an episode is cut for its gradient, as `run_episode` does.
    """
    if isinstance(learner, Vsml):
        return vsml_cost(learner, batch_size, what, segments=segments)
    if isinstance(learner, Ensemble):
        costs = (cost_of(member, batch_size, what, segments) for member in learner.members)
        return sum(costs, start=Cost())
    counted = counted_cost(learner, batch_size)
    return counted if what == "forward" else counted.times(3 if segments == 1 else 4)


def vsml_cost(
    learner: Vsml,
    batch_size: int = 1,
    what: What = "forward",
    formulation: Formulation = "rewritten",
    segments: int = 1,
) -> Cost:
    """Return the cost of a step of VSML for each example; see `cost_of` and the top of this file."""
    network = learner.network
    total = Cost()
    for part, visits in network.visits(learner.config.backward_pass):
        total += visit_cost(network, part, what, formulation, segments).times(visits)
    if batch_size > 1:
        merges = 1.0 if what == "forward" else 2.0
        merged = total.state_bytes  # half of it, read and written
        flops = merges * network.state_size * total.synapses
        total += Cost(elementwise_flops=flops, moved_bytes=merges * merged, unfused_bytes=merges * merged)
    if learner.memory is not None:
        total += _memory_cost(learner, what, segments)
    if learner.regression is not None:
        total += _regression_cost(learner, learner.regression)
    return total


def _regression_cost(
    learner: Vsml,
    regression: Regression,
) -> Cost:
    """Return what regression beside the network adds; see the top of this file."""
    random, hidden, inputs = regression.features, regression.hidden, learner.entering.size
    seen = random * inputs if hidden is None else 2 * inputs * hidden + hidden * random
    features = regression.total(inputs)
    ridges = len(regression.ridges)
    root = ridges * FLOAT_BYTES * features**2
    learning = ridges * (6 * features**2 + 4 * features * learner.outputs.size)
    return Cost(
        matrix_flops=seen + learning,
        transcendentals=random + (hidden or 0),
        state_bytes=root,
        moved_bytes=3 * root,
        unfused_bytes=3 * root,
    )


def _memory_cost(
    learner: Vsml,
    what: What,
    segments: int,
) -> Cost:
    """Return what an episodic memory and the readings of its slots add; see the top of this file.

    Keys depend on no meta-parameters: they have no derivatives.
    """
    network = learner.network
    keys = math.prod(learner.entering.shape) * network.layers[0].fan_in
    size = FLOAT_BYTES * keys
    similarities = Cost(
        matrix_flops=2 * 2 * keys, state_bytes=size, moved_bytes=2 * size, unfused_bytes=2 * size
    )
    weights = 3 if learner.memory is not None and learner.memory.has_ridge else 2
    read = 2 * weights * network.state_size * network.layers[0].extent.synapses
    readings = Cost(matrix_flops=2 * read)
    ridge = Cost(matrix_flops=_ridge_flops(learner))
    if what == "forward":
        return similarities + readings + ridge
    again = 2 if segments == 1 else 3
    return similarities.times(again) + readings.times(again + 2) + ridge.times(again)


def _ridge_flops(learner: Vsml) -> float:
    """Return the FLOP of kernel ridge regression on what slots hold; 0 without it."""
    if learner.memory is None or not learner.memory.has_ridge:
        return 0.0
    slots = learner.memory.slots
    kernel = 2 * slots**2 * math.prod(learner.entering.shape)
    return kernel + slots**3 / 3 + 2 * 2 * slots**2


def visit_cost(
    network: Network | GraphNetwork,
    part: HasExtent,
    what: What = "forward",
    formulation: Formulation = "rewritten",
    segments: int = 1,
) -> Cost:
    """Return the cost of one visit of a layer, or of a graph; see the top of this file.

    Args:
        network: says the sizes of synapses and messages, micro ticks, and whether there is a layer norm.
        part: a layer of any wiring, or a graph.
        what: see `cost_of`.
        formulation: "rewritten", or "plain" as the paper writes it; forward only.
        segments: see `cost_of`.
    """
    if formulation == "plain" and what != "forward":
        raise ValueError(f"what: got {what!r}, expected 'forward' for the plain formulation")
    extent = part.extent
    N, M, ticks, norm = network.state_size, network.message_size, network.micro_ticks, network.layer_norm
    synapses = extent.synapses
    placed = extent.positions * synapses  # each at every position that uses it
    units = extent.positions * (extent.fan_in + extent.fan_out)
    state = jnp.dtype(network.state_dtype).itemsize * 2 * N * synapses
    gates = FLOAT_BYTES * 4 * N * placed * ticks

    averaging = 2 * N * placed * ticks if extent.shared else 0
    if formulation == "plain":
        matrix = 2 * (2 * M + N) * 4 * N * ticks * placed + 2 * 2 * N * M * placed
        of_entry = PLAIN_CELL_FLOPS + (PLAIN_MEAN_FLOPS if extent.shared else 0)
        elementwise = of_entry * N * ticks * placed + 2 * 2 * M * placed
    else:
        passes = ticks if extent.shared else 1
        matrix = (
            2 * N * 4 * N * ticks * synapses
            + 2 * M * 4 * N * units * passes
            + 2 * N * M * (2 * placed if norm else units)
        )
        elementwise = (4 + 10) * N * ticks * placed + 4 * N * placed * passes + 2 * N * placed + averaging
    elementwise += 2 * NORM_FLOPS * M * placed if norm else 0
    forward = Cost(
        synapses=synapses,
        matrix_flops=matrix,
        elementwise_flops=elementwise,
        transcendentals=5 * N * ticks * placed,
        state_bytes=state,
        moved_bytes=2 * state,
        unfused_bytes=2 * gates + 2 * ticks * state,
    )
    if what == "forward":
        return forward
    derivatives = Cost(
        matrix_flops=2 * matrix,
        elementwise_flops=CELL_DERIVATIVE_FLOPS * N * ticks * placed
        + SUMMED_DERIVATIVE_FLOPS * N * placed * (ticks if extent.shared else 1)
        + (2 * NORM_FLOPS * M * placed if norm else 0),
        moved_bytes=state,  # beside twice 2 states, of the second visit for the derivatives
        unfused_bytes=3 * gates,
    )
    return forward.times(2 if segments == 1 else 3) + derivatives


def counted_cost(learner: Learner, batch_size: int = 1) -> Cost:
    """Return the cost of a step for each example, as counted in what JAX is told to do.

    Kernels differ in what they hide from JAX, so VSML is counted with the one in plain JAX. The traffic is a
    bound from below: the state, read and written, without the meta-parameters.
    """
    if isinstance(learner, Vsml):
        config = learner.config.model_copy(update={"kernel": "tiled"})
        learner = dataclasses.replace(learner, config=config)
    params = params_shapes(learner)
    state = jax.eval_shape(lambda params: learner.init_state(params, jax.random.key(0), batch_size), params)
    x = jax.ShapeDtypeStruct((batch_size, *learner.input_shape), jnp.float32)
    y = target_shape(learner.outputs, batch_size)
    counted = count(jax.make_jaxpr(learner.step)(params, state, x, y).jaxpr).times(1 / batch_size)
    size = state_bytes(learner, batch_size) / batch_size
    return dataclasses.replace(counted, state_bytes=size, moved_bytes=2 * size, unfused_bytes=2 * size)


def count(jaxpr: Any) -> Cost:
    """Count the operations of a jaxpr, a loop's as often as it turns (XLA's analysis counts them once).

    Matrix products count two per multiply-add, sums one per summand, all other arithmetic one per
    element. Cholesky's factorisation of n x n counts n^3 / 3.
    """
    total = Cost()
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        outputs = sum(math.prod(out.aval.shape) for out in equation.outvars)
        bodies = list(jaxprs_in_params(equation.params))
        if any(body.eqns for body in bodies):
            inner = sum((count(body) for body in bodies), start=Cost())
            total += inner.times(equation.params.get("length", 1))
        elif name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            terms = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
            total += Cost(matrix_flops=2 * outputs * terms)
        elif name == "conv_general_dilated":
            total += Cost(matrix_flops=2 * outputs * _taps(equation))
        elif name == "cholesky":
            total += Cost(matrix_flops=outputs * equation.outvars[0].aval.shape[-1] / 3)
        elif name == "triangular_solve":
            total += Cost(matrix_flops=outputs * equation.invars[0].aval.shape[-1])
        elif name == "reduce_sum":
            total += Cost(elementwise_flops=math.prod(equation.invars[0].aval.shape))
        elif name in _TRANSCENDENTAL:
            total += Cost(transcendentals=outputs)
        elif name in _ELEMENTWISE:
            total += Cost(elementwise_flops=outputs)
    return total


def _taps(equation: Any) -> int:
    """Return how many products an element of a convolution's output is the sum of."""
    out_channel_axis = equation.params["dimension_numbers"].rhs_spec[0]
    shape = equation.invars[1].aval.shape
    return math.prod(size for axis, size in enumerate(shape) if axis != out_channel_axis)

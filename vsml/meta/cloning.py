"""Cloning back-propagation into a synapse by examples: the outer loop's objective on random numbers alone.

Kirsch & Schmidhuber (2021), section 4: a synapse that holds a weight w and a bias b is shown an input x and
an error e, and is to answer `y = act(x) w + b`, move to `w - rate e act(x)` and `b - rate bias_rate e`, and
send `e w act'(x)` back. No data set is met. What a state holds is read by `vsml.networks.written.decode`.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.flatten_util import ravel_pytree

from vsml.learners import Vsml
from vsml.meta.gradient import BackPropagation, GradientState
from vsml.meta.objective import Chunk, Results, sum_units
from vsml.networks.written import cells_of, decode, encode
from vsml.types import Array, Params

QUANTITIES = ("output", "new weight", "new bias", "error sent back")

_IDLE_STD = 0.1
"""Deviation of the random cells that are no part of it, as fresh synapses of a hundred inputs have them."""


@dataclass(frozen=True)
class Draws:
    """What random numbers a synapse is shown, all normal.

    Attributes:
        samples: synapses of a unit.
        steps: examples that each learns in a row.
        x_std, w_std, b_std, e_std: deviations of inputs, of first weights and biases, and of errors.
    """

    samples: int = 256
    steps: int = 4
    x_std: float = 1.0
    w_std: float = 3.0
    b_std: float = 1.0
    e_std: float = 0.3


@struct.dataclass
class Comparison:
    """The four `QUANTITIES`, as a synapse has them and as back-propagation does, [4, samples, steps].

    Attributes:
        got: by the synapse; weights and biases as what they are moved by.
        wanted: by back-propagation from what the synapse held before the step.
    """

    got: Array
    wanted: Array


def activation(learner: Vsml, x: Array) -> Array:
    """Return act(x): tanh or relu themselves, whatever sum of sigmoids stands for them."""
    return jnp.tanh(x) if learner.config.synapse.init_activation == "tanh" else jax.nn.relu(x)


def compare(learner: Vsml, params: Params, draws: Draws, key: Array) -> Comparison:
    """Let synapses learn random examples, and compare each step with back-propagation."""
    settings, synapses = learner.config.synapse, learner.synapses.with_params(params)
    forward, backward = (learner.network.synapse_of(synapses, 0, sweep) for sweep in (False, True))
    storage = settings.init_activation, settings.init_max_weight
    cells = cells_of(settings.init_activation)
    idle = settings.state_size - cells
    random = int(settings.state_size * settings.random_fraction)
    keys = jax.random.split(key, 5)
    w = draws.w_std * jax.random.normal(keys[0], (draws.samples,))
    b = draws.b_std * jax.random.normal(keys[1], (draws.samples,))
    noise = _IDLE_STD * jax.random.normal(keys[2], (draws.samples, random))
    rest = jnp.pad(noise, ((0, 0), (0, idle - random)))
    c = jnp.concatenate([rest, encode(w, b, *storage)], axis=-1)
    shape = (draws.steps, draws.samples)
    x = draws.x_std * jax.random.normal(keys[3], shape)
    e = draws.e_std * jax.random.normal(keys[4], shape)
    label = (e < 0) * float(learner.config.feed_label)

    def visit(synapse: Any, h: Array, c: Array, x: Array, feedback: Array) -> tuple[Array, Array]:
        message = jnp.zeros(settings.message_size)
        for _ in range(learner.config.micro_ticks):
            h, c = synapse(h, c, message.at[0].set(x), message.at[:2].set(feedback))
        return h, c

    def learn(state: tuple[Array, Array], example: tuple[Array, Array, Array]) -> tuple[Any, Array]:
        x, e, label = example
        w, b = decode(state[1][-cells:], *storage)
        h, c = visit(forward, *state, x, jnp.zeros(2))
        answer = forward.messages(h)[0][learner.config.output_channel]
        h, c = visit(backward, h, c, x, jnp.stack([e, label]))
        sent = backward.messages(h)[1][0]
        moved_w, moved_b = decode(c[-cells:], *storage)
        act, slope = jax.value_and_grad(partial(activation, learner))(x)
        rate = settings.init_rate
        got = jnp.stack([answer, moved_w - w, moved_b - b, sent])
        wanted = jnp.stack([act * w + b, -rate * e * act, -rate * settings.init_bias_rate * e, e * w * slope])
        return (h, c), jnp.stack([got, wanted])

    def stream(c: Array, examples: tuple[Array, Array, Array]) -> Array:
        return jax.lax.scan(learn, (jnp.zeros_like(c), c), examples)[1]

    both = jax.vmap(stream, (0, 1))(c, (x, e, label))  # [samples, steps, 2, 4]
    got, wanted = both.transpose(2, 3, 0, 1)
    return Comparison(got, jax.lax.stop_gradient(wanted))


def explained(comparison: Comparison) -> Array:
    """Return for each quantity the share of its mean square that is got right, at most 1, [4]."""
    missed = jnp.square(comparison.got - comparison.wanted).mean((1, 2))
    return 1 - missed / jnp.square(comparison.wanted).mean((1, 2))


def clone_loss(comparison: Comparison) -> Array:
    """Return the mean smooth L1 distance of the four quantities, each in units of its own size."""
    size = jnp.sqrt(jnp.square(comparison.wanted).mean((1, 2), keepdims=True))
    distance = jnp.abs(comparison.got - comparison.wanted) / size
    return jnp.where(distance < 1, distance**2 / 2, distance - 0.5).mean()


@dataclass(frozen=True)
class Cloning:
    """Descend the distance of synapses from back-propagation; a unit is some synapses that learn in a row.

    Attributes:
        descent: takes the steps.
        draws: what synapses are shown.
    """

    descent: BackPropagation
    draws: Draws

    unit_members = 1

    def init(self, key: Array, params: Params) -> GradientState:
        """Start from the given meta-parameters; nothing is drawn."""
        return self.descent.init(key, params)

    def params(self, state: GradientState) -> Params:
        """Return the meta-parameters found so far."""
        return self.descent.params(state)

    def ask(self, state: GradientState) -> tuple[GradientState, Params]:
        """Return the meta-parameters: all units are judged with the same."""
        return self.descent.ask(state)

    def evaluate(self, members: Params, chunk: Chunk, key: Array) -> tuple[Array, Array, Array]:
        """Return loss and mean share explained [chunk_size, 1], and the sum of the gradients, flat."""
        return _evaluate(chunk.group.learner, self.draws, members, chunk.units, np.int32(chunk.count), key)

    def tell(
        self, state: GradientState, members: Params, results: Results
    ) -> tuple[GradientState, dict[str, Any]]:
        """Take one step along the mean gradient."""
        return self.descent.tell(state, members, results)


@partial(jax.jit, static_argnames=("learner", "draws"))
def _evaluate(
    learner: Vsml, draws: Draws, params: Params, units: Array, count: Array, key: Array
) -> tuple[Array, Array, Array]:
    def evaluate_unit(number: Array, shared: Any) -> tuple[tuple[Array, Array], Array]:
        params, key = shared

        def loss(params: Params) -> tuple[Array, Array]:
            comparison = compare(learner, params, draws, jax.random.fold_in(key, number))
            return clone_loss(comparison), explained(comparison).mean()

        (distance, share), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        flat = ravel_pytree(gradient)[0]
        finite = jnp.isfinite(distance) & jnp.isfinite(jnp.vdot(flat, flat))
        return (jnp.where(finite, distance, jnp.nan)[None], share[None]), jnp.where(finite, flat, 0.0)

    results, gradient = sum_units(evaluate_unit, units, count, (params, key))
    return *results, gradient

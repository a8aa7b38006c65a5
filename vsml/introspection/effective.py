"""Effective weights: what the synapses of VSML would send, followed through episodes.

A synapse is an LSTM, and has no weight. But before every example it can be asked what it would add to a logit
for some inputs x. What it answers is split, by least squares, into a part that is read through tanh and one
that every input gets:

    a(x) = bias + weight tanh(x),    logit = mean over inputs of a(x)

Back-propagation that is written into synapses (`vsml.networks.written`) is of this form. What meta-training
makes of it is close: `share` says how close.

In shapes: E episodes of T examples, I input units, O outputs.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from vsml.introspection.experiments import Probe, check_inspectable
from vsml.learners import Vsml, VsmlState
from vsml.losses import bound_answers
from vsml.meta.mapping import map_trials
from vsml.networks.cells.lstm import weights_of
from vsml.networks.wirings.base import from_tiles
from vsml.networks.wirings.dense import DenseLayer
from vsml.types import Array, Episode, Params

PROBED = np.array([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0], np.float32)
"""Inputs that synapses are asked about, in standard deviations."""


@dataclass(frozen=True, eq=False)
class Effective:
    """Effective weights through episodes, and what moved them.

    Attributes:
        inputs: what arrived at input units, [E, T, I].
        errors: d loss / d logit, which is fed back after each answer, [E, T, O].
        labels: as one-hot, [E, T, O].
        logits: the answers before they are bounded, [E, T, O].
        weights, biases: before each example and after the last, [E, T + 1, I, O].
    """

    inputs: np.ndarray
    errors: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    weights: np.ndarray
    biases: np.ndarray

    def answers(self) -> np.ndarray:
        """Return the logits [E, T, O] that weights and biases alone give."""
        fan_in = self.inputs.shape[-1]
        sent = np.tanh(self.inputs)
        by_weights = np.einsum("eti,etio->eto", sent, self.weights[:, :-1])
        return by_weights / fan_in + self.biases[:, :-1].mean(2)

    def share(self) -> float:
        """Return the share of the variance of logits that `answers` explain.

        What is common to the outputs of an example does not count, as softmax does not see it.
        """
        logits = centred(self.logits)
        missing = logits - centred(self.answers())
        return float(1 - np.square(missing).sum() / np.square(logits).sum())


def centred(values: np.ndarray) -> np.ndarray:
    """Return values [..., O] less their mean over outputs."""
    return values - values.mean(-1, keepdims=True)


def effective_weights(probe: Probe) -> Effective:
    """Let a learner live through its episodes, and measure its effective weights before every example.

    Args:
        probe: VSML with one dense layer, without a memory and without layer norm, and its episodes, with an
            inner batch of one.

    Raises:
        ValueError: it is another learner.
    """
    learner = check_inspectable(probe.learner)
    (layer,) = learner.network.layers
    if not isinstance(layer, DenseLayer):
        raise ValueError(f"got VSML with a {type(layer).__name__}, expected a dense layer of inputs")
    measured = _measured(learner, probe.params, probe.episodes, probe.keys)
    inputs, logits, weights, biases = map(np.asarray, measured)
    labels = np.eye(learner.num_classes, dtype=np.float32)[probe.labels]
    bounded = bound_answers(learner.outputs, jnp.asarray(logits), learner.config.logit_bound)
    errors = np.asarray(jax.nn.softmax(bounded)) - labels
    return Effective(inputs, errors, labels, logits, weights, biases)


@partial(jax.jit, static_argnames=("learner",))
def _measured(
    learner: Vsml,
    params: Params,
    episodes: Episode,
    keys: Array,
) -> tuple[Array, Array, Array, Array]:
    """Return inputs [E, T, I], logits [E, T, O], and weights and biases [E, T + 1, I, O]."""
    # The least squares of `bias + weight tanh(x)`, as a matrix on what is sent.
    design = np.stack([np.tanh(PROBED), np.ones_like(PROBED)], axis=1)
    split = jnp.asarray(np.linalg.pinv(design))

    def weight_and_bias(state: VsmlState, params: Params) -> Array:
        """Return what synapses hold, [2, I, O]."""
        fan_in = learner.network.layers[0].fan_in
        asked = jnp.broadcast_to(jnp.asarray(PROBED)[:, None], (len(PROBED), fan_in))
        sent = jax.lax.map(lambda x_I: _sent(learner, params, state, x_I), asked)
        return jnp.einsum("kp,pio->kio", split, sent)

    def live(unit: tuple[Episode, Array], params: Params) -> tuple[Array, Array, Array, Array]:
        episode, key = unit

        def step(state: VsmlState, example: tuple[Array, Array]) -> tuple[VsmlState, tuple[Array, ...]]:
            x, y = example
            arrived_I = learner.arriving(params, state, x)[0, :, 0]
            logits_O = _sent(learner, params, state, arrived_I).mean(0)
            held = weight_and_bias(state, params)
            after, _ = learner.step(params, state, x, y)
            return after, (arrived_I, logits_O, held)

        start = learner.init_state(params, key)
        last, (arrived, logits, held) = jax.lax.scan(step, start, (episode.x, episode.y))
        held = jnp.concatenate([held, weight_and_bias(last, params)[None]])
        return arrived, logits, held[:, 0], held[:, 1]

    return map_trials(live, (episodes, keys), params)


def _sent(
    learner: Vsml,
    params: Params,
    state: VsmlState,
    x_I: Array,
) -> Array:
    """Return what each synapse would add to a logit for inputs x, [I, O]."""
    (layer,) = learner.network.layers
    (synapses,) = jax.tree.map(lambda leaf: leaf[0], state.network.layers)
    synapse = learner.network.synapse_of(learner.synapses.with_params(params), 0)
    M = learner.config.synapse.message_size
    forward_IxM = jnp.zeros((layer.fan_in, M)).at[:, 0].set(x_I)
    # What is pending of the example before: 0 where errors have a sweep of their own.
    pending = state.feedback[0][:, :M]
    backward_OxM = jnp.zeros((layer.fan_out, M)).at[:, : pending.shape[1]].set(pending)
    after, _, _ = layer.visit(synapse, synapses, forward_IxM, backward_OxM, learner.config.micro_ticks)
    channel = learner.config.output_channel
    kernel, bias = weights_of(synapse.forward_message)
    return from_tiles(after.h) @ kernel[:, channel] + bias[channel]

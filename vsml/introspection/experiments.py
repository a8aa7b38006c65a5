"""Experiments on learning algorithms: what they do in the middle of an episode, and what their synapses hold.

What a learner answers is all that the first experiments need, so gradient descent takes part in them; the
others open the synapses of VSML with one dense layer. All learners meet the same episodes.
"""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from vsml.learners import Learner, Vsml, VsmlState, run_episode
from vsml.meta.mapping import map_trials
from vsml.networks.wirings.base import from_tiles
from vsml.types import Array, Episode, Params

INPUTS = np.linspace(-2, 2, 33).astype(np.float32)
"""Inputs that the response of a synapse is measured at, in standard deviations."""

ERRORS = np.linspace(-1, 1, 33).astype(np.float32)
"""Errors that it is measured at: the range of `softmax - one-hot`."""


@dataclass(frozen=True)
class Probe:
    """Who is looked at, and what it meets.

    Attributes:
        learner: built for the episodes.
        params: its meta-parameters.
        episodes: with an inner batch of one: x [episodes, T, 1, ...], labels [episodes, T, 1].
        keys: of the initial states, [episodes].
    """

    learner: Learner
    params: Params
    episodes: Episode
    keys: Array

    @property
    def labels(self) -> np.ndarray:
        """Labels [episodes, T]."""
        return np.asarray(self.episodes.y[..., 0])

    def answers(self) -> np.ndarray:
        """Return the probabilities [episodes, T, C] that it answers with."""
        return np.asarray(_answers(self.learner, self.params, self.episodes, self.keys))

    def with_order(self, order: np.ndarray) -> "Probe":
        """Return the same with the examples [T'] of each episode in another order, some left out or again."""
        return replace(self, episodes=jax.tree.map(lambda a: a[:, order], self.episodes))

    def with_labels(self, labels: np.ndarray) -> "Probe":
        """Return the same with other labels [episodes, T]."""
        episodes = replace(self.episodes, y=jnp.asarray(labels)[..., None])
        return replace(self, episodes=episodes)


@partial(jax.jit, static_argnames=("learner",))
def _answers(learner: Learner, params: Params, episodes: Episode, keys: Array) -> Array:
    def answer(unit: tuple[Episode, Array], params: Params) -> Array:
        episode, key = unit
        return jax.nn.softmax(run_episode(learner, params, key, episode)[:, 0])

    return map_trials(answer, (episodes, keys), params)


def _of(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the probabilities [episodes, T] of labels [episodes, T]."""
    return np.take_along_axis(probabilities, labels[..., None], -1)[..., 0]


def mean(values: np.ndarray) -> float:
    """Return the mean of the values that are there; NaN if none is."""
    there = values[~np.isnan(values)]
    return float(there.mean()) if there.size else float("nan")


def first_sights(probe: Probe, most: int = 10) -> np.ndarray:
    """Return the mean probability of the right label at the n-th sight of a class, n = 1 ... `most`.

    NaN where no class is seen so often.
    """
    labels = probe.labels
    counts = np.eye(probe.learner.num_classes, dtype=int)[labels].cumsum(1)
    sights, right = _of(counts, labels), _of(probe.answers(), labels)
    return np.array([mean(right[sights == n]) for n in range(1, most + 1)])


def repetition(probe: Probe, before: int, times: int = 10) -> np.ndarray:
    """Return the mean probability of the right label while one example comes `times` times in a row.

    Args:
        probe: the learner.
        before: examples that come first, each its own.
        times: how often the next one comes.
    """
    again = probe.with_order(np.minimum(np.arange(before + times), before))
    return _of(again.answers(), again.labels)[:, before:].mean(0)


def swap(probe: Probe) -> tuple[np.ndarray, np.ndarray]:
    """Exchange two labels half way through each episode, without a notice.

    Returns:
        Which answers are right [episodes, T], and which examples are of the two classes [episodes, T]. The
        classes are those of the first two labels of the episode that differ.
    """
    labels = probe.labels
    first = labels[:, :1]
    second = labels[np.arange(len(labels)), (labels != first).argmax(1)][:, None]
    later = np.arange(labels.shape[1]) >= labels.shape[1] // 2
    renamed = np.where(labels == first, second, np.where(labels == second, first, labels))
    told = np.where(later, renamed, labels)
    right = probe.with_labels(told).answers().argmax(-1) == told
    return right, (labels == first) | (labels == second)


def wrong_label(probe: Probe, before: int) -> dict[str, float]:
    """Show one example with a wrong label, and see what is made of it when it comes again at once.

    Args:
        probe: the learner.
        before: examples that come first.

    Returns:
        Mean probabilities of the true and the wrong label, before and after, and of the true one after it was
        shown with its true label.
    """
    twice = probe.with_order(np.minimum(np.arange(before + 2), before))
    true = twice.labels
    wrong = (true + 1) % probe.learner.num_classes
    told = true.copy()
    told[:, before] = wrong[:, before]
    lied, honest = twice.with_labels(told).answers(), twice.answers()
    return {
        "true_before": float(_of(lied, true)[:, before].mean()),
        "wrong_before": float(_of(lied, wrong)[:, before].mean()),
        "true_after": float(_of(lied, true)[:, before + 1].mean()),
        "wrong_after": float(_of(lied, wrong)[:, before + 1].mean()),
        "true_after_truth": float(_of(honest, true)[:, before + 1].mean()),
    }


# What follows is for VSML alone.


def check_opened(learner: Learner) -> Vsml:
    """Return a learner whose synapses can be looked at.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(learner, Vsml) or len(learner.network.layers) > 1 or learner.config.synapse.layer_norm:
        raise ValueError(
            f"got {type(learner).__name__}, expected VSML with one dense layer, without layer norm"
        )
    return learner


def switched_off(probe: Probe) -> np.ndarray:
    """Return the accuracy over the last half of the episodes with each channel of h and c kept at 0, [N]."""
    learner = check_opened(probe.learner)
    half = probe.labels.shape[1] // 2
    masks = 1 - jnp.eye(learner.config.synapse.state_size)
    answers = _masked_answers(learner, probe.params, probe.episodes, probe.keys, masks)
    return (np.asarray(answers).argmax(-1) == probe.labels)[:, :, half:].mean((1, 2))


@partial(jax.jit, static_argnames=("learner",))
def _masked_answers(learner: Vsml, params: Params, episodes: Episode, keys: Array, masks: Array) -> Array:
    def answer(unit: tuple[Episode, Array], shared: tuple[Params, Array]) -> Array:
        (episode, key), (params, mask) = unit, shared

        def keep(state: VsmlState) -> VsmlState:
            layers = jax.tree.map(lambda a: a * mask[:, None, None], state.network.layers)
            return replace(state, network=replace(state.network, layers=layers))

        def step(state: VsmlState, example: tuple[Array, Array]) -> tuple[VsmlState, Array]:
            state, logits = learner.step(params, state, *example)
            return keep(state), logits

        start = keep(learner.init_state(params, key))
        return jax.lax.scan(step, start, (episode.x, episode.y))[1][:, 0]

    def of_mask(mask: Array) -> Array:
        return map_trials(answer, (episodes, keys), (params, mask))

    return jax.lax.map(of_mask, masks)


@dataclass(frozen=True, eq=False)
class Recording:
    """What synapses went through in one episode.

    Attributes:
        h, c: states before each step and after the last, of some synapses, [T + 1, S, N].
        inputs: what entered their input units, [T, S].
        errors, labels: the feedback to their output units, given after each answer, [T, S].
        answers: the channel of their forward messages that adds to the logit, [T, S].
        input_units, output_units: where each synapse is, [S].
    """

    h: np.ndarray
    c: np.ndarray
    inputs: np.ndarray
    errors: np.ndarray
    labels: np.ndarray
    answers: np.ndarray
    input_units: np.ndarray
    output_units: np.ndarray


def record(probe: Probe, synapses: int, seed: int = 0) -> Recording:
    """Follow some synapses, drawn at random, through the first episode."""
    learner = check_opened(probe.learner)
    (layer,) = learner.network.layers
    count = layer.fan_in * layer.fan_out
    drawn = np.random.default_rng(seed).permutation(count)[:synapses]
    a, b = drawn // layer.fan_out, drawn % layer.fan_out
    episode = jax.tree.map(lambda leaf: leaf[0], probe.episodes)
    h, c, inputs, logits = jax.device_get(
        _followed(learner, probe.params, episode, probe.keys[0], jnp.asarray(a), jnp.asarray(b))
    )
    label = np.eye(learner.num_classes)[probe.labels[0]]
    error = np.exp(logits - logits.max(-1, keepdims=True))
    error = error / error.sum(-1, keepdims=True) - label
    kernel = probe.params[0]["forward_message"]["kernel"][:, learner.config.output_channel]
    return Recording(
        h=h,
        c=c,
        inputs=inputs[:, a],
        errors=error[:, b],
        labels=label[:, b],
        answers=h[1:] @ np.asarray(kernel),
        input_units=a,
        output_units=b,
    )


@partial(jax.jit, static_argnames=("learner",))
def _followed(
    learner: Vsml, params: Params, episode: Episode, key: Array, a: Array, b: Array
) -> tuple[Array, Array, Array, Array]:
    def chosen(state: VsmlState) -> tuple[Array, Array]:
        (layer,) = jax.tree.map(lambda leaf: leaf[0], state.network.layers)
        return from_tiles(layer.h)[a, b], from_tiles(layer.c)[a, b]

    def step(state: VsmlState, example: tuple[Array, Array]) -> tuple[VsmlState, tuple[Array, ...]]:
        after, logits = learner.step(params, state, *example)
        return after, (*chosen(state), learner.features(state, example[0])[0], logits[0])

    last, (h, c, inputs, logits) = jax.lax.scan(step, learner.init_state(params, key), (episode.x, episode.y))
    h_last, c_last = chosen(last)
    return jnp.concatenate([h, h_last[None]]), jnp.concatenate([c, c_last[None]]), inputs, logits


@dataclass(frozen=True, eq=False)
class Update:
    """How an input and an error change what a synapse adds to a logit for x = 1 rather than for x = -1.

    Attributes:
        change: mean over synapses, [inputs, errors], at `INPUTS` and `ERRORS`.
        rate: of gradient descent on a linear weight, `change = - 2 rate e x`, that comes closest.
        explained: share of the variance of `change` that it explains; 1 for gradient descent.
    """

    change: np.ndarray
    rate: float
    explained: float


def effective_update(probe: Probe, recording: Recording, when: int) -> Update:
    """Measure what a step does to synapses that are in the states of a recording before step `when`."""
    learner = check_opened(probe.learner)
    change = np.asarray(
        _changes(learner, probe.params, jnp.asarray(recording.h[when]), jnp.asarray(recording.c[when]))
    )
    product = -2 * INPUTS[:, None] * ERRORS
    rate = float((change * product).sum() / (product**2).sum())
    rest = change - rate * product
    return Update(change, rate, 1 - float((rest**2).mean() / change.var()))


@partial(jax.jit, static_argnames=("learner",))
def _changes(learner: Vsml, params: Params, h_SxN: Array, c_SxN: Array) -> Array:
    synapses = learner.synapses.with_params(params)
    network = learner.network
    M = learner.config.synapse.message_size

    def visit(state: tuple[Array, Array], x: Array, e: Array, backward: bool) -> tuple[Array, Array]:
        synapse = network.synapse_of(synapses, 0, backward_sweep=backward)
        forward = jnp.zeros(M).at[0].set(x)
        feedback = jnp.zeros(M).at[0].set(learner.config.error_scale * e)
        feedback = feedback.at[1].set((e < 0) * float(learner.config.feed_label))
        for _ in range(learner.config.micro_ticks):
            state = synapse(*state, forward, feedback)
        return state

    def slope(state: tuple[Array, Array]) -> Array:
        def answer(x: float) -> Array:
            h, _ = visit(state, jnp.asarray(x), jnp.zeros(()), False)
            return network.synapse_of(synapses, 0).messages(h)[0][learner.config.output_channel]

        return answer(1.0) - answer(-1.0)

    def change(h: Array, c: Array, x: Array, e: Array) -> Array:
        state = visit((h, c), x, jnp.zeros(()), False)
        if learner.config.backward_pass:
            return slope(visit(state, x, e, True)) - slope(visit(state, x, jnp.zeros(()), True))
        # The error arrives together with the next input, of which nothing is known: its mean, 0.
        zero = jnp.zeros(())
        return slope(visit(state, zero, e, False)) - slope(visit(state, zero, zero, False))

    over_errors = jax.vmap(change, (None, None, None, 0))
    over_inputs = jax.vmap(over_errors, (None, None, 0, None))
    over_synapses = jax.vmap(over_inputs, (0, 0, None, None))
    return over_synapses(h_SxN, c_SxN, jnp.asarray(INPUTS), jnp.asarray(ERRORS)).mean(0)


def components(recording: Recording, when: int, count: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Return the places [S, count] of synapses on the principal components of their states before a step.

    The state is h and c, each channel minus its mean over synapses.

    Returns:
        The places, and the share of the variance that each component has, [count].
    """
    state = np.concatenate([recording.h[when], recording.c[when]], axis=1)
    centred = state - state.mean(0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    return left[:, :count] * sizes[:count], (sizes**2 / (sizes**2).sum())[:count]


@dataclass(frozen=True, eq=False)
class Opened:
    """What the synapses of a learner hold and do.

    Attributes:
        recording: of some of them, in the first episode.
        update: their effective update.
        places, shares: their states on principal components, from `components`.
        accuracy: over the last half of the episodes.
        switched_off: the same without each channel, [N].
    """

    recording: Recording
    update: Update
    places: np.ndarray
    shares: np.ndarray
    accuracy: float
    switched_off: np.ndarray


def open_synapses(probe: Probe, when: int, synapses: int) -> Opened:
    """Do all experiments of this kind with a learner.

    Args:
        probe: the learner.
        when: the step before which states are looked at.
        synapses: how many of them, drawn at random.
    """
    recording = record(probe, synapses)
    places, shares = components(recording, when)
    right = probe.answers().argmax(-1) == probe.labels
    return Opened(
        recording=recording,
        update=effective_update(probe, recording, when),
        places=places,
        shares=shares,
        accuracy=float(right[:, right.shape[1] // 2 :].mean()),
        switched_off=switched_off(probe),
    )

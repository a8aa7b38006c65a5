"""Experiments on learning algorithms: answers in the middle of an episode, and the content of synapses.

What a learner answers is all that the first experiments need, so gradient descent takes part in them; the
others read the synapses of VSML with one dense layer. All learners meet the same episodes.

In shapes: E episodes of T examples, C classes, S synapses that are looked at, N channels of a state.
"""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from vsml.learners import Learner, Vsml, VsmlState, run_episode
from vsml.meta.mapping import map_trials
from vsml.networks.episodic import SMOOTH
from vsml.networks.wirings.base import from_tiles
from vsml.networks.wirings.reading import ReadingLayer
from vsml.types import Array, Episode, Params

INPUTS = np.linspace(-2, 2, 33).astype(np.float32)
"""Inputs that the response of a synapse is measured at, in standard deviations."""

SIMILARITIES = np.linspace(0, 1, 33).astype(np.float32)
"""Likewise of a synapse at a slot of a memory."""

ERRORS = np.linspace(-1, 1, 33).astype(np.float32)
"""Errors that it is measured at: the range of `softmax - one-hot`."""

CellState = tuple[Array, Array]
"""The states h and c of one synapse, [N] each."""


@dataclass(frozen=True)
class Probe:
    """A learner to experiment on, and the episodes that it meets.

    Attributes:
        learner: built for the episodes.
        params: its meta-parameters.
        episodes: with an inner batch of one: x [E, T, 1, ...], labels [E, T, 1].
        keys: of the initial states, [E].
    """

    learner: Learner
    params: Params
    episodes: Episode
    keys: Array

    @property
    def labels(self) -> np.ndarray:
        """Labels [E, T]."""
        return np.asarray(self.episodes.y[..., 0])

    def answers(self) -> np.ndarray:
        """Return the probabilities [E, T, C] that it answers with."""
        answers = _answers(
            self.learner,
            self.params,
            self.episodes,
            self.keys,
        )
        return np.asarray(answers)

    def with_order(self, order: np.ndarray) -> "Probe":
        """Return the same with the examples [T'] of each episode in another order, some left out or again."""
        episodes = jax.tree.map(
            lambda leaf: leaf[:, order],
            self.episodes,
        )
        return replace(self, episodes=episodes)

    def with_labels(self, labels: np.ndarray) -> "Probe":
        """Return the same with other labels [E, T]."""
        of_batch = jnp.asarray(labels)[..., None]
        episodes = replace(self.episodes, y=of_batch)
        return replace(self, episodes=episodes)


@partial(jax.jit, static_argnames=("learner",))
def _answers(
    learner: Learner,
    params: Params,
    episodes: Episode,
    keys: Array,
) -> Array:
    def answer(
        unit: tuple[Episode, Array],
        params: Params,
    ) -> Array:
        episode, key = unit
        logits = run_episode(learner, params, key, episode)
        return jax.nn.softmax(logits[:, 0])

    return map_trials(answer, (episodes, keys), params)


def _of(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the probabilities [E, T] of labels [E, T]."""
    chosen = np.take_along_axis(
        probabilities,
        labels[..., None],
        axis=-1,
    )
    return chosen[..., 0]


def mean(values: np.ndarray) -> float:
    """Return the mean of the values that are there; NaN if none is."""
    there = values[~np.isnan(values)]
    if not there.size:
        return float("nan")
    return float(there.mean())


def nth_exposure(probe: Probe, count: int = 10) -> np.ndarray:
    """Return the mean probability of the right label when a class is shown for the n-th time.

    Returns:
        The means for n = 1 ... `count`; NaN where no class is shown so often.
    """
    labels = probe.labels
    one_hot = np.eye(probe.learner.num_classes, dtype=int)[labels]
    # How often each class has been shown, this time included.
    shown = one_hot.cumsum(1)
    exposure = _of(shown, labels)
    right = _of(probe.answers(), labels)
    means = []
    for n in range(1, count + 1):
        of_nth = right[exposure == n]
        means.append(mean(of_nth))
    return np.array(means)


def repetition(
    probe: Probe,
    before: int,
    times: int = 10,
) -> np.ndarray:
    """Return the mean probability of the right label while one example comes `times` times in a row.

    Args:
        probe: the learner.
        before: examples that come first, each its own.
        times: how often the next one comes.
    """
    order = np.minimum(np.arange(before + times), before)
    repeated = probe.with_order(order)
    right = _of(repeated.answers(), repeated.labels)
    return right[:, before:].mean(0)


def label_swap(probe: Probe) -> tuple[np.ndarray, np.ndarray]:
    """Exchange two labels half way through each episode, without a notice.

    Returns:
        Which answers are right [E, T], and which examples are of the two classes [E, T]. The
        classes are those of the first two labels of the episode that differ.
    """
    labels = probe.labels
    episodes, length = labels.shape
    one = labels[:, :1]
    differing = (labels != one).argmax(1)
    other = labels[np.arange(episodes), differing][:, None]
    is_one = labels == one
    is_other = labels == other
    swapped = np.where(is_other, one, labels)
    swapped = np.where(is_one, other, swapped)
    later = np.arange(length) >= length // 2
    given = np.where(later, swapped, labels)
    answers = probe.with_labels(given).answers()
    right = answers.argmax(-1) == given
    return right, is_one | is_other


def wrong_label(
    probe: Probe,
    before: int,
) -> dict[str, float]:
    """Show one example with a wrong label, and see what is made of it when it comes again at once.

    Args:
        probe: the learner.
        before: examples that come first.

    Returns:
        Mean probabilities of the true and the wrong label, before and after, and of the true one after it was
        shown with its true label.
    """
    order = np.minimum(np.arange(before + 2), before)
    twice = probe.with_order(order)
    true = twice.labels
    wrong = (true + 1) % probe.learner.num_classes
    given = true.copy()
    given[:, before] = wrong[:, before]
    corrupted = twice.with_labels(given).answers()
    clean = twice.answers()

    def mean_at(
        step: int,
        answers: np.ndarray,
        labels: np.ndarray,
    ) -> float:
        probabilities = _of(answers, labels)
        return float(probabilities[:, step].mean())

    after = before + 1
    return {
        "true_before": mean_at(before, corrupted, true),
        "wrong_before": mean_at(before, corrupted, wrong),
        "true_after": mean_at(after, corrupted, true),
        "wrong_after": mean_at(after, corrupted, wrong),
        "true_after_clean": mean_at(after, clean, true),
    }


# What follows is for VSML alone.


def check_inspectable(learner: Learner) -> Vsml:
    """Return a learner whose synapses can be looked at.

    Raises:
        ValueError: it is none.
    """
    if isinstance(learner, Vsml):
        has_one_layer = len(learner.network.layers) == 1
        if has_one_layer and not learner.config.synapse.layer_norm:
            return learner
    got = type(learner).__name__
    expected = "VSML with one dense layer, with or without a memory, and without layer norm"
    raise ValueError(f"got {got}, expected {expected}")


def ablation(probe: Probe) -> np.ndarray:
    """Return the accuracy over the last half of the episodes with each channel of h and c kept at 0, [N]."""
    learner = check_inspectable(probe.learner)
    masks = 1 - jnp.eye(learner.config.synapse.state_size)
    answers = _masked_answers(
        learner,
        probe.params,
        probe.episodes,
        probe.keys,
        masks,
    )
    labels = probe.labels
    half = labels.shape[1] // 2
    right = np.asarray(answers).argmax(-1) == labels
    return right[:, :, half:].mean((1, 2))


@partial(jax.jit, static_argnames=("learner",))
def _masked_answers(
    learner: Vsml,
    params: Params,
    episodes: Episode,
    keys: Array,
    masks: Array,
) -> Array:
    """Return answers [masks, E, T, C] of learners whose states are multiplied by masks [masks, N]."""

    def answer(
        unit: tuple[Episode, Array],
        shared: tuple[Params, Array],
    ) -> Array:
        episode, key = unit
        params, mask = shared

        def keep(state: VsmlState) -> VsmlState:
            # Tiles have the channels on their first axis but two.
            layers = jax.tree.map(
                lambda tiles: tiles * mask[:, None, None],
                state.network.layers,
            )
            network = replace(state.network, layers=layers)
            return replace(state, network=network)

        def step(
            state: VsmlState,
            example: tuple[Array, Array],
        ) -> tuple[VsmlState, Array]:
            state, logits = learner.step(params, state, *example)
            return keep(state), logits

        start = keep(learner.init_state(params, key))
        examples = (episode.x, episode.y)
        _, logits = jax.lax.scan(step, start, examples)
        return logits[:, 0]

    def of_mask(mask: Array) -> Array:
        units = (episodes, keys)
        return map_trials(answer, units, (params, mask))

    return jax.lax.map(of_mask, masks)


@dataclass(frozen=True, eq=False)
class Recording:
    """What synapses went through in one episode.

    Attributes:
        h, c: states before each step and after the last, of some synapses, [T + 1, S, N].
        inputs: what entered their input units, [T, S]; of slots of a memory their smooth similarity.
        errors, labels: the feedback to their output units, given after each answer, [T, S].
        answers: the channel of their forward messages that adds to the logit, [T, S]; of slots of a memory
            what all readings together add to it, after the step.
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


def record(
    probe: Probe,
    synapses: int,
    seed: int = 0,
) -> Recording:
    """Record some synapses, drawn at random, through the first episode."""
    learner = check_inspectable(probe.learner)
    (layer,) = learner.network.layers
    random = np.random.default_rng(seed)
    drawn = random.permutation(layer.fan_in * layer.fan_out)[:synapses]
    input_units = drawn // layer.fan_out
    output_units = drawn % layer.fan_out
    episode = jax.tree.map(lambda leaf: leaf[0], probe.episodes)
    recorded = _recorded(
        learner,
        probe.params,
        episode,
        probe.keys[0],
        jnp.asarray(input_units),
        jnp.asarray(output_units),
    )
    h, c, arrived_TxIxM, logits = jax.device_get(recorded)
    one_hot = np.eye(learner.num_classes)[probe.labels[0]]
    exponentials = np.exp(logits - logits.max(-1, keepdims=True))
    softmax = exponentials / exponentials.sum(-1, keepdims=True)
    error = softmax - one_hot
    arrived_TxSxM = arrived_TxIxM[:, input_units]
    return Recording(
        h=h,
        c=c,
        inputs=arrived_TxSxM[..., 0],
        errors=error[:, output_units],
        labels=one_hot[:, output_units],
        answers=_added_to_logits(learner, probe.params, h[1:], arrived_TxSxM),
        input_units=input_units,
        output_units=output_units,
    )


def _added_to_logits(
    learner: Vsml,
    params: Params,
    h_TxSxN: np.ndarray,
    arrived_TxSxM: np.ndarray,
) -> np.ndarray:
    """Return what the forward messages of synapses add to logits [T, S], their biases not counted."""
    kernel_NxM = np.asarray(params[0]["forward_message"]["kernel"])
    (layer,) = learner.network.layers
    if not isinstance(layer, ReadingLayer):
        return h_TxSxN @ kernel_NxM[:, learner.config.output_channel]
    added = np.zeros(h_TxSxN.shape[:2])
    for channel, gain in layer.readings.items():
        added += gain * arrived_TxSxM[..., channel] * (h_TxSxN @ kernel_NxM[:, channel])
    return added


@partial(jax.jit, static_argnames=("learner",))
def _recorded(
    learner: Vsml,
    params: Params,
    episode: Episode,
    key: Array,
    input_units: Array,
    output_units: Array,
) -> tuple[Array, Array, Array, Array]:
    """Return h and c [T + 1, S, N] of the synapses, what arrives [T, I, M] and the logits [T, C]."""

    def states_of(state: VsmlState) -> CellState:
        (layer,) = jax.tree.map(
            lambda leaf: leaf[0],
            state.network.layers,
        )
        h = from_tiles(layer.h)[input_units, output_units]
        c = from_tiles(layer.c)[input_units, output_units]
        return h, c

    def step(
        state: VsmlState,
        example: tuple[Array, Array],
    ) -> tuple[VsmlState, tuple[Array, ...]]:
        x, y = example
        after, logits = learner.step(params, state, x, y)
        h, c = states_of(state)
        arrived_IxM = learner.arriving(params, state, x)[0]
        return after, (h, c, arrived_IxM, logits[0])

    start = learner.init_state(params, key)
    examples = (episode.x, episode.y)
    last, recorded = jax.lax.scan(step, start, examples)
    h, c, arrived, logits = recorded
    h_last, c_last = states_of(last)
    h = jnp.concatenate([h, h_last[None]])
    c = jnp.concatenate([c, c_last[None]])
    return h, c, arrived, logits


@dataclass(frozen=True, eq=False)
class Update:
    """How an input and an error change what a synapse adds to a logit for x = 1 rather than for x = -1.

    The input of a slot of a memory is its smooth similarity, which no other channel accompanies. It is 0 to
    1: what is measured is what the synapse sends for x = 1 rather than for x = 0.

    Attributes:
        inputs: where it is measured.
        change: mean over synapses, [inputs, errors], at `inputs` and `ERRORS`.
        rate: of gradient descent on a linear weight, `change = - 2 rate e x` (of a slot `- rate e x`), that
            comes closest.
        explained: share of the variance of `change` that it explains; 1 for gradient descent.
    """

    inputs: np.ndarray
    change: np.ndarray
    rate: float
    explained: float


def effective_update(
    probe: Probe,
    recording: Recording,
    when: int,
) -> Update:
    """Measure what a step does to synapses that are in the states of a recording before step `when`."""
    learner = check_inspectable(probe.learner)
    h = jnp.asarray(recording.h[when])
    c = jnp.asarray(recording.c[when])
    has_memory = learner.config.memory is not None
    lowest = 0.0 if has_memory else -1.0
    inputs = SIMILARITIES if has_memory else INPUTS
    change = np.asarray(_changes(learner, probe.params, h, c, inputs, lowest))
    # Least squares of `change = rate product`: gradient descent at rate 1 changes the slope by `product`.
    product = -(1 - lowest) * inputs[:, None] * ERRORS
    overlap = (change * product).sum()
    rate = float(overlap / (product**2).sum())
    residual = change - rate * product
    unexplained = float((residual**2).mean() / change.var())
    return Update(inputs, change, rate, explained=1 - unexplained)


@partial(jax.jit, static_argnames=("learner", "lowest"))
def _changes(
    learner: Vsml,
    params: Params,
    h_SxN: Array,
    c_SxN: Array,
    inputs: np.ndarray,
    lowest: float,
) -> Array:
    """Return the mean change over synapses in states h and c, [inputs, errors].

    Args:
        learner: whose synapses they are.
        params: its meta-parameters.
        h_SxN: their h.
        c_SxN: their c.
        inputs: where it is measured.
        lowest: the input that what is sent for 1 is compared with.
    """
    # A memory is read in channel 0 where back-propagation, or what has become of it, answers.
    channel = learner.config.output_channel if learner.memory is None else SMOOTH
    synapses = learner.synapses.with_params(params)
    network = learner.network
    M = learner.config.synapse.message_size
    zero = jnp.zeros(())

    def visit(
        state: CellState,
        x: Array,
        e: Array,
        backward: bool,
    ) -> CellState:
        synapse = network.synapse_of(
            synapses,
            0,
            backward_sweep=backward,
        )
        is_class = (e < 0) * float(learner.config.feed_label)
        forward = jnp.zeros(M).at[0].set(x)
        feedback = jnp.zeros(M).at[0].set(learner.config.error_scale * e)
        feedback = feedback.at[1].set(is_class)
        for _ in range(learner.config.micro_ticks):
            state = synapse(*state, forward, feedback)
        return state

    def slope(state: CellState) -> Array:
        def answer(x: float | Array) -> Array:
            h, _ = visit(state, jnp.asarray(x), jnp.zeros(()), False)
            synapse = network.synapse_of(synapses, 0)
            message = synapse.messages(h)[0]
            return message[channel]

        return answer(1.0) - answer(lowest)

    def change(
        h: Array,
        c: Array,
        x: Array,
        e: Array,
    ) -> Array:
        state = visit((h, c), x, zero, False)
        if learner.config.backward_pass:
            with_error = visit(state, x, e, True)
            without = visit(state, x, zero, True)
        else:
            # The error arrives together with the next input, of which nothing is known: its mean, 0.
            with_error = visit(state, zero, e, False)
            without = visit(state, zero, zero, False)
        return slope(with_error) - slope(without)

    over_errors = jax.vmap(change, (None, None, None, 0))
    over_inputs = jax.vmap(over_errors, (None, None, 0, None))
    over_synapses = jax.vmap(over_inputs, (0, 0, None, None))
    changes = over_synapses(
        h_SxN,
        c_SxN,
        jnp.asarray(inputs),
        jnp.asarray(ERRORS),
    )
    return changes.mean(0)


def components(
    recording: Recording,
    when: int,
    count: int = 2,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the places [S, count] of synapses on the principal components of their states before a step.

    The state is h and c, each channel minus its mean over synapses.

    Returns:
        The places, and the share of the variance that each component has, [count].
    """
    h, c = recording.h[when], recording.c[when]
    state = np.concatenate([h, c], axis=1)
    centred = state - state.mean(0)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    variances = sizes**2
    shares = variances / variances.sum()
    places = left[:, :count] * sizes[:count]
    return places, shares[:count]


@dataclass(frozen=True, eq=False)
class SynapseReport:
    """What the synapses of a learner hold and do.

    Attributes:
        recording: of some of them, in the first episode.
        update: their effective update.
        places, shares: their states on principal components, from `components`.
        accuracy: over the last half of the episodes.
        ablation: the same without each channel, [N].
    """

    recording: Recording
    update: Update
    places: np.ndarray
    shares: np.ndarray
    accuracy: float
    ablation: np.ndarray


def inspect_synapses(
    probe: Probe,
    when: int,
    synapses: int,
) -> SynapseReport:
    """Do all experiments of this kind with a learner.

    Args:
        probe: the learner.
        when: the step before which states are looked at.
        synapses: how many of them, drawn at random.
    """
    recording = record(probe, synapses)
    places, shares = components(recording, when)
    right = probe.answers().argmax(-1) == probe.labels
    half = right.shape[1] // 2
    return SynapseReport(
        recording=recording,
        update=effective_update(probe, recording, when),
        places=places,
        shares=shares,
        accuracy=float(right[:, half:].mean()),
        ablation=ablation(probe),
    )

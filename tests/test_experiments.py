"""Experiments on learners: each on one whose answer is known."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flat_vsml import flat_vsml

from vsml.introspection.experiments import (
    ERRORS,
    INPUTS,
    SIMILARITIES,
    Probe,
    ablation,
    check_inspectable,
    effective_update,
    inspect_synapses,
    label_swap,
    nth_exposure,
    record,
    repetition,
    wrong_label,
)
from vsml.learners import Ensemble, Sgd, Vsml
from vsml.learners.sgd import SgdConfig
from vsml.learners.vsml import VsmlConfig
from vsml.networks.wirings.base import from_tiles
from vsml.networks.written_memory import label_cell
from vsml.types import Episode

pytestmark = pytest.mark.usefixtures("hasty")

CLASSES, INPUT_UNITS = 3, 6
SGD = Sgd((INPUT_UNITS,), CLASSES, SgdConfig(num_layers=1, learning_rate=0.3))
DESCENT = flat_vsml(
    (INPUT_UNITS,),
    CLASSES,
    backward_pass=True,
    micro_ticks=1,
    random_fraction=0.25,
    init="backprop",
    init_rate=1.0,
)

SLOTS = 8
MEMORY = Vsml(
    (INPUT_UNITS,),
    CLASSES,
    VsmlConfig.model_validate(
        {
            "memory": {"slots": SLOTS, "smooth_gain": 0.0, "ridge": {}},
            "backward_pass": True,
            "feed_label": True,
            "micro_ticks": 1,
            "synapse": {"init": "memory", "random_fraction": 0.25, "init_rate": 1.0},
        }
    ),
)


def make_probe(learner, episodes=8, length=60, seed=0):
    """Let a learner meet classes that are easily told apart."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, (episodes, length, 1)).astype(np.int32)
    centres = 2 * np.eye(CLASSES, INPUT_UNITS)
    x = (centres[labels] + 0.3 * random.normal(size=(*labels.shape, INPUT_UNITS))).astype(np.float32)
    params = learner.init_params(jax.random.key(1))
    episode = Episode(jnp.asarray(x), jnp.asarray(labels), jnp.ones(labels.shape))
    return Probe(learner, params, episode, jax.random.split(jax.random.key(seed), episodes))


def test_the_right_label_gets_likelier_with_each_sight_of_a_class():
    probe = make_probe(SGD)
    exposures = nth_exposure(probe, 8)
    assert exposures[-1] > 0.8 > exposures[1] > exposures[0]
    first = [list(row).index(label) for row in probe.labels for label in range(CLASSES)]
    rows = np.repeat(np.arange(len(probe.labels)), CLASSES)
    right = probe.answers()[rows, first, np.tile(np.arange(CLASSES), len(probe.labels))]
    assert exposures[0] == pytest.approx(right.mean(), rel=1e-5)


def test_a_repeated_example_is_known_better_each_time():
    again = repetition(make_probe(SGD), before=4, times=6)
    assert len(again) == 6 and (np.diff(again) > 0).all()


def test_labels_that_are_exchanged_are_wrong_first_and_learned_then():
    probe = make_probe(SGD)
    right, of_two = label_swap(probe)
    half = right.shape[1] // 2
    assert right[:, half - 10 : half].mean() > 0.9
    after, end = slice(half, half + 4), slice(-10, None)
    assert right[:, after][of_two[:, after]].mean() < 0.3
    assert right[:, end][of_two[:, end]].mean() > 0.7
    assert 0.3 < of_two.mean() < 1 and right[~of_two][-20:].mean() > 0.7


def test_gradient_descent_believes_a_wrong_label():
    after = wrong_label(make_probe(SGD), before=30)
    assert after["wrong_after"] > after["wrong_before"] and after["true_after"] < after["true_before"]
    assert after["true_after_clean"] > after["true_before"]


@pytest.mark.slow
def test_synapses_are_recorded_as_they_are_in_the_network():
    probe = make_probe(DESCENT, episodes=1, length=5)
    recording = record(probe, synapses=7)
    state = DESCENT.init_state(probe.params, probe.keys[0])
    for t in range(6):
        (layer,) = jax.tree.map(lambda leaf: leaf[0], state.network.layers)
        c = from_tiles(layer.c)[recording.input_units, recording.output_units]
        np.testing.assert_allclose(recording.c[t], c, atol=1e-6)
        if t < 5:
            example = probe.episodes.x[0, t], probe.episodes.y[0, t]
            np.testing.assert_allclose(recording.inputs[t], example[0][0][recording.input_units])
            state, logits = DESCENT.step(probe.params, state, *example)
            error = jax.nn.softmax(logits[0]) - jax.nn.one_hot(example[1][0], CLASSES)
            np.testing.assert_allclose(recording.errors[t], error[recording.output_units], atol=1e-6)


def test_the_update_of_gradient_descent_is_that_of_gradient_descent():
    probe = make_probe(DESCENT)
    update = effective_update(probe, record(probe, 18), when=30)
    # What it stores is the weight of tanh(x): the answer to x = 1 and to x = -1 differ by 2 tanh(1) times it.
    expected = -2 * np.tanh(1) * ERRORS * np.tanh(INPUTS[:, None])
    np.testing.assert_allclose(update.change, expected, atol=0.05)
    assert update.explained > 0.9 and 0.3 < update.rate < 1


def test_slots_of_a_memory_are_recorded_as_they_are():
    probe = make_probe(MEMORY, episodes=1, length=SLOTS)
    recording = record(probe, synapses=SLOTS * CLASSES)
    assert recording.inputs.min() >= 0 and recording.inputs.max() <= 1
    filled = np.arange(SLOTS)[:, None] > recording.input_units
    np.testing.assert_array_equal(recording.inputs > 0, filled)
    # What the label's cell holds is what the nearest and the ridge reading add, with the others' share.
    of_class = recording.labels[recording.input_units, np.arange(SLOTS * CLASSES)] == 1
    last = recording.answers[-1]
    strongest = np.abs(last).argmax()
    assert of_class[strongest] and last[strongest] > 1


def test_the_update_at_slots_is_that_of_gradient_descent():
    probe = make_probe(MEMORY)
    update = effective_update(probe, record(probe, SLOTS * CLASSES), when=30)
    # What it sends for x = 1 and for x = 0 differs by tanh(1) times the weight.
    expected = -np.tanh(1) * ERRORS * np.tanh(SIMILARITIES[:, None])
    np.testing.assert_allclose(update.change, expected, atol=0.05)
    assert update.explained > 0.9 and 0.3 < update.rate < 1


@pytest.mark.slow
def test_a_memory_forgets_labels_without_the_cell_that_keeps_them():
    report = inspect_synapses(make_probe(MEMORY), when=30, synapses=SLOTS * CLASSES)
    assert report.ablation.argmin() == label_cell(16)
    assert report.ablation[label_cell(16)] < report.accuracy - 0.2


def test_a_channel_is_worth_what_is_lost_without_it():
    probe = make_probe(DESCENT)
    params = jax.tree.map(jnp.copy, probe.params)
    kernel = params[0]["forward_message"]["kernel"]
    params[0]["forward_message"]["kernel"] = kernel.at[:7].set(0)  # what is no part of back-propagation
    report = inspect_synapses(dataclasses.replace(probe, params=params), when=30, synapses=18)
    np.testing.assert_array_equal(report.ablation[:7], report.accuracy)
    silent = jax.tree.map(jnp.zeros_like, params)
    assert ablation(dataclasses.replace(probe, params=silent)).max() < 0.5 < report.accuracy
    assert report.places.shape == (18, 2) and 0 < report.shares.sum() <= 1


@pytest.mark.parametrize("learner", [SGD, Ensemble((DESCENT, DESCENT)), flat_vsml((4,), 2, (3,))])
def test_only_one_layer_of_synapses_is_inspected(learner):
    with pytest.raises(ValueError, match="expected VSML with one dense layer"):
        check_inspectable(learner)

"""What learning tests are made of: circuits, recovery, growth, and a text with counts to compare with."""

import collections
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vsml.battery.abilities import language
from vsml.battery.catalogue import learning_test
from vsml.battery.circuits import as_number, changed, draw_circuit
from vsml.battery.floors import answered, constant, oracle
from vsml.battery.growing import Growth
from vsml.battery.recovery import recovery
from vsml.battery.running import draw, take
from vsml.battery.text import ALPHABET, symbols
from vsml.graphs.graph import Graph
from vsml.graphs.growing import grow
from vsml.learners import Ngrams, RuleLearner
from vsml.learners.ngrams import NgramsConfig
from vsml.learners.rule import RuleConfig
from vsml.networks.noise import binomial_noise
from vsml.types import Classes, Values

pytestmark = pytest.mark.usefixtures("hasty")

KEY = jax.random.key(11)


# Circuits.


def by_hand(circuit, bits):
    """Run a circuit wire by wire, in Python."""
    sources, functions = np.asarray(circuit.sources), np.asarray(circuit.functions)
    state = [0] * circuit.state
    outputs = []
    for row in np.asarray(bits).tolist():
        wires = [*state, *row]
        for (a, b), table in zip(sources, functions, strict=True):
            wires.append((int(table) >> (wires[a] + 2 * wires[b])) & 1)
        first_output = len(wires) - circuit.outputs
        state = wires[first_output - circuit.state : first_output]
        outputs.append(wires[first_output:])
    return np.array(outputs)


@pytest.mark.parametrize("state", [0, 3])
def test_a_circuit_does_what_its_gates_say(state):
    bits = jax.random.bernoulli(KEY, 0.5, (40, 3)).astype(jnp.int32)
    for number in range(3):
        circuit = draw_circuit(jax.random.fold_in(KEY, number), 3, 9, 2, state)
        assert np.array_equal(circuit.run(bits), by_hand(circuit, bits))


def test_gates_have_two_different_wires_before_them_and_need_both():
    circuit = draw_circuit(KEY, 2, 200, 1, 1)
    sources, functions = np.asarray(circuit.sources), np.asarray(circuit.functions)
    assert (sources[:, 0] != sources[:, 1]).all()
    assert (sources >= 0).all() and (sources < 3 + np.arange(200)[:, None]).all()
    for table in set(functions.tolist()):
        answers = np.array([[(table >> (a + 2 * b)) & 1 for b in (0, 1)] for a in (0, 1)])
        assert (answers[0] != answers[1]).any() and (answers[:, 0] != answers[:, 1]).any()


@pytest.mark.parametrize("gates", [0, 1, 4])
def test_as_many_gates_change_as_are_asked_for(gates):
    circuit = draw_circuit(KEY, 4, 12)
    other = changed(jax.random.fold_in(KEY, 1), circuit, gates)
    assert int((other.functions != circuit.functions).sum()) == gates
    assert np.array_equal(other.sources, circuit.sources)


def test_a_circuit_without_room_for_its_gates_is_refused():
    with pytest.raises(ValueError, match="got 1 inputs, 0 state bits and 4 gates, expected two wires"):
        draw_circuit(KEY, 1, 4)


def test_bits_are_numbers_with_the_lowest_first():
    assert as_number(jnp.array([[1, 0, 0], [0, 1, 1]])).tolist() == [1, 6]


# Recovery.


def outcome_of(hits):
    """Return an outcome of two classes with these right answers, [T]."""
    drawn = draw(learning_test("labels_swapped"), 1, 2)
    nobody = drawn.outcome(np.zeros(0))
    right = answered(nobody, oracle)
    wrong = np.eye(4)[(right.targets + 1) % 4]
    answers = np.where(np.asarray(hits)[None, :, None], right.answers, wrong)
    return answered(nobody, lambda _: answers)


def test_who_loses_nothing_has_all_and_who_loses_more_has_less():
    steps = np.arange(500)
    never_wrong = recovery(outcome_of(steps >= 0), 200)
    soon = recovery(outcome_of((steps < 200) | (steps >= 230)), 200)
    late = recovery(outcome_of((steps < 200) | (steps >= 400)), 200)
    never = recovery(outcome_of(steps < 200), 200)
    assert never_wrong == pytest.approx(1) and never == pytest.approx(0)
    assert (never < late).all() and (late < soon).all() and (soon < never_wrong).all()
    needed = 30 - 0.075 * 25 + 1  # nine tenths of the skill: at most 7.5 % of a window may be wrong
    assert soon == pytest.approx(1 - needed / 276, abs=2 / 276)


def test_who_knew_nothing_has_nothing_to_regain():
    assert recovery(outcome_of(np.arange(500) >= 200), 200) == pytest.approx(0)


# Growth.


def test_a_grown_graph_has_the_old_one_in_it():
    graph = Graph.of(5, [(0, 2), (1, 2), (2, 3), (2, 4), (0, 3)], (0, 1), (3, 4))
    found = grow(graph, 2)
    assert found.graph.num_nodes == 7 and found.graph.num_edges == 5 + 2 * 4
    assert found.graph.inputs == (0, 1) and found.graph.outputs == (5, 6)
    assert np.array_equal(found.graph.node[found.half_edges], found.nodes[graph.node])
    assert len(set(found.half_edges.tolist())) == 10
    with pytest.raises(ValueError, match="nodes: got 0, expected at least 1"):
        grow(graph, 0)


@pytest.mark.slow
def test_old_edges_keep_their_memory_when_a_rule_grows():
    learner = RuleLearner((4,), Classes(3), RuleConfig(graph={"hidden": [6]}))
    params = learner.init_params(KEY)
    fresh = jax.jit(lambda: learner.init_state(params, KEY, 2))()
    state = fresh
    x = jax.random.normal(KEY, (2, 4))
    y = jnp.array([0, 1])
    step = jax.jit(learner.step)
    for _ in range(3):
        state, _ = step(params, state, x, y)
    grown = learner.grown(5)
    after = jax.jit(lambda state: learner.grown_state(params, state, 5, jax.random.fold_in(KEY, 1)))(state)
    where = grow(learner.graphs[0], 5)
    old = np.asarray(state.stream.memory)[:, :, : len(where.half_edges)]
    assert np.array_equal(np.asarray(after.stream.memory)[:, :, where.half_edges], old)
    assert not np.array_equal(old, np.asarray(fresh.stream.memory)[:, :, : old.shape[2]])
    assert grown.graphs[0].num_nodes == learner.graphs[0].num_nodes + 5
    expected = jax.eval_shape(lambda: grown.init_state(params, KEY, 2))
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, expected)
    _, answers = jax.jit(grown.step)(params, after, x, y)
    assert np.isfinite(answers).all()


def test_learners_that_cannot_grow_say_so_and_a_rule_that_grows_takes_the_test():
    event = Growth(3, 2)
    learner = Ngrams((4,), Classes(3), NgramsConfig())
    assert event.refusal(learner) == "Ngrams cannot grow"
    several = RuleLearner((4,), Classes(3), RuleConfig(graph={"hidden": [6], "count": 2}))
    assert "on 2 graphs cannot grow" in event.refusal(several)


# The text, and counts of what follows in it.


def test_the_text_is_long_and_plain():
    text = "".join(ALPHABET[symbol] for symbol in symbols())
    assert text.startswith("in the beginning god created the heavens and the earth")
    assert len(text) > 90_000 and "  " not in text


def test_counts_of_n_grams_are_those_of_a_dictionary():
    order, strength, classes = 2, 0.7, 5
    learner = Ngrams((5,), Classes(classes), NgramsConfig(order=order, rows=64, strength=strength))
    stream = np.random.default_rng(1).integers(0, classes, 61)
    counts = collections.defaultdict(lambda: np.zeros(classes))
    state = learner.init_state({}, KEY, 1)
    step = jax.jit(learner.step)
    context = (0, 0)
    for symbol, label in zip(stream[:-1].tolist(), stream[1:].tolist(), strict=True):
        context = (symbol, *context)[:order]
        share = np.full(classes, 1 / classes)
        for length in range(order + 1):
            seen = counts[context[:length]]
            share = (seen + strength * share) / (seen.sum() + strength)
            counts[context[:length]] = seen + np.eye(classes)[label]
        state, answers = step({}, state, jnp.eye(classes)[jnp.array([symbol])], jnp.array([label]))
        assert np.allclose(np.exp(answers[0]), share, atol=1e-5)


def test_what_is_not_taught_is_not_counted_and_values_are_refused():
    learner = Ngrams((3,), Classes(3), NgramsConfig())
    state = learner.init_state({}, KEY, 1)
    after, _ = learner.step({}, state, jnp.eye(3)[:1], jnp.array([2]), jnp.zeros(1))
    assert float(after.counts.sum()) == 0
    with pytest.raises(ValueError, match="expected Classes, as values cannot be counted"):
        Ngrams((3,), Values(2), NgramsConfig())


def test_counts_read_english_better_than_letters_alone():
    test = learning_test("language")
    drawn = draw(test, 1000, 2)
    bits = {}
    for order in (1, 2):
        learner = Ngrams((27,), Classes(27), NgramsConfig(order=order))
        taken = take(learner, {}, drawn)
        bits[order] = language.bits(drawn.outcome(taken.answers)).mean()
    equal = language.bits(answered(drawn.outcome(np.zeros(0)), constant)).mean()
    assert equal == pytest.approx(math.log2(27), abs=1e-4)
    assert bits[1] < equal - 0.8 and bits[2] < equal - 0.8


# Noise.


def test_cheap_noise_is_nearly_normal_and_independent():
    draws = np.stack([binomial_noise(jax.random.fold_in(KEY, step), (50, 2000)).ravel() for step in range(6)])
    assert abs(draws.mean()) < 0.005 and draws.std() == pytest.approx(1, abs=0.005)
    assert (draws**3).mean() == pytest.approx(0, abs=0.02)
    assert (draws**4).mean() == pytest.approx(3 - 1 / 16, abs=0.03)
    between = np.corrcoef(draws) - np.eye(6)
    assert np.abs(between).max() < 0.015
    for distance in (1, 2, 784, 2000):
        assert abs((draws[:, :-distance] * draws[:, distance:]).mean()) < 0.01

"""The harness of rules: refused settings, exact continuation, answers in advance, no leak of labels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError

from vsml.graphs import Bucket, generate, to_arrays
from vsml.rules import Harness, Settings, compile_rule, parse

pytestmark = pytest.mark.usefixtures("hasty")

# It remembers all that it is told, and draws noise.
REMEMBERING = """
n : node = 0
heard : edge
a : node
heard <- a + 0.3 * x - 0.2 * t + 0.1 * node_noise
a <- tanh(a + mean(rev(heard)) + 0.1 * t_on - 0.2 * x_on)
n <- n + t
out = a
"""
RULE = compile_rule(parse(REMEMBERING))
GRAPH = to_arrays(generate("dag", 2, 3, 3, 0), Bucket(12, 24))
STRADDLING = Settings(ticks=4, read_tick=1, teach_tick=3, teach_hold=3)
X = jax.random.normal(jax.random.key(5), (6, 2))
LABELS = jnp.array([0, 2, 1, 1, 0, 2])


@functools.partial(jax.jit, static_argnums=0)
def run(harness, state, x, labels):
    def step(state, example):
        return harness.example(RULE, GRAPH, state, *example)

    return jax.lax.scan(step, state, (x, labels))


@functools.partial(jax.jit, static_argnums=0)
def answer(harness, state, x):
    return harness.answer(RULE, GRAPH, state, x)


@functools.partial(jax.jit, static_argnums=0)
def begin(harness, key):
    return harness.begin(RULE, GRAPH, key)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"read_tick": 4}, "read_tick: got 4, expected 0 to 3"),
        ({"read_tick": -1}, "read_tick: got -1"),
        ({"x_hold": 5}, "x_hold: got 5, expected 1 to 4"),
        ({"read_mean": 3}, "read_mean: got 3, expected 1 to 2"),
        ({"teach_tick": 1}, "teach_tick: got 1, expected 2 to 4"),
        ({"teach_tick": 5}, "teach_tick: got 5, expected 2 to 4"),
        ({"teach_hold": 5}, "teach_hold: got 5, expected 1 to 4"),
        ({"reward": "correct", "loss": "regression"}, "reward: got 'correct'"),
        ({"teach": "errors"}, "teach"),
        ({"ticks": 0}, "ticks"),
        ({"tick": 1}, "tick"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(values, words):
    with pytest.raises(ValidationError) as caught:
        Settings(**({"ticks": 4, "read_tick": 1} | values))
    assert words in str(caught.value)


@pytest.mark.slow
def test_a_stream_that_is_cut_and_continued_gives_the_same_bits():
    harness = Harness(STRADDLING)
    start = begin(harness, jax.random.key(0))
    end, answers = run(harness, start, X, LABELS)
    state, parts = start, []
    for cut in (slice(0, 1), slice(1, 4), slice(4, 6)):
        state, part = run(harness, state, X[cut], LABELS[cut])
        parts.append(part)
    assert (jnp.concatenate(parts) == answers).all()
    assert (state.memory == end.memory).all()
    assert jax.tree.map(np.array_equal, state.pending, end.pending) == jax.tree.map(
        lambda _: True, end.pending
    )
    assert state.tick == end.tick == 6 * STRADDLING.ticks


@pytest.mark.parametrize(
    "reset",
    ["never", pytest.param("signals", marks=pytest.mark.slow), pytest.param("all", marks=pytest.mark.slow)],
)
def test_answers_in_advance_are_those_that_the_example_gives(reset):
    harness = Harness(STRADDLING.model_copy(update={"reset": reset}))
    state, _ = run(harness, begin(harness, jax.random.key(0)), X[:3], LABELS[:3])
    _, answers = run(harness, state, X[3:4], LABELS[3:4])
    np.testing.assert_allclose(answer(harness, state, X[3]), answers[0], rtol=0, atol=1e-6)


def test_an_answer_does_not_depend_on_its_own_label_or_later_ones():
    harness = Harness(STRADDLING)
    state = begin(harness, jax.random.key(0))
    _, answers = run(harness, state, X, LABELS)
    _, others = run(harness, state, X, LABELS.at[2:].set(0))
    assert (answers[:3] == others[:3]).all()
    assert (answers[3:] != others[3:]).any()


def test_who_is_not_taught_is_told_what_who_has_no_label_is():
    harness = Harness(STRADDLING)
    state = begin(harness, jax.random.key(0))
    example = jax.jit(functools.partial(harness.example, RULE, GRAPH))
    without_label, _ = example(state, X[0], jnp.array(-1), jnp.array(1.0))
    untaught, _ = example(state, X[0], LABELS[0], jnp.array(0.0))
    taught, _ = example(state, X[0], LABELS[0], jnp.array(1.0))
    assert (without_label.memory == untaught.memory).all()
    assert (without_label.memory != taught.memory).any()


def test_values_that_are_not_taught_may_be_anything():
    harness = Harness(Settings(ticks=4, read_tick=1, loss="regression"))
    state = begin(harness, jax.random.key(0))
    after, _ = jax.jit(functools.partial(harness.example, RULE, GRAPH))(
        state, X[0], jnp.full(3, jnp.nan), jnp.array(0.0)
    )
    assert jnp.isfinite(after.pending.t).all()


def test_feedback_of_errors_has_variance_one_over_the_answers_and_no_padding_in_it():
    harness = Harness(Settings(ticks=2, read_tick=0, teach="broadcast_error"))
    graph = generate("dag", 2, 300, 4, 0, p=0.01)
    key = jax.random.key(3)
    plain = harness.draw_feedback(to_arrays(graph), key, jnp.float32)
    padded = harness.draw_feedback(to_arrays(graph, Bucket(400, 3000)), key, jnp.float32)
    assert plain.shape == (306, 4)
    assert (padded[:306] == plain).all()
    assert float(plain.std()) == pytest.approx(0.5, abs=0.03)


def test_the_ready_node_is_no_answer():
    assert Harness(Settings(ticks=2, read_tick=0, read="ready")).num_answers(GRAPH) == 2
    assert Harness(Settings(ticks=2, read_tick=0)).num_answers(GRAPH) == 3


@pytest.mark.slow
def test_streams_of_a_batch_are_those_that_run_alone():
    harness = Harness(STRADDLING)
    keys = jax.random.split(jax.random.key(1), 3)
    states = jax.vmap(begin, (None, 0))(harness, keys)
    together = jax.vmap(run, (None, 0, None, None))(harness, states, X, LABELS)[1]
    alone = run(harness, begin(harness, keys[1]), X, LABELS)[1]
    np.testing.assert_allclose(together[1], alone, rtol=0, atol=1e-5)
    assert (together[0] != together[1]).any()

"""Values as outputs, and steps in which a learner is taught nothing, for every learner and kernel."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flat_vsml import changed, flat_vsml

from vsml.learners import Ensemble, Sgd, continue_episode, make_learner, run_episode
from vsml.learners.continual_backprop import ContinualBackpropConfig
from vsml.learners.fast_weights import FastWeightsConfig
from vsml.learners.floor import FloorConfig
from vsml.learners.fw_memory import FwMemoryConfig
from vsml.learners.hebbian import HebbianConfig
from vsml.learners.kernel_ridge import KernelRidgeConfig
from vsml.learners.least_squares import LeastSquaresConfig
from vsml.learners.meta_rnn import MetaRnnConfig
from vsml.learners.naive_bayes import NaiveBayesConfig
from vsml.learners.nearest_mean import NearestMeanConfig
from vsml.learners.neighbours import NeighboursConfig
from vsml.learners.ngrams import NgramsConfig
from vsml.learners.sgd import SgdConfig
from vsml.learners.upgd import UpgdConfig
from vsml.losses import error_signal, label_signal, loss
from vsml.networks.written import activate
from vsml.types import Classes, Episode, Values

pytestmark = pytest.mark.usefixtures("hasty", "explicit_ranks")

KEY = jax.random.key(0)
SHAPE = (4,)
SMALL = {"state_size": 6, "message_size": 4, "micro_ticks": 1, "feed_label": True}
DESCENT = {
    "backward_pass": True,
    "micro_ticks": 1,
    "random_fraction": 0.0,
    "init": "backprop",
    "state_size": 9,
}

MAKERS = {
    "vsml": lambda outputs: flat_vsml(SHAPE, outputs, **SMALL),
    "vsml, backward pass": lambda outputs: flat_vsml(SHAPE, outputs, (3,), backward_pass=True, **SMALL),
    "meta_rnn": lambda outputs: make_learner("meta_rnn", MetaRnnConfig(hidden_size=5), SHAPE, outputs),
    "fwp": lambda outputs: make_learner("fwp", FastWeightsConfig(fast_size=3), SHAPE, outputs),
    "fw_memory": lambda outputs: make_learner(
        "fw_memory", FwMemoryConfig(hidden_size=5, memory_size=3), SHAPE, outputs
    ),
    "sgd": lambda outputs: Sgd(SHAPE, outputs, SgdConfig(learning_rate=0.1)),
    "sgd, adam": lambda outputs: Sgd(
        SHAPE, outputs, SgdConfig(optimizer="adam", num_layers=2, hidden_size=3)
    ),
    "upgd": lambda outputs: make_learner("upgd", UpgdConfig(widths=(3,), learning_rate=0.1), SHAPE, outputs),
    "continual_backprop": lambda outputs: make_learner(
        "continual_backprop",
        ContinualBackpropConfig(widths=(3,), learning_rate=0.1, replacement_rate=0.3, maturity=0),
        SHAPE,
        outputs,
    ),
    "neighbours": lambda outputs: make_learner("neighbours", NeighboursConfig(buffer=3), SHAPE, outputs),
    "kernel_ridge": lambda outputs: make_learner("kernel_ridge", KernelRidgeConfig(buffer=3), SHAPE, outputs),
    "least_squares": lambda outputs: make_learner(
        "least_squares", LeastSquaresConfig(features=7, forgetting=0.9), SHAPE, outputs
    ),
    "floor": lambda outputs: make_learner("floor", FloorConfig(), SHAPE, outputs),
    "floor, last": lambda outputs: make_learner("floor", FloorConfig(answer="last"), SHAPE, outputs),
    "ensemble": lambda outputs: Ensemble(
        (Sgd(SHAPE, outputs, SgdConfig()), Sgd(SHAPE, outputs, SgdConfig()))
    ),
}
ONLY_CLASSES = {
    "hebbian": lambda outputs: make_learner("hebbian", HebbianConfig(), SHAPE, outputs),
    "nearest_mean": lambda outputs: make_learner("nearest_mean", NearestMeanConfig(), SHAPE, outputs),
    "naive_bayes": lambda outputs: make_learner("naive_bayes", NaiveBayesConfig(), SHAPE, outputs),
    "ngrams": lambda outputs: make_learner("ngrams", NgramsConfig(), SHAPE, outputs),
    "floor, majority": lambda outputs: make_learner("floor", FloorConfig(answer="majority"), SHAPE, outputs),
}
OJA = {"hebbian, oja": lambda outputs: make_learner("hebbian", HebbianConfig(rule="oja"), SHAPE, outputs)}
WITHOUT_FEEDBACK = (
    "sgd, adam",
    "upgd",
    "continual_backprop",
    "neighbours",
    "kernel_ridge",
    "least_squares",
    "floor",
    "floor, last",
    "ensemble",
)
"""Those whose next answer knows nothing of the last one."""

CASES = [(name, outputs) for name in MAKERS for outputs in (Classes(3), Values(2))]
CASES += [(name, Classes(3)) for name in (*ONLY_CLASSES, *OJA)]
each_case = pytest.mark.parametrize(("name", "outputs"), CASES, ids=[f"{n}-{o}" for n, o in CASES])

go_on = jax.jit(continue_episode, static_argnums=0)


def make(name, outputs):
    return (MAKERS | ONLY_CLASSES | OJA)[name](outputs)


def make_episode(outputs, length=5, batch_size=2, seed=0):
    random = np.random.default_rng(seed)
    x = random.normal(size=(length, batch_size, *SHAPE)).astype(np.float32)
    if isinstance(outputs, Values):
        y = random.normal(size=(length, batch_size, outputs.size)).astype(np.float32)
    else:
        y = random.integers(0, outputs.size, (length, batch_size)).astype(np.int32)
    return Episode(x=x, y=y, weight=np.ones((length, batch_size), np.float32))


def start(learner, batch_size=2):
    params = learner.init_params(KEY)
    # Fresh meta-parameters of VSML hardly learn: larger ones do.
    grown = jax.tree.map(lambda a: a + 0.3 * jax.random.normal(jax.random.key(a.size), a.shape), params)
    return grown, learner.init_state(grown, jax.random.key(1), batch_size)


def close(got, want):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, want)


@each_case
def test_taught_always_is_as_if_nothing_was_said_of_it(name, outputs):
    learner, episode = make(name, outputs), make_episode(outputs)
    params, state = start(learner)
    told = episode.replace(taught=np.ones_like(episode.weight))
    close(go_on(learner, params, state, told), go_on(learner, params, state, episode))


@each_case
def test_where_nobody_is_taught_targets_change_nothing_and_may_be_anything(name, outputs):
    learner, episode = make(name, outputs), make_episode(outputs)
    params, state = start(learner)
    other = make_episode(outputs, seed=1)
    anything = np.full_like(episode.y, np.nan) if isinstance(outputs, Values) else episode.y * 0 - 1
    taught = np.array([[1, 1], [0, 1], [0, 0], [1, 0], [1, 1]], np.float32)
    ends = []
    for y in (other.y, anything):
        shown = np.where(taught.reshape(*taught.shape, *[1] * (y.ndim - 2)) > 0, episode.y, y)
        ends.append(go_on(learner, params, state, episode.replace(y=shown, taught=taught)))
    jax.tree.map(np.testing.assert_array_equal, *ends)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(ends))
    learned = go_on(learner, params, state, episode)
    # Teaching there would have mattered: to answers, or to counts that are too few to turn a majority.
    kept = 0 if name == "floor, majority" else 1
    differences = jax.tree.map(lambda a, b: np.abs(a - b).max(), ends[0][kept], learned[kept])
    assert max(jax.tree.leaves(differences)) > 1e-6


@pytest.mark.parametrize(
    ("name", "outputs"), [case for case in CASES if case[0] in (*WITHOUT_FEEDBACK, *ONLY_CLASSES, *OJA)]
)
def test_a_step_without_teaching_leaves_what_was_learned_as_it_is(name, outputs):
    learner, episode = make(name, outputs), make_episode(outputs)
    params, state = start(learner)
    state, _ = go_on(learner, params, state, episode)
    untaught = episode.replace(taught=np.zeros_like(episode.weight))
    after, _ = go_on(learner, params, state, untaught)
    jax.tree.map(np.testing.assert_array_equal, after, state)  # moments of adam and their count, too


def test_the_backward_sweep_moves_the_synapses_of_taught_elements_only():
    learner = make("vsml, backward pass", Classes(3))
    params, state = start(learner)
    episode = make_episode(Classes(3), length=1)

    def after(taught):
        return go_on(learner, params, state, episode.replace(taught=np.array([taught], np.float32)))[
            0
        ].network

    def of_element(network, b):
        return jax.tree.map(lambda a: a[b], network)

    both, first, nobody = after([1, 1]), after([1, 0]), after([0, 0])
    close(of_element(first, 0), of_element(both, 0))
    close(of_element(first, 1), of_element(nobody, 1))
    assert np.abs(first.layers[0].c[1] - both.layers[0].c[1]).max() > 1e-4


def test_an_untaught_element_counts_as_one_without_an_error_in_the_mean_over_the_batch():
    learner, episode = make("sgd", Values(2)), make_episode(Values(2), length=1)
    state = learner.init_state({}, KEY)
    half = learner.step({}, state, episode.x[0], episode.y[0], jnp.array([1.0, 0.0]))[0]
    alone = learner.step({}, state, episode.x[0, :1], episode.y[0, :1])[0]
    moved, moved_alone = (jax.tree.map(jnp.subtract, new.weights, state.weights) for new in (half, alone))
    close(moved, jax.tree.map(lambda a: a / 2, moved_alone))


def test_values_are_learned_by_least_mean_squares():
    learner, episode = make("sgd", Values(2)), make_episode(Values(2), length=20)
    state = learner.init_state({}, KEY)
    w, b = (np.asarray(state.weights["dense"][0][name]) for name in ("kernel", "bias"))
    expected = []
    for x, y in zip(episode.x, episode.y, strict=True):
        answer = x @ w + b
        expected.append(answer)
        error = (answer - y) / 2  # d / d answer of half the squared error, averaged over the inner batch
        w, b = w - 0.1 * x.T @ error, b - 0.1 * error.sum(0)
    close(go_on(learner, {}, state, episode)[1], np.stack(expected))


def test_one_layer_of_synapses_learns_values_as_gradient_descent_on_the_squared_error_does():
    rate, bias_rate, inputs = 0.5, 0.02, SHAPE[0]
    learner = flat_vsml(SHAPE, Values(2), init_rate=rate, init_bias_rate=bias_rate, **DESCENT)
    episode = make_episode(Values(2), length=40, batch_size=1)
    got = run_episode(learner, learner.init_params(KEY), KEY, episode)[:, 0]
    w, b, expected = np.zeros((inputs, 2)), np.zeros((inputs, 2)), []
    for x, y in zip(episode.x[:, 0], episode.y[:, 0], strict=True):
        u = np.asarray(activate(x, "tanh"))
        answer = (u[:, None] * w + b).mean(0)
        expected.append(answer)
        error = answer - y
        w, b = w - rate * np.outer(u, error), b - rate * bias_rate * error
    assert np.abs(expected).max() > 0.3
    np.testing.assert_allclose(got, expected, atol=0.03 * np.abs(expected).max())


@pytest.mark.parametrize("kernel", ["tiled", "auto"])
def test_every_kernel_answers_values_alike(kernel):
    learner = make("vsml, backward pass", Values(2))
    episode = make_episode(Values(2)).replace(taught=np.array([[1, 0]] * 5, np.float32))
    params, state = start(learner)
    plain = go_on(changed(learner, kernel="reference"), params, state, episode)[1]
    np.testing.assert_allclose(
        go_on(changed(learner, kernel=kernel), params, state, episode)[1], plain, rtol=1e-4, atol=1e-5
    )


def test_values_are_not_bounded():
    learner = flat_vsml(SHAPE, Values(2), logit_bound=0.01, **SMALL)
    params, state = start(learner)
    assert np.abs(go_on(learner, params, state, make_episode(Values(2)))[1]).max() > 0.01


def test_members_answer_values_with_their_mean():
    members = tuple(Sgd(SHAPE, Values(2), SgdConfig(learning_rate=rate)) for rate in (0.1, 0.2))
    together = Ensemble(members)
    episode = make_episode(Values(2))
    states = together.init_state({}, KEY, 2)
    alone = [go_on(member, {}, own, episode)[1] for member, own in zip(members, states, strict=True)]
    close(go_on(together, {}, states, episode)[1], (alone[0] + alone[1]) / 2)


@pytest.mark.parametrize("name", ONLY_CLASSES)
def test_what_is_about_classes_refuses_values(name):
    with pytest.raises(ValueError, match=r"outputs: got Values\(size=2\), expected Classes"):
        make(name, Values(2))


@pytest.mark.parametrize("outputs", [Classes(3), Values(2)], ids=str)
def test_the_error_is_the_derivative_of_the_mean_loss_and_the_label_the_target(outputs):
    episode = make_episode(outputs, length=1)
    answers, y = jax.random.normal(KEY, (2, outputs.size)), episode.y[0]
    slope = jax.grad(lambda answers: loss(outputs, answers, y).mean())(answers)
    close(error_signal(outputs, answers, y), slope)
    label = np.eye(3)[y] if isinstance(outputs, Classes) else y
    close(label_signal(outputs, y), label)
    taught = jnp.array([0.0, 1.0])
    close(error_signal(outputs, answers, y, taught), slope * taught[:, None])
    close(label_signal(outputs, y, taught), label * taught[:, None])


def test_the_previous_target_of_values_is_what_the_label_input_sees():
    learner = make("meta_rnn", Values(2))
    params, state = start(learner)
    episode = make_episode(Values(2), length=1)
    after, answers = learner.step(params, state, episode.x[0], episode.y[0])
    np.testing.assert_array_equal(after.feedback.label, episode.y[0])
    close(after.feedback.error, (answers - episode.y[0]) / 2)


def test_a_learner_for_values_is_another_static_argument_and_an_equal_one_is_not():
    episode = make_episode(Values(2), length=3)
    before = go_on._cache_size()
    for _ in range(2):
        learner = make("sgd", Values(2))
        go_on(learner, {}, learner.init_state({}, KEY), episode)
    assert go_on._cache_size() == before + 1
    assert learner != dataclasses.replace(learner, outputs=Classes(2))

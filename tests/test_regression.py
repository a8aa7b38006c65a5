"""Ridge regression beside the synapses, and fresh starts where a stream has changed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from vsml.config.model import ModelConfig
from vsml.cost.counts import cost_of
from vsml.learners import Vsml, continue_episode
from vsml.learners.memory import perturb, state_floats
from vsml.learners.surprise import KNOWN, Surprise, SurpriseConfig
from vsml.learners.vsml import VsmlConfig
from vsml.networks.regression import Gain, Regression
from vsml.pretrained import LoadedLearner
from vsml.types import Episode, Values

pytestmark = pytest.mark.usefixtures("hasty")

F, D, C = 24, 9, 3
SMALL = {
    "backward_pass": True,
    "feed_label": True,
    "micro_ticks": 1,
    "random_features": {"count": 5, "activation": "tanh"},
    "regression": {"features": F, "ridge": 0.2},
    "synapse": {"init": "backprop", "random_fraction": 0.25},
}


def make(outputs=C, **changes):
    learner = Vsml((D,), outputs, VsmlConfig.model_validate({**SMALL, **changes}))
    return learner, learner.init_params(random.key(0))


def blobs(count, seed=0, batch=1, classes=C, turned=0, apart=3.0):
    """Return examples of classes that lie apart, whose labels may have been passed on in a ring."""
    key = random.key(seed)
    centres = apart * random.normal(random.key(7), (classes, D))
    labels = random.randint(key, (count, batch), 0, classes)
    x = centres[labels] + random.normal(random.fold_in(key, 1), (count, batch, D))
    return x, (labels + turned) % classes


def run(learner, params, state, x, y, taught=None):
    episode = Episode(x, y, jnp.ones(y.shape[:2]), taught)
    return jax.jit(lambda state: continue_episode(learner, params, state, episode))(state)


# The regression alone.


@pytest.mark.parametrize("hidden", [None, 7])
def test_it_is_the_ridge_regression_of_all_examples(hidden):
    regression = Regression(F, hidden, width=1.0, ridges=(0.2,))
    state = regression.init_state(random.key(0), D, C)
    x, y = blobs(40)
    features = regression.see(state, x[:, 0])
    targets = jax.nn.one_hot(y[:, 0], C)
    counts = jnp.where(jnp.arange(40) % 3 == 0, 0.25, 1.0).at[5].set(0.0)
    learned = regression.learn(state, features, targets, counts)
    phi, t, w = (np.asarray(a, np.float64) for a in (features, targets, counts))
    expected = np.linalg.solve((phi.T * w) @ phi + 0.2 * np.eye(F), (phi.T * w) @ t)
    np.testing.assert_allclose(learned.weights[0], expected, atol=2e-4)
    assert learned.examples == pytest.approx(w.sum())
    np.testing.assert_array_equal(learned.directions, state.directions)


def test_it_stays_the_ridge_regression_over_thousands_of_examples():
    regression = Regression(F, None, width=1.0, ridges=(0.2,))
    state = regression.init_state(random.key(0), D, C)
    x, y = blobs(5000)
    features, targets = regression.see(state, x[:, 0]), jax.nn.one_hot(y[:, 0], C)

    def step(state, example):
        feature, target = example
        return regression.learn(state, feature[None], target[None]), None

    learned, _ = jax.lax.scan(step, state, (features, targets))
    phi, t = np.asarray(features, np.float64), np.asarray(targets, np.float64)
    expected = np.linalg.solve(phi.T @ phi + 0.2 * np.eye(F), phi.T @ t)
    np.testing.assert_allclose(features @ learned.weights[0], phi @ expected, atol=2e-3)


def test_products_of_features_are_its_kernel():
    many = Regression(4000, None, width=1.5, ridges=(0.1,))
    x = random.normal(random.key(1), (6, D))
    features = many.see(many.init_state(random.key(0), D, C), x)
    centred = np.asarray(x - x.mean(1, keepdims=True))
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    expected = np.exp(-1.5 * (1 - unit @ unit.T))
    np.testing.assert_allclose(features @ features.T, expected, atol=0.06)
    # Neither brightness nor contrast matters.
    again = many.see(many.init_state(random.key(0), D, C), 3 * x + 2)
    np.testing.assert_allclose(again, features, atol=1e-4)


def test_a_linear_part_adds_the_product_of_the_inputs_to_its_kernel():
    bent = Regression(F, 7, width=1.0, ridges=(0.2,))
    both = dataclasses.replace(bent, linear=2.0)
    x = random.normal(random.key(1), (6, D))
    state, same = both.init_state(random.key(0), D, C), bent.init_state(random.key(0), D, C)
    assert state.weights.shape == (1, F + D + 1, C) and both.total(D) == F + D + 1
    features, alone = both.see(state, x), bent.see(same, x)
    added = features @ features.T - alone @ alone.T
    np.testing.assert_allclose(added, 2 / D * (x @ x.T + 1), atol=1e-5)


def test_of_several_ridges_each_counts_by_its_evidence():
    ridges = (0.5, 1.0)
    regression = Regression(F, None, width=1.0, ridges=ridges)
    state = regression.init_state(random.key(0), D, 2)
    np.testing.assert_allclose(regression.shares(state), 0.5)
    x, _ = blobs(40)
    features = regression.see(state, x[:, 0])
    targets = features @ random.normal(random.key(4), (F, 2)) + random.normal(random.key(5), (40, 2))
    counts = jnp.where(jnp.arange(40) % 4 == 0, 3.0, 1.0)
    learned = regression.learn(state, features, targets, counts)

    # The evidence of all examples at once: that of a Gaussian with covariance phi phi^T / ridge + 1.
    repeated = np.repeat(np.arange(40), np.asarray(counts, int))
    phi, t = (np.asarray(a, np.float64) for a in (features, targets))
    logs, answers = [], []
    for ridge in ridges:
        scaled = np.sqrt(np.asarray(counts, np.float64))[:, None]
        covariance = (scaled * phi) @ (scaled * phi).T / ridge + np.eye(40)
        misfit = np.trace((scaled * t).T @ np.linalg.solve(covariance, scaled * t))
        numbers = 2 * len(repeated) + 0.1
        logs.append(-numbers / 2 * np.log(0.1 + misfit) - np.linalg.slogdet(covariance)[1])
        weights = np.linalg.solve(
            phi[repeated].T @ phi[repeated] + ridge * np.eye(F), phi[repeated].T @ t[repeated]
        )
        answers.append(phi @ weights)
    shares = np.exp(logs - np.max(logs))
    shares /= shares.sum()
    assert shares.min() > 0.01
    np.testing.assert_allclose(regression.shares(learned), shares, atol=5e-3)
    expected = shares[0] * answers[0] + shares[1] * answers[1]
    np.testing.assert_allclose(regression.answer(learned, features), expected, atol=1e-2)
    fresh = regression.restarted(learned)
    np.testing.assert_array_equal(fresh.evidence, 0)


@pytest.mark.parametrize(("noise", "likely"), [(0.0, 0), (3.0, 1)])
def test_the_more_noise_the_larger_a_ridge_is_likely(noise, likely):
    regression = Regression(F, None, width=1.0, ridges=(0.01, 10.0))
    state = regression.init_state(random.key(0), D, 1)
    x, _ = blobs(60)
    features = regression.see(state, x[:, 0])
    targets = features @ random.normal(random.key(4), (F, 1)) + noise * random.normal(random.key(5), (60, 1))
    shares = regression.shares(regression.learn(state, features, targets))
    assert shares[likely] > 0.9


@pytest.mark.parametrize("ridge", [[], [0.1, 0.0], -1.0])
def test_ridges_have_to_be_positive(ridge):
    with pytest.raises(ValueError, match=r"regression\.ridge"):
        VsmlConfig.model_validate({**SMALL, "regression": {"ridge": ridge}})


# Beside the synapses.


def test_its_answers_times_the_gain_are_added_and_the_error_is_that_of_the_sum():
    learner, params = make()
    alone, _ = make(regression=None)
    state = learner.init_state(params, random.key(1))
    x, y = blobs(30)
    state, _ = run(learner, params, state, x, y)
    own = {0: params[0]}
    beside = dataclasses.replace(state, regression=None)
    by_network = alone.predict(own, beside, x[3])
    regression = learner.regression
    features = regression.see(state.regression, x[3])
    gain = jnp.exp(params[1]["log_gain"][0])
    added = gain * regression.answer(state.regression, features)
    answers = by_network + added
    after, answered = learner.step(params, state, x[3], y[3])
    np.testing.assert_allclose(answered, answers, atol=1e-5)
    np.testing.assert_allclose(learner.predict(params, state, x[3]), answers, atol=1e-5)
    # What the network is told, it would be told of the sum: its own answers bent to be it tell the same.
    error = jax.nn.softmax(answers) - jax.nn.one_hot(y[3], C)
    seen = alone.features(beside, x[3])
    inputs = alone._arriving(alone.synapses.with_params(own), None, seen)
    synapses = alone.synapses.with_params(own)
    network, forward, _ = alone._answer(synapses, beside.network, beside.feedback, inputs)
    told = jnp.stack([error, jax.nn.one_hot(y[3], C)], axis=-1)
    expected = jax.vmap(lambda *a: alone.network.backward_sweep(synapses, *a))(
        network, forward, alone._message(told)
    )
    for got, want in zip(jax.tree.leaves(after.network), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_the_gain_grows_with_examples():
    gain = Gain(7.0)
    gain.log_gain[...] = jnp.array([np.log(7.0), 0.5])
    assert gain.after(jnp.zeros(())) == pytest.approx(7, rel=1e-5)
    assert gain.after(jnp.array(99.0)) == pytest.approx(7 * 100**0.1, rel=1e-5)


def test_only_the_gain_is_meta_learned_of_it():
    learner, params = make()
    assert sorted(params) == [0, 1] and params[1]["log_gain"].shape == (2,)
    x, y = blobs(40)

    def loss(params):
        _, answers = run(learner, params, learner.init_state(params, random.key(1)), x, y)
        return -jnp.take_along_axis(jax.nn.log_softmax(answers), y[..., None], -1).mean()

    def moved(change):
        return loss({**params, 1: {"log_gain": params[1]["log_gain"] + change}})

    slope = jax.grad(loss)(params)[1]["log_gain"]
    for number, step in enumerate(1e-2 * jnp.eye(2)):
        higher, lower = moved(step), moved(-step)
        assert float(slope[number]) == pytest.approx(float(higher - lower) / 2e-2, rel=0.02, abs=1e-4)


def test_a_memory_and_regression_go_together():
    memory = {"slots": 8, "ridge": {"width": 1}}
    learner, params = make(memory=memory)
    assert list(params[1]) == ["log_gain"] and "log_sharpness" in params[2]
    x, y = blobs(60)
    _, answers = run(learner, params, learner.init_state(params, random.key(1)), x, y)
    assert (answers.argmax(-1) == y)[-20:].mean() > 0.8


def test_it_learns_from_few_examples_what_the_network_does_not():
    x, y = blobs(120, seed=3, classes=2)
    x = x * (1 - 2 * random.bernoulli(random.key(4), shape=(120, 1, 1)))  # opposite ones are of one class
    right = {}
    for name, changes in {"both": {}, "synapses": {"regression": None}}.items():
        learner, params = make(**changes)
        _, answers = run(learner, params, learner.init_state(params, random.key(1)), x, y)
        right[name] = float((answers.argmax(-1) == y)[20:].mean())
    assert right["both"] > 0.85 and right["both"] > right["synapses"] + 0.1


def test_elements_of_a_batch_share_it_and_those_that_are_not_taught_leave_no_trace():
    learner, params = make()
    state = learner.init_state(params, random.key(1), 2)
    x, y = blobs(1, batch=2)
    taught = jnp.array([1.0, 0.0])
    after, _ = learner.step(params, state, x[0], y[0], taught)
    one = learner.regression.learn(
        state.regression,
        learner.regression.see(state.regression, x[0, :1]),
        jax.nn.one_hot(y[0, :1], C),
    )
    assert after.regression.examples == 1
    for got, want in zip(jax.tree.leaves(after.regression), jax.tree.leaves(one), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-6)
    nobody, _ = learner.step(params, state, x[0], y[0], jnp.zeros(2))
    for got, want in zip(jax.tree.leaves(nobody.regression), jax.tree.leaves(state.regression), strict=True):
        np.testing.assert_array_equal(got, want)


def test_values_are_added_without_a_gain():
    learner, params = make(Values(2), synapse={"random_fraction": 0.25})
    x = random.normal(random.key(2), (300, 1, D))
    y = jnp.stack([jnp.sin(x[..., 0]), x[..., 1] - x[..., 2]], axis=-1)
    state, answers = run(learner, params, learner.init_state(params, random.key(1)), x, y)
    assert jnp.square(answers - y)[-100:].mean() < 0.8 * jnp.square(y)[-100:].mean()
    features = learner.regression.see(state.regression, x[0])
    added = learner.predict(params, state, x[0]) - learner.predict(
        params, dataclasses.replace(state, regression=learner.regression.restarted(state.regression)), x[0]
    )
    np.testing.assert_allclose(added, features @ state.regression.weights[0], atol=1e-5)


def test_new_outputs_are_as_if_they_had_been_known():
    few, params = make(2)
    more, _ = make(4)
    x, y = blobs(30, classes=2)
    state, _ = run(few, params, few.init_state(params, random.key(1)), x, y)
    known, _ = run(more, params, more.init_state(params, random.key(1)), x, y)
    grown = more.with_new_outputs(state, more.init_state(params, random.key(5)), jnp.ones(2, bool))
    np.testing.assert_allclose(grown.regression.weights, known.regression.weights, atol=1e-5)
    renewed = few.with_new_outputs(state, state, jnp.array([True, False]))
    assert not renewed.regression.weights[..., 1].any() and renewed.regression.weights[..., 0].any()


def test_what_it_keeps_is_counted_and_can_be_lost():
    learner, params = make()
    floats = state_floats(learner)
    bare = state_floats(make(regression=None)[0])
    assert floats.kept - bare.kept == F * F + F * C + 1
    assert dict(floats.fixed)["random features of regression"] == D * F // 2
    x, y = blobs(30)
    state, _ = run(learner, params, learner.init_state(params, random.key(1)), x, y)
    lost = perturb(learner, state, random.key(2), "drop_units", 0.5)
    assert (lost.regression.weights[0] == 0).all(1).sum() == F // 2
    np.testing.assert_array_equal(lost.regression.root, state.regression.root)


def test_its_cost_is_by_formula():
    learner, _ = make(regression={"features": 64, "hidden": 16})
    bare, _ = make(regression=None)
    added, alone = cost_of(learner), cost_of(bare)
    assert added.matrix_flops - alone.matrix_flops == 2 * D * 16 + 16 * 64 + 6 * 64**2 + 4 * 64 * C
    assert added.state_bytes - alone.state_bytes == 4 * 64**2
    # It has no derivatives.
    both = cost_of(learner, what="gradient").matrix_flops - cost_of(bare, what="gradient").matrix_flops
    assert both == added.matrix_flops - alone.matrix_flops


# A fresh start.


def watch(errors, least=20, told=None):
    """Return after which answers of two classes there was a surprise."""
    surprise = Surprise(SurpriseConfig(least=least))
    state = surprise.init_state(random.key(0), 2)
    surprises = []
    for number, is_wrong in enumerate(errors):
        y = jnp.array([number % 2])
        answers = jax.nn.one_hot(1 - y if is_wrong else y, 2)
        taught = None if told is None else jnp.array([told[number]])
        state, surprised = surprise.after(state, answers, y, taught)
        if surprised:
            surprises.append(number)
            state, _ = surprise.restarted(state)
    return surprises, state


def test_it_is_a_surprise_when_errors_have_become_more_frequent():
    rare = [number % 10 == 0 for number in range(100)]
    surprises, state = watch(rare + [True] * 20)
    assert len(surprises) == 1 and 100 < surprises[0] < 120
    assert state.starts == 1
    assert watch(rare * 3)[0] == []
    # Where all answers are wrong from the start there is nothing that has become worse.
    assert watch([True] * 100)[0] == []


def test_nothing_is_told_before_it_could_be_learned():
    rise = [False] * 60 + [True] * 40
    assert watch(rise)[0][0] < 80
    surprises, _ = watch(rise, least=80)
    assert surprises[0] == 80 + 2 * KNOWN - 1  # the first ones of a class do not count
    assert watch([False] * 100 + [True] * 20, told=[1] * 100 + [0] * 20)[0] == []


def test_a_class_that_is_new_is_no_surprise():
    surprise = Surprise(SurpriseConfig(least=20, quick=0.2))
    state = surprise.init_state(random.key(0), 3)
    for number in range(60):
        state, surprised = surprise.after(state, jnp.eye(3)[number % 2][None], jnp.array([number % 2]))
    for _ in range(KNOWN):
        state, surprised = surprise.after(state, jnp.eye(3)[:1], jnp.array([2]))
        assert not surprised
    for _ in range(KNOWN):
        state, surprised = surprise.after(state, jnp.eye(3)[:1], jnp.array([2]))
    assert surprised


def test_after_a_change_it_learns_as_a_fresh_learner():
    x, y = blobs(600, apart=1.5)
    turned_x, turned_y = blobs(150, seed=1, turned=1, apart=1.5)
    right = {}
    for name, restart in {"restarts": {"least": 30}, "never": None}.items():
        learner, params = make(restart=restart)
        state, _ = run(learner, params, learner.init_state(params, random.key(1)), x, y)
        state, answers = run(learner, params, state, turned_x, turned_y)
        right[name] = float((answers.argmax(-1) == turned_y)[30:].mean())
        if restart:
            assert state.surprise.starts == 1
            assert state.regression.examples < 150
    assert right["restarts"] > right["never"] + 0.1


MEMORY = {"slots": 8, "ridge": {"width": 1}}


@pytest.mark.parametrize("changes", [{}, {"memory": MEMORY}, {"regression": None}], ids=str)
def test_a_fresh_start_keeps_random_features_and_draws_other_synapses(changes):
    learner, params = make(restart={}, **changes)
    start = learner.init_state(params, random.key(1), 2)
    x, y = blobs(20, batch=2)
    used, _ = run(learner, params, start, x, y)
    fresh = learner._restarted(used)
    assert jax.tree.structure(fresh) == jax.tree.structure(used)
    np.testing.assert_array_equal(fresh.features, start.features)
    if fresh.regression is not None:
        np.testing.assert_array_equal(fresh.regression.directions, start.regression.directions)
        np.testing.assert_array_equal(fresh.regression.root, start.regression.root)
        assert not fresh.regression.weights.any()
    if fresh.memory is not None:
        assert (used.memory.written >= 0).any() and (fresh.memory.written < 0).all()
    assert not jnp.array_equal(fresh.network.layers[0].c, start.network.layers[0].c)
    again = learner._restarted(fresh)
    assert again.surprise.starts == 2
    assert not jnp.array_equal(again.network.layers[0].c, fresh.network.layers[0].c)


def test_members_side_by_side_start_afresh_by_themselves():
    learner, params = make(restart={"least": 30})
    x, y = blobs(600, apart=1.5)
    changed = jnp.concatenate([y[:450], (y[450:] + 1) % C])
    key = random.key(1)

    def live(y):
        return continue_episode(
            learner, params, learner.init_state(params, key), Episode(x, y, jnp.ones(y.shape))
        )

    states, answers = jax.jit(jax.vmap(live))(jnp.stack([y, changed]))
    assert states.surprise.starts.tolist() == [0, 1]
    for number, labels in enumerate((y, changed)):
        _, alone = jax.jit(live)(labels)
        np.testing.assert_allclose(answers[number], alone, atol=1e-3)


def test_values_cannot_be_a_surprise():
    with pytest.raises(ValueError, match=r"restart: got one for Values\(size=2\), expected null"):
        make(Values(2), restart={}, synapse={"random_fraction": 0.25})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"regression": {"features": 5}}, "multiple of 2"),
        ({"regression": {"width": 0}}, "greater than 0"),
        ({"restart": {"gap": 1}}, "less than 1"),
        ({"restart": {"least": 0}}, "greater than or equal to 1"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        VsmlConfig.model_validate({**SMALL, **changes})


def test_loaded_learners_step_and_predict_with_it():
    learner, params = make(restart={})
    loaded = LoadedLearner("mine", learner, params, ModelConfig.model_validate({"vsml": SMALL}), {})
    x, y = blobs(50)
    state, answers = loaded.run(loaded.start(), x, y)
    assert np.isfinite(answers).all()
    np.testing.assert_allclose(loaded.predict(state, x[0]), loaded.step(state, x[0], y[0])[1], atol=1e-6)

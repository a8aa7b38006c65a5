"""Reference learners against scikit-learn, closed forms and plain transcriptions of the papers' equations."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.kernel_ridge import KernelRidge as SklearnKernelRidge
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, NearestCentroid
from sklearn.svm import SVC

from vsml.config.files import ConfigError
from vsml.evaluation.candidates import compared_candidates
from vsml.evaluation.comparison import Comparison
from vsml.launching.schema import load_config
from vsml.learners import config_type, continue_episode, make_learner
from vsml.learners.distances import normalised
from vsml.learners.kernel_ridge import masked_median
from vsml.learners.refitted import Refit, refitted_answers
from vsml.learners.shares import share_logits
from vsml.meta.trials import sample_trial
from vsml.reporting.tables import markdown_table
from vsml.setup import Setup
from vsml.system.comm import SerialCommunicator
from vsml.types import Classes, Episode, Values

pytestmark = pytest.mark.usefixtures("hasty", "explicit_ranks")

D, C = 6, 3
KEY = jax.random.key(7)

go = jax.jit(continue_episode, static_argnums=0)


def build(name, outputs=C, shape=(D,), **settings):
    return make_learner(name, config_type(name)(**settings), shape, outputs)


def examples(count, seed=0, classes=C, size=D, values=0):
    """Return inputs around the means of their classes, and labels, or values that follow from inputs."""
    random = np.random.default_rng(seed)
    y = random.integers(0, classes, count)
    x = random.normal(size=(classes, size))[y] + 0.7 * random.normal(size=(count, size))
    if values:
        y = np.tanh(x @ random.normal(size=(size, values)))
    return x.astype(np.float32), y.astype(np.float32 if values else np.int32)


def stream(x, y, taught=None):
    told = None if taught is None else np.asarray(taught, np.float32)[:, None]
    return Episode(x=x[:, None], y=y[:, None], weight=np.ones((len(x), 1), np.float32), taught=told)


def taught(learner, x, y, told=None):
    """Return the state after a stream, and the answers in it."""
    state, answers = go(learner, {}, learner.init_state({}, KEY), stream(x, y, told))
    return state, np.asarray(answers)[:, 0]


def probabilities(learner, state, x):
    return np.asarray(jax.nn.softmax(learner.predict({}, state, x)))


def with_doubt(shares, doubt):
    return (1 - doubt) * shares + doubt / shares.shape[-1]


def centred(x):
    x = x - x.mean(1, keepdims=True)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


# Shares, distances, the median.


def test_shares_become_their_logarithms_and_none_is_infinite():
    logits = share_logits(jnp.array([[2.0, 6.0, -1.0], [0.0, 0.0, -3.0]]), 0.3)
    expected = [[0.7 * 0.25 + 0.1, 0.7 * 0.75 + 0.1, 0.1], [1 / 3] * 3]
    np.testing.assert_allclose(np.exp(logits), expected, rtol=1e-5)


def test_a_constant_input_has_no_direction_however_large_it_is():
    x = jnp.stack([jnp.full(7, 0.1), jnp.full(7, 1e6 / 3), jnp.zeros(7), jnp.arange(7.0)])
    directions = normalised(x)
    assert not directions[:3].any()
    np.testing.assert_allclose(jnp.linalg.norm(directions[3]), 1, rtol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 50, 51])
def test_the_median_is_that_of_numpy_where_the_mask_holds(count):
    random = np.random.default_rng(count)
    values = random.choice([*random.exponential(size=30), 0.0, -0.0, 1.5], size=(10, 10)).astype(np.float32)
    mask = np.zeros(100, bool)
    mask[random.permutation(100)[:count]] = True
    mask = mask.reshape(10, 10)
    expected = np.median(values[mask]) if count else 1.0
    np.testing.assert_allclose(jax.jit(masked_median)(values, mask), expected, rtol=1e-6)


# Nearest neighbours.


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_neighbours_are_those_of_scikit_learn_among_the_latest(k, metric):
    x, y = examples(60)
    learner = build("neighbours", buffer=25, neighbours=k, metric=metric, scale=3, doubt=0.1)
    state, _ = taught(learner, x, y)
    tests, _ = examples(40, seed=1)
    prepare = centred if metric == "cosine" else (lambda x: x)

    def weights(distance):
        distance = distance if metric == "cosine" else distance**2 / D
        return np.exp(-3 * distance)

    sklearn = KNeighborsClassifier(k, weights=weights, metric=metric, algorithm="brute")
    sklearn.fit(prepare(x[-25:]), y[-25:])
    expected = with_doubt(sklearn.predict_proba(prepare(tests)), 0.1)
    np.testing.assert_allclose(probabilities(learner, state, tests), expected, atol=1e-5)


def test_neighbours_answer_values_with_weighted_means():
    x, y = examples(30, values=2)
    learner = build("neighbours", Values(2), buffer=30, neighbours=5)
    state, _ = taught(learner, x, y)
    tests, _ = examples(20, seed=1)
    sklearn = KNeighborsRegressor(5, weights=lambda d: np.exp(-20 * d), metric="cosine", algorithm="brute")
    expected = sklearn.fit(centred(x), y).predict(centred(tests))
    np.testing.assert_allclose(learner.predict({}, state, tests), expected, atol=1e-5)


def test_of_equal_neighbours_the_newest_answers_also_where_the_buffer_wraps():
    learner = build("neighbours", buffer=4)
    x = np.repeat(examples(1)[0], 7, axis=0)
    y = np.array([0, 1, 2, 0, 1, 2, 1], np.int32)
    _, answers = taught(learner, x, y)
    np.testing.assert_array_equal(answers[1:].argmax(-1), y[:-1])


def test_with_few_examples_as_many_neighbours_answer_as_there_are():
    learner = build("neighbours", buffer=50, neighbours=5, scale=0, doubt=0.03)
    x, _ = examples(3)
    state, answers = taught(learner, x, np.array([0, 0, 1], np.int32))
    np.testing.assert_allclose(jax.nn.softmax(answers[0]), [1 / 3] * 3, rtol=1e-6)
    expected = with_doubt(np.array([[2 / 3, 1 / 3, 0]]), 0.03)
    np.testing.assert_allclose(probabilities(learner, state, x[:1]), expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["neighbours", "kernel_ridge"])
def test_a_batch_has_to_fit_into_the_buffer(name):
    learner = build(name, buffer=3)
    with pytest.raises(ValueError, match=rf"model\.{name}\.buffer: got 3, expected at least .* 4"):
        learner.init_state({}, KEY, 4)


@pytest.mark.parametrize("name", ["neighbours", "kernel_ridge"])
def test_a_batch_is_kept_as_its_elements_one_after_the_other_are(name):
    learner = build(name, buffer=5)
    x, y = examples(12)
    one_by_one, _ = taught(learner, x, y)
    batch = stream(x, y)
    batch = jax.tree.map(lambda a: a.reshape(4, 3, *a.shape[2:]), batch)
    together, _ = go(learner, {}, learner.init_state({}, KEY, 3), batch)
    # Inputs are normalised: in which order XLA adds up a norm may depend on the size of the batch.
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-6), together, one_by_one)


# Kernel ridge regression.


def sklearn_ridge(x, tests, targets, ridge=0.1, width=2.0):
    a, b = centred(x.astype(np.float64)), centred(tests.astype(np.float64))
    distance, other = 1 - a @ a.T, 1 - b @ a.T
    median = np.median(distance[np.triu_indices(len(x), 1)]) if len(x) > 1 else 1.0
    machine = SklearnKernelRidge(alpha=ridge, kernel="precomputed")
    machine.fit(np.exp(-width * distance / median), targets)
    return machine.predict(np.exp(-width * other / median))


@pytest.mark.parametrize("count", [1, 2, 7, 20, 33])
def test_kernel_ridge_is_that_of_scikit_learn_before_and_after_the_buffer_is_full(count):
    x, y = examples(count)
    learner = build("kernel_ridge", buffer=20, doubt=0.02)
    state, _ = taught(learner, x, y)
    tests, _ = examples(15, seed=1)
    shares = sklearn_ridge(x[-20:], tests, np.eye(C)[y[-20:]] - 1 / C) + 1 / C
    np.testing.assert_allclose(shares.sum(-1), 1, rtol=1e-6)
    shares = np.maximum(shares, 0)
    expected = with_doubt(shares / shares.sum(-1, keepdims=True), 0.02)
    np.testing.assert_allclose(probabilities(learner, state, tests), expected, atol=1e-4)


def test_kernel_ridge_on_values_is_around_their_mean():
    x, y = examples(25, values=2)
    y = y + 5
    learner = build("kernel_ridge", Values(2), buffer=40)
    state, _ = taught(learner, x, y)
    tests, _ = examples(15, seed=1)
    expected = sklearn_ridge(x, tests, y - y.mean(0)) + y.mean(0)
    np.testing.assert_allclose(learner.predict({}, state, tests), expected, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["neighbours", "kernel_ridge", "least_squares", "nearest_mean", "naive_bayes"]
)
def test_constant_and_repeated_inputs_and_classes_not_seen_are_no_trouble(name):
    small = {"buffer": 12} if name in ("neighbours", "kernel_ridge") else {}
    learner = build(name, 5, **small)
    x = np.concatenate([np.zeros((3, D)), np.full((3, D), 2.0), np.tile(np.arange(D), (4, 1))])
    y = np.array([0, 0, 1, 1, 1, 0, 2, 2, 2, 2], np.int32)
    state, answers = taught(learner, x.astype(np.float32), y)
    assert np.isfinite(answers).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    shares = probabilities(learner, state, x[-1:].astype(np.float32))
    assert shares.argmax() == 2
    assert shares[0, 3:].max() < shares[0, :3].max() / 3


# Recursive least squares.


def weighted_ridge(phi, targets, forgetting, prior):
    """Return the ridge regression with weights that decay, in float64."""
    age = forgetting ** np.arange(len(phi) - 1, -1, -1.0)
    covariance = (age[:, None] * phi).T @ phi + prior
    return np.linalg.solve(covariance, (age[:, None] * phi).T @ targets)


def test_without_forgetting_it_is_ridge_regression():
    x, y = examples(80)
    learner = build("least_squares", features=15, ridge=0.5, bias=1.0)
    state, _ = taught(learner, x, y)
    phi = np.maximum(centred(x.astype(np.float64)) @ np.asarray(state.kernel) + np.asarray(state.bias), 0)
    expected = weighted_ridge(phi, np.eye(C)[y] - 1 / C, 1.0, 0.5 * np.eye(15))
    np.testing.assert_allclose(state.weights, expected, atol=2e-4)
    inverse = np.linalg.inv(phi.T @ phi + 0.5 * np.eye(15))
    root = np.asarray(state.root)
    np.testing.assert_allclose(root @ root.T, inverse, rtol=1e-3, atol=1e-4)


def test_with_forgetting_it_is_weighted_ridge_regression_whose_ridge_comes_back_in_turn():
    x, y = examples(80, values=2)
    F, forgetting, ridge = 15, 0.9, 0.5
    learner = build(
        "least_squares", Values(2), features=F, ridge=ridge, forgetting=forgetting, normalise=False
    )
    state, _ = taught(learner, x, y)
    turns = int(np.ceil(F * (1 - forgetting)))
    prior, turn = ridge * np.eye(F), 0
    for _ in range(len(x)):
        prior = forgetting * prior
        for _ in range(turns):
            prior[turn, turn] += ridge * (1 - forgetting ** (F / turns))
            turn = (turn + 1) % F
    assert ridge / 4 < np.diag(prior).min() < np.diag(prior).max() < 1.1 * ridge
    phi = np.maximum(x.astype(np.float64) @ np.asarray(state.kernel), 0)
    np.testing.assert_allclose(state.weights, weighted_ridge(phi, y, forgetting, prior), atol=2e-3)


@pytest.mark.parametrize("forgetting", [0.5, 0.99, 1.0])
def test_it_stays_sound_over_20_000_examples_most_of_them_alike(forgetting):
    x, y = examples(16)
    order = np.concatenate([np.zeros(19_900, int), np.arange(16).repeat(7)[:100]])
    learner = build("least_squares", features=20, forgetting=forgetting)
    state, answers = taught(learner, x[order], y[order])
    assert np.isfinite(answers).all()
    largest = np.linalg.eigvalsh(np.asarray(state.root @ state.root.T, np.float64)).max()
    assert 0 < largest < 1.01 * np.e / 10 * (2 if forgetting == 0.5 else 1)
    assert (answers[100:19_900].argmax(-1) == y[0]).all()


# Nearest mean, naive Bayes, floors.


def test_without_decay_means_are_those_of_scikit_learn():
    x, y = examples(50)
    learner = build("nearest_mean", decay=0.0)
    state, _ = taught(learner, x, y)
    sklearn = NearestCentroid().fit(x, y)
    np.testing.assert_allclose(state.means, sklearn.centroids_, atol=1e-5)
    tests, _ = examples(60, seed=1)
    np.testing.assert_array_equal(learner.predict({}, state, tests).argmax(-1), sklearn.predict(tests))


def test_with_decay_a_mean_is_plain_at_first_and_then_follows():
    x, _ = examples(9)
    learner = build("nearest_mean", decay=0.25)
    state, _ = taught(learner, x, np.zeros(9, np.int32))
    mean = x[:4].mean(0)
    for each in x[4:]:
        mean = mean + 0.25 * (each - mean)
    np.testing.assert_allclose(state.means[0], mean, atol=1e-6)
    assert not state.means[1:].any()


def test_without_decay_naive_bayes_is_that_of_scikit_learn():
    x, y = examples(50)
    learner = build("naive_bayes", smoothing=0.01, doubt=0.001)
    state, _ = taught(learner, x, y)
    tests, _ = examples(40, seed=1)
    expected = GaussianNB(var_smoothing=0.01).fit(x, y).predict_proba(tests)
    np.testing.assert_allclose(probabilities(learner, state, tests), with_doubt(expected, 0.001), atol=1e-4)


def test_with_decay_naive_bayes_has_weighted_moments():
    x, y = examples(30)
    learner = build("naive_bayes", decay=0.8)
    state, _ = taught(learner, x, y)
    weight = 0.8 ** np.arange(29, -1, -1.0)
    for c in range(C):
        w, of_class = weight[y == c], x[y == c]
        mean = w @ of_class / w.sum()
        np.testing.assert_allclose(state.weights[c], w.sum(), rtol=1e-4)
        np.testing.assert_allclose(state.means[c], mean, atol=1e-5)
        np.testing.assert_allclose(state.squares[c], w @ (of_class - mean) ** 2, atol=1e-4)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("last", [[1, 1, 1], [0, 1, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1], [0, 0, 1]]),
        ("prior", [[1, 1, 1], [0, 1, 0], [0, 1, 1], [0, 1, 2], [0, 1, 3], [0, 1, 3]]),
        ("majority", [[1, 1, 1], [0, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 1], [0, 0, 1]]),
    ],
)
def test_floors_look_at_targets_alone(answer, expected):
    learner = build("floor", answer=answer, doubt=0.1)
    x, _ = examples(6)
    y = np.array([1, 2, 2, 2, 0, 0], np.int32)
    _, answers = taught(learner, x, y, [1, 1, 1, 1, 0, 0])
    shares = np.array(expected) / np.sum(expected, -1, keepdims=True)
    np.testing.assert_allclose(jax.nn.softmax(answers), with_doubt(shares, 0.1), rtol=1e-5)


# UPGD and continual back-propagation.


def relu_network(weights):
    """Return kernels and biases in float64."""
    layers = weights["dense"]
    return [[np.asarray(layers[k][n], np.float64) for n in ("kernel", "bias")] for k in range(len(layers))]


def backward(network, x, y):
    """Return the activations of hidden layers and the gradient of the cross-entropy of one example."""
    activations = [x]
    for kernel, bias in network[:-1]:
        activations.append(np.maximum(activations[-1] @ kernel + bias, 0))
    logits = activations[-1] @ network[-1][0] + network[-1][1]
    error = np.exp(logits - logits.max())
    error = error / error.sum() - np.eye(len(logits))[y]
    gradient = []
    for h, (kernel, _) in zip(activations[::-1], network[::-1], strict=True):
        gradient.append([np.outer(h, error), error])
        error = (error @ kernel.T) * (h > 0)
    return activations[1:], gradient[::-1]


@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_upgd_is_the_published_update(beta):
    settings = {
        "widths": (5, 4),
        "learning_rate": 0.1,
        "utility_decay": beta,
        "weight_decay": 0.2,
        "logit_bound": 0,
    }
    x, y = examples(8)
    quiet = build("upgd", noise=0.0, **settings)
    start = quiet.init_state({}, KEY)
    network = relu_network(start.weights)
    utilities = [[0 * w for w in layer] for layer in network]
    for t, (each, label) in enumerate(zip(x, y, strict=True), 1):
        _, gradient = backward(network, each, label)
        for layer in range(3):
            for part in range(2):
                used = -gradient[layer][part] * network[layer][part]
                utilities[layer][part] = beta * utilities[layer][part] + (1 - beta) * used
        largest = max(u.max() for layer in utilities for u in layer)
        for layer in range(3):
            for part in range(2):
                scaled = utilities[layer][part] / (1 - beta**t) / largest
                free = 1 - 1 / (1 + np.exp(-scaled))
                network[layer][part] = (1 - 0.1 * 0.2) * network[layer][part] - 0.1 * gradient[layer][
                    part
                ] * free
    state, _ = taught(quiet, x, y)
    for got, want in zip(relu_network(state.weights), network, strict=True):
        np.testing.assert_allclose(got[0], want[0], atol=1e-5)
        np.testing.assert_allclose(got[1], want[1], atol=1e-5)


def test_perturbations_of_upgd_have_the_size_that_is_set_and_protect_useful_weights():
    x, y = examples(1)
    settings = {"widths": (400,), "learning_rate": 1.0, "weight_decay": 0.0}
    moved = []
    for noise in (0.0, 0.1):
        learner = build("upgd", noise=noise, **settings)
        state, _ = taught(learner, x, y)
        moved.append(state)
    kernel = [state.weights["dense"][0]["kernel"] for state in moved]
    idle = np.asarray(moved[0].utilities["dense"][0]["kernel"] == 0)
    assert idle.sum() > 500
    np.testing.assert_allclose((kernel[1] - kernel[0])[idle].std(), 0.1 * 0.5, rtol=0.1)
    most = np.unravel_index(moved[0].utilities["dense"][1]["kernel"].argmax(), (400, C))
    change = [state.weights["dense"][1]["kernel"][most] for state in moved]
    assert abs(change[1] - change[0]) < 1e-3  # utility / bias correction is far above the largest: free is 0


def test_draws_of_upgd_differ_from_step_to_step_and_are_those_of_the_key():
    learner = build("upgd", widths=(4,))
    x, y = examples(2)
    one, again = (taught(learner, x, y)[0] for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, one, again)
    assert not np.array_equal(one.key, learner.init_state({}, KEY).key)


@pytest.mark.parametrize("utility", ["contribution", "adaptable"])
def test_continual_backprop_is_the_published_generate_and_test(utility):
    maturity, rate, eta = 3, 0.15, 0.9
    adaptable = utility == "adaptable"
    learner = build(
        "continual_backprop",
        widths=(5, 4),
        learning_rate=0.1,
        replacement_rate=rate,
        maturity=maturity,
        utility_decay=eta,
        utility=utility,
        logit_bound=0,
    )
    x, y = examples(20)
    state = learner.init_state({}, KEY)
    network = relu_network(state.weights)
    utilities, ages, due = [np.zeros(5), np.zeros(4)], [np.zeros(5), np.zeros(4)], [0.0, 0.0]
    means = [np.zeros(5), np.zeros(4)]
    replaced = 0
    step = jax.jit(learner.step)
    for each, label in zip(x, y, strict=True):
        hidden, gradient = backward(network, each, label)
        for layer in range(3):
            for part in range(2):
                network[layer][part] = network[layer][part] - 0.1 * gradient[layer][part]
        sizes = [np.abs(network[layer + 1][0]).sum(1) for layer in range(2)]
        heard = [np.abs(network[layer][0]).sum(0) for layer in range(2)]
        state, _ = step({}, state, each[None], label[None])
        got = relu_network(state.weights)
        for layer in range(2):
            ages[layer] += 1
            worth, counted = np.abs(hidden[layer]), np.ones_like(ages[layer])
            if adaptable:
                counted = 1 - eta ** ages[layer]
                means[layer] = eta * means[layer] + (1 - eta) * hidden[layer]
                worth = np.abs(hidden[layer] - means[layer] / counted) / heard[layer]
            utilities[layer] = eta * utilities[layer] + (1 - eta) * worth * sizes[layer]
            mature = np.flatnonzero(ages[layer] > maturity)
            due[layer] += rate * len(mature)
            if due[layer] >= 1:
                unit = mature[(utilities[layer] / counted)[mature].argmin()]
                if adaptable:
                    usual = means[layer][unit] / counted[unit]
                    network[layer + 1][1] = network[layer + 1][1] + usual * network[layer + 1][0][unit]
                fresh = got[layer][0][:, unit]
                bound = np.sqrt(6 / len(fresh))
                assert (np.abs(fresh - network[layer][0][:, unit]) > 1e-6).any()
                assert np.abs(fresh).max() <= bound
                network[layer][0][:, unit] = fresh
                network[layer][1][unit] = 0
                network[layer + 1][0][unit] = 0
                utilities[layer][unit] = means[layer][unit] = ages[layer][unit] = 0
                due[layer] -= 1
                replaced += 1
        for (got_kernel, got_bias), (kernel, bias) in zip(got, network, strict=True):
            np.testing.assert_allclose(got_kernel, kernel, atol=1e-5)
            np.testing.assert_allclose(got_bias, bias, atol=1e-5)
        np.testing.assert_array_equal(np.concatenate(state.ages), np.concatenate(ages))
        np.testing.assert_allclose(np.concatenate(state.utilities), np.concatenate(utilities), atol=1e-5)
    assert replaced > 5


def test_without_replacement_continual_backprop_is_gradient_descent():
    x, y = examples(10)
    shared = {"widths": (5,), "learning_rate": 0.1, "init": "kaiming"}
    learner = build("continual_backprop", replacement_rate=0.0, **shared)
    sgd = build("sgd", activation="relu", **shared)
    state = learner.init_state({}, KEY)
    answers = go(learner, {}, state, stream(x, y))[1]
    expected = go(sgd, {}, sgd.with_weights(state.weights), stream(x, y))[1]
    np.testing.assert_allclose(answers, expected, atol=1e-5)


def test_the_network_of_the_papers_has_282_160_weights():
    for name in ("upgd", "continual_backprop"):
        learner = build(name, Classes(10), (28, 28, 1))
        state = jax.eval_shape(lambda learner=learner: learner.init_state({}, KEY))
        assert sum(leaf.size for leaf in jax.tree.leaves(state.weights)) == 282_160


@pytest.mark.parametrize(("init", "variance"), [("normal", 0.774), ("uniform", 1 / 3), ("kaiming", 2.0)])
def test_layers_are_drawn_with_the_variance_that_is_said(init, variance):
    sgd = build("sgd", shape=(400,), widths=(300,), init=init)
    first, last = (sgd.init_state({}, KEY).weights["dense"][k] for k in range(2))
    np.testing.assert_allclose(first["kernel"].var() * 400, variance, rtol=0.03)
    np.testing.assert_allclose(
        last["kernel"].var() * 300, variance / (2 if init == "kaiming" else 1), rtol=0.15
    )
    bias = np.asarray(first["bias"])
    assert (np.abs(bias).max() <= 0.05 and bias.std() > 0.02) if init == "uniform" else not bias.any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{replacement_rate: 0.1, widths: [20]}", "expected at most 1 / the largest of widths"),
        ("{widths: []}", "expected one hidden layer or more"),
    ],
)
def test_what_cannot_be_replaced_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        load_config(overrides=[f"model.continual_backprop={settings}"])


# Classifiers of scikit-learn that are fitted anew.


def refitted(x, y, told=None, **settings):
    told = None if told is None else np.asarray(told)[:, None]
    refit = Refit.model_validate({"doubt": 0.02, **settings})
    return refitted_answers(refit, x[:, None], y[:, None], told, C)[:, 0]


@pytest.mark.parametrize("every", [1, 7])
def test_an_estimator_answers_by_its_last_fit_to_earlier_examples_alone(every):
    x, y = examples(30)
    answers = refitted(x, y, estimator="svc", every=every)
    for t in range(10, 30):
        seen = t // every * every
        expected = SVC(C=10).fit(x[:seen], y[:seen]).predict(x[t : t + 1])
        assert answers[t].argmax() == expected
    np.testing.assert_allclose(np.exp(answers).sum(-1), 1, rtol=1e-5)


def test_an_estimator_answers_with_what_it_was_told_and_with_classes_that_it_has_seen():
    x, _ = examples(6)
    y = np.array([1, 1, 0, 2, 1, 1], np.int32)
    shares = np.exp(refitted(x, y, [1, 1, 1, 0, 1, 1], estimator="logistic_regression"))
    np.testing.assert_allclose(shares[0], 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(shares[1], with_doubt(np.array([0, 1, 0]), 0.02), rtol=1e-5)
    model = LogisticRegression(C=0.1, max_iter=300).fit(x[:3], y[:3])
    expected = with_doubt(np.append(model.predict_proba(x[3:4]), 0), 0.02)
    np.testing.assert_allclose(shares[3], expected, rtol=1e-4)
    assert (shares[4:, 2] < 0.01).all()  # the only example of class 2 was not told


def test_a_forest_gives_shares_of_its_trees():
    x, y = examples(12)
    shares = np.exp(refitted(x, y, estimator="random_forest", every=11))
    forest = RandomForestClassifier(n_estimators=200, random_state=0).fit(x[:11], y[:11])
    np.testing.assert_allclose(shares[11], with_doubt(forest.predict_proba(x[11:])[0], 0.02), rtol=1e-5)


def test_refitted_and_ordinary_learners_meet_the_same_episodes_and_have_their_price():
    config = load_config(
        overrides=[
            "evaluation={episode_length: 8, count: 3, start: false, datasets: [digits], learners: ["
            "{name: SVC, refit: {estimator: svc}, count: 2}, {name: prior, model: {type: floor}}]}"
        ]
    )
    setup, comm = Setup(config), SerialCommunicator()
    sources, _ = setup.load_evaluation_data(comm)
    comparison = Comparison(config.evaluation, comm)
    (svc, prior), _ = comparison.evaluate(compared_candidates(setup, sources, comm))
    assert svc.score.shape == (2, 8) and prior.score.shape == (3, 8)
    (task,) = setup.evaluation_tasks(sources)
    trial, _ = sample_trial((task.task,), 0, jax.random.key(config.evaluation.seed), jnp.int32(1))
    answers = refitted_answers(Refit(estimator="svc"), *map(np.asarray, (trial.x, trial.y)), None, 10)
    np.testing.assert_array_equal(svc.score[1], (answers.argmax(-1) == trial.y)[:, 0])
    assert svc.price.state == 8 * 65 and svc.price.microseconds > 0
    row = prior.summary()
    assert row["state"] == 11 and row["flops"] > 0
    table = markdown_table([svc.summary(), row])
    assert "| state | cost |" in table and "| 520 |" in table and "FLOP |" in table


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{estimator: svn}", "expected .*svc, logistic_regression, random_forest; did you mean 'svc'"),
        ("{estimator: svc}, model: {type: sgd}", "model: .*expected nothing beside refit"),
    ],
)
def test_settings_of_contestants_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        load_config(overrides=[f"evaluation.learners=[{{name: a, refit: {settings}}}]"])

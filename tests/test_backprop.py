"""Meta-parameters that are back-propagation: against the derivatives themselves, and in whole networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flat_vsml import changed, conv, flat_vsml

from vsml.config.files import ConfigError
from vsml.introspection.trajectories import Descent
from vsml.launching.schema import load_config
from vsml.learners import continue_episode, make_learner, run_episode
from vsml.losses import bound_logits
from vsml.networks.written import TERMS, activate, cells_of, decode, encode
from vsml.types import Episode

pytestmark = pytest.mark.usefixtures("hasty")

KEY = jax.random.key(0)
SETTINGS = [
    "model.vsml={backward_pass: true, micro_ticks: 1}",
    "model.vsml.synapse={init: backprop, random_fraction: 0.25}",
]
RATE, BIAS_RATE, CELLS = 0.5, 0.02, 9
compiled_run = jax.jit(run_episode, static_argnums=0)
each_activation = pytest.mark.parametrize("activation", TERMS)


def make(shape, classes, **settings):
    fixed = {"backward_pass": True, "micro_ticks": 1, "random_fraction": 0.25, "init": "backprop"}
    return flat_vsml(shape, classes, init_rate=RATE, **(fixed | settings))


def make_episode(length, inputs, classes):
    random = np.random.default_rng(0)
    prototypes = random.normal(size=(classes, inputs))
    labels = random.integers(0, classes, (length, 1)).astype(np.int32)
    x = prototypes[labels] / 2 + random.normal(size=(length, 1, inputs)) / 2
    return Episode(x.astype(np.float32), labels, np.ones(labels.shape, np.float32))


def silence(params):
    """Leave nothing but the cells that back-propagation is in."""
    return jax.tree.map_with_path(
        lambda path, a: a.at[:-CELLS].set(0) if "message" in str(path) and a.shape[0] == 16 else a, params
    )


def descend(learner, episode, weights):
    """Return the weights and the logits of gradient descent in the network that the synapses stand for."""

    def step(weights, example):
        return Descent(learner).step(weights, example[0][0], example[1][0])

    return jax.lax.scan(step, weights, (episode.x, episode.y))


def start(learner, weights):
    """Return the fresh state of a learner whose synapses hold the weights [I, O] of each layer."""
    layers = learner.network.layers
    activation = learner.config.synapse.init_activation
    rest = [(0, 0), (0, 0), (learner.config.synapse.state_size - cells_of(activation), 0)]
    cells = [jnp.pad(encode(w, jnp.zeros_like(w), activation), rest) for w in weights]
    states = tuple(layer.with_cells(c) for layer, c in zip(layers, cells, strict=True))
    return learner.with_network(learner.network.with_layers(states))


@each_activation
def test_a_sum_of_sigmoids_is_the_activation(activation):
    x = jnp.linspace(-3, 3, 200)
    exact = jnp.tanh(x) if activation == "tanh" else jax.nn.relu(x)
    error = {"tanh": 1e-6, "relu": 0.04, "relu3": 0.016, "relu4": 0.008}[activation]
    assert jnp.sqrt(jnp.square(activate(x, activation) - exact).mean()) < error


@each_activation
def test_what_is_stored_is_read_back(activation):
    w, b = jax.random.normal(KEY, (2, 5, 3)) * 4
    cells = encode(w, b, activation)
    assert cells.shape == (5, 3, cells_of(activation))
    np.testing.assert_allclose(decode(cells, activation), (w, b), rtol=1e-4, atol=1e-4)


@each_activation
def test_a_synapse_answers_moves_and_sends_back_as_its_derivatives_say(activation):
    size = cells_of(activation) + 4
    settings = {"state_size": size, "random_fraction": 0.0, "init_activation": activation}
    learner = make((1,), 2, **settings)
    params = learner.init_params(KEY)
    synapse = learner.synapses.with_params(params)[0]
    x, w, b, e = jax.random.normal(KEY, (4, 500)) * jnp.array([1.0, 2.0, 1.0, 0.4])[:, None]
    c = jnp.pad(encode(w, b, activation), [(0, 0), (4, 0)])

    def visit(h, c, x, e):
        forward, feedback = jnp.zeros((2, 8)).at[:, 0].set(jnp.array([x, e]))
        h, c = synapse(h, c, forward, feedback)
        return h, c, *synapse.messages(h)

    visits = jax.jit(jax.vmap(visit))
    h, c, answer, _ = visits(jnp.zeros_like(c), c, x, jnp.zeros_like(e))
    _, moved, _, back = visits(h, c, x, e)
    u, du = activate(x, activation), jax.vmap(jax.grad(lambda x: activate(x, activation)))(x)
    idle = answer[:, 1] - b - u * w  # of cells that have not learned
    assert jnp.abs(idle).max() < 0.15
    new_w, new_b = decode(moved[:, 4:], activation)
    np.testing.assert_allclose(new_w, w - RATE * e * u, atol=0.03)
    np.testing.assert_allclose(new_b, b - RATE * BIAS_RATE * e, atol=0.01)
    sent = e * new_w * du  # by the weight that has just moved
    assert jnp.abs(back[:, 0] - sent).max() < 0.25 and jnp.corrcoef(back[:, 0], sent)[0, 1] > 0.998


def test_descent_is_that_of_an_ordinary_network():
    sizes, scale = (12, 6, 3), 0.5
    learner = make(sizes[:1], 3, hidden=(6,), separate_backward=True, error_scale=scale)
    w1, w2 = (jax.random.normal(KEY, shape) for shape in ((12, 6), (6, 3)))
    x, y = jax.random.normal(KEY, (12,)), jnp.int32(1)
    zeros = [jnp.zeros_like(w) for w in (w1, w2)]
    ((moved_1, b1), (moved_2, b2)), logits = Descent(learner).step([(w1, zeros[0]), (w2, zeros[1])], x, y)

    def loss(w1, w2, b1, b2):  # of weights w / I, biases of units, and sums
        logits = bound_logits(jnp.tanh(jnp.tanh(x) @ w1 + b1) @ w2 + b2, 100.0)
        return -jax.nn.log_softmax(logits)[y], logits

    start = w1 / 12, w2 / 6, jnp.zeros(6), jnp.zeros(3)
    (dw1, dw2, db1, db2), expected = jax.grad(loss, (0, 1, 2, 3), has_aux=True)(*start)
    biases = RATE * scale * BIAS_RATE
    np.testing.assert_allclose(b2, jnp.broadcast_to(-biases * db2, (6, 3)), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(b1, jnp.broadcast_to(-biases * db1 * 6 / 3, (12, 6)), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(logits, expected, rtol=1e-5)
    np.testing.assert_allclose(moved_2 - w2, -RATE * scale * dw2, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(moved_1 - w1, -RATE * scale * dw1 * 6 / 3, rtol=1e-4, atol=1e-6)


def test_a_rate_is_fed_or_built_in():
    episode = make_episode(60, 12, 3)
    fed = make((12,), 3, state_size=9, random_fraction=0.0, error_scale=0.2)
    built_in = changed(fed, error_scale=1.0, init_rate=0.2 * RATE)
    logits = [compiled_run(each, each.init_params(KEY), KEY, episode) for each in (fed, built_in)]
    assert np.abs(logits[0]).max() > 0.1
    np.testing.assert_allclose(*logits, atol=0.01 * np.abs(logits[0]).max())


@pytest.mark.slow
def test_a_fresh_state_holds_the_weights_that_are_asked_for():
    learner = make((400,), 5, hidden=(100,), separate_backward=True, init_weights=0.2)
    held = learner.weights(learner.init_state(learner.init_params(KEY), KEY))
    assert [w.shape for w, _ in held] == [(1, 400, 100), (1, 100, 5)]
    for (w, b), fan_in in zip(held, (400, 100), strict=True):
        assert w.std() == pytest.approx(0.2 * fan_in**0.5, rel=0.1)
        assert not b.any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"init_weights": 1.0, "state_size": 8}, "expected 0 unless synapse.state_size is 9 or more"),
        ({"init_weights": 1.0, "hidden": (conv(2, 3),)}, "expected 0 unless all layers are dense"),
        ({"init_weights": 6.0}, "expected at most 5 with a fan-in of 4"),
        ({"error_scale": 0.0}, "error_scale\n.*greater than 0"),
    ],
)
def test_weights_that_cannot_be_held_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        flat_vsml((4,), 3, **settings)


def test_large_weights_need_room():
    w = jnp.array([100.0, -300.0])
    np.testing.assert_allclose(decode(encode(w, w, "tanh", 1600), "tanh", 1600), (w, w), rtol=1e-3)
    assert jnp.abs(decode(encode(w, w, "tanh"), "tanh")[0]).max() <= 40


def test_one_layer_learns_as_gradient_descent_does():
    learner, episode = make((12,), 3), make_episode(60, 12, 3)
    params = silence(learner.init_params(KEY))
    got = compiled_run(learner, params, KEY, episode)[:, 0]
    zeros = [(jnp.zeros((12, 3)), jnp.zeros((12, 3)))]
    _, expected = descend(learner, episode, zeros)
    assert np.abs(expected).max() > 0.7
    np.testing.assert_allclose(got, expected, atol=0.02 * np.abs(expected).max())


def test_hidden_layers_learn_as_gradient_descent_does():
    sizes = (12, 6, 3)
    learner = make(sizes[:1], 3, hidden=(6,), separate_backward=True)
    params, episode = silence(learner.init_params(KEY)), make_episode(60, 12, 3)
    random = np.random.default_rng(1)
    weights = [random.normal(size=shape) for shape in ((12, 6), (6, 3))]
    run_on = jax.jit(continue_episode, static_argnums=0)
    _, logits = run_on(learner, params, start(learner, weights), episode)
    moved, expected = descend(learner, episode, [(w, jnp.zeros_like(w)) for w in weights])
    assert np.abs(moved[0][0] - weights[0]).mean() > 0.3  # the hidden layer has learned
    np.testing.assert_allclose(logits[:, 0], expected, atol=0.05 * np.abs(expected).max())


def test_the_other_cells_change_little_at_first():
    learner, episode = make((12,), 3), make_episode(60, 12, 3)
    params = learner.init_params(KEY)
    with_rest = compiled_run(learner, params, KEY, episode)
    alone = compiled_run(learner, silence(params), KEY, episode)
    assert 0 < np.abs(with_rest - alone).max() < 0.2 * np.abs(alone).max()


@pytest.mark.parametrize(
    ("override", "path"),
    [
        ("model.vsml.backward_pass=false", "backward_pass: got False, expected true"),
        ("model.vsml.micro_ticks=2", "micro_ticks: got 2, expected 1"),
        ("model.vsml.synapse.layer_norm=true", r"synapse\.layer_norm: got True, expected false"),
        ("model.vsml.layers=[{out_size: 3}, {}]", "separate_backward: got False, expected true"),
        (
            "model.vsml={synapse: {init_weights: 1}, layers: [{type: conv, out_channels: 2}, {}]}",
            "init_weights: got 1",
        ),
        (
            "model.vsml.synapse={init: random, init_weights: 1, state_size: 8}",
            "init_weights: got 1.*9 or more",
        ),
        (
            "model.vsml.synapse.random_fraction=0.5",
            r"random_fraction: got 0\.5, expected a state_size",
        ),
    ],
)
def test_settings_that_it_cannot_be_written_for_are_refused(override, path):
    with pytest.raises(ConfigError, match=path):
        load_config(overrides=[*SETTINGS, override])
    model = load_config(overrides=SETTINGS).model
    assert make_learner("vsml", model.settings, (4,), 3).config.synapse.init == "backprop"

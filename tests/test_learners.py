"""What every learner owes, whatever it is; then what is special to each baseline."""

import functools
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from pydantic import Field

from vsml.config.files import ConfigError
from vsml.launching.schema import load_config
from vsml.learners import LEARNERS, config_type, continue_episode, make_learner, run_episode
from vsml.learners.base import LearnerBase
from vsml.losses import cross_entropy, error_signal
from vsml.settings import Positive, Section
from vsml.types import Classes, Episode

pytestmark = pytest.mark.usefixtures("hasty", "explicit_ranks")

SHAPE, CLASSES = (4, 4, 1), 3

VARIANTS = {
    "meta_rnn": ["model.meta_rnn.hidden_size=8"],
    "meta_rnn, conv": ["model.meta_rnn={hidden_size: 8, conv: true}"],
    "hebbian": [],
    "hebbian, oja": ["model.hebbian.rule=oja"],
    "hebbian, conv": ["model.hebbian.conv=true"],
    "fwp": ["model.fwp.fast_size=6"],
    "fw_memory": ["model.fw_memory={hidden_size: 8, memory_size: 4}"],
    "fw_memory, conv": ["model.fw_memory={hidden_size: 8, memory_size: 4, conv: true}"],
    "sgd": ["model.sgd.learning_rate=0.1"],
    "sgd, deep": ["model.sgd={num_layers: 3, hidden_size: 5, optimizer: adam}"],
    "rule": ["model.rule.graph.hidden=[4]"],
    "rule, waxman": ["model.rule={rule: delta, graph: {kinds: [waxman], hidden: [3], count: 2}}"],
    "sgd, conv": ["model.sgd={conv: true, optimizer: rmsprop}"],
    "upgd": ["model.upgd={widths: [6, 4]}"],
    "continual_backprop": ["model.continual_backprop={widths: [6], replacement_rate: 0.1, maturity: 1}"],
    "neighbours, five": ["model.neighbours={buffer: 9, neighbours: 5, metric: euclidean}"],
    "kernel_ridge": ["model.kernel_ridge.buffer=4"],
    "least_squares, forgetting": ["model.least_squares={features: 12, forgetting: 0.9, bias: 1}"],
    "nearest_mean": [],
    "naive_bayes": ["model.naive_bayes.decay=0.9"],
    "ngrams": ["model.ngrams={order: 2, rows: 8}"],
    "floor": [],
}


def make(variant, shape=SHAPE, num_classes=CLASSES):
    name = variant.partition(",")[0]
    model = load_config(overrides=[f"model.type={name}", *VARIANTS[variant]]).model
    return make_learner(model.type, model.settings, shape, num_classes)


def make_episode(length=5, batch_size=1, shape=SHAPE, num_classes=CLASSES, seed=0):
    keys = jax.random.split(jax.random.key(seed))
    x = jax.random.normal(keys[0], (length, batch_size, *shape))
    labels = jax.random.randint(keys[1], (length, batch_size), 0, num_classes)
    return Episode(x=x, y=labels, weight=jnp.ones(labels.shape))


compiled_run = jax.jit(run_episode, static_argnums=0)
compiled_step = jax.jit(lambda learner, *arguments: learner.step(*arguments), static_argnums=0)
compiled_predict = jax.jit(lambda learner, *arguments: learner.predict(*arguments), static_argnums=0)
compiled_params = jax.jit(lambda learner, key: learner.init_params(key), static_argnums=0)
compiled_state = jax.jit(
    lambda learner, params, key, size: learner.init_state(params, key, size), static_argnums=(0, 3)
)


def run(learner, episode, seed=0):
    params = compiled_params(learner, jax.random.key(seed + 1))
    return compiled_run(learner, params, jax.random.key(seed + 2), episode)


every = pytest.mark.parametrize("variant", VARIANTS)
NETWORKS = [name for name in VARIANTS if not name.startswith("rule")]
"""All but rules, which answer with what their nodes hold, and whose copies have draws of their own."""

BOUNDED = [name for name in NETWORKS if "logit_bound" in config_type(name.partition(",")[0]).model_fields]
"""Those whose logits have a bound that is set. Those of shares of probability have one by nature."""

every_bounded = pytest.mark.parametrize("variant", BOUNDED)


def test_every_learner_is_tried():
    assert {variant.partition(",")[0] for variant in VARIANTS} == set(LEARNERS) - {"vsml"}  # see test_vsml.py


@every
def test_an_answer_depends_on_earlier_labels_and_on_no_later_one(variant):
    learner, episode = make(variant), make_episode()
    other = episode.replace(y=episode.y.at[1].set((episode.y[1] + 1) % CLASSES))
    first, second = run(learner, episode), run(learner, other)
    assert np.array_equal(first[:2], second[:2])
    assert not np.array_equal(first[2:], second[2:])


@every
def test_predict_answers_as_step_does_and_learns_nothing(variant):
    learner, episode = make(variant), make_episode()
    params = compiled_params(learner, jax.random.key(1))
    state = compiled_state(learner, params, jax.random.key(2), 1)
    for x, y in zip(episode.x, episode.y, strict=True):
        state, _ = compiled_step(learner, params, state, x, y)
    x = make_episode(length=3, seed=5).x[:, 0]
    y = jnp.zeros(1, jnp.int32)
    answers = [compiled_step(learner, params, state, x[k : k + 1], y)[1][0] for k in range(3)]
    np.testing.assert_allclose(compiled_predict(learner, params, state, x), jnp.stack(answers), atol=1e-5)


@every
def test_any_inner_batch_will_do(variant):
    learner = make(variant)
    logits = run(learner, make_episode(batch_size=3))
    assert logits.shape == (5, 3, CLASSES) and jnp.isfinite(logits).all()
    params = compiled_params(learner, jax.random.key(1))
    state = compiled_state(learner, params, jax.random.key(2), 3)
    assert compiled_predict(learner, params, state, make_episode(7).x[:, 0]).shape == (7, CLASSES)


@pytest.mark.parametrize("variant", [name for name in NETWORKS if "conv" not in name and name != "fwp"])
def test_an_inner_batch_of_the_same_example_answers_alike(variant):
    """Averages over the batch are right: B copies of one example leave what is learned as it is; fwp adds."""
    learner, episode = make(variant), make_episode()
    copies = jax.tree.map(lambda a: a.repeat(3, 1), episode)
    alone, together = run(learner, episode), run(learner, copies)
    assert np.abs(together - together[:, :1]).max() < 1e-5
    if "sgd" in variant:  # all others are told the error of the mean loss, which is a third of it
        np.testing.assert_allclose(together[:, 0], alone[:, 0], atol=1e-4)


@every
def test_members_run_together_answer_as_each_does_alone(variant):
    learner, episode = make(variant), make_episode()
    params = jax.vmap(learner.init_params)(jax.random.split(jax.random.key(1), 2))
    both = jax.vmap(lambda params: run_episode(learner, params, jax.random.key(2), episode), axis_size=2)
    together = jax.jit(both)(params)
    for k in range(2):
        one = jax.tree.map(lambda a, k=k: a[k], params)
        alone = compiled_run(learner, one, jax.random.key(2), episode)
        np.testing.assert_allclose(together[k], alone, rtol=1e-6, atol=1e-5)


@every
def test_gradients_are_finite_and_reach_what_matters(variant):
    learner, episode = make(variant), make_episode()

    def loss(params):
        logits = run_episode(learner, params, jax.random.key(2), episode)
        return cross_entropy(logits, episode.y).mean()

    gradient = jax.jit(jax.grad(loss))(compiled_params(learner, jax.random.key(1)))
    leaves = jax.tree.leaves(gradient)
    assert all(jnp.isfinite(leaf).all() for leaf in leaves)
    assert all(jnp.abs(leaf).max() > 0 for leaf in leaves)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if "conv" not in name])
def test_vectors_and_two_classes_will_do(variant):
    learner = make(variant, (1,), 2)
    assert run(learner, make_episode(shape=(1,), num_classes=2)).shape == (5, 1, 2)


@pytest.mark.parametrize("variant", [name for name in VARIANTS if "conv" in name])
def test_convolutions_need_images(variant):
    with pytest.raises(ValueError, match=r"conv: got inputs of shape \(5,\), expected"):
        run(make(variant, (5,)), make_episode(shape=(5,)))


@every
def test_the_second_call_does_not_compile_again(variant):
    learner, episode = make(variant), make_episode()
    params = compiled_params(learner, jax.random.key(1))
    function = jax.jit(functools.partial(run_episode), static_argnums=0)
    function(learner, params, jax.random.key(2), episode)
    function(make(variant), params, jax.random.key(3), episode)
    assert function._cache_size() == 1


@every_bounded
def test_logits_are_bounded(variant):
    name = variant.partition(",")[0]
    model = load_config(
        overrides=[f"model.type={name}", *VARIANTS[variant], f"model.{name}.logit_bound=0.01"]
    )
    learner = make_learner(name, model.model.settings, SHAPE, CLASSES)
    assert jnp.abs(run(learner, make_episode())).max() <= 0.01


class MajorityConfig(Section):
    """The class that came most often."""

    head_start: Positive = Field(default=1, description="examples that the first class starts with")


@dataclass(frozen=True)
class Majority(LearnerBase):
    """A learner from outside of the package: it answers with the counts of the classes so far."""

    config: MajorityConfig = field(default_factory=MajorityConfig)

    def init_params(self, key):
        return {}

    def init_state(self, params, key, batch_size=1):
        return jnp.zeros(self.num_classes).at[0].set(self.config.head_start)

    def step(self, params, state, x, y, taught=None):
        return state + jax.nn.one_hot(y, self.num_classes).sum(0), self.predict(params, state, x)

    def predict(self, params, state, x):
        return jnp.broadcast_to(state, (len(x), self.num_classes))


def test_a_learner_from_outside_is_named_by_its_module():
    name = f"{__name__}:Majority"
    assert config_type(name) is MajorityConfig
    learner = make_learner(name, MajorityConfig(head_start=3), SHAPE, CLASSES)
    assert learner == Majority(SHAPE, Classes(CLASSES), MajorityConfig(head_start=3))
    episode = make_episode(4)
    np.testing.assert_array_equal(run(learner, episode)[0, 0], [3, 0, 0])
    assert run(learner, episode)[-1].sum() == 3 + 3
    for wrong, message in (
        (f"{__name__}:Majorty", f"did you mean {__name__}:Majority"),
        ("hebian", "did you mean 'hebbian'"),
        (f"{__name__}:make", "got config of type None, expected a subclass of vsml.settings.Section"),
    ):
        with pytest.raises(ValueError, match=message):
            config_type(wrong)


# Meta RNN.


def test_a_meta_rnn_ticks_its_lstm_as_often_as_configured():
    one, two = (
        make_learner(
            "meta_rnn", load_config(overrides=[f"model.meta_rnn.micro_ticks={n}"]).model.meta_rnn, (2,), 2
        )
        for n in (1, 2)
    )
    params, x = one.init_params(jax.random.key(0)), jnp.ones((1, 2))
    state = one.init_state(params, jax.random.key(0))
    label = jnp.zeros(1, int)
    after, _ = one.step(params, state, x, label)
    twice = one.step(params, after.replace(feedback=state.feedback), x, label)
    np.testing.assert_allclose(two.predict(params, state, x), twice[1], atol=1e-6)


# Hebbian.


@pytest.mark.parametrize("rule", ["hebb", "oja"])
def test_hebbian_weights_change_by_the_rule(rule):
    settings = load_config(overrides=[f"model.hebbian.rule={rule}"]).model.hebbian
    learner = make_learner("hebbian", settings, (3,), 2)
    params = learner.init_params(jax.random.key(0))
    F = jax.random.normal(jax.random.key(1), (7, 2))
    x, label = jnp.array([[0.5, -1.0, 2.0]]), jnp.array([1])
    new, logits = learner.step(params, F, x, label)
    z = jnp.concatenate([x[0], error_signal(Classes(2), logits, label)[0], jnp.array([0.0, 1.0])])
    weights = params["layer"]["slow"] + params["layer"]["coefficient"] * F
    y = jax.nn.softmax(z @ weights + params["layer"]["bias"])
    r = jax.nn.sigmoid(params["layer"]["rate_logit"])
    expected = np.empty((7, 2))
    for i in range(7):
        for j in range(2):
            change = z[i] * y[j] - F[i, j] if rule == "hebb" else y[j] * (z[i] - y[j] * F[i, j])
            expected[i, j] = F[i, j] + r * change
    np.testing.assert_allclose(new, expected, atol=1e-6)


# Fast weights.


def test_the_delta_rule_replaces_the_value_at_a_key():
    """With key = query = a unit vector and beta open, the answer is the value that was written."""
    learner = make_learner("fwp", load_config(overrides=["model.fwp.fast_size=2"]).model.fwp, (1,), 2)
    bias = jnp.array([1.0, 0.0, 3.0, -2.0, 1.0, 0.0, 100.0])  # key, value, query, beta
    params = {"slow": {"kernel": jnp.zeros((7, 7)), "bias": bias}}
    state = learner.init_state(params, jax.random.key(0))
    state, logits = learner.step(params, state, jnp.zeros((1, 1)), jnp.zeros(1, jnp.int32))
    np.testing.assert_allclose(logits, 100 * np.tanh(np.array([[0.03, -0.02]])), rtol=1e-5)
    again, _ = learner.step(params, state, jnp.zeros((1, 1)), jnp.zeros(1, jnp.int32))
    np.testing.assert_allclose(again.fast, state.fast, atol=1e-6)  # it is there already


@pytest.mark.parametrize("normalize", [False, True])
def test_on_images_only_normalised_keys_keep_fast_weights_finite(normalize):
    settings = load_config(overrides=[f"model.fwp.normalize={normalize}"]).model.fwp
    learner = make_learner("fwp", settings, (28, 28, 1), 10)
    logits = run(learner, make_episode(200, shape=(28, 28, 1), num_classes=10))
    assert bool(jnp.isfinite(logits).all()) == normalize


def test_writes_of_a_batch_are_added_to_the_fast_weights_that_all_of_them_read():
    learner, episode = make("fwp"), make_episode(1, batch_size=2)
    params = learner.init_params(jax.random.key(1))
    fast = jax.random.normal(jax.random.key(2), (6, CLASSES))
    x, y = episode.x[0], episode.y[0]
    both, _ = learner.step(params, learner.with_fast(fast, 2), x, y)
    alone = [
        learner.step(params, learner.with_fast(fast), x[k : k + 1], y[k : k + 1])[0].fast for k in (0, 1)
    ]
    np.testing.assert_allclose(both.fast - fast, alone[0] + alone[1] - 2 * fast, atol=1e-5)


def test_fast_weights_start_with_the_variance_of_their_size():
    learner = make_learner("fwp", load_config(overrides=["model.fwp.fast_size=64"]).model.fwp, (1,), 100)
    fast = learner.init_state({}, jax.random.key(0)).fast
    assert fast.std() == pytest.approx(64**-0.5, rel=0.05)


def test_the_memory_stays_within_its_norm_and_is_shared_by_the_batch():
    learner = make("fw_memory")
    params = jax.tree.map(lambda a: 10 * a, learner.init_params(jax.random.key(1)))
    state = learner.init_state(params, jax.random.key(2), 3)
    state, _ = continue_episode(learner, params, state, make_episode(20, batch_size=3))
    assert state.memory.shape == (4, 16)
    assert 0.5 < jnp.linalg.norm(state.memory) <= 1 + 1e-6


def test_what_a_batch_writes_into_the_memory_is_averaged():
    learner, episode = make("fw_memory"), make_episode(1, batch_size=2)
    params = learner.init_params(jax.random.key(1))
    start = learner.init_state(params, jax.random.key(2))  # an empty memory: norms stay below 1
    x, y = episode.x[0], episode.y[0]
    both, _ = learner.step(params, learner.init_state(params, jax.random.key(2), 2), x, y)
    alone = [learner.step(params, start, x[k : k + 1], y[k : k + 1])[0].memory for k in (0, 1)]
    np.testing.assert_allclose(both.memory, (alone[0] + alone[1]) / 2, atol=1e-6)


# Gradient descent.


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ("{optimizer: adm}", r"model\.sgd\.optimizer: got 'adm', expected one of adabelief"),
        ("{optimizer_options: {momentu: 1}}", "expected what optax takes: .*momentu"),
        ("{optimizer: adam, optimizer_options: {b1: x}}", "expected numbers, true, false or null"),
        ("{optimizer: adamw, optimizer_options: {mask: {a: 1}}}", "expected numbers, true, false or null"),
        ("{optimizer: lion, optimizer_options: {b1: null}}", "expected what optax takes"),
    ],
)
def test_what_optax_would_refuse_is_refused_in_the_configuration(settings, expected):
    with pytest.raises(ConfigError, match=expected):
        load_config(overrides=[f"model.sgd={settings}"])


@pytest.mark.parametrize("name", ["sgd", "adam", "rmsprop", "lion", "adafactor"])
def test_it_is_what_optax_does(name):
    overrides = [f"model.sgd={{optimizer: {name}, learning_rate: 0.05}}"]
    learner = make_learner("sgd", load_config(overrides=overrides).model.sgd, (3,), 2)
    episode = make_episode(6, batch_size=2, shape=(3,), num_classes=2)
    state = learner.init_state({}, jax.random.key(0))
    w, b = state.weights["dense"][0]["kernel"], state.weights["dense"][0]["bias"]
    weights, optimizer = (w, b), getattr(optax, name)(0.05)
    memory = optimizer.init(weights)

    def loss(weights, x, y):
        logits = 100 * jnp.tanh((x @ weights[0] + weights[1][None]) / 100)
        return cross_entropy(logits, y).mean(), logits

    expected = []
    for x, y in zip(episode.x, episode.y, strict=True):
        gradient, logits = jax.grad(loss, has_aux=True)(weights, x, y)
        updates, memory = optimizer.update(gradient, memory, weights)
        weights = optax.apply_updates(weights, updates)
        expected.append(logits)
    got = continue_episode(learner, {}, state, episode)[1]
    np.testing.assert_allclose(got, jnp.stack(expected), atol=1e-5)


def test_every_episode_starts_from_a_network_of_its_own():
    learner = make("sgd")
    first, second = (learner.init_state({}, jax.random.key(k)).weights for k in range(2))
    assert not np.array_equal(first["dense"][0]["kernel"], second["dense"][0]["kernel"])


@pytest.mark.slow
def test_options_of_the_optimizer_are_handed_on():
    momentum = "model.sgd={optimizer_options: {momentum: 0.9, nesterov: true}}"
    settings = load_config(overrides=[momentum]).model.sgd
    hash(settings)
    assert settings.model_dump()["optimizer_options"] == {"momentum": 0.9, "nesterov": True}
    plain, other = (
        make_learner("sgd", load_config().model.sgd, SHAPE, 3),
        make_learner("sgd", settings, SHAPE, 3),
    )
    assert not np.allclose(run(plain, make_episode()), run(other, make_episode()), atol=1e-5)

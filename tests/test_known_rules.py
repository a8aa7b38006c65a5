"""Known rules: each equals what the literature says of it, by algebra, gradients of JAX or statistics."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vsml.graphs import Graph, generate, to_arrays
from vsml.rules import (
    Harness,
    Settings,
    compile_rule,
    known_names,
    known_rule,
    parse,
    read_rule,
    show,
    slots_of,
)

pytestmark = pytest.mark.usefixtures("hasty", "double")


class Run:
    """A stream of examples through a known rule on a graph."""

    def __init__(self, name, graph, settings, **constants):
        self.rule = known_rule(name).rule
        self.graph = graph
        self.arrays = to_arrays(graph)
        self.harness = Harness(Settings(**settings))
        machine = compile_rule(self.rule)
        values = self.rule.tuned | constants
        assert set(values) == set(self.rule.tuned)
        tuned = jnp.array(list(values.values()))
        self.machine = machine.replace(constants=machine.constants.at[: len(tuned)].set(tuned))

    def begin(self, seed=0):
        return self.harness.begin(self.machine, self.arrays, jax.random.key(seed), jnp.float64)

    def go(self, state, x, targets):
        """Return the state after a stream, the answers [J, O] and the memory after each example [J, S, H]."""
        return _go(self.harness, self.machine, self.arrays, state, jnp.asarray(x), jnp.asarray(targets))

    def slots(self, memory):
        return {name: np.asarray(value) for name, value in slots_of(self.rule, self.arrays, memory).items()}

    def weights(self, memory, name="w"):
        """Return a slot that is shared, or its owner's, by edge [E]."""
        return self.slots(memory)[name][1::2]


@functools.partial(jax.jit, static_argnums=0)
def _go(harness, machine, arrays, state, x, targets):
    def step(state, example):
        state, answer = harness.example(machine, arrays, state, *example)
        return state, (answer, state.memory)

    state, (answers, memories) = jax.lax.scan(step, state, (x, targets))
    return state, answers, memories


def loss_of(answer, target, kind):
    if kind == "classes":
        return -jax.nn.log_softmax(answer)[target]
    return jnp.square(answer - target).sum() / 2


def leaky(value):
    return jnp.where(value > 0, value, 0.1 * value)


def feed_forward(weights, x, graph, activation, out_activation=None):
    """Return the values at the outputs of a net with the edges of a graph; inputs are linear."""
    values = dict(zip(graph.inputs, x, strict=True))
    for node in range(graph.num_nodes):
        if node in values:
            continue
        incoming = np.flatnonzero(graph.edges[:, 1] == node)
        drive = sum(weights[edge] * values[int(graph.edges[edge, 0])] for edge in incoming)
        is_output = node in graph.outputs and out_activation is not None
        values[node] = (out_activation if is_output else activation)(drive)
    return jnp.stack([values[node] for node in graph.outputs])


def examples(graph, count, kind, seed=0):
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, len(graph.inputs)))
    if kind == "classes":
        return x, random.integers(len(graph.outputs), size=count)
    return x, random.normal(size=(count, len(graph.outputs)))


def check_steps(steps, expected, tolerance):
    """Compare changes of weights, relative to the largest that is expected."""
    steps, expected = np.asarray(steps), np.asarray(expected)
    largest = np.abs(expected).max()
    assert largest > 0
    assert np.abs(steps - expected).max() < tolerance * largest


def cosine(one, other):
    return float(np.dot(one, other) / np.linalg.norm(one) / np.linalg.norm(other))


def test_the_rules_that_ship_can_be_read_by_name_and_from_a_file(tmp_path):
    names = known_names()
    assert {"backprop", "delta", "weight_perturbation", "three_factor"} <= set(names)
    for name in names:
        known = known_rule(name)
        assert parse(show(known.rule)) == known.rule
        assert "Teach mode" in known.about or "Target on" in known.about or "No teaching" in known.about
    path = tmp_path / "mine.rule"
    path.write_text(known_rule("delta").text, encoding="utf-8")
    assert read_rule(path) == read_rule("delta")
    path.write_text("a : node\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"mine\.rule:\nline 1: out is missing"):
        read_rule(path)
    with pytest.raises(ValueError, match=r"rule: got 'backprob', expected one of .* did you mean backprop"):
        read_rule("backprob")


def sign_descent(rate):
    return optax.chain(optax.stateless(lambda updates, _: jax.tree.map(jnp.sign, updates)), optax.sgd(rate))


OPTIMIZERS = {
    "backprop": lambda rate: optax.sgd(rate),
    "backprop_momentum": lambda rate: optax.sgd(rate, momentum=0.9),
    "backprop_sign": sign_descent,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind", "seed"),
    [
        ("backprop", "classes", 0),
        ("backprop", "regression", 1),
        ("backprop_momentum", "classes", 2),
        ("backprop_sign", "regression", 0),
    ],
)
def test_backprop_and_its_variants_are_gradient_descent(name, kind, seed):
    graph = generate("dag", 3, 4, 2, seed, p=0.4)
    length = graph.longest_path
    settings = {"ticks": 2 * (length + 1), "read_tick": length, "x_hold": 1, "loss": kind}
    run = Run(name, graph, settings, lr=0.05)
    state = run.begin()
    x, targets = examples(graph, 4, kind)
    _, answers, memories = run.go(state, x, targets)

    net = functools.partial(feed_forward, graph=graph, activation=leaky)
    slope = jax.jit(jax.grad(lambda weights, x, target: loss_of(net(weights, x), target, kind)))
    answer_of = jax.jit(net)
    optimizer = OPTIMIZERS[name](0.05)
    weights = jnp.asarray(run.weights(state.memory))
    moments = optimizer.init(weights)
    before = weights
    for number in range(len(x)):
        np.testing.assert_allclose(answers[number], answer_of(weights, x[number]), rtol=0, atol=1e-10)
        updates, moments = optimizer.update(slope(weights, x[number], targets[number]), moments)
        weights = optax.apply_updates(weights, updates)
        check_steps(run.weights(memories[number]) - before, weights - before, 1e-10)


def one_layer(inputs, outputs):
    return generate("layered", inputs, 0, outputs, 0)


@pytest.mark.parametrize("kind", ["classes", "regression"])
def test_the_delta_rule_is_least_mean_squares_and_softmax_regression(kind):
    graph = one_layer(4, 3)
    run = Run("delta", graph, {"ticks": 3, "read_tick": 1, "loss": kind})
    x, targets = examples(graph, 12, kind)
    _, answers, memories = run.go(run.begin(), x, targets)
    W = np.zeros((4, 3))
    for number, (inputs, target) in enumerate(zip(x, targets, strict=True)):
        answer = inputs @ W
        np.testing.assert_allclose(answers[number], answer, rtol=0, atol=1e-12)
        softmax = np.exp(answer) / np.exp(answer).sum()
        error = softmax - np.eye(3)[target] if kind == "classes" else answer - target
        W = W - 0.1 * np.outer(inputs, error)
        np.testing.assert_allclose(run.weights(memories[number]).reshape(4, 3), W, rtol=0, atol=1e-12)


def test_the_distilled_rule_is_the_equation_that_its_page_has():
    run = Run("distilled", one_layer(4, 3), {"ticks": 3, "read_tick": 1, "loss": "classes"})
    c1, c2, d1 = run.rule.tuned.values()
    x, labels = examples(run.graph, 30, "classes")
    _, answers, memories = run.go(run.begin(), x, labels)
    W, bias, seen = np.zeros((4, 3)), np.zeros(3), np.zeros(3)
    for number, (inputs, label) in enumerate(zip(x, labels, strict=True)):
        sent = np.tanh(inputs)
        answer = sent @ W / 4 + bias
        np.testing.assert_allclose(answers[number], answer, rtol=0, atol=1e-10)
        is_class = np.eye(3)[label]
        error = np.exp(answer) / np.exp(answer).sum() - is_class
        W = W + c1 * np.outer(sent, error) / np.sqrt(1 + seen) + c2 * W * error
        bias = bias + d1 * is_class / (1 + seen)
        seen = seen + is_class
        np.testing.assert_allclose(run.weights(memories[number]).reshape(4, 3), W, rtol=0, atol=1e-10)


HEBB = {"ticks": 3, "read_tick": 1, "teach": "target_as_input", "teach_tick": 2, "loss": "classes"}


def test_hebbs_rule_is_a_running_average_of_input_times_target():
    graph = one_layer(4, 3)
    run = Run("hebb", graph, HEBB)
    x, labels = examples(graph, 12, "classes")
    _, _, memories = run.go(run.begin(), x, labels)
    W = np.zeros((4, 3))
    for number, (inputs, label) in enumerate(zip(x, labels, strict=True)):
        W = 0.95 * W + 0.05 * np.outer(inputs, np.eye(3)[label])
        np.testing.assert_allclose(run.weights(memories[number]).reshape(4, 3), W, rtol=0, atol=1e-12)


def test_hebbs_rule_recalls_three_noisy_patterns():
    random = np.random.default_rng(0)
    patterns = random.choice([-1.0, 1.0], size=(3, 30))
    run = Run("hebb", one_layer(30, 3), HEBB)
    labels = np.tile(np.arange(3), 10)
    state, _, _ = run.go(run.begin(), patterns[labels], labels)
    flips = np.where(random.random((30, 30)) < 0.2, -1, 1)
    unlabelled = np.full(30, -1)
    _, answers, _ = run.go(state, patterns[labels] * flips, unlabelled)
    assert (np.asarray(answers).argmax(1) == labels).all()


def test_ojas_rule_finds_the_first_principal_component():
    random = np.random.default_rng(0)
    mixing = random.normal(size=(5, 5)) * np.array([2.0, 0.7, 0.5, 0.4, 0.3])
    x = random.normal(size=(4000, 5)) @ np.linalg.qr(mixing)[0] * np.array([1.5, 0.8, 0.6, 0.5, 0.4])
    run = Run(
        "oja",
        one_layer(5, 1),
        {"ticks": 2, "read_tick": 1, "x_hold": 1, "teach": "none", "loss": "regression"},
    )
    state, _, _ = run.go(run.begin(), x, np.zeros((4000, 1)))
    w = run.weights(state.memory)
    component = np.linalg.eigh(x.T @ x)[1][:, -1]
    assert abs(cosine(w, component)) > 0.98
    assert 0.95 < np.linalg.norm(w) < 1.05


def settle(weights_H, x, graph, count=2000):
    """Return the fixed point of a = tanh(x + sum of w times the other end's a), and its outputs' answers."""
    node = jnp.asarray(graph.node)
    other = node.reshape(-1, 2)[:, ::-1].reshape(-1)
    drive = jnp.zeros(graph.num_nodes).at[jnp.array(graph.inputs)].set(x)

    def step(a, _):
        return jnp.tanh(drive + jax.ops.segment_sum(weights_H * a[other], node, graph.num_nodes)), None

    return jax.lax.scan(step, jnp.zeros(graph.num_nodes), None, count)[0]


def fixed_point_loss(weights_H, x, target, graph, count):
    answer = settle(weights_H, x, graph, count)[jnp.array(graph.outputs)]
    return jnp.square(answer - target).sum() / 2


def test_recurrent_backprop_descends_the_gradient_through_the_fixed_point():
    graph = generate("waxman", 2, 5, 2, 3)
    run = Run("recurrent_backprop", graph, {"ticks": 400, "read_tick": 199, "loss": "regression"}, lr=1e-6)
    x, targets = examples(graph, 1, "regression")
    state = run.begin()
    w = run.slots(state.memory)["w"]
    _, _, memories = run.go(state, x, targets)
    change = run.slots(memories[0])["w"] - w
    slope = jax.jit(jax.grad(functools.partial(fixed_point_loss, graph=graph, count=400)))
    check_steps(change, -1e-6 * slope(jnp.asarray(w), x[0], targets[0]), 1e-5)


def test_equilibrium_propagation_tends_to_the_gradient_as_beta_tends_to_0():
    graph = generate("waxman", 2, 4, 2, 1)
    settings = {"ticks": 400, "read_tick": 199, "teach_hold": 200, "announce": True, "loss": "regression"}
    x, targets = examples(graph, 1, "regression")

    def gradient_by_edge(w):
        both = lambda w: fixed_point_loss(jnp.repeat(w, 2), x[0], targets[0], graph, 400)  # noqa: E731
        return jax.jit(jax.grad(both))(jnp.asarray(w))

    errors = []
    for beta in (0.001, 0.01):
        run = Run("equilibrium", graph, settings, beta=beta, lr=1e-6)
        state = run.begin()
        w = run.weights(state.memory)
        _, _, memories = run.go(state, x, targets)
        expected = -1e-6 * np.asarray(gradient_by_edge(w))
        change = run.weights(memories[0]) - w
        errors.append(np.abs(change - expected).max() / np.abs(expected).max())
    assert errors[0] < 0.02
    assert errors[1] == pytest.approx(10 * errors[0], rel=0.3)


PREDICTIVE = {
    "ticks": 400,
    "read_tick": 30,
    "teach": "target",
    "teach_hold": 360,
    "announce": True,
    "loss": "regression",
}


def test_predictive_coding_goes_along_the_gradient_near_the_answer():
    graph = generate("layered", 3, 6, 2, 0, sizes=[4, 2])
    run = Run("predictive_coding", graph, PREDICTIVE, lr=1e-6)
    x, _ = examples(graph, 1, "regression")
    state = run.begin()
    w = run.weights(state.memory)
    _, (answer,), _ = run.go(state, x, np.zeros((1, 2)))
    target = np.asarray(answer) * 1.01
    _, _, memories = run.go(state, x, target[None])

    def value(weights):
        # A node shows tanh of its value, inputs included; what is read is the value itself.
        shown = jnp.tanh(jnp.asarray(x[0]))
        outputs = feed_forward(weights, shown, graph, jnp.tanh, lambda drive: drive)
        return jnp.square(outputs - target).sum() / 2

    gradient = jax.jit(jax.grad(value))(jnp.asarray(w))
    assert cosine(run.weights(memories[0]) - w, -np.asarray(gradient)) > 0.9


def test_feedback_weights_never_change():
    graph = generate("layered", 3, 5, 2, 0)
    run = Run("feedback_alignment", graph, {"ticks": 7, "read_tick": 3, "loss": "regression"})
    state = run.begin()
    x, targets = examples(graph, 20, "regression")
    after, _, _ = run.go(state, x, targets)
    assert (run.weights(after.memory, "b") == run.weights(state.memory, "b")).all()
    assert (run.weights(after.memory) != run.weights(state.memory)).any()


def test_random_features_learn_at_outputs_alone():
    graph = generate("layered", 3, 5, 2, 0)
    run = Run("random_features", graph, {"ticks": 7, "read_tick": 3, "loss": "regression"})
    state = run.begin()
    x, targets = examples(graph, 20, "regression")
    after, _, _ = run.go(state, x, targets)
    changed = run.weights(after.memory) != run.weights(state.memory)
    assert changed.sum() == 5 * 2, "the edges from the hidden nodes to the outputs, and no others"


REWARD = {"ticks": 5, "read_tick": 3, "teach": "reward", "loss": "regression"}
NUM_DRAWS = 40_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sizes", "scale"),
    [("node_perturbation", 1, 1.0), ("weight_perturbation", 1, 1.0), ("three_factor", 0, None)],
)
def test_perturbation_follows_the_gradient_on_average(name, sizes, scale):
    graph = generate("layered", 3, 3 * sizes, 2, 0)
    sigma, rate = 0.02, 1.0
    run = Run(name, graph, REWARD, sigma=sigma, lr=rate)
    state = run.begin()
    x, targets = examples(graph, 1, "regression")
    w = jnp.asarray(run.weights(state.memory))
    net = functools.partial(feed_forward, graph=graph, activation=jnp.tanh)
    loss = lambda weights: jnp.square(net(weights, jnp.asarray(x[0])) - targets[0]).sum() / 2  # noqa: E731
    # Each stream draws its noise at the first example and is rewarded at the second. What is usual is set to
    # the reward without noise: it changes no mean, and fewer draws are enough.
    usual, weight = run.rule.slot_number("usual"), run.rule.slot_number("w")
    reward = -loss(w)
    example = functools.partial(run.harness.example, run.machine, run.arrays)
    own_x, own_target = jnp.asarray(x[0]), jnp.asarray(targets[0])

    @jax.jit
    @jax.vmap
    def change(key):
        drawn, _ = example(replace(state, key=key), own_x, own_target)
        begun = drawn.memory.at[usual].set(reward).at[weight].set(state.memory[weight])
        after, _ = example(replace(drawn, memory=begun), own_x, own_target)
        return (after.memory - begun)[weight, 1::2]

    mean = np.asarray(change(jax.random.split(jax.random.key(1), NUM_DRAWS)).mean(0))
    expected = -rate * sigma**2 * np.asarray(jax.grad(loss)(w))
    assert cosine(mean, expected) > 0.99
    if scale is not None:
        assert np.linalg.norm(mean) == pytest.approx(scale * np.linalg.norm(expected), rel=0.05)


def xor_graph():
    layered = generate("layered", 3, 8, 1, 0)
    return Graph.of(12, [*layered.edges.tolist(), (2, 11)], layered.inputs, layered.outputs)


def mean_xor_error(name, settings, count, seeds, **constants):
    """Return the mean distance from the target in the last 100 examples, by seed."""
    run = Run(name, xor_graph(), settings | {"loss": "regression"}, **constants)
    errors = []
    for seed in seeds:
        random = np.random.default_rng(seed)
        signs = random.choice([-1.0, 1.0], size=(count, 2))
        x = np.column_stack([signs, np.ones(count)])
        targets = np.where(signs[:, 0] == signs[:, 1], -0.8, 0.8)[:, None]
        _, answers, _ = run.go(run.begin(seed), x, targets)
        errors.append(float(np.abs(np.asarray(answers) - targets)[-100:].mean()))
    return np.array(errors)


@pytest.mark.slow
def test_feedback_alignment_learns_xor():
    errors = mean_xor_error("feedback_alignment", {"ticks": 7, "read_tick": 3}, 1600, range(3), lr=0.1)
    assert np.median(errors) < 0.1, errors


@pytest.mark.slow
def test_predictive_coding_learns_xor():
    settings = {"ticks": 30, "read_tick": 5, "teach": "target", "teach_hold": 24, "announce": True}
    errors = mean_xor_error("predictive_coding", settings, 700, range(3), lr=0.02)
    assert np.median(errors) < 0.1, errors


@pytest.mark.slow
def test_node_perturbation_learns_xor():
    errors = mean_xor_error(
        "node_perturbation", {"ticks": 5, "read_tick": 3, "teach": "reward"}, 8100, range(8)
    )
    assert np.median(errors) < 0.25, errors


@pytest.mark.slow
def test_equilibrium_propagation_learns_xor_if_both_phases_settle():
    settings = {"ticks": 120, "read_tick": 59, "teach_hold": 60, "announce": True, "reset": "signals"}
    errors = mean_xor_error("equilibrium", settings, 4000, range(3), lr=0.01, beta=0.1, rate=0.5)
    assert np.median(errors) < 0.1, errors

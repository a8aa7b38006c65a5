"""Cloning back-propagation: what is compared, that it is learned from nothing, and what a run leaves."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vsml.calls import clone
from vsml.calls.clone import evaluate_clone
from vsml.config.files import ConfigError
from vsml.launching import run as launch
from vsml.launching.schema import call_of, load_config
from vsml.meta.objectives.clone import QUANTITIES, Draws, clone_loss, compare, explained
from vsml.meta.step import meta_train
from vsml.networks.written import TERMS
from vsml.runs.checkpoint import load_params
from vsml.runs.directory import RunDirectory
from vsml.setup import Setup
from vsml.system.comm import SerialCommunicator

pytestmark = pytest.mark.usefixtures("hasty")

KEY = jax.random.key(0)
CLONE = [
    "call=clone",
    "optimizer={type: gradient, learning_rate: 0.01, clip_gradnorm: 1}",
    "model.vsml={backward_pass: true, micro_ticks: 1}",
    "model.vsml.synapse={init: backprop, init_rate: 1, random_fraction: 0.25}",
    "training={iterations: 0, population_size: 4}",
    "evaluation={datasets: [], start: false}",
    "tracking.wandb.mode=disabled",
]


def parts(*overrides):
    setup = Setup(load_config(overrides=[*CLONE, *overrides]))
    (group,) = setup.groups
    return setup, group, group.learner.init_params(KEY)


@pytest.mark.parametrize("activation", TERMS)
def test_what_is_written_is_a_clone_already(activation):
    sizes = {"init_activation": activation, "state_size": 44}
    setup, group, params = parts(f"model.vsml.synapse={json.dumps(sizes)}")
    comparison = compare(group.learner, params, setup.objective.config, KEY)
    least = {"tanh": 0.99, "relu": 0.85, "relu3": 0.91, "relu4": 0.94}[activation]
    assert explained(comparison).min() > least


def test_what_is_wanted_are_the_derivatives():
    _, group, params = parts()
    draws = Draws(samples=50, steps=1)
    wanted = compare(group.learner, params, draws, KEY).target[..., 0]
    keys = jax.random.split(KEY, 5)
    w, b = 3 * jax.random.normal(keys[0], (50,)), jax.random.normal(keys[1], (50,))
    x, e = jax.random.normal(keys[3], (50,)), 0.3 * jax.random.normal(keys[4], (50,))

    def answer(w, b, x):
        return jnp.tanh(x) * w + b

    dw, db, dx = jax.vmap(jax.grad(answer, (0, 1, 2)))(w, b, x)
    expected = [answer(w, b, x), -e * dw, -0.02 * e * db, e * dx]
    np.testing.assert_allclose(wanted, expected, atol=1e-4)


def test_loss_and_shares_are_those_of_what_is_missed():
    _, group, params = parts()
    comparison = compare(group.learner, params, Draws(samples=20), KEY)
    exact = comparison.replace(prediction=comparison.target)
    assert clone_loss(exact) == 0 and (explained(exact) == 1).all()
    nothing = comparison.replace(prediction=jnp.zeros_like(comparison.prediction))
    np.testing.assert_allclose(explained(nothing), 0, atol=1e-6)
    assert [row["quantity"] for row in evaluate_clone(comparison)] == list(QUANTITIES)
    assert evaluate_clone(nothing)[0]["rms"] == pytest.approx(evaluate_clone(nothing)[0]["size"])


@pytest.mark.slow
def test_it_is_learned_from_random_meta_parameters():
    setup, group, params = parts("model.vsml.synapse={init: random, init_scale: 2}")
    steps = meta_train(setup.optimizer(params), params, [group], 150, KEY)
    losses = [metrics["meta_loss"] for _, _, metrics in steps]
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:3])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "rate", "least"), [("antithetic", 0.02, 0.9), ("Sep_CMA_ES", 0.02, 0.9)]
)
def test_evolution_learns_it_too(algorithm, rate, least):
    """Loss of the mean falls on fresh examples: it is not only the population that gets narrower."""
    overrides = [
        "model.vsml.synapse={init: random, init_scale: 2}",
        f"optimizer={{type: es, algorithm: {algorithm}, learning_rate: {rate}, noise_std: 0.05}}",
        "training.population_size=8",
        "clone.samples=32",
    ]
    setup, group, params = parts(*overrides)

    def mean_loss(params):
        return clone_loss(compare(group.learner, params, Draws(samples=500), jax.random.key(7)))

    before = float(mean_loss(params))
    for _, found, _ in meta_train(setup.optimizer(params), params, [group], 40, KEY):  # noqa: B007
        pass
    assert float(mean_loss(found)) < least * before


@pytest.mark.slow
def test_training_with_the_objective_is_the_same_training_without_the_report(tmp_path):
    overrides = ["training.iterations=2", "clone.samples=8"]
    calls = {"clone": "call=clone", "train": "call=train"}
    found = {}
    for name, call in calls.items():
        path = tmp_path / name
        arguments = ["--config", *CLONE, *overrides, call, "training.objective=clone"]
        assert launch.main([*arguments, "--run_dir", str(path)]) == 0
        found[name] = load_params(path)[0]
    jax.tree.map(np.testing.assert_array_equal, found["train"], found["clone"])
    assert (tmp_path / "clone" / "clone.json").exists()
    assert not (tmp_path / "train" / "clone.json").exists()


@pytest.mark.slow
def test_a_run_leaves_a_learning_algorithm_and_follows_it_through_a_network(tmp_path):
    path = tmp_path / "run"
    overrides = [
        "training.iterations=2",
        "optimizer.learning_rate=0.000000001",
        "evaluation={datasets: [digits], count: 1, episode_length: 60}",
        "clone={follow: 600}",
        "model.vsml={separate_backward: true, layers: [{out_size: 12}, {}]}",
        "model.vsml.synapse={state_size: 9, random_fraction: 0, init_weights: 0.3, init_max_weight: 200}",
    ]
    assert launch.main(["--config", *CLONE, *overrides, "--run_dir", str(path)]) == 0
    rows = json.loads((path / "clone.json").read_text())
    assert [row["quantity"] for row in rows] == list(QUANTITIES)
    assert min(row["explained"] for row in rows) > 0.99
    assert load_params(path)[1]["config"]["call"] == "clone"
    (row,) = json.loads((path / "evaluation.json").read_text())
    assert row["dataset"] == "digits" and row["accuracy"] > 0.1
    (row,) = json.loads((path / "trajectories.json").read_text())
    assert row["dataset"] == "digits" and row["examples"] == 600
    assert min(row["update_cosine"]) > 0.98
    assert row["test_accuracy_of_back_propagation"] > 0.6
    assert row["test_accuracy"] == pytest.approx(row["test_accuracy_of_back_propagation"], abs=0.05)
    for figure in ("clone", "trajectories_digits"):
        assert (path / f"{figure}.png").stat().st_size > 10_000
    with np.load(path / "trajectories.npz") as arrays:
        assert arrays["digits/loss"].shape == (2, 60) and arrays["digits/cosine"].shape == (60, 2)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("clone.follow=59", "clone.follow: got 59, expected 0, or 60 and more"),
        ("clone.follow=60; model.vsml.views=[{}]", "clone.follow: got 60, expected 0 with views or conv"),
        (
            "clone.follow=60; model.vsml={separate_backward: true, layers: [{out_size: 3}, {}]}",
            r"init_weights: got 0\.0, expected above 0",
        ),
        ("clone.follow=60; evaluation.batch_size=2", "batch_size: got 2, expected 1 with clone.follow"),
        (
            "clone.follow=60; evaluation.datasets=[{dataset: digits, preprocess: {relabel: true}}]",
            r"datasets\.0: got 'digits\+relabel', expected without permuted labels",
        ),
        (
            "clone.follow=60; evaluation.datasets=[{dataset: digits, preprocess: {rand_proj: true}}]",
            r"expected without rand_proj and shuffle",
        ),
        ("training.objective_options={samples: 3}", "expected nothing, as the settings of clone are"),
        (
            "call=train; training.objective=clone; clone.follow=60",
            "clone.follow: got 60, expected 0 without call: clone",
        ),
        (
            "call=train; training.objective=clone; model.type=hebbian",
            "model.type: got 'hebbian', expected vsml with training.objective: clone",
        ),
        ("model.type=hebbian", "model.type: got 'hebbian', expected vsml with call: clone"),
        ("model.vsml.synapse={init: random, random_fraction: 0.5}", r"model\.vsml\.synapse\.random_fraction"),
        ("clone.samples=0", r"clone\.samples"),
    ],
)
def test_settings_that_make_no_clone_are_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(overrides=[*CLONE, *override.split("; ")])


def test_a_run_is_complete_only_when_its_report_is_written(tmp_path, monkeypatch):
    trained = []

    def train(setup, run, comm, resume, is_all):
        trained.append(is_all)
        return True

    setup, run = Setup(load_config(overrides=CLONE)), RunDirectory(tmp_path)
    monkeypatch.setattr(clone, "run_training", train)
    monkeypatch.setattr(clone, "report_clone", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        call_of(setup.config).run(setup, run, SerialCommunicator(), False)
    assert trained == [False] and not run.complete.exists()
    monkeypatch.setattr(clone, "report_clone", lambda *arguments: [])
    call_of(setup.config).run(setup, run, SerialCommunicator(), True)
    assert run.complete.exists()

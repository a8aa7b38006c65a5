"""Metrics, against algebra; and how a configuration asks for them."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vsml.calls.evaluate import run_evaluation
from vsml.config.files import ConfigError
from vsml.evaluation.metrics import METRICS, main_metric
from vsml.evaluation.scores import OWN_NAMES, Evaluation, Measured
from vsml.launching.schema import load_config
from vsml.runs.directory import RunDirectory
from vsml.setup import Setup
from vsml.system.comm import SerialCommunicator
from vsml.types import Classes, Values

C = 4
OF_CLASSES = {"accuracy", "brier", "confidence"}
Y = jnp.array([[0], [1], [3]])
CERTAIN = 50.0 * jax.nn.one_hot(Y, C)

# Metrics from outside of the package that would take the place of others.
accuracy = loss = METRICS["brier"]


def measure(name, answers, y, outputs=None):
    """Return the values of a metric without weights."""
    values, weights = METRICS[name]().measure(outputs or Classes(C), answers, y)
    assert weights is None
    return np.asarray(values, np.float32)


def relative_error(answers, y):
    """Return the relative error over all steps of an episode."""
    values, weights = METRICS["relative_error"]().measure(Values(y.shape[-1]), answers, y)
    measured = Measured(np.asarray(values).mean(-1)[None], np.asarray(weights).mean(-1)[None])
    return measured.over(0, len(y))[0]


@pytest.fixture
def targets():
    """Values of 20 steps, an inner batch of 2, and 3 outputs."""
    return 1 + jax.random.normal(jax.random.key(0), (20, 2, 3))


@pytest.mark.parametrize("name", METRICS)
def test_a_metric_measures_classes_or_values(name):
    metric = METRICS[name]()
    assert metric.applies_to(Classes(C)) == (name in OF_CLASSES)
    assert metric.applies_to(Values(C)) == (name not in OF_CLASSES)


def test_the_main_metric_goes_by_what_is_answered():
    assert main_metric(Classes(2))[0] == "accuracy"
    assert main_metric(Values(2))[0] == "relative_error"


def test_accuracy_counts_answers_whose_largest_logit_is_that_of_the_label():
    answers = jnp.array([[[1.0, 0, 0, 0]], [[1.0, 0, 0, 0]], [[0, 0, jnp.inf, 1]]])
    np.testing.assert_array_equal(measure("accuracy", answers, Y), [[1], [0], [0]])


def test_the_mean_of_the_targets_so_far_has_a_relative_error_of_1(targets):
    means = [np.zeros(3)]
    for step in range(1, len(targets)):
        means.append(np.asarray(targets[:step]).mean((0, 1)))
    answers = jnp.asarray(np.stack(means))[:, None]
    assert relative_error(answers, targets) == pytest.approx(1, rel=1e-5)


def test_right_values_have_a_relative_error_of_0_and_twice_the_error_four_times_the_relative_one(targets):
    assert relative_error(targets, targets) == 0
    off_by_one, off_by_two = (relative_error(targets + offset, targets) for offset in (1, 2))
    assert off_by_two == pytest.approx(4 * off_by_one, rel=1e-5)


def test_the_brier_score_is_0_if_certain_and_right_and_2_if_certain_and_wrong():
    np.testing.assert_allclose(measure("brier", CERTAIN, Y), 0, atol=1e-6)
    np.testing.assert_allclose(measure("brier", CERTAIN, (Y + 1) % C), 2, rtol=1e-6)


def test_the_brier_score_of_a_uniform_answer_is_known():
    # (1 - 1/C)^2 of the label, and 1/C^2 of each of the others.
    uniform = jnp.zeros((3, 1, C))
    np.testing.assert_allclose(measure("brier", uniform, Y), 1 - 1 / C, rtol=1e-6)


def test_confidence_is_the_largest_probability_whatever_came():
    logits = jnp.log(jnp.array([[[0.5, 0.25, 0.125, 0.125]]]))
    for label in range(C):
        np.testing.assert_allclose(measure("confidence", logits, jnp.array([[label]])), 0.5, rtol=1e-6)
    np.testing.assert_allclose(measure("confidence", CERTAIN, Y), 1, rtol=1e-6)


def test_no_metric_may_have_a_name_that_scores_or_summaries_have():
    evaluation = Evaluation("learner", "digits", 0.1, np.ones((2, 5)), np.ones((2, 5)))
    assert {name for name in evaluation.summary() if not name.startswith("accuracy")} <= set(OWN_NAMES)


def configured(*settings):
    return load_config(
        overrides=[
            "call=evaluate",
            "model={type: sgd, sgd: {learning_rate: 0.1}}",
            "data.preprocess.resize=[4, 4]",
            "evaluation={datasets: [digits], episode_length: 12, count: 3, recent_share: 0.25}",
            "tracking.wandb.mode=disabled",
            *settings,
        ]
    )


@pytest.mark.usefixtures("hasty")
def test_metrics_that_are_asked_for_are_in_the_files_of_an_evaluation(tmp_path):
    run = RunDirectory(tmp_path)
    config = configured("evaluation.metrics=[brier, {type: confidence}, relative_error]")
    run_evaluation(Setup(config), run, SerialCommunicator())
    (row,) = json.loads((tmp_path / "evaluation.json").read_text())
    with np.load(tmp_path / "evaluation.npz") as arrays:
        assert "sgd/digits/relative_error" not in arrays  # it is about values
        for name in ("brier", "confidence"):
            values = arrays[f"sgd/digits/{name}"]
            assert values.shape == (3, 12)
            assert row[name] == pytest.approx(values.mean(), rel=1e-5)
            assert row[f"{name}_last"] == pytest.approx(values[:, -3:].mean(), rel=1e-5)
            assert {name, f"{name}_last"} <= row["interval_95"].keys()
    # Its label has at most the largest probability.
    assert 1 / 10 <= row["confidence"] <= 1 and 0 <= row["brier"] <= 2


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ("[brir]", r"evaluation\.metrics\.0\.type: got 'brir', expected one of .*did you mean 'brier'\?"),
        ("[brier, {type: accuracy, options: {k: 1}}]", r"metrics\.1\.options\.k: got 1, .*no options"),
        ("[brier, confidence, brier]", r"evaluation\.metrics\.2: got 'brier', expected each but once"),
        ("[{typ: brier}]", r"evaluation\.metrics\.0\.typ: unknown key; did you mean .*type"),
        ("['no_such_module:Brier']", r"metrics\.0\.type: .*No module named 'no_such_module'"),
        ("['vsml.evaluation.metrics:Briar']", r"did you mean vsml\.evaluation\.metrics:Brier"),
        (
            "['test_metrics:accuracy']",
            r"metrics\.0\.type: got .*expected a name of its own, and none of accur",
        ),
        ("['test_metrics:loss']", r"metrics\.0\.type: got .*expected a name of its own, and none of .*loss"),
    ],
)
def test_mistakes_are_told_where_they_are(metrics, message):
    with pytest.raises(ConfigError, match=message):
        configured(f"evaluation.metrics={metrics}")

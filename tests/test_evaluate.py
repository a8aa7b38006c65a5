import json

import jax
import numpy as np
import pytest

from vsml.build import EvaluationTask
from vsml.checkpoint import CheckpointError, export_params
from vsml.comm import SerialCommunicator
from vsml.config_files import ConfigError, load_config
from vsml.evaluate import Evaluation, evaluate, restore_params, run_evaluation, write_results
from vsml.learners import Vsml
from vsml.tasks import build_task, load
from vsml.tracking import create_run


def evaluation_of(correct):
    correct = np.asarray(correct, np.float32)
    return Evaluation("evolved", "digits", 0.1, correct, np.zeros_like(correct))


def test_the_accuracy_after_n_examples_is_that_on_the_last_fifth_of_them():
    correct = np.zeros((2, 100))
    correct[:, 8:10] = 1  # the last fifth of the first 10
    correct[0, 80:] = 1  # the last fifth of 100, in one of two episodes
    summary = evaluation_of(correct).summary()
    assert summary["accuracy_at_10"] == 1
    assert summary["accuracy_at_100"] == summary["accuracy_last"] == pytest.approx(0.5)
    assert "accuracy_at_1000" not in summary
    assert summary["accuracy"] == pytest.approx(correct.mean())


def test_intervals_are_over_episodes():
    correct = np.repeat([[1.0], [0.0], [1.0], [0.0]], 50, axis=1)
    widths = evaluation_of(correct).summary()["interval_95"]
    assert widths["accuracy_last"] == pytest.approx(1.96 * np.std([1, 0, 1, 0], ddof=1) / 2)
    assert evaluation_of(np.ones((1, 5))).summary()["interval_95"]["accuracy"] is None


class OneOfTwo(SerialCommunicator):
    """Rank `rank` of two that evaluate the same, one after the other."""

    size = 2

    def __init__(self, rank, sent):
        self.rank, self.sent = rank, sent

    def allgather(self, array):
        self.sent[self.rank] = array
        return np.stack([self.sent.get(0, array), self.sent.get(1, array)])


def test_ranks_share_the_episodes_and_get_the_same_result():
    task = EvaluationTask("digits", build_task(load("digits", "test"), 3, replacement=False))
    learner = Vsml((8, 8, 1), 10, state_size=4, message_size=2)
    params = learner.init_params(jax.random.key(0))

    def run(comm):
        return evaluate("it", learner, params, task, 5, jax.random.key(1), comm)

    alone, sent = run(SerialCommunicator()), {}
    run(OneOfTwo(0, sent))
    shared = run(OneOfTwo(1, sent))
    assert alone.correct.shape == (5, 3)
    assert np.array_equal(alone.loss, shared.loss) and np.array_equal(alone.correct, shared.correct)


def test_results_are_written_and_printed(tmp_path, capsys):
    run = create_run("", directory=tmp_path / "run")
    write_results(run, [evaluation_of(np.ones((3, 20)))])
    (row,) = json.loads((run.path / "evaluation.json").read_text())
    assert row["learner"] == "evolved" and row["accuracy_last"] == 1 and row["chance"] == 0.1
    assert np.load(run.path / "evaluation.npz")["evolved/digits/correct"].shape == (3, 20)
    assert (run.path / "learning_curves.png").stat().st_size > 1000
    assert "digits" in capsys.readouterr().out


def test_meta_parameters_of_another_learner_are_refused(tmp_path):
    small = Vsml((2, 2, 1), 2, state_size=4).init_params(jax.random.key(0))
    large = Vsml((2, 2, 1), 2).init_params(jax.random.key(0))
    export_params(tmp_path / "small.safetensors", small, {})
    config = load_config(overrides=[f"checkpoint.restore={tmp_path}/small.safetensors"])
    with pytest.raises(CheckpointError, match=r"lstm/kernel.*expected float32 \(32, 64\)"):
        restore_params(config, large, SerialCommunicator())


def test_meta_parameters_found_for_other_settings_are_refused(tmp_path):
    file = tmp_path / "fed.safetensors"
    fed = load_config(overrides=["model.vsml.feed_label=true", "model.vsml.synapse.init_scale=4"])
    params = Vsml((2, 2, 1), 2, feed_label=True).init_params(jax.random.key(0))
    export_params(file, params, {"config": fed.model_dump(mode="json")})
    here = f"checkpoint.restore={file}"
    with pytest.raises(ConfigError, match=r"1 mistake.*\n.*vsml.feed_label: got False, expected True"):
        restore_params(load_config(overrides=[here]), params, SerialCommunicator())
    same = load_config(overrides=[here, "model.vsml.feed_label=true"])
    restored = restore_params(same, params, SerialCommunicator())
    assert jax.tree.all(jax.tree.map(np.array_equal, restored, params))


def test_each_example_of_an_inner_batch_counts():
    task = EvaluationTask("digits", build_task(load("digits", "test"), 3, batch_size=4, replacement=False))
    learner = Vsml((8, 8, 1), 10, state_size=4, message_size=2)
    params = learner.init_params(jax.random.key(0))
    result = evaluate("it", learner, params, task, 2, jax.random.key(1), SerialCommunicator())
    assert result.correct.shape == (2, 12)
    assert np.array_equal(result.loss[:, 0:4], result.loss[:, :1].repeat(4, 1))


def test_nothing_to_evaluate_on_is_an_error(tmp_path):
    missing = "evaluation.datasets=[{dataset: mnist, optional: true}]"
    config = load_config(overrides=["call=evaluate", missing, f"data.root={tmp_path}"])
    with pytest.raises(ValueError, match="nothing to evaluate on"):
        run_evaluation(config, None, SerialCommunicator())

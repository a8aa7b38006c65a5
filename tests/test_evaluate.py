import json
from dataclasses import dataclass, replace

import jax
import numpy as np
import pytest
from flat_vsml import flat_vsml

from vsml.calls.evaluate import run_evaluation
from vsml.config.files import dump
from vsml.evaluation.candidates import Candidate, compared_candidates
from vsml.evaluation.comparison import Comparison
from vsml.evaluation.episodes import evaluate
from vsml.evaluation.results import write_results
from vsml.evaluation.scores import Evaluation
from vsml.launching.schema import load_config
from vsml.losses import right_answers
from vsml.runs.directory import RunDirectory
from vsml.runs.reading import read_runs
from vsml.setup import EvaluationTask, Setup
from vsml.system.comm import SerialCommunicator
from vsml.tasks import build_task, load

pytestmark = pytest.mark.usefixtures("hasty", "explicit_ranks")


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


T_OF_4 = 3.182446
"""Student's quantile for four episodes, 3 degrees of freedom, from a printed table."""


def test_the_accuracy_after_n_examples_can_be_that_on_example_n_alone():
    correct = np.zeros((4, 100))
    correct[:3, 99] = correct[:1, 9] = 1
    summary = replace(evaluation_of(correct), recent_share=0.0).summary()
    assert summary["accuracy_at_10"] == 0.25
    assert summary["accuracy_at_100"] == summary["accuracy_last"] == 0.75
    assert summary["interval_95"]["accuracy_last"] == pytest.approx(T_OF_4 * 0.5 / 2)


def test_intervals_are_over_episodes():
    correct = np.repeat([[1.0], [0.0], [1.0], [0.0]], 50, axis=1)
    widths = evaluation_of(correct).summary()["interval_95"]
    assert widths["accuracy_last"] == pytest.approx(T_OF_4 * np.std([1, 0, 1, 0], ddof=1) / 2)
    assert evaluation_of(np.ones((1, 5))).summary()["interval_95"]["accuracy"] is None


@dataclass
class Done:
    """An evaluation that is done."""

    result: Evaluation

    def collect(self, comm):
        return self.result


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
    learner = flat_vsml((8, 8, 1), 10, state_size=4, message_size=2)
    params = learner.init_params(jax.random.key(0))

    def run(comm):
        return evaluate("it", learner, params, task, 5, jax.random.key(1), comm)

    alone, sent = run(SerialCommunicator()), {}
    run(OneOfTwo(0, sent))
    shared = run(OneOfTwo(1, sent))
    assert alone.correct.shape == (5, 3) and alone.summary()["repeats_after"] == 497
    assert np.array_equal(alone.loss, shared.loss) and np.array_equal(alone.correct, shared.correct)


def test_results_are_written_and_printed(tmp_path, capsys):
    run = RunDirectory(tmp_path)
    write_results(run, [evaluation_of(np.ones((3, 20)))])
    (row,) = json.loads((run.path / "evaluation.json").read_text())
    assert row["learner"] == "evolved" and row["accuracy_last"] == 1 and row["chance"] == 0.1
    assert np.load(run.path / "evaluation.npz")["evolved/digits/correct"].shape == (3, 20)
    assert (run.path / "learning_curves.png").stat().st_size > 1000
    assert "digits" in capsys.readouterr().out


def test_each_example_of_an_inner_batch_counts():
    task = EvaluationTask("digits", build_task(load("digits", "test"), 3, batch_size=4, replacement=False))
    learner = flat_vsml((8, 8, 1), 10, state_size=4, message_size=2)
    params = learner.init_params(jax.random.key(0))
    result = evaluate("it", learner, params, task, 2, jax.random.key(1), SerialCommunicator())
    assert result.correct.shape == (2, 12)
    assert np.array_equal(result.loss[:, 0:4], result.loss[:, :1].repeat(4, 1))


def test_only_queries_count_in_few_shot_episodes():
    task = build_task(load("digits", "test"), 5, ways=2, shots=1)  # two of support, three queries
    learner = flat_vsml((8, 8, 1), 2, state_size=4, message_size=2)
    params = learner.init_params(jax.random.key(0))
    few_shot = EvaluationTask("digits", task)
    result = evaluate("it", learner, params, few_shot, 4, jax.random.key(1), SerialCommunicator())
    assert result.correct.shape == (4, 3) and result.support == 2 and result.chance == 0.5
    assert result.summary()["examples"] == 3


TUNED = """
evaluation.learners=[{name: tuned, model: {type: sgd, sgd: {num_layers: 2, hidden_size: 8}},
                      tune: {sgd.optimizer: [adam, sgd], sgd.learning_rate: [1e-6, 0.05]}}]
"""


def comparison(*more):
    settings = ["call=evaluate", "evaluation.datasets=[digits]", "evaluation.count=3"]
    settings += ["evaluation.episode_length=150", "evaluation.tune_count=3", "evaluation.start=false"]
    return load_config(overrides=[*settings, *more])


def test_the_best_of_the_settings_to_tune_is_taken_after_trials_on_other_episodes():
    config = comparison(TUNED)
    sources = {"digits": load("digits", "test")}
    candidates = compared_candidates(Setup(config), sources, SerialCommunicator())
    (best,), trials = Comparison(config.evaluation, SerialCommunicator()).evaluate(candidates)
    assert [trial.tried["sgd.learning_rate"] for trial in trials] == [1e-6, 0.05] * 2
    assert [trial.tried["sgd.optimizer"] for trial in trials] == ["adam"] * 2 + ["sgd"] * 2
    first = trials[int(np.argmax([trial.correct.mean() for trial in trials]))]
    assert best.tried == first.tried and best.tried["sgd.learning_rate"] == 0.05
    assert not np.array_equal(best.correct, first.correct)  # other episodes


DIGITS = build_task(load("digits", "test"), 3)


def right(comparison, candidate, task, choice, *rest):
    """Stand in for `_dispatch`: the first choice is right in 3 of 4 answers, others in the last."""
    correct = np.array([[1, 1, 1, 0] if choice == 0 else [0, 0, 0, 1]], np.float32)
    tried = candidate.choices[choice][0]
    return Done(
        Evaluation(candidate.name, task.name, 0.1, correct, np.zeros_like(correct), 0, None, 0.0, tried)
    )


def test_settings_can_be_tuned_for_the_end_of_the_episode(monkeypatch):
    monkeypatch.setattr(Comparison, "_dispatch", right)
    chosen = {}
    for by in ("accuracy", "accuracy_last"):
        config = comparison(f"evaluation.tune_by={by}")
        choices = [({"n": 0}, config.model), ({"n": 1}, config.model)]
        candidate = Candidate("tuned", [EvaluationTask("digits", DIGITS)], choices, None)
        (best,), _ = Comparison(config.evaluation, SerialCommunicator()).evaluate([candidate])
        chosen[by] = best.tried["n"]
    assert chosen == {"accuracy": 0, "accuracy_last": 1}


def test_a_learner_that_is_left_out_on_some_data_sets_leaves_the_others_in_their_order(monkeypatch):
    monkeypatch.setattr(Comparison, "_dispatch", right)
    config = comparison("evaluation.datasets=[digits, sum]")
    digits, sums = EvaluationTask("digits", DIGITS, 0), EvaluationTask("sum", DIGITS, 1)
    some = [Candidate("a", [sums], [({}, None)], None), Candidate("b", [digits, sums], [({}, None)], None)]
    results, _ = Comparison(config.evaluation, SerialCommunicator()).evaluate(some)
    assert [(each.dataset, each.learner) for each in results] == [("digits", "b"), ("sum", "a"), ("sum", "b")]


def test_a_comparison_writes_one_table_as_markdown_and_json_one_figure_and_the_trials(tmp_path, capsys):
    run = RunDirectory(tmp_path)
    run_evaluation(Setup(comparison(TUNED)), run, SerialCommunicator())
    (row,) = json.loads((run.path / "evaluation.json").read_text())
    tried = f"optimizer {row['tried']['sgd.optimizer']}, learning_rate {row['tried']['sgd.learning_rate']}"
    half = row["interval_95"]["accuracy_last"]
    (line,) = [each for each in (run.path / "evaluation.md").read_text().splitlines() if tried in each]
    *_, last, state, cost, _ = [cell.strip() for cell in line.strip("|").split("|")]
    assert last == f"{row['accuracy_last']:.3f} ± {half:.3f}"
    assert state == f"{row['state']:,}"
    assert float(cost.split()[0].replace(",", "")) > 0
    assert len(json.loads((run.path / "tuning.json").read_text())) == 4
    assert (run.path / "learning_curves.png").stat().st_size > 1000
    assert "tuned" in capsys.readouterr().out


def test_what_is_not_finite_is_no_right_answer():
    logits = jax.numpy.array([[2.0, 1.0], [jax.numpy.nan, jax.numpy.nan], [1.0, 2.0]])
    assert right_answers(logits, jax.numpy.zeros(3, int)).tolist() == [True, False, False]
    diverged = Evaluation("it", "digits", 0.1, np.zeros((1, 4)), np.array([[1, np.nan, np.inf, 1]]))
    assert diverged.summary()["nonfinite"] == 2


def test_a_learner_without_meta_parameters_goes_by_its_type():
    config = comparison("model.type=sgd", "evaluation.start=true")
    assert [each.learner for each in run_evaluation(Setup(config), None, SerialCommunicator())] == ["sgd"]


def test_nothing_to_evaluate_on_is_an_error(tmp_path):
    missing = "evaluation.datasets=[{dataset: mnist, optional: true}]"
    config = load_config(overrides=["call=evaluate", missing, f"data.root={tmp_path}"])
    with pytest.raises(ValueError, match="nothing to evaluate on"):
        run_evaluation(Setup(config), None, SerialCommunicator())


def test_values_are_measured_by_their_relative_error_in_files_and_tables(tmp_path, capsys):
    settings = [
        "call=evaluate",
        "evaluation={datasets: [linear_map], count: 3, episode_length: 120, start: false, tune_count: 2}",
        "evaluation.learners=[{name: SGD, model: {type: sgd}, tune: {sgd.learning_rate: [1e-6, 0.03]}}]",
        "tracking.wandb.mode=disabled",
    ]
    config = load_config(overrides=settings)
    run = RunDirectory(tmp_path)
    run.start(dump(config), {})
    run_evaluation(Setup(config), run, SerialCommunicator())
    (row,) = json.loads((run.path / "evaluation.json").read_text())
    assert row["metric"] == "relative_error" and row["chance"] == 1
    assert row["tried"] == {"sgd.learning_rate": 0.03}, "the larger error was taken for the better one"
    assert 0 < row["relative_error_last"] < 0.5 < row["relative_error_at_10"]
    with np.load(run.path / "evaluation.npz") as arrays:
        error, of_mean = (
            arrays[f"SGD/linear_map/{name}"] for name in ("squared_error", "squared_error_of_mean")
        )
    last = slice(120 - 24, 120)  # the latest fifth
    expected = error[:, last].sum() / of_mean[:, last].sum()
    assert row["relative_error_last"] == pytest.approx(expected, rel=1e-5)
    table = (run.path / "evaluation.md").read_text()
    assert f"{row['relative_error_last']:.3f} ±" in table and "Relative error (1: no better than" in table
    assert "relative error" in capsys.readouterr().out
    (read,) = read_runs([run.path])
    assert read.baselines.keys() == read.curves.keys() == {"SGD/linear_map"}

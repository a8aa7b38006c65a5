"""The battery: tests, scores, contestants, ledger, reports, and the objective made of them."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vsml.battery import floors, measuring
from vsml.battery.catalogue import LEARNING_TESTS, learning_test, learning_tests
from vsml.battery.contestants import Contestant, contestant
from vsml.battery.drawing import heat_map
from vsml.battery.episodes import stream
from vsml.battery.leaderboard import Leaderboard
from vsml.battery.learning_test import LearningTest, NotApplicableError, Task
from vsml.battery.ledger import Ledger
from vsml.battery.measures import accuracy, explained
from vsml.battery.measuring import Measuring
from vsml.battery.page import written_into
from vsml.battery.panel import Panel, panel_of, shipped_panel
from vsml.battery.perturbation import Perturbation
from vsml.battery.report import Row, row_of, score_of_test, score_text
from vsml.battery.running import answers_through_events, draw, take
from vsml.battery.scores import Best, Measured, Score, best_of, level_score, levels_in_reach, span_score
from vsml.launching import battery as command_line
from vsml.launching.schema import load_config
from vsml.learners import Sgd
from vsml.learners.sgd import SgdConfig
from vsml.meta.step import meta_train
from vsml.setup import Setup
from vsml.system.comm import SerialCommunicator
from vsml.types import Classes, Values

NAMES = tuple(LEARNING_TESTS)
SEEDS = 32

SMALL = LearningTest(
    name="small",
    tags=("small",),
    levels=(1, 2),
    task=lambda level: Task((2,), Classes(2), 60, lambda key: bit_episode(key, 60)),
    score=accuracy,
    about="a bit is copied",
)
"""A test from outside of the library: `test_battery:SMALL`."""


def bit_episode(key, steps):
    bits = jax.random.bernoulli(key, 0.5, (steps, 2)).astype(jnp.int32)
    return stream(2.0 * bits - 1, bits[:, 0], weight=jnp.arange(steps) >= 20)


def sgd_for(task, rate=0.1):
    return Sgd(task.input_shape, task.outputs, SgdConfig(learning_rate=rate))


def quiet(tmp_path, seeds=4, panel=None, **options):
    ledger = Ledger.open(tmp_path / "ledger.json", seeds, 0, "test")
    return Measuring(ledger, Panel() if panel is None else panel, lambda line: None, **options)


def measured(raw, floor=0.0, oracle=1.0):
    raw = np.asarray(raw, float)
    return Measured(raw, np.full(len(raw), floor), oracle)


# Every test: what knows the answers, and what knows nothing.


def check_ends(test, level):
    try:
        drawn = draw(test, level, SEEDS)
    except NotApplicableError as error:
        pytest.skip(str(error))
    floor = measuring.floor_of(drawn)
    perfect = drawn.score_of(floors.oracle)
    best = best_of(shipped_panel().entry(test, level), float(perfect.mean()))
    oracle = level_score(Measured(perfect, floor, float(perfect.mean())), best)
    assert oracle.value >= 1 - 1e-6
    constant = level_score(Measured(drawn.score_of(floors.constant), floor, float(perfect.mean())), best)
    assert constant.value <= 0.02


@pytest.mark.parametrize("name", ["xor", "one_input", "pairs", "lesion_left"])
def test_an_oracle_scores_one_and_a_constant_learner_nothing(name):
    test = learning_test(name)
    check_ends(test, test.levels[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_oracle_scores_one_and_a_constant_learner_nothing_at_every_level(name):
    test = learning_test(name)
    for level in test.levels:
        check_ends(test, level)


@pytest.mark.parametrize("name", NAMES)
def test_every_test_says_what_it_is(name):
    test = learning_test(name)
    assert test.name == name and test.about and test.tags
    assert set(test.floors) <= set(floors.FLOORS)


# The catalogue.


def test_tests_from_outside_have_the_path_of_their_module():
    assert learning_test(f"{__name__}:SMALL") is SMALL


def test_tests_are_chosen_by_name_and_by_tag():
    chosen = learning_tests(["xor"], ["calibration"])
    assert [test.name for test in chosen] == ["xor", "likelihood", "calibration"]
    with pytest.raises(ValueError, match="got 'memroy', expected some of"):
        learning_tests(tags=["memroy"])
    with pytest.raises(ValueError, match="did you mean 'xor'"):
        learning_tests(["xorr"])


def test_levels_of_a_span_are_numbers():
    with pytest.raises(ValueError, match="of a span, expected numbers"):
        LearningTest("odd", ("small",), ("a",), SMALL.task, accuracy, span=True)


# Scores.


def test_a_score_is_set_between_the_floor_and_the_best():
    score = level_score(measured([0.5, 0.7], floor=0.2), Best(0.8, "someone"))
    assert score.value == pytest.approx(0.4 / 0.6)
    # Two seeds 0.2 apart: the standard error of their mean is 0.1.
    assert score.error == pytest.approx(0.1 / 0.6)


def test_a_level_that_nobody_can_do_better_has_no_score():
    assert level_score(measured([0.5, 0.7], floor=0.6), Best(0.61, "someone")) is None


def test_where_the_panel_does_not_beat_the_floor_the_oracle_is_the_measure():
    entry = {"best": 0.55, "best_error": 0.05, "by": "someone", "floor": 0.5}
    assert best_of(entry, 1.0) == Best(1.0, "oracle")
    assert best_of(entry | {"best": 0.9}, 1.0) == Best(0.9, "someone")


def test_a_span_is_how_far_a_learner_gets():
    levels = (2, 4, 8)
    bests = dict.fromkeys(levels, Best(1.0, "oracle"))
    all_passed = {level: measured([1.0, 1.0]) for level in levels}
    assert span_score(levels, all_passed, bests).value == 1
    none_passed = {2: measured([0.0, 0.0])}
    assert span_score(levels, none_passed, bests).value == 0
    # 2 is passed, and of what 4 asks half is there: half of the way from 2 to 4.
    halfway = {2: measured([1.0, 1.0]), 4: measured([0.25, 0.25])}
    assert span_score(levels, halfway, bests).value == pytest.approx(3 / 8)
    # What comes behind a level that is not passed counts by the share of that one: 2 + 2 / 2 + 4 / 2.
    lucky = halfway | {8: measured([1.0, 1.0])}
    assert span_score(levels, lucky, bests).value == pytest.approx(5 / 8)


def test_the_standard_error_of_a_span_is_that_of_its_mean_where_it_is_one():
    raw = [0.1, 0.2, 0.3, 0.4]
    score = span_score((1,), {1: measured(raw)}, {1: Best(1.0, "oracle")})
    assert score.value == pytest.approx(0.25 / 0.5)
    assert score.error == pytest.approx(np.std(raw, ddof=1) / 2 / 0.5)


def test_a_span_ends_where_the_panel_does():
    test = learning_test("parity")
    solved = {"best": 0.9, "best_error": 0.01, "floor": 0.5}
    entries = {2: solved, 3: solved, 4: solved | {"best": 0.5}}
    assert levels_in_reach(test, entries) == (2, 3)
    assert levels_in_reach(test, {}) == test.levels


# Raw scores.


def outcome_of(answers, y, outputs, **more):
    x = jnp.zeros((len(y), 1))
    task = Task((1,), outputs, len(y), lambda key: stream(x, jnp.asarray(y), **more))
    test = LearningTest("made", ("small",), (1,), lambda level: task, accuracy)
    return draw(test, 1, 1).outcome(np.asarray(answers, np.float32)[None])


def test_accuracy_counts_by_weight_and_never_what_is_not_finite():
    answers = [[1, 0], [0, 1], [np.nan, 1], [0, 1]]
    weight = jnp.array([1.0, 1.0, 1.0, 0.0])
    outcome = outcome_of(answers, [0, 0, 1, 1], Classes(2), weight=weight)
    assert accuracy(outcome) == pytest.approx(1 / 3)


def test_explained_is_zero_for_the_mean_so_far_one_for_the_targets_and_bounded_below():
    y = np.array([[1.0], [3.0], [5.0]])
    assert explained(outcome_of(y, y, Values(1))) == 1
    assert explained(outcome_of([[0.0], [1.0], [2.0]], y, Values(1))) == pytest.approx(0)
    assert explained(outcome_of([[np.inf], [0], [0]], y, Values(1))) == -1


# A learner that takes a test.


def test_segments_and_events_give_what_one_run_through_gives():
    lesion = Perturbation(70, "zero", 0.5)
    task = Task((2,), Classes(2), 120, lambda key: bit_episode(key, 120), (lesion,))
    test = LearningTest("cut", ("small",), (1,), lambda level: task, accuracy)
    drawn = draw(test, 1, 3)
    learner = sgd_for(task)
    answers = take(learner, {}, drawn).answers
    for seed in range(3):
        episode = jax.tree.map(lambda a, s=seed: a[s], drawn.episodes)
        whole = answers_through_events(learner, {}, drawn.keys[seed], task, episode)
        np.testing.assert_allclose(answers[seed], whole[:, 0], atol=1e-5)


def test_a_lesion_costs_something():
    drawn = draw(learning_test("lesion_left"), "drop_units 0.3", 8)
    whole = Task((16,), Classes(5), drawn.task.steps, drawn.task.draw)
    learner = sgd_for(whole)
    hurt = drawn.test.score(drawn.outcome(take(learner, {}, drawn).answers)).mean()
    unhurt_test = LearningTest(drawn.test.name, ("small",), drawn.test.levels, lambda level: whole, accuracy)
    unhurt = draw(unhurt_test, "drop_units 0.3", 8)
    np.testing.assert_array_equal(unhurt.episodes.x, drawn.episodes.x)
    assert hurt < unhurt.test.score(unhurt.outcome(take(learner, {}, unhurt).answers)).mean() - 0.02


def test_episodes_that_are_not_what_their_task_says_are_refused():
    task = Task((3,), Classes(2), 60, lambda key: bit_episode(key, 60))
    test = LearningTest("wrong", ("small",), (1,), lambda level: task, accuracy)
    with pytest.raises(ValueError, match=r"got inputs of shape \(60, 1, 2\), expected \(60, 1, 3\)"):
        draw(test, 1, 2)


# What is n/a, and what is kept.


def test_a_learner_that_cannot_take_a_test_is_not_applicable_and_says_why(tmp_path):
    measure = quiet(tmp_path)
    refuses = contestant("naive_bayes")
    measure.measure([refuses], [learning_test("sums")])
    entries = measure.ledger.learners["naive_bayes"]
    assert "naive" in entries["sums/a + b"]["refused"].lower() or "Values" in entries["sums/a + b"]["refused"]
    row = row_of(measure.ledger, Panel(), "naive_bayes", [learning_test("sums")])
    assert row.scores["sums"] is None and row.reasons["sums"]


@dataclass(frozen=True)
class Silent:
    """A learner that always gives the same answer, and does not say what its memory is."""

    input_shape: tuple
    outputs: Classes

    def init_params(self, key):
        return {}

    def init_state(self, params, key, batch_size=1):
        return jnp.zeros(batch_size)

    def step(self, params, state, x, y, taught=None):
        return state, jnp.zeros((len(x), self.outputs.size))


def test_a_learner_that_does_not_say_what_its_memory_is_cannot_be_hurt(tmp_path):
    measure = quiet(tmp_path, seeds=2)
    silent = Contestant("silent", lambda task, settings: (Silent(task.input_shape, task.outputs), {}))
    test = learning_test("lesion_left")
    measure.measure([silent], [test])
    for level in test.levels:
        entry = measure.ledger.entry("silent", test, level)
        assert entry == {"refused": "Silent does not say what its memory is"}


def test_a_learner_that_would_take_too_long_is_not_applicable_with_an_estimate():
    drawn = draw(SMALL, 1, 2)
    with pytest.raises(NotApplicableError, match="it would take about"):
        take(sgd_for(drawn.task), {}, drawn, limit_s=0.0)


def test_what_was_refused_for_lack_of_time_is_tried_again_with_more_of_it(tmp_path):
    hasty = quiet(tmp_path, limit_s=0.0)
    sgd = contestant("sgd:learning_rate=0.1")
    hasty.measure([sgd], [SMALL])
    entry = hasty.ledger.entry(sgd.name, SMALL, 1)
    assert "it would take about" in entry["refused"]
    told = []
    for limit_s, count in ((0.0, 0), (1000.0, 1), (2000.0, 0)):
        told.clear()
        replace(hasty, limit_s=limit_s, say=told.append).measure([sgd], [SMALL])
        assert len(told) == count * len(SMALL.levels)
    assert "raw" in hasty.ledger.entry(sgd.name, SMALL, 1)


def test_a_battery_that_was_stopped_goes_on_with_its_ledger(tmp_path, monkeypatch):
    first = quiet(tmp_path)
    first.measure([contestant("sgd:learning_rate=0.1")], [SMALL])
    monkeypatch.setattr(measuring, "take", None)  # nothing is measured again
    second = quiet(tmp_path)
    second.measure([contestant("sgd:learning_rate=0.1")], [SMALL])
    assert second.ledger.learners == json.loads((tmp_path / "ledger.json").read_text())["learners"]
    assert set(second.ledger.learners["sgd:learning_rate=0.1"]) == {"small/1", "small/2"}
    with pytest.raises(ValueError, match="choose another --out"):
        quiet(tmp_path, seeds=5)


def test_rates_are_chosen_on_other_episodes_and_kept(tmp_path):
    measure = quiet(tmp_path)
    measure.measure([contestant("linear_sgd")], [SMALL])
    assert measure.ledger.tuned["linear_sgd"]["small"]["learning_rate"] in (0.01, 0.03, 0.1, 0.3)
    counted = draw(SMALL, 2, 4)
    tuning = draw(SMALL, 2, 4, 0, measuring.TUNING)
    assert not np.array_equal(counted.episodes.y, tuning.episodes.y)


def test_a_panel_is_what_scores_are_relative_to(tmp_path):
    measure = quiet(tmp_path, seeds=8)
    good = contestant("sgd:learning_rate=0.3")
    measure.measure_panel([good, contestant("sgd:learning_rate=0.0001")], [SMALL])
    names = [good.name, "sgd:learning_rate=0.0001"]
    panel = panel_of(measure.ledger, [SMALL], names)
    assert panel.entry(SMALL, 1)["by"] == good.name
    entries = {level: measure.ledger.entry(good.name, SMALL, level) for level in SMALL.levels}
    assert score_of_test(SMALL, entries, panel).value == pytest.approx(1, abs=1e-3)
    panel.write(tmp_path / "panel.json")
    assert Panel.read(tmp_path / "panel.json").levels == panel.levels
    board = Leaderboard().with_learners(measure.ledger, panel, names, [SMALL])
    board.write(tmp_path / "board.json")
    (row,) = Leaderboard.read(tmp_path / "board.json").rows([good.name])
    assert row.scores["small"].value == pytest.approx(1, abs=1e-3) and row.state == "6"


# Contestants.


@pytest.mark.parametrize(
    "word", ["sgd", "general", "rule:delta", "sgd:learning_rate=0.1,num_layers=2", "vsml.learners:Sgd"]
)
def test_a_word_is_a_learner_for_any_task(word):
    learner, _ = contestant(word).built(SMALL.task(1), {})
    assert learner.input_shape == (2,) and learner.outputs == Classes(2)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("sdg", "got 'sdg', expected one of .*did you mean 'sgd'"),
        ("sgd:rate=0.1", "got {'rate': 0.1}, expected settings of sgd"),
        ("rule:nothing", "a rule that can be read"),
    ],
)
def test_a_word_that_stands_for_nothing_is_refused(word, message):
    with pytest.raises(ValueError, match=message):
        contestant(word)


# The command line, and the call.


def test_the_command_measures_compares_and_writes(tmp_path, capsys):
    words = ["linear_sgd", "--tests", "and", f"{__name__}:SMALL", "--quick", "--out", str(tmp_path)]
    assert command_line.main(words) == 0
    page = (tmp_path / "battery.html").read_text()
    assert "<svg" in page and "linear_sgd" in page and "http://" not in page.replace("http://www.w3.org", "")
    content = json.loads((tmp_path / "battery.json").read_text())
    assert content["seeds"] == 8 and content["learners"]["linear_sgd"]["scores"]["and"][0] > 0.5
    assert "| basic | and |" in (tmp_path / "battery.md").read_text()
    assert "linear_sgd" in capsys.readouterr().out


def test_the_leaderboard_is_shown_without_measuring_anything(tmp_path, capsys):
    words = ["--compare", "general", "--tests", "xor", "--report", "--out", str(tmp_path / "new")]
    assert command_line.main(words) == 0
    assert "general" in capsys.readouterr().out and (tmp_path / "new" / "battery.html").exists()


def test_the_command_refuses_what_there_is_not(tmp_path, capsys):
    assert command_line.main(["sgd", "--tests", "xorr", "--out", str(tmp_path)]) == 2
    assert "did you mean 'xor'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command_line.main(["--quick"])
    assert "got no LEARNER" in capsys.readouterr().err


def test_the_call_writes_into_the_folder_of_the_run(tmp_path):
    from vsml.calls.battery import Battery, BatteryCallConfig
    from vsml.runs.directory import RunDirectory

    config = BatteryCallConfig(learners=("linear_sgd",), tests=("and",), seeds=2, compare=False)
    setup = Setup(load_config(overrides=["call=battery"]))
    run = RunDirectory(tmp_path)
    assert Battery(config).run(setup, run, SerialCommunicator(), False) == 0
    assert run.complete.exists() and (tmp_path / "battery.md").exists()
    assert "1 tests, 1 levels, 2 episodes each, of linear_sgd" in Battery(config).plan(setup, 1)[0]


def test_the_page_of_the_docs_has_the_numbers_of_the_leaderboard():
    page = (Path(__file__).parents[1] / "docs" / "battery.md").read_text(encoding="utf-8")
    rows = Leaderboard.read().rows()
    assert {"sgd", "general", "mnist14", "rule:backprop"} <= {row.learner for row in rows}
    assert written_into(page, rows, learning_tests()) == page


# The objective.


def training(*overrides):
    settings = [
        "training.objective=battery",
        "training.objective_options={tests: [copied_bit, one_input], levels: first}",
        "training.population_size=4",
        "evaluation.datasets=[digits]",
        "model.vsml.layers=[{type: dense}]",
    ]
    return Setup(load_config(overrides=[*settings, *overrides]))


def losses_of(setup, iterations):
    groups = setup.load_groups(SerialCommunicator())
    params = setup.fresh_params(setup.learner)
    steps = meta_train(setup.optimizer(params), params, groups, iterations, jax.random.key(0))
    return [metrics["meta_loss"] for _, _, metrics in steps]


def test_each_level_is_a_group_of_its_shapes():
    setup = training()
    copied, one = setup.groups
    assert copied.learner.outputs == Classes(2) and one.learner.outputs == Values(1)
    assert copied.trials.tolist() == [0, 2] and one.trials.tolist() == [1, 3]
    with pytest.raises(ValueError, match="got 1 trials, expected 2 or more"):
        training("training.population_size=1").groups  # noqa: B018


def test_what_a_run_plans_with_is_known_without_data():
    setup = training()
    # 200 steps of either test, of four trials.
    assert setup.config.examples_per_step == 800
    assert setup.chunk_size(1) == 2
    learner = setup.groups[0].learner
    forward = setup.objective.trial_bytes(learner, None, 1, False)
    assert setup.objective.trial_bytes(learner, None, 1, True) > forward > 0


def test_a_test_that_there_is_not_is_refused_with_its_setting():
    with pytest.raises(ValueError, match=r"objective_options.tests: got \('xorr',\).*did you mean 'xor'"):
        training("training.objective_options={tests: [xorr]}")


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["es", "gradient"])
def test_meta_training_lowers_the_loss_of_a_battery(optimizer):
    setup = training(
        f"optimizer.type={optimizer}",
        "training.objective_options={tests: [constant_label], levels: first}",
        # Back-propagation whose rate is far too small, to begin with.
        "model.vsml.synapse={init: backprop, init_rate: 0.001, state_size: 9, random_fraction: 0}",
        "model.vsml.backward_pass=true",
        "model.vsml.micro_ticks=1",
        "optimizer.learning_rate=0.03",
        "training.population_size=4",
    )
    losses = losses_of(setup, 8)
    assert np.mean(losses[-2:]) < np.mean(losses[:2]) - 0.02


def test_what_a_learner_cannot_take_is_not_what_was_not_measured():
    lesions = learning_tests(tags=["lesion"])
    names = [test.name for test in lesions]
    refused = Row("refused", dict.fromkeys(names), dict.fromkeys(names, "no memory"), state="7")
    partly = Row("partly", {names[0]: Score(0.5, 0.1)})
    whole = Row("whole", dict.fromkeys(names, Score(0.5, 0.1)))
    texts = [row.text_of_tag(lesions, "lesion") for row in (refused, partly, whole)]
    assert texts == ["n/a", "-", "0.50"]
    some_levels = Row("some", dict.fromkeys(names, Score(0.5, 0.1)), {names[0]: "it would take an hour"})
    assert some_levels.text_of_tag(lesions, "lesion") == "0.50*"
    assert [score_text(some_levels, test) for test in lesions] == ["0.50 ± 0.10*", "0.50 ± 0.10"]
    picture = heat_map([refused, partly, whole], lesions)
    assert picture.count(">n/a<") == 1 and ">7<" in picture

"""The plan of a run, told before anything is loaded."""

import dataclasses
import re

import pytest
from rates import RATES

from vsml.cost import roofline
from vsml.launching.schema import call_of, load_config
from vsml.setup import Setup


def plan_of(*overrides, ranks=1):
    config = load_config(overrides=list(overrides))
    return call_of(config).plan(Setup(config), ranks)


FEW_SHOT = [
    "data.few_shot={ways: 4, shots: 2, rotations: true}",
    "training={dataset: digits, episode_length: 9}",
    "evaluation={episode_length: 12, datasets: [digits, {dataset: digits, few_shot: {ways: 7},"
    " episode_length: 8}, {dataset: mnist, few_shot: null}]}",
]


def test_few_shot_episodes_are_told_with_their_classes_and_steps():
    told = plan_of(*FEW_SHOT)
    assert any(line.startswith("group 1: inputs 8x8x1, 4 classes") for line in told)
    assert "  task: digits, 4-way 2-shot episodes of rotated classes (1024 trials)" in told
    assert told[-3:] == [
        "  digits: digits, 4-way 2-shot episodes of rotated classes, subset test",
        "  digits+7way1shot+8steps: digits, 7-way 1-shot episodes, subset test, 8 steps",
        "  mnist-few_shot: mnist, subset test",
    ]


def test_of_truncated_episodes_the_part_that_is_judged_is_told():
    settings = ["optimizer={type: gradient}", "training={dataset: digits, episode_length: 9, iterations: 1}"]
    whole = plan_of(*settings)
    cut = plan_of(*settings, "optimizer.truncation_length=3")
    assert any("9 steps, 1024 trials" in line for line in whole)
    assert any("9 steps of which the last 3 are judged, 1024 trials" in line for line in cut)


def test_learners_to_compare_are_told_with_how_many_settings_are_tried():
    tuned = "{name: SGD, model: {type: sgd}, tune: {sgd.num_layers: [1, 2], sgd.learning_rate: [0.1, 1]}}"
    learners = f"evaluation.learners=[{{name: VSML, restore: some/run}}, {tuned}]"
    told = plan_of("call=evaluate", learners)
    assert told[-2:] == [
        "  learner VSML from some/run",
        "  learner SGD, the best of 4 settings on 8 episodes",
    ]


def test_what_an_example_costs_is_told_for_each_group():
    overrides = ["training.dataset=mnist", "data.preprocess.resize={split: [null, [8, 8]]}"]
    told = plan_of(*overrides)
    costs = [line for line in told if line.startswith("  an example: ")]
    assert len(costs) == 2
    assert costs[0] == (
        "  an example: 7,840 synapses, 37.4 MFLOP (33.1 in matrix products), 1.25 M tanh, 2.01 MB moved "
        "(12 with gates in memory)"
    )
    assert costs[1].startswith("  an example: 640 synapses, ")


def test_a_gradient_costs_more_and_other_learners_have_no_synapses():
    def cost_told(*overrides):
        lines = plan_of("training.dataset=digits", "evaluation.datasets=[]", *overrides)
        return next(line for line in lines if line.startswith("  an example"))

    assert cost_told("optimizer.type=gradient").startswith("  an example and its gradient: 640 synapses, ")
    assert "synapses" not in cost_told("model.type=meta_rnn") and "MFLOP" in cost_told("model.type=meta_rnn")


def test_the_least_time_of_a_meta_step_needs_rates_of_the_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("VSML_CACHE_DIR", str(tmp_path))
    settings = ["training={dataset: digits, population_size: 8}", "evaluation.datasets=[]"]

    def least(ranks):
        lines = plan_of(*settings, ranks=ranks)
        return next(line for line in lines if "least time" in line or "no less" in line)

    assert least(1).endswith("have not been measured; make roofline does")
    rates = dataclasses.replace(RATES, machine=roofline.machine_name())
    path = roofline.save(rates)
    assert plan_of(*settings)[0].endswith("for 10,001 meta steps, by the roofline of this machine")
    assert re.match(
        r"a meta step takes no less than \S+ s with .* x 2, mostly for matrix products: ", least(1)
    )
    times = [float(re.search(r"no less than (\S+) s", least(ranks))[1]) for ranks in (1, 4)]
    assert times[0] == pytest.approx(4 * times[1], rel=0.01)
    path.write_text("{")
    assert least(1).startswith("the least time of a meta step is unknown: ")
    assert least(1).endswith("measure again: make roofline")

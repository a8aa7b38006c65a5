"""The few-example table: parts of it are made anew from the files that come with the library."""

import json
import math
from pathlib import Path

import pytest

from vsml.evaluation.candidates import compared_candidates
from vsml.evaluation.comparison import Comparison
from vsml.launching.schema import load_config
from vsml.reporting.plots import NORMAL_95
from vsml.runs.checkpoint import PRETRAINED_PREFIX, pretrained_names
from vsml.setup import Setup
from vsml.system.comm import SerialCommunicator

pytestmark = pytest.mark.usefixtures("hasty")

ROOT = Path(__file__).parents[1]
TABLE = json.loads((ROOT / "docs" / "results" / "few_examples.json").read_text(encoding="utf-8"))
CONFIG = ROOT / "configs" / "few_examples.yaml"
COMM = SerialCommunicator()

EPISODES = 64  # the first ones of those that the table is over
NORMAL_999 = 3.29  # 99.9 % of a normal distribution lie within so many standard deviations

# `random` needs no files. Each learner is compiled once for all data sets of one size.
PARTS = [(name, data) for name in ("VSML (mnist14)", "VSML (general)") for data in ("random", "mnist")]


def test_the_table_is_that_of_its_configuration():
    config = load_config([CONFIG])
    datasets = {spec.name for spec in config.evaluation_specs}
    evaluated = {
        (each.name, name) for each in config.evaluation.learners for name in each.datasets or datasets
    }
    assert {(row["learner"], row["dataset"]) for row in TABLE} <= evaluated
    counts = {each.name: each.count or config.evaluation.count for each in config.evaluation.learners}
    for row in TABLE:
        settings = (row["episodes"], row["examples"], row["recent_share"])
        assert settings == (counts[row["learner"]], config.evaluation.episode_length, 0)


@pytest.mark.slow
@pytest.mark.parametrize(("learner", "dataset"), PARTS)
def test_numbers_of_the_table_come_out_again(learner, dataset):
    rows = [row for row in TABLE if (row["learner"], row["dataset"]) == (learner, dataset)]
    (entry,) = (each for each in load_config([CONFIG]).evaluation.learners if each.name == learner)
    if not rows or entry.restore.removeprefix(PRETRAINED_PREFIX) not in pretrained_names():
        pytest.skip(f"{entry.restore} is not in the table or does not come with the library yet")
    config = load_config(
        [CONFIG],
        [
            f"evaluation.count={EPISODES}",
            f"evaluation.datasets=[{{dataset: {dataset}, optional: true}}]",
            "evaluation.learners=" + json.dumps([{"name": learner, "restore": entry.restore}]),
        ],
    )
    setup = Setup(config)
    sources, missing = setup.load_evaluation_data(COMM)
    if missing:
        pytest.skip(missing[0])
    candidates = compared_candidates(setup, sources, COMM)
    (again,), _ = Comparison(config.evaluation, COMM).evaluate(candidates)
    got, (row,) = again.summary(), rows
    for name in ("accuracy", "accuracy_last"):
        deviation = row["interval_95"][name] / NORMAL_95 * math.sqrt(row["episodes"])  # between episodes
        error = deviation * math.sqrt(1 / EPISODES + 1 / row["episodes"])
        assert abs(got[name] - row[name]) <= NORMAL_999 * error, (
            f"{name}: got {got[name]:.3f}, expected {row[name]:.3f} as in docs/results/few_examples.json; "
            "if it was to change, run configs/few_examples.yaml and copy its evaluation.json there"
        )

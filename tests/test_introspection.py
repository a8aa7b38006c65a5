"""`call: introspect`: what it writes, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest

from vsml.calls.introspect import probes
from vsml.config.files import ConfigError
from vsml.evaluation.candidates import compared_candidates
from vsml.introspection.experiments import effective_update, nth_exposure, record, wrong_label
from vsml.launching import run as launch
from vsml.launching.schema import load_config
from vsml.setup import Setup
from vsml.system.comm import SerialCommunicator

pytestmark = pytest.mark.usefixtures("hasty")

ROOT = Path(__file__).parents[1]

SMALL = [
    "call=introspect",
    "evaluation={datasets: [digits], count: 2, episode_length: 30, learners: [{name: fresh}, {name: SGD, "
    "model: {type: sgd}}]}",
    "introspect={before: 20, repeats: 4, synapses: 5}",
    "model.vsml={micro_ticks: 1, random_features: {count: 6}}",
    "tracking.wandb.mode=disabled",
]


@pytest.mark.slow
def test_numbers_and_figures_are_written(tmp_path):
    assert launch.main(["--config", *SMALL, "--run_dir", str(tmp_path / "run")]) == 0
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"introspection.json", "answers_digits.png", "synapses_digits_fresh.png", "complete"} <= names
    assert "synapses_digits_SGD.png" not in names
    fresh, sgd = json.loads((tmp_path / "run" / "introspection.json").read_text())
    assert fresh.keys() - sgd.keys() == {
        "update_rate",
        "update_explained",
        "components",
        "accuracy",
        "ablation",
    }
    assert 0 < sgd["right_at_first_exposure"] < 1 and len(fresh["ablation"]) == 16
    with np.load(tmp_path / "run" / "introspection.npz") as arrays:
        assert arrays["fresh/digits/c"].shape == (31, 5, 16)
        assert arrays["SGD/digits/repetition"].shape == (4,)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluation.learners=[]", "evaluation.learners: got .*, expected one or more to look at"),
        (
            "evaluation.episode_length=23",
            r"episode_length: got 23, expected introspect\.before \+ repeats, 24",
        ),
        ("evaluation.batch_size=2", "batch_size: got 2, expected 1 with call: introspect"),
        (
            "evaluation.learners.1.tune={sgd.learning_rate: [1, 2]}",
            r"learners\.1\.tune: got .*name the settings",
        ),
    ],
)
def test_what_cannot_be_looked_at_is_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(overrides=[*SMALL, override])


SUMMARY = json.loads((ROOT / "docs" / "results" / "introspection.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["general", "evolution", "clone"])
def test_what_is_seen_of_learning_algorithms_is_seen_again(name):
    (expected,) = (row for row in SUMMARY if row["learner"] == name)
    config = load_config([ROOT / "configs" / "introspect.yaml"])
    (entry,) = (each for each in config.evaluation.learners if each.name == name)
    config = config.model_copy(
        update={"evaluation": config.evaluation.model_copy(update={"learners": (entry,)})}
    )
    setup = Setup(config)
    sources, _ = setup.load_evaluation_data(SerialCommunicator())
    candidates = compared_candidates(setup, sources, SerialCommunicator())
    (probe,) = (probe for *_, probe in probes(config.evaluation, candidates))
    exposures = nth_exposure(probe, config.introspect.repeats)
    after = wrong_label(probe, config.introspect.before)
    update = effective_update(probe, record(probe, config.introspect.synapses), config.introspect.before)
    got = {
        "right_at_first_exposure": exposures[0],
        "right_at_last_exposure": exposures[-1],
        **after,
        "update_explained": update.explained,
    }
    for key, value in got.items():
        assert value == pytest.approx(expected[key], abs=0.02), key
    assert update.rate == pytest.approx(expected["update_rate"], rel=0.05)

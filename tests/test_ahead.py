"""What a run would refuse is refused by the dry run, and before its folder is made."""

import json
import sys

import numpy as np
import pytest

from vsml.calls.ahead import look_ahead
from vsml.config.files import dump
from vsml.launching import run as launch
from vsml.launching.schema import call_of, load_config
from vsml.runs.directory import RunDirectory
from vsml.runs.environment import describe_environment
from vsml.runs.pace import measured_pace
from vsml.setup import Setup

SMALL = ["training={dataset: digits, iterations: 3, population_size: 4, episode_length: 5}"]
SMALL += ["evaluation={datasets: [digits], episode_length: 6, count: 2}", "tracking.wandb.mode=disabled"]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Work in an empty folder, without data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VSML_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("VSML_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def npz(path):
    x, y = np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 2
    np.savez(path, x_train=x, y_train=y, x_test=x, y_test=y)


GENERAL = [
    "checkpoint.restore=pretrained:general",
    "model.vsml={backward_pass: true, feed_label: true, micro_ticks: 1, views: [], "
    "synapse: {random_fraction: 0.25}, random_features: {count: 256, activation: tanh}}",
]
LEARNER = "{name: other, restore: 'pretrained:meta_rnn14'}"
OPTIONAL = "evaluation.datasets=[{dataset: mnist, optional: true}, {dataset: my.npz, optional: true}]"


@pytest.mark.parametrize(
    ("settings", "message", "code"),
    [
        (GENERAL, "random_features.count: got 256, expected 128 as in pretrained:general", 2),
        (["checkpoint.restore=nowhere"], "nowhere: there is no such file or folder", 1),
        (["call=evaluate", "checkpoint.restore=pretrained:meta_rnn14"], "as in pretrained:meta_rnn14", 2),
        (["evaluation.learners=[{name: a, restore: gone}]"], "gone: there is no such file or folder", 1),
        ([f"evaluation.learners=[{LEARNER}]"], "pretrained:meta_rnn14", 1),
        (["training.dataset=my.npz"], "my.npz", 2),
        (["evaluation.datasets=[my.npz]"], "my.npz test: missing: ", 1),
        (["data.filter_classes=[0, 12]"], "expected classes within 0..9 of digits", 2),
        (["call=evaluate", OPTIONAL], "nothing to evaluate on", 2),
    ],
)
def test_what_a_run_refuses_the_dry_run_refuses_and_no_folder_is_made(place, capsys, settings, message, code):
    words = ["--config", *SMALL, *settings]
    for end in ([], ["--dry_run"]):
        with pytest.raises(SystemExit) as ended:
            launch.main([*words, *end])
        printed = f"{capsys.readouterr().err}{ended.value.code}"
        assert message in printed
        assert ended.value.code == code or (code == 1 and str(ended.value.code).startswith("error: "))
    assert not (place / "runs").exists()


def test_files_that_are_missing_are_named_with_the_command_that_gets_them(place):
    config = load_config(overrides=["training.dataset=mnist", "evaluation.datasets=[digits, svhn]"])
    told = "\n".join(look_ahead(Setup(config), 1))
    assert f"data: mnist train: missing: {place}/data/MNIST/raw/train-images-idx3-ubyte.gz" in told
    assert "python -m vsml.tasks get mnist" in told and "data: digits test: needs no file" in told
    assert f"data: svhn test: missing: {place}/data/test_32x32.mat" in told


def test_optional_data_that_are_missing_are_left_out(place):
    npz(place / "here.npz")
    optional = "evaluation.datasets=[here.npz, {dataset: my.npz, optional: true}]"
    told = look_ahead(Setup(load_config(overrides=["call=evaluate", optional])), 1)
    assert any(line.startswith("data: here.npz test: there") for line in told)
    assert any(line.endswith("it is optional, and left out") for line in told)


def test_what_wandb_may_have_is_not_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    learner = "evaluation.learners=[{name: theirs, restore: us/vsml/abc}]"
    told = look_ahead(Setup(load_config(overrides=[*SMALL, learner, "checkpoint.restore=us/vsml/def"])), 1)
    asked = [line for line in told if "wandb is asked for it" in line]
    assert [line.split()[1] for line in asked] == ["us/vsml/def:", "us/vsml/abc:"]


def test_a_folder_that_holds_a_run_is_refused_by_the_dry_run(place, capsys):
    config = load_config(overrides=SMALL)
    RunDirectory(place / "run").start(dump(config), {})
    words = ["--config", *SMALL, "--run_dir", "run", "--dry_run"]
    with pytest.raises(SystemExit, match="run holds a run already"):
        launch.main(words)
    with pytest.raises(SystemExit):
        launch.main([*words, "--continue", "--config", "training.iterations=9"])
    assert "training.iterations: got 9, expected 3" in capsys.readouterr().err
    assert launch.main([*words, "--continue"]) == 0


def test_the_dry_run_begins_with_data_duration_and_memory(capsys):
    assert launch.main(["--dry_run", "--config", *SMALL]) == 0
    lines = capsys.readouterr().out.splitlines()
    begins = ("data: digits train", "data: digits test", "duration: unknown", "memory: about", "train: ")
    assert [line.startswith(begin) for line, begin in zip(lines, begins, strict=False)] == [True] * 5
    assert lines.index("seed: 0") > 8, "the configuration comes last"


def write_run(folder, config, environment, per_step_s):
    run = RunDirectory(folder)
    run.start(dump(config), environment)
    lines = [
        {"step": step, "wall_s": 100 + per_step_s * step, "examples": 1, "meta_loss": 2.0}
        for step in (1, 11, 21)
    ]
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_duration_is_measured_in_the_latest_run_like_it(place):
    config = load_config(overrides=[*SMALL, "seed=3", "training.iterations=7200"])
    here = describe_environment(1)
    write_run(place / "runs" / "1-older", load_config(overrides=SMALL), here, 9.0)
    write_run(place / "runs" / "2-like", load_config(overrides=SMALL), here, 0.5)
    other = load_config(overrides=[*SMALL, "training.population_size=8"])
    write_run(place / "runs" / "3-larger", other, here, 2.0)
    write_run(place / "runs" / "4-elsewhere", config, {**here, "world_size": 4}, 3.0)
    (place / "runs" / "5-damaged").mkdir()
    (place / "runs" / "5-damaged" / "metrics.jsonl").write_text("{")
    pace = measured_pace(config.model_dump(mode="json"), 1)
    assert pace.step_s == pytest.approx(0.5) and pace.where.name == "2-like"
    first = call_of(config).plan(Setup(config), 1)[0]
    assert first.startswith("duration: about 1:00:00, with 0.5 s a meta step as measured in runs/2-like")
    assert measured_pace(config.model_dump(mode="json"), 2) is None


def test_entries_of_an_array_are_planned_together(place, capsys):
    (place / "sweep.yaml").write_text("array: [{config: [seed=1]}, {config: [seed=2]}]\n")
    words = ["--array", "sweep.yaml", "--all", "--dry_run", "--config", *SMALL]
    assert launch.main(words) == 0
    printed = capsys.readouterr().out
    assert "name: sweep-1" in printed and "name: sweep-2" in printed

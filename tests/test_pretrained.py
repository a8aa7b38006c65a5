"""Learning algorithms that come with the library, those of files, and how a run becomes one."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from sklearn.datasets import load_digits

import vsml
from vsml.config.files import ConfigError, dump
from vsml.evaluation.candidates import restored_params
from vsml.launching.schema import load_config
from vsml.learners import make_learner
from vsml.pretrained import MAX_BYTES, available, export, load_learner
from vsml.runs import checkpoint
from vsml.runs.directory import RunDirectory
from vsml.runs.metrics import read_metrics
from vsml.setup import Setup
from vsml.sklearn import VSMLClassifier, learn_online
from vsml.system.comm import SerialCommunicator
from vsml.tasks import build_task, load
from vsml.types import Values

pytestmark = pytest.mark.usefixtures("hasty")

CLONE = [
    "model.vsml={backward_pass: true, separate_backward: true, micro_ticks: 1}",
    "model.vsml.synapse={init_max_weight: 1600, state_size: 9, random_fraction: 0}",
]


@pytest.fixture
def run(tmp_path):
    """Write what a complete run leaves, as far as it is exported."""
    config = load_config(
        overrides=[
            "model.vsml.synapse.state_size=4",
            "training.dataset=/home/somebody/sets/mine.npz",
            "data.root=/home/somebody/data",
            "seed=3",
        ]
    )
    run = RunDirectory(tmp_path / "run")
    command = ["/venv/bin/python", "launch.py", "--config", "data.root=/home/somebody/data", "seed=3"]
    git = {"commit": "abc123", "dirty": False}
    run.start(dump(config), {"git": git, "platform": "Linux", "command_line": command})
    params = make_learner("vsml", config.model.vsml, (3,), 2).init_params(jax.random.key(0))
    metadata = {"config": config.model_dump(mode="json"), "step": 1000}
    checkpoint.export_params(run.path / checkpoint.EXPORT_NAME, params, metadata)
    run.metrics.write_text("".join(json.dumps({"step": step}) + "\n" for step in range(1, 1001)))
    (run.path / "evaluation.json").write_text('[{"dataset": "digits", "accuracy": 0.5}]')
    run.complete.touch()
    return run


def test_general_is_there():
    assert "general" in available()


ROOT = Path(vsml.__file__).parents[1]


@pytest.mark.parametrize("name", available())
def test_what_is_exported_is_small_and_says_where_it_is_from(name):
    path = checkpoint.PRETRAINED_FOLDER / f"{name}.safetensors"
    assert path.stat().st_size <= MAX_BYTES
    metadata = load_learner(name, input_shape=(14, 14, 1), num_classes=10).metadata
    assert {"config", "command", "seed", "commit", "results"} <= metadata.keys()
    assert metadata["results"]
    assert f"`{name}`" in (ROOT / "docs" / "model_cards.md").read_text()
    assert (ROOT / "docs" / "results" / "training" / f"{name}.jsonl").exists() == (metadata["step"] > 0)


@pytest.mark.parametrize("name", available())
def test_what_is_exported_says_its_licence_and_what_it_was_trained_on(name):
    metadata = load_learner(name, input_shape=(14, 14, 1), num_classes=10).metadata
    assert metadata["license"] == "MIT"
    dataset = metadata["config"]["training"]["dataset"]
    met = set(dataset["split"] if isinstance(dataset, dict) else [dataset])
    assert set(metadata["training_data"]) == (met if metadata["step"] > 0 else set())
    card = (ROOT / "docs" / "model_cards.md").read_text(encoding="utf-8")
    (line,) = re.findall(rf"(?m)^\| `{name}` \| MIT \|(.*)$", card)
    assert all(f"{each} ({licence})" in line for each, licence in metadata["training_data"].items())


def kind(name):
    path = checkpoint.PRETRAINED_FOLDER / f"{name}.safetensors"
    return checkpoint.load_params(path)[1]["config"]["model"]["type"]


SYNAPSES = [name for name in available() if kind(name) == "vsml"]


@pytest.mark.parametrize("name", SYNAPSES)
def test_what_is_exported_learns_digits(name):
    X, y = load_digits(return_X_y=True)
    last = [
        learn_online(
            VSMLClassifier(name, scale="all"), X[s::15][:100], y[s::15][:100], shuffle_seed=s
        ).accuracy_last
        for s in range(10)
    ]
    assert np.mean(last) > 0.6  # chance is 0.1


@pytest.mark.parametrize("name", sorted({*available()} - {*SYNAPSES}))
def test_a_baseline_that_is_exported_does_what_its_card_says(name):
    task = build_task(load("random", "test"), 60, resize=(14, 14))
    learner = load_learner(name, input_shape=task.input_shape, num_classes=10)
    episodes = [task.sample(jax.random.key(number)) for number in range(20)]
    right = [learner.run(learner.start(), each.x, each.y)[1].argmax(-1) == each.y for each in episodes]
    assert (np.mean(right, axis=0)[-30:].mean() > 0.25) == (
        name == "hebbian14"
    )  # one has learned MNIST alone


def test_the_page_on_using_them_does_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "using.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    # What needs PyTorch is followed by tests/test_torch.py.
    blocks = [block for block in blocks if "vsml.torch" not in block]
    assert len(blocks) == 6
    exec("\n".join(blocks), {})


def test_a_learner_answers_then_learns_then_predicts(run):
    learner = vsml.load_learner(str(run.path / checkpoint.EXPORT_NAME), input_shape=(2, 3), num_classes=4)
    x = np.random.default_rng(0).normal(size=(5, 1, 2, 3))
    y = np.array([[0], [1], [2], [3], [0]])
    start = learner.start(seed=1)
    state, answers = start, []
    for each in zip(x, y, strict=True):
        asked = learner.predict(state, each[0])
        state, logits = learner.step(state, *each)
        np.testing.assert_allclose(asked, logits, rtol=1e-6)
        answers.append(logits)
    ran, logits = learner.run(start, x, y)
    np.testing.assert_allclose(logits, np.stack(answers), rtol=1e-5, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), ran, state)
    assert not np.array_equal(state.network.layers[0].h, start.network.layers[0].h)


def test_a_folder_of_a_run_is_a_learner_too(run):
    learner = load_learner(str(run.path), input_shape=(3,), num_classes=2)
    assert learner.metadata["step"] == 1000


@pytest.mark.parametrize(
    ("name", "shape", "classes", "error", "message"),
    [
        ("nowhere.safetensors", (3,), 2, FileNotFoundError, "nowhere"),
        (
            "pretrained:nothing",
            (3,),
            2,
            FileNotFoundError,
            "nothing: no such learning algorithm; expected one of",
        ),
        ("general", (0,), 2, ValueError, r"got input_shape \(0,\)"),
        ("general", (3,), 0, ValueError, "outputs: got 0, expected Classes"),
        ("general", (3,), None, ValueError, "got num_classes None and outputs None, expected one of them"),
    ],
)
def test_what_cannot_be_loaded_is_named(name, shape, classes, error, message):
    with pytest.raises(error, match=message):
        load_learner(name, input_shape=shape, num_classes=classes)


def test_what_meets_the_synapses_may_be_changed_and_nothing_else():
    changes = {"vsml": {"random_features": {"count": 7}, "views": [{"count": 5}]}}
    loaded = load_learner("general", input_shape=(3,), num_classes=2, model=changes)
    assert [each.config.random_features.count for each in loaded.learner.members] == [7, 5]
    assert loaded.learner.members[0].config.random_features.activation == "tanh"  # as in the file
    assert loaded.model.vsml.views[0].count == 5
    with pytest.raises(ConfigError, match=r"feed_label: got False, expected True as in pretrained:general"):
        load_learner("general", input_shape=(3,), num_classes=2, model={"vsml": {"feed_label": False}})
    with pytest.raises(ConfigError, match="expected settings of a model"):
        load_learner("general", input_shape=(3,), num_classes=2, model={"vsml": {"feature": 3}})


def test_a_run_may_start_from_a_file_in_another_network_where_it_says_so():
    features = "model.vsml.random_features.count=7"
    settings = ["checkpoint.restore=pretrained:clone", *CLONE, features]
    with pytest.raises(
        ConfigError, match=r"random_features\.count: got 7, expected None as in pretrained:clone"
    ):
        restored_params(Setup(load_config(overrides=settings)), SerialCommunicator())
    config = load_config(overrides=[*settings, "checkpoint.other_network=true"])
    assert restored_params(Setup(config), SerialCommunicator()).path == "pretrained:clone"


def test_a_file_that_does_not_say_its_model_is_refused(tmp_path):
    checkpoint.export_params(tmp_path / "mute.safetensors", {"w": np.zeros(3)}, {})
    with pytest.raises(ValueError, match="does not say what model it is of"):
        load_learner(str(tmp_path / "mute.safetensors"), input_shape=(3,), num_classes=2)


def test_a_run_is_exported_with_all_that_there_is_to_know_and_no_path_of_its_machine(run, tmp_path):
    exported, log = export(run.path, "mine", tmp_path)
    assert exported == tmp_path / "vsml" / "algorithms" / "mine.safetensors"
    params, told = checkpoint.load_params(exported)
    of_run = checkpoint.load_params(run.path / checkpoint.EXPORT_NAME)[0]
    assert jax.tree.all(jax.tree.map(np.array_equal, params, of_run))
    assert told["command"] == "python launch.py --config data.root=somebody/data seed=3"
    assert (told["seed"], told["commit"], told["step"]) == (3, "abc123", 1000)
    assert told["license"] == "MIT"
    assert told["training_data"] == {"sets/mine.npz": "not stated by its publisher"}
    assert told["datasets"] == told["config"]["training"]["dataset"] == "sets/mine.npz"
    assert told["config"]["data"]["root"] is None
    assert told["results"] == [{"dataset": "digits", "accuracy": 0.5}]
    assert b"/home" not in exported.read_bytes()
    assert load_learner(str(exported), input_shape=(3,), num_classes=2).metadata["date"] == told["date"]
    steps = [line["step"] for line in read_metrics(log)]
    assert len(steps) == 200
    assert (steps[0], steps[-1]) == (1, 1000)
    assert set(np.diff(steps)) == {5, 6}


@pytest.mark.parametrize("lines", [1, 2, 200])
def test_a_short_log_is_kept_whole(run, tmp_path, lines):
    run.truncate_metrics(lines)
    assert len(read_metrics(export(run.path, "mine", tmp_path)[1])) == lines


def test_what_met_no_meta_step_has_no_log(run, tmp_path):
    params, metadata = checkpoint.load_params(run.path / checkpoint.EXPORT_NAME)
    checkpoint.export_params(run.path / checkpoint.EXPORT_NAME, params, metadata | {"step": 0})
    run.metrics.unlink()
    (path,) = export(run.path, "mine", tmp_path)
    assert load_learner(str(path), input_shape=(3,), num_classes=2).metadata["step"] == 0


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(run, tmp_path, monkeypatch):
    def refused(message, name="mine"):
        with pytest.raises(ValueError, match=message):
            export(run.path, name, tmp_path / "root")

    refused("NAME: got 'My net', expected a-z", name="My net")
    monkeypatch.setattr("vsml.pretrained.MAX_BYTES", 1000)
    refused("bytes, expected at most 1000")
    run.write_environment({"git": None, "command_line": ["python"]})
    refused("knows no git commit")
    run.complete.unlink()
    refused("has no complete; expected a run that is complete and evaluated")
    run.config.unlink()
    refused("expected the directory of a run")
    assert not (tmp_path / "root").exists()


def test_the_command_line_says_what_is_wrong(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "vsml.pretrained", tmp_path, "mine"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr == f"error: {tmp_path}: expected the directory of a run, got one without config.yaml\n"


def test_values_are_answered_and_steps_may_go_without_teaching():
    algorithm = load_learner("general", input_shape=(3,), outputs=Values(2))
    x = np.random.default_rng(0).normal(size=(3, 1, 3))
    y = np.array([[[0.5, -0.5]], [[np.nan, np.nan]], [[0.1, 0.2]]])
    start = algorithm.start()
    state, answers = algorithm.run(start, x, y, taught=[[1], [0], [1]])
    assert answers.shape == (3, 1, 2) and np.isfinite(answers).all()
    state = start
    for t, taught in enumerate(([1], [0], [1])):
        state, answer = algorithm.step(state, x[t], y[t], taught)
        np.testing.assert_allclose(answer, answers[t], rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="got num_classes 2 and outputs Values"):
        load_learner("general", input_shape=(3,), num_classes=2, outputs=Values(2))


def test_what_a_learner_cannot_learn_from_is_refused_before_it_sees_it():
    algorithm = vsml.load_learner("general", input_shape=(2,), num_classes=3)
    state = algorithm.start()
    x, y = np.zeros((4, 1, 2)), np.array([[0], [1], [2], [0]])
    for labels, message in (
        (y + 1, r"y: got the label\(s\) 3, expected whole numbers 0\.\.2 for 3 classes"),
        (y - 1, r"got the label\(s\) -1,"),
        (y + 0.5, r"got the label\(s\) 0\.5, 1\.5, 2\.5,"),
        (y * 2**31, "expected whole numbers 0"),
        (y.astype(str), "y: got labels of type <U"),
        (y[:, 0], r"y: got shape \(4,\), expected \(4, 1\)"),
    ):
        with pytest.raises(ValueError, match=message):
            algorithm.run(state, x, labels)
    with pytest.raises(ValueError, match=r"got the label\(s\) 3,"):
        algorithm.step(state, x[0], [3])
    for inputs, message in (
        (x[..., :1], r"x: got shape \(4, 1, 1\), expected \(4, 1, 2\)"),
        (x + 1e39, "x: got numbers that are not finite in float32"),
        (x * np.nan, "x: got numbers that are not finite in float32"),
    ):
        with pytest.raises(ValueError, match=message):
            algorithm.run(state, inputs, y)
        with pytest.raises(ValueError, match=r"x: got"):
            algorithm.predict(state, inputs[0])

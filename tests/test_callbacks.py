"""Callbacks: they are told of all events in order, and what they do wrong is told to the user."""

import signal
from dataclasses import dataclass

import jax
import numpy as np
import pytest

from vsml.calls.evaluate import run_evaluation
from vsml.calls.train import run_training
from vsml.config.files import ConfigError, dump
from vsml.launching.schema import load_config
from vsml.runs.callbacks import Evaluated, Finished, StepTaken
from vsml.runs.checkpoint import load_params
from vsml.runs.directory import RunDirectory
from vsml.settings import NoSettings, Section
from vsml.setup import Setup
from vsml.system.comm import SerialCommunicator

pytestmark = pytest.mark.usefixtures("hasty")

SETTINGS = [
    "model={type: meta_rnn, meta_rnn: {hidden_size: 4}}",
    "training={iterations: 4, population_size: 4, episode_length: 3, chunk_size: 4, dataset: digits}",
    "data.preprocess.resize=[4, 4]",
    "evaluation={datasets: [digits], frequency: 2, episode_length: 5, count: 2, start: false}",
    "checkpoint.frequency=2",
    "summary.frequency=1",
    "tracking.wandb.mode=disabled",
]
SNAPSHOTS = "{type: snapshots, options: {every: 3, steps: [2]}}"

EVENTS = {}
"""What each recorder was told, by the folder of its run."""


@dataclass(frozen=True)
class Recorder:
    """Remembers all events."""

    run: RunDirectory
    config: NoSettings

    def __call__(self, event):
        EVENTS.setdefault(self.run.path, []).append(event)


class RaiserConfig(Section):
    error: str = "none"


@dataclass(frozen=True)
class Raiser:
    """Raises an error, or a signal, at the second step."""

    run: RunDirectory
    config: RaiserConfig

    def __call__(self, event):
        if not isinstance(event, StepTaken) or event.step != 2:
            return
        if self.config.error == "signal":
            signal.raise_signal(signal.SIGUSR1)
        else:
            raise {"OSError": OSError, "ValueError": ValueError}[self.config.error]("as it was told to")


def train(folder, callbacks):
    config = load_config(overrides=[*SETTINGS, f"training.callbacks=[{callbacks}]"])
    run = RunDirectory(folder)
    run.start(dump(config), {})
    return run_training(Setup(config), run, SerialCommunicator())


def raiser(error):
    return f"{{type: 'test_callbacks:Raiser', options: {{error: {error}}}}}"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A run with a recorder from outside of the package, and snapshots."""
    folder = tmp_path_factory.mktemp("recorded") / "run"
    assert train(folder, f"'test_callbacks:Recorder', {SNAPSHOTS}")
    return folder


@pytest.mark.slow
def test_events_come_in_the_order_in_which_they_happen(recorded):
    seen = [(type(event), event.step) for event in EVENTS[recorded]]
    assert seen == [
        (StepTaken, 1),
        (StepTaken, 2),
        (Evaluated, 2),
        (StepTaken, 3),
        (StepTaken, 4),
        (Evaluated, 4),
        (Finished, 4),
    ]


def test_events_have_what_the_files_of_the_run_have(recorded):
    steps = [event for event in EVENTS[recorded] if isinstance(event, StepTaken)]
    assert all({"meta_loss", "accuracy", "param_norm"} <= event.metrics.keys() for event in steps)
    for event in steps:
        norm = np.sqrt(sum(np.square(leaf).sum() for leaf in jax.tree.leaves(event.params)))
        assert event.metrics["param_norm"] == pytest.approx(norm, rel=1e-5)
    finished = EVENTS[recorded][-1]
    assert_same(load_params(recorded / "learner.safetensors")[0], finished.params)


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_snapshots_are_the_meta_parameters_of_the_configured_steps(recorded):
    files = sorted(recorded.glob("snapshots/*"))
    assert [file.name for file in files] == ["step_00000002.safetensors", "step_00000003.safetensors"]
    params = {event.step: event.params for event in EVENTS[recorded] if isinstance(event, StepTaken)}
    for file, step in zip(files, (2, 3), strict=True):
        found, metadata = load_params(file)
        assert_same(found, params[step])
        assert metadata["step"] == step and metadata["config"]["training"]["population_size"] == 4


def test_a_snapshot_can_be_restored_and_answers_as_it_did_then(recorded, tmp_path):
    snapshot = recorded / "snapshots" / "step_00000002.safetensors"
    config = load_config(overrides=[*SETTINGS, "call=evaluate", f"checkpoint.restore={snapshot}"])
    (evaluation,) = run_evaluation(Setup(config), RunDirectory(tmp_path), SerialCommunicator())
    then = next(event for event in EVENTS[recorded] if isinstance(event, Evaluated))
    (expected,) = then.summaries
    assert evaluation.summary() == {**expected, "learner": "restored"}


def test_what_the_disk_refuses_a_callback_ends_nothing(tmp_path, capsys):
    assert train(tmp_path / "run", f"{raiser('OSError')}, 'test_callbacks:Recorder'")
    assert (tmp_path / "run" / "complete").exists()
    assert "cannot write what Raiser keeps: as it was told to" in capsys.readouterr().out
    assert len(EVENTS[tmp_path / "run"]) == 7, "another callback missed an event"


def test_any_other_error_of_a_callback_ends_the_run(tmp_path):
    with pytest.raises(ValueError, match="as it was told to"):
        train(tmp_path / "run", raiser("ValueError"))
    assert not (tmp_path / "run" / "complete").exists()
    # What was due before the callback was told is there.
    assert (tmp_path / "run" / "checkpoints" / "step_00000002.safetensors").exists()


def test_a_callback_stops_a_run_in_good_order_by_a_signal(tmp_path):
    assert not train(tmp_path / "run", raiser("signal"))
    run = RunDirectory(tmp_path / "run")
    assert not run.complete.exists()
    assert len(list(run.checkpoints.glob("step_*"))) > 0
    config = load_config([run.config], default=None)
    assert run_training(Setup(config), run, SerialCommunicator(), resume=True)


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        ("snapshot", r"callbacks\.0\.type: got 'snapshot', .*did you mean 'snapshots'\?"),
        ("{type: snapshots, options: {step: [1]}}", r"callbacks\.0\.options\.step: .*did you mean 'steps'\?"),
        ("{type: snapshots, options: {every: 0}}", r"callbacks\.0\.options\.every: got 0, expected greater"),
        ("snapshots, snapshots", r"training\.callbacks\.1: got 'snapshots', expected each but once"),
    ],
)
def test_mistakes_are_told_where_they_are(callbacks, message):
    with pytest.raises(ConfigError, match=message):
        load_config(overrides=[f"training.callbacks=[{callbacks}]"])

"""Training outlasts a run's folder that is away or full, and loses nothing that was saved."""

import os
import signal
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest
from comparing import assert_same_learner, assert_same_run

from vsml.calls import train
from vsml.calls.evaluate import run_evaluation
from vsml.calls.train import run_training
from vsml.config.files import dump
from vsml.evaluation.comparison import Comparison
from vsml.launching.schema import load_config
from vsml.runs.checkpoint import CheckpointStore, load_params
from vsml.runs.directory import RunDirectory
from vsml.runs.metrics import MetricsLog, read_metrics
from vsml.setup import Setup
from vsml.system.comm import SerialCommunicator

SETTINGS = [
    "training={iterations: 12, population_size: 4, episode_length: 3, chunk_size: 4, dataset: digits}",
    "data.preprocess.resize=[4, 4]",
    "evaluation={datasets: [], frequency: 0}",
    "checkpoint.frequency=2",
    "summary.frequency=1",
    "tracking.wandb.mode=disabled",
]


def start(folder, **events):
    """Train in a folder, and call `events` {"at_5": action} when so many meta steps are done and written."""
    config = load_config(overrides=SETTINGS)
    run = RunDirectory(folder)
    run.start(dump(config), {})
    done = 0
    real_collect = train.collect_step

    def collect_step(*arguments):
        nonlocal done
        events.get(f"at_{done}", lambda: None)()
        done += 1
        return real_collect(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "collect_step", collect_step)
        return run_training(Setup(config), run, SerialCommunicator())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert start(folder)
    return folder


def assert_same(folder, undisturbed):
    assert_same_run(folder, undisturbed)
    assert (folder / "checkpoints" / "step_00000012.safetensors").exists()
    assert (folder / "complete").exists()


def test_a_folder_that_is_away_for_a_while_costs_nothing(tmp_path, undisturbed, capsys):
    folder = tmp_path / "run"
    away = tmp_path / "away"
    assert start(folder, at_5=lambda: folder.rename(away), at_8=lambda: away.rename(folder))
    assert_same(folder, undisturbed)
    printed = capsys.readouterr().out
    assert printed.count("compiling ...") == 1 and printed.index("compiling") < printed.index("step 1/12")
    assert printed.count("cannot write the checkpoint") == printed.count("cannot write metrics.jsonl") == 1
    assert "bring the folder back" in printed and "step 9: the checkpoint is written again" in printed


def test_where_the_folder_stays_away_the_state_is_saved_elsewhere(tmp_path, undisturbed, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder, away = tmp_path / "run", tmp_path / "away"
    with pytest.raises(OSError, match=r"to go on: python launch\.py --resume") as caught:
        start(folder, at_5=lambda: folder.rename(away))
    rescue = RunDirectory(Path(str(caught.value).rpartition(" ")[2]))
    assert not folder.exists()
    assert (away / "checkpoints" / "step_00000004.safetensors").exists(), "what was saved before is lost"
    assert load_config([rescue.config], default=None).training.iterations == 12
    assert run_training(Setup(load_config(overrides=SETTINGS)), rescue, SerialCommunicator(), resume=True)
    assert_same_learner(rescue.path, undisturbed)
    lines = read_metrics(away / "metrics.jsonl") + read_metrics(rescue.metrics)
    assert [line["step"] for line in lines] == list(range(1, 13))


def recorded(folder, *settings, resume=False, **events):
    """Train, and return what was done in which order, and whether the run is complete."""
    config = load_config(overrides=[*SETTINGS, *settings])
    run, done = RunDirectory(folder), []
    if not resume:
        run.start(dump(config), {})

    def noting(name, real):
        def noted(*arguments, **others):
            done.append(name)
            events.get(f"in_{name}_{done.count(name)}", lambda: None)()
            return real(*arguments, **others)

        return noted

    with pytest.MonkeyPatch.context() as patch:
        for name in ("dispatch_step", "collect_step"):
            patch.setattr(train, name, noting(name, getattr(train, name)))
        patch.setattr(Comparison, "dispatch", noting("dispatch_evaluations", Comparison.dispatch))
        patch.setattr(MetricsLog, "append", noting("write", MetricsLog.append))
        patch.setattr(CheckpointStore, "save", noting("save", CheckpointStore.save))
        complete = run_training(Setup(config), run, SerialCommunicator(), resume)
    return done, complete


def test_devices_have_the_next_meta_step_before_the_last_one_is_written(tmp_path):
    evaluation = "evaluation={datasets: [digits], episode_length: 4, count: 2, frequency: 2}"
    done, _ = recorded(tmp_path / "run", "training.iterations=3", evaluation, "checkpoint.frequency=2")
    assert done == [
        "dispatch_step",
        *("collect_step", "dispatch_step", "write"),
        *("collect_step", "dispatch_evaluations", "dispatch_step", "write", "save"),
        *("collect_step", "write", "save"),
    ]
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert ["eval/digits/loss" in line for line in lines] == [False, True, False]


@pytest.mark.parametrize("moment", ["in_collect_step_5", "in_write_5", "in_dispatch_step_6", "in_save_2"])
def test_a_stop_at_any_moment_loses_and_doubles_no_step(tmp_path, undisturbed, moment):
    folder = tmp_path / "run"
    done, complete = recorded(folder, **{moment: lambda: os.kill(os.getpid(), signal.SIGTERM)})
    assert not complete
    assert done.count("dispatch_step") == done.count("collect_step") == done.count("write")
    last = read_metrics(folder / "metrics.jsonl")[-1]["step"]
    assert CheckpointStore(folder / "checkpoints").steps()[-1] == last == done.count("write")
    again, complete = recorded(folder, resume=True)
    assert complete and done.count("write") + again.count("write") == 12
    assert_same(folder, undisturbed)


def test_meta_parameters_that_are_not_finite_end_the_run_before_they_are_saved(tmp_path):
    with pytest.raises(FloatingPointError, match="not finite after meta step 1"):
        recorded(tmp_path / "run", "optimizer.learning_rate=1e38", "checkpoint.frequency=1")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_the_best_checkpoint_holds_the_meta_parameters_that_were_evaluated(tmp_path, undisturbed):
    evaluation = "evaluation={datasets: [digits], episode_length: 4, count: 2, frequency: 5}"
    recorded(tmp_path / "run", evaluation, "checkpoint.frequency=5")
    assert_same_learner(tmp_path / "run", undisturbed)
    folder = tmp_path / "run" / "checkpoints"
    best, metadata = load_params(folder / "best.safetensors")
    assert metadata["step"] in (5, 10)  # though the meta step after it had been begun
    saved, _ = load_params(CheckpointStore(folder).path(metadata["step"]))
    jax.tree.map(np.testing.assert_array_equal, best, saved)


def test_a_disk_that_is_full_for_a_while_costs_nothing(tmp_path, undisturbed):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted: that needs root")
    filler = disk / "filler"

    def fill():
        with pytest.raises(OSError, match="No space"), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(bytes(512))
        # The log is on the same disk, as a launcher's often is, in a block that is now full as well.
        with pytest.raises(OSError, match="No space"):
            print(10000 * "-", file=log, flush=True)

    log = (disk / "log").open("w")
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.stdout", log)
            assert start(disk / "run", at_5=fill, at_8=filler.unlink)
        assert_same(disk / "run", undisturbed)
        log.close()
        assert "step 9: the checkpoint is written again" in (disk / "log").read_text()
    finally:
        log.close()
        subprocess.run(["umount", str(disk)], check=True)


def test_a_signal_in_the_evaluation_at_the_end_ends_it_and_it_is_done_when_resumed(tmp_path, capsys):
    evaluation = ["evaluation={datasets: [digits], episode_length: 4, count: 2, frequency: 0, start: true}"]
    config = load_config(overrides=[*SETTINGS, *evaluation])
    run = RunDirectory(tmp_path)
    run.start(dump(config), {})
    real = Comparison.evaluate

    def signalled(*arguments):
        os.kill(os.getpid(), signal.SIGUSR1)
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Comparison, "evaluate", signalled)
        assert not run_training(Setup(config), run, SerialCommunicator())
    assert "stopped after step 12 (SIGUSR1)" in capsys.readouterr().out
    assert not run.complete.exists() and not (tmp_path / "evaluation.json").exists()
    assert run_training(Setup(config), run, SerialCommunicator(), resume=True)
    assert run.complete.exists() and (tmp_path / "evaluation.json").exists()
    assert "goes on from step 12" in capsys.readouterr().out
    assert [line["step"] for line in read_metrics(run.metrics)] == list(range(1, 13))


def test_a_signal_ends_an_evaluation_of_which_nothing_is_kept(tmp_path, capsys):
    settings = ["call=evaluate", "evaluation={datasets: [digits], episode_length: 4, count: 2}"]
    run = RunDirectory(tmp_path)
    real = Setup.load_evaluation_data

    def signalled(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Setup, "load_evaluation_data", signalled)
        setup = Setup(load_config(overrides=settings))
        assert run_evaluation(setup, run, SerialCommunicator()) is None
    assert "(SIGTERM); nothing of it is kept" in capsys.readouterr().out
    assert not run.complete.exists() and not (tmp_path / "evaluation.json").exists()

"""Training outlasts a run's folder that is away or full, and loses nothing that was saved."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from comparing import assert_same_learner, assert_same_run

from vsml import setup
from vsml.calls import train
from vsml.calls.evaluate import run_evaluation
from vsml.calls.train import run_training
from vsml.config.files import ConfigError, dump
from vsml.evaluation.comparison import Comparison
from vsml.launching.schema import load_config
from vsml.runs.checkpoint import CheckpointStore, load_params
from vsml.runs.directory import RunDirectory
from vsml.runs.metrics import MetricsLog, read_metrics
from vsml.runs.record import RunRecord
from vsml.setup import Setup
from vsml.system.comm import SerialCommunicator

pytestmark = pytest.mark.usefixtures("hasty")

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


def begin_another(folder):
    """Delete the folder of a run, and begin another run of another seed that takes its name."""
    shutil.rmtree(folder)
    code = """
import sys
from pathlib import Path
from vsml.runs.directory import RunDirectory
run = RunDirectory(Path(sys.argv[1]))
with run.lock():
    run.start("seed: 2", {})
    run.metrics.write_text('{"step": 1}\\n')
"""
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)


def content_of(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("moment", ["at_5", "at_12"])
def test_a_run_leaves_another_alone_that_has_taken_its_name(tmp_path, undisturbed, monkeypatch, moment):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder, before = tmp_path / "run", {}

    def replace():
        begin_another(folder)
        before.update(content_of(folder))

    real_export = RunRecord.export
    with pytest.MonkeyPatch.context() as patch:
        if moment == "at_12":  # all is saved, and the end has begun
            patch.setattr(RunRecord, "export", lambda *arguments: (replace(), real_export(*arguments)))
        with pytest.raises(
            OSError, match="no longer the folder of this run: it is in use by process"
        ) as caught:
            start(folder, **({} if moment == "at_12" else {moment: replace}))
    assert content_of(folder) == before and len(before) == 4
    rescue = RunDirectory(Path(str(caught.value).rpartition(" ")[2]))
    assert run_training(Setup(load_config([rescue.config], default=None)), rescue, SerialCommunicator(), True)
    assert_same_learner(rescue.path, undisturbed)


def resume(folder, *settings):
    config = load_config([folder / "config.yaml"], settings, default=None)
    return run_training(Setup(config), RunDirectory(folder), SerialCommunicator(), resume=True)


@pytest.fixture
def half(tmp_path):
    """The folder of a run that has done 6 of 12 meta steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train._Run, "_reason_to_stop", lambda run, stop: "" if run.done.step < 6 else "enough")
        patch.setattr(train._Run, "_agreed_to_stop", lambda run, stop: run._reason_to_stop(stop) or None)
        assert not start(tmp_path / "half")
    return tmp_path / "half"


def test_a_checkpoint_of_another_run_is_not_gone_on_with(half, undisturbed):
    text = (half / "config.yaml").read_text()
    (half / "config.yaml").write_text(text.replace("seed: 0\n", "seed: 2\n", 1))
    before = content_of(half)
    with pytest.raises(
        ConfigError, match=r"seed: got 2 from .*config\.yaml, expected 0 as in .*step_00000006"
    ):
        resume(half)
    assert content_of(half).items() - {(".lock", None)} >= before.items() - {(".lock", before[".lock"])}
    assert resume(half, "seed=0")
    assert_same(half, undisturbed)


def test_settings_that_the_command_line_changes_are_told_and_kept_through_a_crash(half, capsys):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "collect_step", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            resume(half, "training.iterations=8", "seed=5")
    printed = capsys.readouterr().out
    assert "changed setting: training.iterations: 12 -> 8" in printed and "seed: 0 -> 5" in printed
    assert resume(half)
    assert "changed setting" not in capsys.readouterr().out
    assert [line["step"] for line in read_metrics(half / "metrics.jsonl")] == list(range(1, 9))


def test_what_does_not_change_the_result_may_be_changed_in_the_file(half, capsys):
    text = (half / "config.yaml").read_text()
    (half / "config.yaml").write_text(text.replace("keep: 3,", "keep: 1,", 1))
    assert resume(half)
    assert "changed setting: checkpoint.keep: 3 -> 1" in capsys.readouterr().out


def test_a_kernel_that_rounds_otherwise_goes_on_only_if_it_is_asked_for(half, monkeypatch):
    made_by = Setup(load_config(overrides=SETTINGS)).kernel
    other = "tiled" if made_by != "tiled" else "reference"
    monkeypatch.setattr(setup, "chosen", lambda *arguments: other)
    expected = f"model.vsml.kernel: synapses tick by {other} here, expected {made_by}, which made .*step_0000"
    with pytest.raises(ConfigError, match=expected):
        resume(half)
    assert resume(half, f"model.vsml.kernel={other}", "training.iterations=6")
    assert resume(half)  # the checkpoint names the kernel that it was gone on with


EVALUATED = "evaluation={datasets: [digits], episode_length: 4, count: 2, frequency: 2}"


@pytest.mark.parametrize("fate", ["full", "deleted"])
def test_a_rescued_run_has_its_best_checkpoint(tmp_path, monkeypatch, fate):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder, best = tmp_path / "run", tmp_path / "best_then"

    def spoil():
        shutil.copy(folder / "checkpoints" / "best.safetensors", best)
        if fate == "deleted":
            shutil.rmtree(folder)
        else:
            monkeypatch.setattr(CheckpointStore, "_write", full_disk(folder, CheckpointStore._write))

    with pytest.raises(OSError, match="--resume") as caught:
        recorded(folder, EVALUATED, in_collect_step_9=spoil)
    rescue = Path(str(caught.value).rpartition(" ")[2])
    _, metadata = load_params(CheckpointStore(rescue / "checkpoints").newest())
    _, of_best = load_params(rescue / "checkpoints" / "best.safetensors")
    assert metadata["best_accuracy"] == of_best["best_accuracy"]
    if fate == "full":
        jax.tree.map(np.testing.assert_array_equal, load_params(best)[0], load_params(rescue)[0])


def full_disk(folder, real):
    """Let a method that writes fail below a folder, as on a disk that is full."""

    def write(store, path, *arguments):
        if path.is_relative_to(folder):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real(store, path, *arguments)

    return write


def test_where_no_best_checkpoint_is_left_the_next_evaluation_makes_one(tmp_path, capsys):
    folder = tmp_path / "run"
    recorded(folder, EVALUATED, "training.iterations=6")
    (folder / "checkpoints" / "best.safetensors").unlink()
    assert resume(folder, "training.iterations=8")
    assert "no best checkpoint any more" in capsys.readouterr().out
    _, metadata = load_params(folder / "checkpoints" / "best.safetensors")
    assert metadata["step"] == 8


def test_results_of_an_evaluation_are_saved_elsewhere_where_its_folder_refuses(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run = RunDirectory(tmp_path / "run")
    settings = ["call=evaluate", "evaluation={datasets: [digits], episode_length: 4, count: 2}"]
    with run.lock():
        shutil.rmtree(run.path)
        with pytest.raises(OSError, match="The results are in ") as caught:
            run_evaluation(Setup(load_config(overrides=settings)), run, SerialCommunicator())
    assert (Path(str(caught.value).rpartition(" ")[2]) / "evaluation.json").exists()


def test_a_figure_that_fails_does_not_keep_a_run_from_its_end(tmp_path, capsys):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vsml.reporting.plots.learning_curves", lambda *arguments, **others: 1 / 0)
        recorded(tmp_path / "run", EVALUATED, "training.iterations=2")
    assert "learning_curves.png could not be drawn" in capsys.readouterr().out
    assert (tmp_path / "run" / "complete").exists() and (tmp_path / "run" / "evaluation.json").exists()


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

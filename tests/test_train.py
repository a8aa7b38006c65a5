"""Training outlasts a run's folder that is away or full, and loses nothing that was saved."""

import os
import signal
import subprocess
from pathlib import Path

import pytest
from comparing import assert_same_learner, assert_same_run

from vsml import evaluate, train
from vsml.comm import SerialCommunicator
from vsml.config_files import dump, load_config
from vsml.runs import RunDirectory, read_metrics
from vsml.train import run_training

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
        return run_training(config, run, SerialCommunicator())


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
    assert run_training(load_config(overrides=SETTINGS), rescue, SerialCommunicator(), resume=True)
    assert_same_learner(rescue.path, undisturbed)
    lines = read_metrics(away / "metrics.jsonl") + read_metrics(rescue.metrics)
    assert [line["step"] for line in lines] == list(range(1, 13))


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
    evaluation = [
        "evaluation={datasets: [digits], episode_length: 4, count: 2, frequency: 0, untrained: true}"
    ]
    config = load_config(overrides=[*SETTINGS, *evaluation])
    run = RunDirectory(tmp_path)
    run.start(dump(config), {})
    real = train.evaluate_all

    def signalled(*arguments):
        os.kill(os.getpid(), signal.SIGUSR1)
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "evaluate_all", signalled)
        assert not run_training(config, run, SerialCommunicator())
    assert "stopped after step 12 (SIGUSR1)" in capsys.readouterr().out
    assert not run.complete.exists() and not (tmp_path / "evaluation.json").exists()
    assert run_training(config, run, SerialCommunicator(), resume=True)
    assert run.complete.exists() and (tmp_path / "evaluation.json").exists()
    assert [line["step"] for line in read_metrics(run.metrics)] == list(range(1, 13))


def test_a_signal_ends_an_evaluation_of_which_nothing_is_kept(tmp_path, capsys):
    settings = ["call=evaluate", "evaluation={datasets: [digits], episode_length: 4, count: 2}"]
    run = RunDirectory(tmp_path)
    real = evaluate.load_evaluation_data

    def signalled(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "load_evaluation_data", signalled)
        assert evaluate.run_evaluation(load_config(overrides=settings), run, SerialCommunicator()) is None
    assert "(SIGTERM); nothing of it is kept" in capsys.readouterr().out
    assert not run.complete.exists() and not (tmp_path / "evaluation.json").exists()

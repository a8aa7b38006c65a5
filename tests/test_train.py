"""Training outlasts a run's folder that is away or full, and loses nothing that was saved."""

import subprocess
from pathlib import Path

import pytest
from comparing import assert_same_learner, assert_same_run

from vsml import train
from vsml.comm import SerialCommunicator
from vsml.config_files import dump, load_config
from vsml.runs import RunDirectory
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
    """Train in a folder, and call `events` {"at_5": action} before the meta step after so many."""
    config = load_config(overrides=SETTINGS)
    run = RunDirectory(folder)
    run.start(dump(config), {})
    done = 0
    real_step = train.meta_step

    def meta_step(*arguments):
        nonlocal done
        events.get(f"at_{done}", lambda: None)()
        done += 1
        return real_step(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "meta_step", meta_step)
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


def test_a_disk_that_is_full_for_a_while_costs_nothing(tmp_path, undisturbed, capsys):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted: that needs root")
    filler = disk / "filler"

    def fill():
        with pytest.raises(OSError, match="No space"), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(bytes(512))

    try:
        assert start(disk / "run", at_5=fill, at_8=filler.unlink)
        assert_same(disk / "run", undisturbed)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert "No space left on device" in capsys.readouterr().out

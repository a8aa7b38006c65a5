"""Runs whose folder is attacked: by many writers, by planted links and pipes, and by a disk that is full."""

import contextlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from comparing import assert_same_learner, assert_same_run
from test_kills import Place
from test_launch import LAUNCH

from vsml.calls.train import run_training
from vsml.config.files import dump
from vsml.launching.schema import load_config
from vsml.runs import checkpoint
from vsml.runs.checkpoint import CheckpointStore
from vsml.runs.directory import RunDirectory
from vsml.setup import Setup
from vsml.system.comm import SerialCommunicator

pytestmark = [pytest.mark.robust, pytest.mark.usefixtures("hasty")]

SETTINGS = [
    "training={iterations: 6, population_size: 4, episode_length: 3, chunk_size: 4, dataset: digits}",
    "data.preprocess.resize=[4, 4]",
    "evaluation={datasets: [digits], episode_length: 4, count: 2, frequency: 2, start: false}",
    "checkpoint.frequency=2",
    "summary.frequency=1",
    "tracking.wandb.mode=disabled",
]


def train(folder: Path, resume: bool = False) -> bool:
    config = load_config(overrides=SETTINGS)
    run = RunDirectory(folder)
    with run.lock():
        if not resume:
            run.start(dump(config), {})
        return run_training(Setup(config), run, SerialCommunicator(), resume)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert train(folder)
    return folder


def test_writers_of_one_file_lose_no_save_and_leave_no_torn_file(tmp_path):
    # Four processes of four threads save whole checkpoints to one path, which is read meanwhile.
    code = """
import sys, threading
import numpy as np
from vsml.runs import checkpoint
def save(thread):
    value = 4 * int(sys.argv[2]) + thread
    for _ in range(15):
        checkpoint.save(sys.argv[1], {"a": np.full(5000 + value, value)}, {"value": value})
threads = [threading.Thread(target=save, args=(number,)) for number in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    path = tmp_path / "shared.safetensors"
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(path), str(number)], stderr=subprocess.PIPE)
        for number in range(4)
    ]
    read = 0
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            tree, metadata = checkpoint.load(path)
            value = metadata["value"]
            assert np.array_equal(tree["a"], np.full(5000 + value, value))
            read += 1
    assert [writer.communicate()[1] for writer in writers] == [b""] * 4, "a save was lost"
    assert read > 0 and os.listdir(tmp_path) == [path.name]


def test_of_processes_that_start_one_run_at_once_one_does_it_and_the_others_say_so(tmp_path):
    place = Place(tmp_path)
    run = tmp_path / "contested"
    processes = [place.start(run) for _ in range(3)]
    told = [process.communicate(timeout=300)[1] for process in processes]
    codes = [process.returncode for process in processes]
    assert codes.count(0) >= 1 and set(codes) <= {0, 1}, told
    assert all("in use by process" in text for code, text in zip(codes, told, strict=True) if code)
    place.assert_undisturbed(run)


def test_a_reader_of_one_line_a_small_encoding_and_odd_names_keep_no_run_from_its_end(tmp_path):
    place = Place(tmp_path)
    table = tmp_path / "ba$$in.npz"
    x = np.random.default_rng(0).random((40, 4, 4, 1))
    y = np.arange(40) % 4
    np.savez(table, x_train=x, y_train=y, x_test=x, y_test=y)
    datasets = f"[{{dataset: digits, name: '\u03c3=1'}}, {{dataset: '{table}'}}]"
    learner = "[{name: _$SGD, model: {type: sgd}}]"
    settings = [f"evaluation.datasets={datasets}", f"evaluation.learners={learner}"]
    command = [*LAUNCH, "--config_files", "tiny.yaml", "--run_dir", "read", "--config", *settings]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=place.environment | {"PYTHONIOENCODING": "ascii"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"run directory: read\n"
    process.stdout.close()
    errors = process.stderr.read().decode()
    assert process.wait() == 0 and "Traceback" not in errors, errors
    rows = json.loads((tmp_path / "read" / "evaluation.json").read_text())
    assert {row["learner"] for row in rows} == {"meta-trained", "_$SGD"}
    assert (tmp_path / "read" / "complete").exists()
    assert (tmp_path / "read" / "learning_curves.png").exists()


NAMES = (
    "metrics.jsonl",
    "checkpoints",
    "checkpoints/best.safetensors",
    "checkpoints/step_00000002.safetensors",
    "learner.safetensors",
    "evaluation.json",
    "evaluation.md",
    "evaluation.npz",
    "learning_curves.png",
    "environment.json",
    "complete",
    ".lock",
    ".config.yaml.tmp",
    ".metrics.jsonl.tmp",
)


def plant(path: Path, kind: str, victims: Path) -> None:
    """Put a link to a file or to a folder of another, or a pipe, where a run is going to write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(victims / "file")
    else:
        path.symlink_to(victims / "folder")


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextlib.contextmanager
def time_limit(seconds: float):
    """End the process with a traceback of where it hangs, as in opening a pipe that nobody reads."""
    timer = threading.Timer(seconds, lambda: os._exit(77))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@pytest.mark.parametrize("seed", range(len(NAMES)))
def test_planted_links_and_pipes_are_not_followed_out_of_a_run(tmp_path, undisturbed, monkeypatch, seed):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rng = random.Random(seed)
    victims, folder = tmp_path / "victims", tmp_path / "run"
    (victims / "folder").mkdir(parents=True)
    for path in (victims / "file", victims / "folder" / "step_00000009.safetensors"):
        path.write_text("precious")
    before = content_of(victims)
    first_name = NAMES[seed % len(NAMES)]
    planted = {first_name, *rng.sample(NAMES, 2)}
    for name in sorted(planted):
        above = (folder / name).parent
        if os.path.lexists(above) and (above.is_symlink() or not above.is_dir()):
            continue  # in what has been planted before
        plant(folder / name, rng.choice(["pipe", "link", "folder"]), victims)
    with time_limit(120):
        try:
            config = load_config(overrides=SETTINGS)
            run = RunDirectory(folder)
            with run.lock():
                run.config.write_text(dump(config))
                assert run_training(Setup(config), run, SerialCommunicator())
            assert_same_run(folder, undisturbed)
        except OSError as error:
            assert str(folder) in str(error), "the message does not name the place"
    assert content_of(victims) == before


@contextlib.contextmanager
def small_disk(folder: Path, size: int):
    """Let a folder be on a disk of so many bytes; where that needs root, let no file be larger."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode == 0:
        try:
            yield
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
        return
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 8, former[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)


@pytest.mark.parametrize("pages", [1, 6, 9, 12, 16, 20, 26, 32, 40, 80])
def test_on_a_disk_that_fills_up_no_step_is_lost(tmp_path, undisturbed, monkeypatch, pages):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    disk = tmp_path / "disk"
    with small_disk(disk, 4096 * pages):
        try:
            assert train(disk / "run")
            goes_on_in = disk / "run"
        except OSError as error:
            told = str(error)
            assert str(disk) in told, "the message does not name a file"
            if not (disk / "run" / "metrics.jsonl").exists() and "--resume" not in told:
                return  # it could not even begin
            goes_on_in = Path(told.rpartition(" ")[2]) if "--resume" in told else disk / "run"
        copy = tmp_path / "copy"
        shutil.copytree(goes_on_in, copy)
    newest = CheckpointStore(copy / "checkpoints").newest()
    assert newest is not None, "nothing is saved"
    _, metadata = checkpoint.load_params(newest)
    has_best = (copy / "checkpoints" / "best.safetensors").exists()
    assert has_best or metadata["best_accuracy"] is None, "no best checkpoint would ever be written again"
    assert train(copy, resume=True)
    assert_same_learner(copy, undisturbed)

"""Runs that are killed at any moment and resumed end as the undisturbed run does, bit for bit.

Moments are drawn with fixed seeds: before a file operation in the run's folder, or after a time. The first
test has few kills; the others, marked `robust`, have sixty in all.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from comparing import assert_same_run
from test_launch import LAUNCH, environment, mpirun

from vsml.runs.checkpoint import load_params

TINY = """
training: {dataset: digits, iterations: 20, population_size: 4, episode_length: 3, chunk_size: 2}
data: {preprocess: {resize: [4, 4]}}
evaluation: {datasets: [digits], episode_length: 4, count: 2, frequency: 4, start: false}
checkpoint: {frequency: 3, keep: 2}
summary: {frequency: 1}
tracking: {wandb: {mode: disabled}}
"""

# launch.py in a process that kills itself before its n-th file operation in the folder of the run, and says
# how many there were where it comes to its end.
COUNTING = """
import os, runpy, signal, sys
folder, last, told = os.path.abspath(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
operations = 0
def hook(event, arguments):
    global operations
    if event not in ("open", "os.rename", "os.remove", "os.mkdir"):
        return
    path = arguments[0]
    if isinstance(path, (str, bytes, os.PathLike)) and os.path.abspath(os.fsdecode(path)).startswith(folder):
        operations += 1
        if operations == last:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
sys.argv = sys.argv[4:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    open(told, "w").write(str(operations))
"""

SESSIONS = 5
"""Kills before a run may come to its end."""


class Place:
    """A folder with tiny.yaml, a compilation cache and an undisturbed run."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "tiny.yaml").write_text(TINY)
        self.environment = environment(folder) | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}
        self.undisturbed = folder / "undisturbed"
        process = self.start(self.undisturbed, before_operation=0)
        assert process.wait(timeout=300) == 0, process.stderr.read()
        self.operations = int((folder / "operations").read_text())

    def start(self, run: Path, before_operation: int | None = None, ranks: int = 0) -> subprocess.Popen:
        """Start or resume a run."""
        if (run / "config.yaml").exists():
            arguments = ["--resume", run.name]
        else:
            arguments = ["--config_files", "tiny.yaml", "--run_dir", run.name, "--continue"]
        command = [*LAUNCH, *arguments]
        if before_operation is not None:
            told = str(self.folder / "operations")
            counting = [sys.executable, "-c", COUNTING, run.name, str(before_operation), told]
            command = [*counting, *LAUNCH[1:], *arguments]
        return subprocess.Popen(
            [*(mpirun(ranks) if ranks else []), *command],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def assert_undisturbed(self, run: Path) -> None:
        """Compare a run with the undisturbed one: metrics line by line, and all that was found."""
        assert_same_run(run, self.undisturbed)
        assert (run / "complete").exists()
        found, expected = (
            json.loads((each / "evaluation.json").read_text()) for each in (run, self.undisturbed)
        )
        assert found == expected
        best = [load_params(each / "checkpoints" / "best.safetensors") for each in (run, self.undisturbed)]
        jax.tree.map(np.testing.assert_array_equal, best[0][0], best[1][0])
        assert best[0][1]["step"] == best[1][1]["step"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp("kills"))


def kill_before_operation(place: Place, run: Path, rng: random.Random) -> bool:
    """Start or resume a run, and kill it before a file operation; return whether it came to that."""
    number = rng.randint(1, place.operations // SESSIONS)
    process = place.start(run, before_operation=number)
    _, errors = process.communicate(timeout=300)
    assert process.returncode in (0, -signal.SIGKILL), errors
    return process.returncode != 0


def kill_after_a_time(place: Place, run: Path, rng: random.Random, ranks: int = 0) -> bool:
    """Start or resume a run, and kill it, or one of its ranks, some time after it has taken its folder."""
    lock = run / ".lock"
    before = lock.read_text() if lock.exists() else ""
    process = place.start(run, ranks=ranks)
    while process.poll() is None and not (lock.exists() and lock.read_text() not in ("", before)):
        time.sleep(0.01)
    time.sleep(rng.uniform(0, 3))
    victim = process.pid
    if ranks:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        running = children.read_text().split() if process.poll() is None else []
        if not running:
            return False
        victim = int(rng.choice(running))
    if process.poll() is None:
        os.kill(victim, signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    was_killed = process.returncode != 0
    assert not was_killed or "Traceback" not in errors, errors
    return was_killed


def kill_and_resume(place: Place, name: str, kills: int, kill, **options) -> None:
    """Kill runs so many times in all, each several times, and compare each with the undisturbed one."""
    rng, done, number = random.Random(name), 0, 0
    while done < kills:
        number += 1
        run = place.folder / f"{name}_{number}"
        for _ in range(min(SESSIONS, kills - done)):
            if not kill(place, run, rng, **options):
                break  # it was complete before its moment came
            done += 1
        last = place.start(run, **options)
        _, errors = last.communicate(timeout=300)
        assert last.returncode == 0, errors
        place.assert_undisturbed(run)


def test_a_run_that_is_killed_three_times_is_the_undisturbed_one(place):
    kill_and_resume(place, "short", 3, kill_before_operation)


@pytest.mark.robust
def test_runs_that_are_killed_before_any_file_operation_lose_nothing(place):
    kill_and_resume(place, "operation", 30, kill_before_operation)


@pytest.mark.robust
def test_runs_that_are_killed_at_any_time_lose_nothing(place):
    kill_and_resume(place, "time", 20, kill_after_a_time)


@pytest.mark.robust
def test_runs_one_rank_of_which_is_killed_lose_nothing(place):
    kill_and_resume(place, "rank", 10, kill_after_a_time, ranks=2)

"""Whole runs through launch.py, each in a process of its own, as a user starts them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from vsml.tracking import read_metrics

ROOT = Path(__file__).parents[1]
LAUNCH = [sys.executable, str(ROOT / "launch.py")]
MPIRUN = Path(sys.executable).parent / "mpirun"

# Small, but with all that matters: two input shapes, projections, checkpoints and evaluations in between.
TINY = """
training: {dataset: digits, iterations: 20, population_size: 8, episode_length: 5, chunk_size: 2}
data: {preprocess: {resize: {split: [null, [4, 4]]}, rand_proj: {split: [false, true], repeat: 2}}}
evaluation: {datasets: [digits], episode_length: 12, count: 3, frequency: 10, untrained: false}
checkpoint: {frequency: 5, keep: 2}
summary: {frequency: 1}
tracking: {wandb: {mode: disabled}}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with tiny.yaml, and a compilation cache that all processes of this file share."""
    folder = tmp_path_factory.mktemp("launch")
    (folder / "tiny.yaml").write_text(TINY)
    return folder


def environment(place: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
    return kept | {
        "JAX_COMPILATION_CACHE_DIR": str(place / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }


def mpirun(ranks: int) -> list[str]:
    return [str(MPIRUN), "--bind-to", "none", "--map-by", ":OVERSUBSCRIBE", "-n", str(ranks)]


def launch(place: Path, *arguments: str, ranks: int | None = None, code: int = 0):
    done = subprocess.run(
        [*(mpirun(ranks) if ranks else []), *LAUNCH, *arguments],
        cwd=place,
        env=environment(place),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def tiny(place: Path, run_dir: str, *arguments: str, **options):
    return launch(place, "--config_files", "tiny.yaml", "--run_dir", run_dir, *arguments, **options)


@pytest.fixture(scope="module")
def uninterrupted(place):
    """The directory of a complete run of tiny.yaml."""
    tiny(place, "uninterrupted")
    return place / "uninterrupted"


def untimed(run: Path) -> list[dict]:
    return [
        {key: value for key, value in line.items() if key != "wall_s"}
        for line in read_metrics(run / "metrics.jsonl")
    ]


def assert_same_run(one: Path, other: Path) -> None:
    assert untimed(one) == untimed(other)
    first, second = load_file(one / "learner.safetensors"), load_file(other / "learner.safetensors")
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_a_run_leaves_everything_that_is_documented(uninterrupted):
    names = {path.name for path in uninterrupted.iterdir()}
    assert names >= {
        "config.yaml",
        "environment.json",
        "metrics.jsonl",
        "checkpoints",
        "evaluation.json",
        "evaluation.npz",
        "learning_curves.png",
        "learner.safetensors",
    }
    assert {path.name for path in (uninterrupted / "checkpoints").iterdir()} == {
        "best.safetensors",
        "step_00000015.safetensors",
        "step_00000020.safetensors",
    }
    assert [line["step"] for line in untimed(uninterrupted)] == list(range(1, 21))
    assert untimed(uninterrupted)[-1]["examples"] == 20 * 2 * 8 * 5
    (row,) = json.loads((uninterrupted / "evaluation.json").read_text())
    assert row["dataset"] == "digits" and row["episodes"] == 3 and row["examples"] == 12
    assert np.load(uninterrupted / "evaluation.npz")["evolved/digits/correct"].shape == (3, 12)


@pytest.mark.slow
def test_the_same_configuration_and_seed_give_the_same_run(place, uninterrupted):
    tiny(place, "again")
    assert_same_run(uninterrupted, place / "again")


def wait_for(path: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 300
    while not path.exists():
        assert process.poll() is None, f"ended before {path.name} was there"
        assert time.monotonic() < deadline, f"no {path.name}"
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 0), (signal.SIGUSR1, 0)]
)
def test_a_run_that_is_stopped_and_resumed_is_the_uninterrupted_one(place, uninterrupted, number, code):
    run = place / f"stopped_by_{number.name}"
    process = subprocess.Popen(
        [*LAUNCH, "--config_files", "tiny.yaml", "--run_dir", run.name],
        cwd=place,
        env=environment(place),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for(run / "checkpoints" / "step_00000005.safetensors", process)
    process.send_signal(number)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == code, output
    assert not (run / "learner.safetensors").exists(), "it was complete before the signal came"
    if code == 0:
        assert "to go on: python launch.py --resume" in output
    launch(place, "--resume", run.name)
    assert_same_run(uninterrupted, run)


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_is_told_of_and_the_one_before_used(place, uninterrupted):
    tiny(place, "damaged", "--config", "training.iterations=15", "evaluation.frequency=10")
    newest = place / "damaged" / "checkpoints" / "step_00000015.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    done = launch(place, "--resume", "damaged", "--config", "training.iterations=20")
    assert newest.name in done.stderr
    assert_same_run(uninterrupted, place / "damaged")


@pytest.mark.slow
def test_a_time_limit_ends_a_run_in_good_order(place):
    done = tiny(place, "limited", "--config", "training.time_limit_s=1e-3")
    assert "training.time_limit_s" in done.stdout and "--resume" in done.stdout


@pytest.mark.slow
def test_an_exported_learner_is_evaluated_from_its_file(place, uninterrupted):
    arguments = ["--config", "call=evaluate", f"checkpoint.restore={uninterrupted}/learner.safetensors"]
    done = tiny(place, "evaluated", *arguments)
    assert "restored" in done.stdout
    trained = np.load(uninterrupted / "evaluation.npz")["evolved/digits/correct"]
    restored = np.load(place / "evaluated" / "evaluation.npz")["restored/digits/correct"]
    assert np.array_equal(trained, restored)


@pytest.mark.slow
def test_back_propagation_runs_from_the_same_files(place):
    backprop = str(ROOT / "configs" / "backprop.yaml")
    settings = ["training.iterations=2", "training.population_size=4", "evaluation.frequency=0"]
    launch(place, "--config_files", "tiny.yaml", backprop, "--run_dir", "backprop", "--config", *settings)
    first, second = untimed(place / "backprop")
    assert first["grad_norm"] > 0 and second["meta_loss"] > 0


def test_a_dry_run_tells_the_plan_and_writes_nothing(place):
    done = launch(place, "--config_files", "tiny.yaml", "--dry_run")
    assert "group 1: inputs 8x8x1" in done.stdout and "group 2: inputs 4x4x1" in done.stdout
    assert "FLOP" in done.stdout
    assert not (place / "runs").exists()


def test_mistakes_end_with_one_message_and_code_2(place):
    done = launch(place, "--config_files", "tiny.yaml", "--config", "training.iteration=3", "seed=x", code=2)
    assert "did you mean" in done.stderr and "seed" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.mpi
def test_ranks_never_change_the_science(place, uninterrupted):
    for ranks in (1, 2, 4):
        tiny(place, f"ranks_{ranks}", ranks=ranks)
        assert_same_run(uninterrupted, place / f"ranks_{ranks}")


@pytest.mark.mpi
def test_ranks_never_change_a_gradient_run(place):
    settings = [
        "--config",
        "optimizer.type=gradient",
        "optimizer.learning_rate=1e-3",
        "training.iterations=6",
        "evaluation.tune_count=3",
        "evaluation.learners=[{name: SGD, model: {type: sgd}, tune: {sgd.learning_rate: [0.01, 0.1]}}]",
    ]
    for ranks in (1, 2):
        tiny(place, f"gradient_{ranks}", *settings, ranks=ranks)
    one, two = place / "gradient_1", place / "gradient_2"
    assert_same_run(one, two)
    assert (one / "tuning.json").read_bytes() == (two / "tuning.json").read_bytes()


@pytest.mark.mpi
def test_more_ranks_than_chunks_is_an_error_that_ends_all(place):
    setting = ["--config", "training.chunk_size=4", "data.preprocess.resize=null"]
    done = tiny(place, "too_many", *setting, ranks=4, code=1)
    assert "training.chunk_size" in done.stderr and "4 ranks" in done.stderr


@pytest.mark.mpi
def test_a_rank_that_is_killed_ends_the_others(place):
    arguments = [
        "--config_files",
        "tiny.yaml",
        "--run_dir",
        "killed",
        "--config",
        "training.iterations=100000",
    ]
    process = subprocess.Popen(
        [*mpirun(2), *LAUNCH, *arguments],
        cwd=place,
        env=environment(place),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_for(place / "killed" / "checkpoints" / "step_00000005.safetensors", process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode != 0

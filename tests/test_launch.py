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
from comparing import assert_same_run, untimed

ROOT = Path(__file__).parents[1]
LAUNCH = [sys.executable, str(ROOT / "launch.py")]
MPIRUN = Path(sys.executable).parent / "mpirun"

# Small, but with all that matters: two input shapes, projections, checkpoints and evaluations in between.
TINY = """
training: {dataset: digits, iterations: 20, population_size: 8, episode_length: 5, chunk_size: 2}
data: {preprocess: {resize: {split: [null, [4, 4]]}, rand_proj: {split: [false, true], repeat: 2}}}
evaluation: {datasets: [digits], episode_length: 12, count: 3, frequency: 10, start: false}
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
    kept = {
        key: value
        for key, value in os.environ.items()
        if key != "XLA_FLAGS" and not key.startswith("WANDB_")  # wandb's service of these tests among them
    }
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
    """The directory of a complete run of tiny.yaml, with wandb offline."""
    settings = ["--config", "name=first", "tracking.wandb={mode: offline, group: pair, tags: [quick]}"]
    tiny(place, "uninterrupted", *settings)
    return place / "uninterrupted"


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
    assert np.load(uninterrupted / "evaluation.npz")["meta-trained/digits/correct"].shape == (3, 12)


@pytest.mark.slow
def test_wandb_offline_carries_all_that_is_shown_online(uninterrupted):
    (file,) = uninterrupted.glob("wandb/offline-run-*/run-*.wandb")
    command = [Path(sys.executable).with_name("wandb"), "leet", "inspect", "--json", file]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    records = [json.loads(line) for line in text.splitlines()]

    def of(kind):
        return [record[kind] for record in records if record["type"] == kind]

    (run,) = of("run")
    assert (run["display_name"], run["run_group"], run["job_type"]) == ("first", "pair", "train")
    assert run["tags"] == ["quick"]
    assert run["run_id"] == (uninterrupted / "wandb_id").read_text().strip()
    assert run["config"]["update"]["training"]["iterations"] == 20
    axes = {metric["name"]: metric.get("step_metric") for metric in of("metric")}
    assert axes["meta_loss"] == axes["grad_norm"] == axes["eval/digits/accuracy"] == "step"
    assert axes["curves/digits/meta-trained"] == "curves/examples"
    lines = [line["item"] for line in of("history")]
    logged = [line["meta_loss"] for line in lines if "meta_loss" in line]
    assert logged == [line["meta_loss"] for line in untimed(uninterrupted)]
    assert [line["curves/examples"] for line in lines if "curves/examples" in line] == list(range(1, 13))
    kinds = {name: value for line in lines for name, value in line.items() if name.endswith("._type")}
    assert kinds["params/0/lstm/kernel._type"] == "histogram"
    assert kinds["evaluation._type"] == "table-file" and kinds["learning_curves._type"] == "image-file"
    kept = {artifact["name"].partition("-")[0] for artifact in of("artifact")}
    assert kept >= {"best", "learner"} and "checkpoint" not in kept


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
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 0)])
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
def test_one_command_line_starts_a_run_goes_on_with_it_and_leaves_a_complete_one_alone(place, uninterrupted):
    run = place / "continued"
    arguments = [*LAUNCH, "--config_files", "tiny.yaml", "--run_dir", run.name, "--continue"]
    process = subprocess.Popen(arguments, cwd=place, env=environment(place), stdout=subprocess.DEVNULL)
    wait_for(run / "checkpoints" / "step_00000005.safetensors", process)
    process.send_signal(signal.SIGSTOP)  # it is there, and does not come to its end meanwhile
    second = launch(place, *arguments[2:], code=1)
    assert f"in use by process {process.pid}" in second.stderr and "Traceback" not in second.stderr
    process.kill()
    process.wait()
    assert not (run / "complete").exists(), "it was complete before it was killed"
    other = launch(place, *arguments[2:], "--config", "training.iterations=30", code=2)
    assert "training.iterations: got 30, expected 20" in other.stderr
    launch(place, *arguments[2:])
    assert_same_run(uninterrupted, run)
    before = (run / "evaluation.json").stat().st_mtime_ns
    assert "complete" in launch(place, *arguments[2:]).stdout
    assert (run / "evaluation.json").stat().st_mtime_ns == before


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
    done = tiny(place, "limited to 1 ms", "--config", "training.time_limit_s=1e-3")
    assert "training.time_limit_s" in done.stdout and "--resume 'limited to 1 ms'" in done.stdout


@pytest.mark.slow
def test_a_complete_run_is_left_alone_when_it_is_resumed(place, uninterrupted):
    before = {path: path.stat().st_mtime_ns for path in uninterrupted.iterdir()}
    done = launch(place, "--resume", str(uninterrupted))
    assert "was complete already" in done.stdout
    changed = {path.name for path, time_ns in before.items() if path.stat().st_mtime_ns != time_ns}
    assert changed <= {".lock"}


@pytest.mark.slow
def test_a_log_has_no_escape_codes(place, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    done = tiny(place, "plain", "--config", "training.iterations=1", "evaluation.count=1")
    assert "learner" in done.stdout and "\x1b" not in done.stdout


@pytest.mark.slow
def test_an_exported_learner_is_evaluated_from_its_file(place, uninterrupted):
    arguments = ["--config", "call=evaluate", f"checkpoint.restore={uninterrupted}/learner.safetensors"]
    done = tiny(place, "evaluated", *arguments)
    assert "restored" in done.stdout
    trained = np.load(uninterrupted / "evaluation.npz")["meta-trained/digits/correct"]
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


@pytest.mark.slow
def test_all_entries_of_an_array_run_one_after_the_other(place):
    entries = "[seed=0], [optimizer.learning_rate=1.0e+38], [seed=2]".replace("[", "{config: [")
    (place / "many.yaml").write_text(f"array: [{entries.replace(']', ']}')}]\n")
    few = ["--config", "training.iterations=1", "evaluation.count=1", "evaluation.frequency=0"]
    done = tiny(place, "many", "--array", "many.yaml", "--all", *few, code=1)
    assert [(place / "many" / number / "complete").exists() for number in "123"] == [True, False, True]
    assert "entry 3 of 3: many-3" in done.stdout
    assert "3 of 3 entries have run; failed: 2 (exit code 1)" in done.stdout


@pytest.mark.mpi
def test_ranks_never_change_the_science(place, uninterrupted):
    for ranks in (2, 4):  # `uninterrupted` is one process without mpirun
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
    done = tiny(place, "too_many", *setting, ranks=4, code=2)
    assert "training.chunk_size" in done.stderr and "4 ranks" in done.stderr


def start_ranks(place: Path, run: Path) -> tuple[subprocess.Popen, list[int]]:
    """Start two ranks that train for long, and return mpirun and the ranks' process numbers."""
    arguments = [
        "--config_files",
        "tiny.yaml",
        "--run_dir",
        run.name,
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
    wait_for(run / "checkpoints" / "step_00000005.safetensors", process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return process, [int(child) for child in children]


@pytest.mark.mpi
def test_a_rank_that_is_killed_ends_the_others_and_is_named(place):
    process, ranks = start_ranks(place, place / "killed")
    os.kill(ranks[1], signal.SIGKILL)
    output = process.communicate(timeout=60)[0]
    assert process.returncode != 0
    assert "rank 1" in output and "Killed" in output


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("number", "to"), [(signal.SIGUSR1, "mpirun"), (signal.SIGUSR1, "a rank"), (signal.SIGTERM, "a rank")]
)
def test_a_signal_to_ranks_saves_and_ends_them_in_good_order(place, number, to):
    run = place / f"{number.name} to {to}"
    process, ranks = start_ranks(place, run)
    os.kill(process.pid if to == "mpirun" else ranks[1], number)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0, output
    saved = max(run.glob("checkpoints/step_*.safetensors")).stem.removeprefix("step_")
    assert f"stopped after step {int(saved)}" in output and "--resume" in output

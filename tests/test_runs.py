"""Run directories refuse to mix runs and to be used twice, and metrics stay valid JSON."""

import errno
import json
import os
import shutil
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from vsml.runs.callbacks import StepTaken
from vsml.runs.callbacks.snapshots import Snapshots, SnapshotsConfig
from vsml.runs.checkpoint import CheckpointStore
from vsml.runs.directory import RunDirectory, RunLockedError, new_run, open_run
from vsml.runs.environment import describe_environment, git_state
from vsml.runs.metrics import MetricsError, MetricsLog, read_metrics
from vsml.system.files import IrregularFileError, atomic_write
from vsml.system.guards import ForeignFolderError


def test_a_run_gets_a_directory_of_its_own_with_its_config(tmp_path):
    runs = [new_run(name="digits", root=tmp_path / "runs") for _ in range(3)]
    assert len({run.path for run in runs}) == 3
    for run in runs:
        run.start("seed: 1\n", {"world_size": 4})
        assert run.path.name[10:].endswith(("-digits", "-digits-2", "-digits-3"))
        assert run.config.read_text() == "seed: 1\n"
        assert json.loads(run.environment.read_text()) == {"world_size": 4}
        assert sorted(os.listdir(run.path)) == ["config.yaml", "environment.json"]


def test_a_directory_that_holds_a_run_is_refused_and_left_alone(tmp_path):
    run = new_run(tmp_path / "run")
    run.start("seed: 1\n", {})
    with pytest.raises(ValueError, match="holds a run already"):
        new_run(tmp_path / "run").start("seed: 2\n", {})
    assert run.config.read_text() == "seed: 1\n"
    assert open_run(tmp_path / "run") == run


def test_a_directory_with_other_files_is_used(tmp_path):
    (tmp_path / "job.log").write_text("")
    new_run(tmp_path).start("", {})
    assert open_run(tmp_path).exists


def locked_by_another_process(path):
    """Start a process that holds the lock of a run until its stdin is closed."""
    code = "import sys; from vsml.runs.directory import RunDirectory; from pathlib import Path\n"
    code += "with RunDirectory(Path(sys.argv[1])).lock(): print('locked', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "locked\n"
    return process


def test_a_run_in_use_is_refused_by_the_name_of_who_has_it(tmp_path):
    with locked_by_another_process(tmp_path) as process:
        who = f"in use by process {process.pid} on .* since 20"
        with pytest.raises(RunLockedError, match=who), RunDirectory(tmp_path).lock():
            pass
        process.stdin.close()
    with RunDirectory(tmp_path).lock():
        pass


def test_the_lock_of_a_process_that_was_killed_is_gone(tmp_path):
    with locked_by_another_process(tmp_path) as process:
        process.kill()
    with RunDirectory(tmp_path).lock():
        assert str(os.getpid()) in (tmp_path / ".lock").read_text()


def test_a_file_system_without_locks_is_told_of_and_used(tmp_path, monkeypatch):
    def refuse(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    message = "not locked against a second run: .*No locks"
    with pytest.warns(UserWarning, match=message), RunDirectory(tmp_path).lock():
        pass


def other_session(folder):
    """Let another process take the folder as it is, lock it and leave."""
    with locked_by_another_process(folder) as process:
        process.stdin.close()


@pytest.mark.parametrize("write", ["atomic_write", "metrics", "checkpoint", "snapshot folder"])
def test_nothing_is_written_into_another_run_that_has_taken_the_name(tmp_path, write):
    folder = tmp_path / "run"
    run = RunDirectory(folder)
    log = MetricsLog(run.metrics)
    log.append(1, {})
    snapshots = Snapshots(run, SnapshotsConfig(every=1))
    writes = {
        "atomic_write": lambda: atomic_write(folder / "evaluation.md", ""),
        "metrics": log.flush,
        "checkpoint": lambda: CheckpointStore(run.checkpoints).save(1, {}, {}),
        "snapshot folder": lambda: snapshots(StepTaken(1, {}, {})),
    }
    with run.lock():
        shutil.rmtree(folder)
        other_session(folder)
        before = sorted(os.listdir(folder))
        with pytest.raises(ForeignFolderError, match=r"no longer the folder of this run: .* by process \d+"):
            writes[write]()
        assert sorted(os.listdir(folder)) == before == [".lock"]


def test_a_folder_that_was_deleted_and_made_again_is_not_the_runs(tmp_path):
    run = RunDirectory(tmp_path / "run")
    with run.lock():
        shutil.rmtree(run.path)
        run.path.mkdir()
        with pytest.raises(ForeignFolderError, match="another folder of that name"):
            atomic_write(run.config, "")
    assert os.listdir(run.path) == []


def test_a_folder_that_was_moved_away_and_back_or_whose_lock_was_removed_is_still_the_runs(tmp_path):
    run = RunDirectory(tmp_path / "run")
    with run.lock():
        run.path.rename(tmp_path / "away")
        with pytest.raises(FileNotFoundError):
            atomic_write(run.config, "")
        (tmp_path / "away").rename(run.path)
        atomic_write(run.config, "seed: 1")
        (run.path / ".lock").unlink()
        atomic_write(run.config, "seed: 2")
        other_session(run.path)
        with pytest.raises(ForeignFolderError):
            atomic_write(run.config, "seed: 3")
    assert run.config.read_text() == "seed: 2"


def test_where_there_are_no_locks_the_later_process_wins_and_the_earlier_is_told(tmp_path, monkeypatch):
    def refuse(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    run = RunDirectory(tmp_path)
    with pytest.warns(UserWarning, match="not locked"), run.lock():
        atomic_write(run.config, "first")
        told = f"in use by process {os.getpid()}"
        with RunDirectory(tmp_path).lock(), pytest.raises(ForeignFolderError, match=told):
            atomic_write(run.config, "second")
    assert run.config.read_text() == "first"


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_lock_that_leads_elsewhere_is_refused(tmp_path, kind):
    victim, lock = tmp_path / "victim", tmp_path / "run" / ".lock"
    victim.write_text("precious")
    lock.parent.mkdir()
    os.mkfifo(lock) if kind == "pipe" else lock.symlink_to(victim)
    told = rf"\.lock: got a {kind}, expected a regular file"
    with pytest.raises(OSError, match=told), RunDirectory(lock.parent).lock():
        pass
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_metrics_that_lead_elsewhere_are_neither_written_nor_waited_for(tmp_path, kind):
    victim, run = tmp_path / "victim", RunDirectory(tmp_path / "run")
    victim.write_text('{"step": 1}\n')
    run.path.mkdir()
    os.mkfifo(run.metrics) if kind == "pipe" else run.metrics.symlink_to(victim)
    log = MetricsLog(run.metrics)
    log.append(2, {})
    with pytest.raises(IrregularFileError, match=f"metrics.jsonl: got a {kind}"):
        log.flush()
    with pytest.raises(IrregularFileError, match=r"metrics\.jsonl: got a"):
        run.truncate_metrics(0)
    assert victim.read_text() == '{"step": 1}\n'


def test_a_folder_of_checkpoints_that_leads_elsewhere_is_refused(tmp_path):
    elsewhere, run = tmp_path / "elsewhere", RunDirectory(tmp_path / "run")
    for folder in (elsewhere, run.path):
        folder.mkdir()
    (elsewhere / "step_00000009.safetensors").write_text("of another run")
    run.checkpoints.symlink_to(elsewhere)
    with run.lock(), pytest.raises(ForeignFolderError, match="a link on the way to it leads out"):
        CheckpointStore(run.checkpoints, keep=1).save(1, {"a": np.zeros(1)}, {})
    assert os.listdir(elsewhere) == ["step_00000009.safetensors"]


def test_a_run_may_be_behind_a_link_of_the_user(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    run = RunDirectory(tmp_path / "run")
    with run.lock():
        CheckpointStore(run.checkpoints).save(1, {"a": np.zeros(1)}, {})
    assert (tmp_path / "disk" / "checkpoints" / "step_00000001.safetensors").exists()


def write_metrics(run, *lines):
    log = MetricsLog(run.metrics)
    for step, values in lines:
        log.append(step, values)
    log.flush()


def test_lines_that_cannot_be_written_wait(tmp_path):
    folder = tmp_path / "run"
    log = MetricsLog(folder / "metrics.jsonl")
    log.append(1, {"loss": 2.0})
    with pytest.raises(FileNotFoundError):
        log.flush()
    folder.mkdir()
    log.append(2, {"loss": 1.0})
    log.flush()
    log.flush()
    assert read_metrics(folder / "metrics.jsonl") == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]


def test_a_full_disk_leaves_no_half_line(tmp_path):
    code = """
import resource, sys
from vsml.runs.metrics import MetricsLog, read_metrics
log = MetricsLog(sys.argv[1])
log.append(1, {"text": "short"})
log.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
log.append(2, {"text": 200 * "x"})
try:
    log.flush()
except OSError as error:
    print("refused:", error)
assert [line["step"] for line in read_metrics(sys.argv[1])] == [1]
resource.setrlimit(resource.RLIMIT_FSIZE, (10000, resource.RLIM_INFINITY))
log.append(3, {})
log.flush()
"""
    file = tmp_path / "metrics.jsonl"
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
    assert "refused:" in done.stdout
    assert [line["step"] for line in read_metrics(file)] == [1, 2, 3]


def test_a_directory_without_a_run_cannot_be_opened(tmp_path):
    with pytest.raises(ValueError, match=r"without config\.yaml"):
        open_run(tmp_path)


def test_metrics_are_valid_json_with_null_for_what_is_not_finite(tmp_path):
    run = RunDirectory(tmp_path)
    write_metrics(
        run,
        (1, {"loss": jnp.float32(0.5), "bad": float("nan"), "worse": np.float32(-np.inf)}),
        (2, {"list": np.array([1.0, np.inf]), "count": np.int64(3), "text": "a\nb", "no": None}),
    )
    lines = run.metrics.read_text().splitlines()

    def refuse(constant):
        raise AssertionError(constant)

    first, second = (json.loads(line, parse_constant=refuse) for line in lines)
    assert first == {"step": 1, "loss": 0.5, "bad": None, "worse": None}
    assert second == {"step": 2, "list": [1.0, None], "count": 3, "text": "a\nb", "no": None}
    assert read_metrics(run.metrics) == [first, second]


def test_metrics_are_cut_back_to_a_step_and_lose_a_half_written_line(tmp_path):
    run = RunDirectory(tmp_path)
    write_metrics(run, *((step, {"loss": 0.1 * step}) for step in (0, 10, 20, 20, 30)))
    before = run.metrics.read_bytes().splitlines(keepends=True)
    with open(run.metrics, "a") as file:
        file.write('{"step": 3')
    assert [line["step"] for line in read_metrics(run.metrics)] == [0, 10, 20, 20, 30]
    run.truncate_metrics(20)
    assert run.metrics.read_bytes() == b"".join(before[:4])
    write_metrics(run, (30, {}))
    assert read_metrics(run.metrics)[-1] == {"step": 30}


def test_a_complete_object_without_its_line_end_counts_as_half_written(tmp_path):
    run = RunDirectory(tmp_path)
    run.metrics.write_text('{"step": 1}\n{"step": 2}')
    run.truncate_metrics(5)
    assert run.metrics.read_text() == '{"step": 1}\n'


def test_cutting_metrics_that_do_not_exist_does_nothing(tmp_path):
    run = RunDirectory(tmp_path)
    run.truncate_metrics(5)
    assert not run.metrics.exists()


def test_a_damaged_line_in_the_middle_is_an_error_with_its_number(tmp_path):
    (tmp_path / "m").write_text('{"step": 1}\nxx\n{"step": 2}\n')
    with pytest.raises(ValueError, match="line 2: expected a JSON object, got 'xx"):
        read_metrics(tmp_path / "m")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("null", "expected a JSON object, got 'null"),
        ("[1]", "expected a JSON object"),
        (9 * "\0", "expected a JSON object"),
        ('{"loss": 1}', "expected a whole number as `step`"),
        ('{"step": "1"}', "expected a whole number as `step`"),
        ("[" * 100_000, "expected a JSON object"),
        ('{"step": ' + 5000 * "1" + "}", "expected a JSON object"),
    ],
)
def test_a_resumed_run_names_a_line_that_has_no_metrics(tmp_path, line, message):
    run = RunDirectory(tmp_path)
    run.metrics.write_text(f'{{"step": 1}}\n{line}\n{{"step": 2}}\n')
    before = run.metrics.read_bytes()
    with pytest.raises(MetricsError, match=f"metrics.jsonl, line 2: {message}"):
        run.truncate_metrics(1)
    assert run.metrics.read_bytes() == before


def test_only_a_line_feed_ends_a_line_of_metrics(tmp_path):
    (tmp_path / "m").write_text('{"step": 1, "text": "a\u2028b"}\n')
    assert read_metrics(tmp_path / "m") == [{"step": 1, "text": "a\u2028b"}]


def test_the_environment_is_described(tmp_path):
    run = RunDirectory(tmp_path)
    run.start("", describe_environment(world_size=4))
    environment = json.loads(run.environment.read_text())
    assert environment["world_size"] == 4
    assert environment["python"].startswith("3.")
    assert environment["device"]["count"] >= 1
    assert environment["versions"]["jax"]
    assert environment["command_line"]


def test_the_git_state_is_that_of_the_library_and_no_other_checkout(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    root = tmp_path / "root"
    (root / "vsml").mkdir(parents=True)
    (root / "vsml" / "__init__.py").write_text("")
    assert git_state(root) is None
    git("init")
    git("commit", "--allow-empty", "-m", "before the package")
    assert git_state(root) is None
    git("add", ".")
    git("commit", "-m", "first")
    state = git_state(root)
    assert len(state["commit"]) == 40 and state["dirty"] is False
    (root / "vsml" / "__init__.py").write_text("x = 1\n")
    assert git_state(root)["dirty"] is True

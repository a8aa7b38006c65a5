"""Submitting to Slurm: what is decided and refused without one, and real jobs on a private one."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import debian
import numpy as np
import postgres_server
import pytest
import slurm_cluster
from comparing import assert_same_run
from safetensors.numpy import load_file

from slurm import schedule
from vsml.launching.command_line import parse, read_all_configs
from vsml.runs.metrics import read_metrics

ROOT = Path(__file__).parents[1]
SCHEDULE = ROOT / "slurm" / "schedule.py"
QUICKSTART = ["python", "launch.py", "--config_files", "configs/quickstart.yaml"]
DATASETS = ["python", "launch.py", "--array", "configs/array/datasets.yaml"]

# Long enough to be stopped on its way, short enough for a test.
TINY = """
training: {dataset: digits, iterations: 150, population_size: 4, episode_length: 3, chunk_size: 2}
evaluation: {datasets: [digits], episode_length: 3, count: 1, frequency: 0, start: false}
checkpoint: {frequency: 2, keep: 2}
summary: {frequency: 10}
tracking: {wandb: {mode: disabled}}
"""
ARRAY = """
array:
  - {config: [training.iterations=150]}
  - {config: [training.iterations=2, optimizer.learning_rate=0.1]}
  - {config: [training.iterations=2, optimizer.noise_std=0.1]}
"""


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("VSML_SITE", str(tmp_path / "site.yaml"))
    (tmp_path / "site.yaml").write_text(f"directory: {tmp_path}\n")


def dry_run(capsys, *arguments: str, program=QUICKSTART) -> tuple[list[str], list[str]]:
    """Return the lines of the job script, and the commands that would submit it."""
    assert schedule.main(["--dry_run", *arguments, "--", *program]) == 0
    script, _, commands = capsys.readouterr().out.partition("\n\nsbatch ")
    return script.splitlines(), [f"sbatch {command}" for command in commands.strip().split("\nsbatch ")]


def refused(capsys, *arguments: str) -> str:
    return refused_with(capsys, 2, *arguments)


def refused_with(capsys, code: int, *arguments: str) -> str:
    assert schedule.main(list(arguments)) == code
    return capsys.readouterr().err


def test_any_option_of_sbatch_arrives_in_the_script_however_it_is_written(capsys):
    options = [
        "-n4",
        "-p",
        "main",
        "-t9",
        "--time",
        "04:00:00",
        "--exclusive",
        "--mem=4G",
        "-Jmine",
        "--comment=a b",
    ]
    script, _ = dry_run(capsys, *options)
    lines = [line for line in script if line.startswith("#SBATCH")]
    expected = ["-n 4", "-p main", "--time=04:00:00", "--exclusive", "--mem=4G", "--job-name=mine"]
    for option in [*expected, "--comment='a b'", "--signal=B:USR1@120", "--requeue", "--open-mode=append"]:
        assert lines.count(f"#SBATCH {option}") == 1


def test_the_program_arrives_word_for_word(capsys):
    script, _ = dry_run(capsys, program=[*QUICKSTART, "--config", "tracking.wandb.group=$HOME 'a' \"b\""])
    words = script[-1].split(" ", 3)[3]
    found = subprocess.run(
        ["bash", "-c", f"run_dir=x; printf '%s\\n' {words}"], capture_output=True, text=True
    )
    expected = ["tracking.wandb.group=$HOME 'a' \"b\"", "--run_dir", "x", "--continue"]
    assert found.stdout.splitlines() == [*QUICKSTART, "--config", *expected]


def test_entries_of_an_array_get_a_folder_each(capsys):
    options = ["--array=1-11", "--nodes=128", "--time", "04:00:00"]
    script, (command,) = dry_run(capsys, *options, program=DATASETS)
    assert "#SBATCH --nodes=128" in script and "#SBATCH --array=1-11" in script
    assert script[-2].startswith("run_dir=") and script[-2].endswith('/"$SLURM_ARRAY_TASK_ID"')
    assert script[-1].endswith('--run_dir "$run_dir" --continue --array_index "$SLURM_ARRAY_TASK_ID"')
    assert command.startswith("sbatch --parsable /") and command.endswith("-datasets/job.sh")


def test_jobs_of_a_chain_wait_for_each_other_and_are_not_queued_again(capsys):
    script, commands = dry_run(capsys, "--chain", "3", "--after", "12", "--dependency=singleton")
    assert "export VSML_REQUEUE=no" in script
    assert not any("dependency" in line for line in script), "it would bind who submits the script again"
    assert "--dependency=singleton,afterok:12 " in commands[0]
    assert all("--dependency=afterany:JOBID " in command for command in commands[1:]) and len(commands) == 3
    _, commands = dry_run(capsys, "--chain=2", "--array=1-3", program=DATASETS)
    assert "--dependency=aftercorr:JOBID " in commands[1]


def test_the_site_gives_what_the_command_line_does_not(capsys, tmp_path):
    site = tmp_path / "other.yaml"
    site.write_text(
        "sbatch: {partition: gpu, time: '60', exclusive: true}\nsetup: [module load cuda]\n"
        "environment: {NAME: a b}\nmpirun: mpirun --mca x y\n"
    )
    script, _ = dry_run(capsys, "--site", str(site), "--time=5")
    assert {"#SBATCH --partition=gpu", "#SBATCH --time=5", "#SBATCH --exclusive"} <= set(script)
    assert script.index("export NAME='a b'") < script.index("module load cuda")
    assert "export MPIRUN='mpirun --mca x y'" in script


def test_no_secret_is_written_into_the_script(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_API_KEY", "hidden")
    monkeypatch.setenv("WANDB_PROJECT", "shown")
    site = tmp_path / "secrets.yaml"
    site.write_text("environment: {MY_TOKEN: hidden, WANDB_PROJECT: other}\n")
    script, commands = dry_run(capsys, "--site", str(site))
    assert "hidden" not in "".join([*script, *commands]) and "export WANDB_PROJECT=shown" in script


def test_folders_of_this_machine_stay_here(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("VSML_DATA_DIR", "/here")
    site = tmp_path / "remote.yaml"
    site.write_text("environment: {VSML_DATA_DIR: /there}\n")
    script, _ = dry_run(capsys, "--site", str(site), "--host", "far")
    assert "export VSML_DATA_DIR=/there" in script
    script, _ = dry_run(capsys, "--site", str(site))
    assert "export VSML_DATA_DIR=/here" in script


def test_entries_of_an_array_are_one_group_in_wandb(capsys, monkeypatch):
    script, (command,) = dry_run(capsys, "--array=1-2", program=DATASETS)
    folder = command.split("/")[-2]
    assert f"export WANDB_RUN_GROUP={folder}" in script
    monkeypatch.setenv("WANDB_RUN_GROUP", "mine")
    assert "export WANDB_RUN_GROUP=mine" in dry_run(capsys, "--array=1-2", program=DATASETS)[0]


def test_other_programs_are_taken_as_they_are(capsys):
    script, _ = dry_run(capsys, "--array=0-3", program=["wandb", "agent", "me/project/sweep"])
    assert script[-1] == "exec bash slurm/job.sh wandb agent me/project/sweep"
    assert script[-2].startswith("cd ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--time=5"], "expected the program after --"),
        (["--", *DATASETS], "expected --array=1-11 before --"),
        (["--array=1-12", "--", *DATASETS], "from 1 to 11"),
        (["--array=1-3", "--", *QUICKSTART], "expected launch.py with an --array file"),
        (["--", *QUICKSTART, "--run_dir", "here"], "the launcher sets it"),
        (["--", *QUICKSTART, "--config", "training.iteration=3", "seed=x"], "2 mistakes"),
        (["--chdir=/tmp", "--", *QUICKSTART], "--chdir: not to be given"),
        (["more", "--", *QUICKSTART], "got 'more', expected an option"),
        (["--env", "NOT_SET_HERE", "--env", "HOME", "--", *QUICKSTART], "NOT_SET_HERE"),
        (["--time=3", "--", *QUICKSTART], "--time=3: got 180 s, expected more than 180 s"),
        (["-t", "0-00:01:30", "--", *QUICKSTART], "got 90 s"),
    ],
)
def test_mistakes_are_told_before_anything_is_submitted(capsys, tmp_path, arguments, message):
    assert message in refused(capsys, *arguments)
    assert not (tmp_path / "runs").exists()


def test_a_mistake_in_any_entry_of_the_array_stops_all(capsys, tmp_path):
    array = tmp_path / "array.yaml"
    array.write_text("array: [{}, {config: [seed=x]}]")
    assert "entry 2" in refused(capsys, "--array=1", "--", "python", "launch.py", "--array", str(array))


def test_a_file_that_the_copy_of_the_code_lacks_is_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.npz").write_text("")
    Path("mine.yaml").write_text("training: {dataset: mine.npz}")
    program = ["--", "python", "launch.py", "--config_files", "mine.yaml"]
    for options in ([], ["--dry_run"]):
        assert schedule.main([*options, *program]) == 1
        assert "training.dataset: got mine.npz, which is here, but not in" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_variables_of_the_site_are_expanded_where_the_job_runs(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("SCRATCH", str(tmp_path / "scratch"))
    (tmp_path / "site.yaml").write_text(
        "directory: $SCRATCH/vsml\nenvironment: {VSML_PLACE: '${SCRATCH}/data', VSML_TEXT: 'a $5 `b`'}\n"
    )
    script, (command,) = dry_run(capsys)
    assert command.startswith(f"sbatch --parsable {tmp_path}/scratch/vsml/runs/")
    exports = [line for line in script if line.startswith("export VSML_PLACE") or "VSML_TEXT" in line]
    done = subprocess.run(
        ["bash", "-c", "\n".join([*exports, 'echo "$VSML_PLACE|$VSML_TEXT"'])],
        env={"SCRATCH": "/there", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "/there/data|a $5 `b`\n"
    unset = subprocess.run(["bash", "-c", "\n".join(exports)], env={}, capture_output=True, text=True)
    assert unset.returncode != 0 and "SCRATCH: expected it to be set" in unset.stderr
    monkeypatch.delenv("SCRATCH")
    assert "SCRATCH in the site's file is not set" in refused_with(capsys, 1, "--dry_run", "--", *QUICKSTART)


@pytest.mark.parametrize("setting", ["mpirun: $EB/bin/mpirun", "sbatch: {output: $SCRATCH/log}"])
def test_variables_that_nothing_would_expand_are_refused(capsys, tmp_path, setting):
    (tmp_path / "site.yaml").write_text(setting)
    told = refused(capsys, "--dry_run", "--", *QUICKSTART)
    assert f"{setting.partition(':')[0]}" in told and "expected no variables" in told


def test_a_sweep_from_outside_of_the_checkout_goes_along(capsys, monkeypatch, tmp_path):
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "sbatch").write_text("#!/bin/sh\necho 7\n")
    (tools / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "mine.yaml").write_text(
        "array: [{config_files: [../part.yaml], config: [seed=5]}]"
    )
    (tmp_path / "part.yaml").write_text("training: {dataset: digits, iterations: 1e+1}")
    (tmp_path / "top.yaml").write_text("name: top")
    top, sweep = (str(tmp_path / name) for name in ("top.yaml", "sweeps/mine.yaml"))
    program = ["python", "launch.py", f"--array={sweep}", "--config_files", "configs/quickstart.yaml", top]
    assert schedule.main(["--array=1", "--", *program]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    for name in ("sweeps/mine.yaml", "part.yaml", "top.yaml"):
        (tmp_path / name).unlink()
    words = shlex.split((folder / "job.sh").read_text().splitlines()[-1])
    given = words[words.index("launch.py") + 1 : words.index("--run_dir")]
    assert str(tmp_path) not in " ".join(word for word in given if word.startswith("/"))
    monkeypatch.chdir(folder / "code")
    (config,) = read_all_configs(parse(given))
    assert (config.seed, config.name, config.training.iterations) == (5, "top", 10)


def test_without_slurm_that_is_said(capsys, monkeypatch, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "git").symlink_to(shutil.which("git"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert schedule.main(["--", *QUICKSTART]) == 1
    assert "no sbatch on this machine" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("rsync") is None, reason="needs rsync")
def test_another_machine_gets_the_code_and_the_secrets_by_stdin_alone(capsys, monkeypatch, tmp_path):
    there, tools = tmp_path / "its home", tmp_path / "bin"
    there.mkdir()
    tools.mkdir()
    # An ssh that stays here: leaves its options and the host out, gives the rest to a shell as sshd does.
    (tools / "ssh").write_text(
        f'#!/bin/bash\nprintf "%s\\n" "$*" >> {tmp_path}/seen\nwhile [[ $1 == -* ]]; do\n'
        "    if [[ $1 == -[oFl] ]]; then shift; fi; shift\ndone\nshift\n"
        f'cd "{there}" && HOME="{there}" exec sh -c "$*"\n'
    )
    sbatch = f'#!/bin/sh\necho "$WANDB_API_KEY $*" >> {tmp_path}/submitted\necho 7\n'
    (there / ".bash_profile").write_text(f"PATH={tools}:$PATH\n")
    (tools / "sbatch").write_text(sbatch)
    for tool in tools.iterdir():
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    monkeypatch.setenv("WANDB_API_KEY", "hidden'")
    site = tmp_path / "remote.yaml"
    site.write_text("host: far\ndirectory: ~/my runs\n")
    assert schedule.main(["--site", str(site), "--chain=2", "--", *QUICKSTART]) == 0
    (folder,) = (there / "my runs" / "runs").iterdir()
    assert (folder / "code" / "vsml" / "calls" / "train.py").is_file() and (folder / "logs").is_dir()
    assert json.loads((folder / "submission.json").read_text())["jobs"] == ["7", "7"]
    first, second = (tmp_path / "submitted").read_text().splitlines()
    assert first == f"hidden' --parsable {folder}/job.sh"
    assert second == f"hidden' --parsable --dependency=afterany:7 --kill-on-invalid-dep=yes {folder}/job.sh"
    assert "hidden" not in (tmp_path / "seen").read_text() + (folder / "job.sh").read_text()
    assert f"far:{folder}" in capsys.readouterr().out


# From here on: real jobs.


@dataclass(frozen=True)
class Cluster:
    folder: Path
    environment: Mapping[str, str]

    def ask(self, *command: str) -> str:
        done = subprocess.run(
            command, env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{command}: {done.stderr}{done.stdout}"
        return done.stdout

    def submit(self, name: str, *arguments: str) -> tuple[list[str], Path]:
        """Run slurm/schedule.py; returns the ids of the jobs, and the folder."""
        text = self.ask(sys.executable, str(SCHEDULE), "--name", name, *arguments)
        said = dict(line.split(": ", 1) for line in text.splitlines())
        return said["submitted"].strip().split(", "), Path(said["folder"].strip())

    def show(self, job: str) -> dict[str, str]:
        """Return the fields of `scontrol show job`, of one task where the job is an array."""
        text = self.ask("scontrol", "--oneliner", "show", "job", job)
        return dict(field.split("=", 1) for field in text.split() if "=" in field)

    def state(self, job: str) -> str:
        return self.show(job)["JobState"]

    def wait(self, job: str, condition: Callable[[], bool] | None = None, timeout_s: float = 120) -> None:
        """Wait until the condition holds, by default that the job has ended."""
        ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
        deadline = time.monotonic() + timeout_s
        while not (condition() if condition else self.state(job) in ended):
            if time.monotonic() > deadline or (condition and self.state(job) in ended):
                logs = "\n".join(path.read_text() for path in self.folder.glob("runs/*/logs/*"))
                pytest.fail(f"job {job} is {self.state(job)} and not as it should be:\n{logs[-4000:]}")
            time.sleep(0.2)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    debian.need(slurm_cluster.PACKAGES)
    if os.geteuid() != 0:
        pytest.skip("only root can run a private Slurm")
    folder = tmp_path_factory.mktemp("slurm")
    (folder / "site.yaml").write_text(f"directory: {folder}\n")
    (folder / "tiny.yaml").write_text(TINY)
    (folder / "array.yaml").write_text(ARRAY)
    with slurm_cluster.cluster(folder / "slurm") as environment:
        ours = {name: value for name, value in environment.items() if name != "XLA_FLAGS"}
        ours |= {
            "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
            "VSML_SITE": str(folder / "site.yaml"),
            "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        }
        yield Cluster(folder, ours)


def tiny(cluster: Cluster) -> list[str]:
    return ["python", "launch.py", "--config_files", str(cluster.folder / "tiny.yaml")]


@pytest.fixture(scope="module")
def array(cluster):
    """The folder of an array whose three runs have ended; the first is what stopped runs have to equal."""
    program = [*tiny(cluster), "--array", str(cluster.folder / "array.yaml")]
    (job,), folder = cluster.submit("array", "--array=1-3%1", "--", *program)
    for index in (1, 2, 3):
        cluster.wait(f"{job}_{index}")
        assert cluster.state(f"{job}_{index}") == "COMPLETED", (
            folder / "logs" / f"{job}_{index}.log"
        ).read_text()
    return folder


def stop_on_its_way(cluster: Cluster, job: str, run: Path) -> None:
    """Send what Slurm sends ahead of the time limit, once the run has saved for the first time."""
    cluster.wait(job, lambda: any((run / "checkpoints").glob("step_*.safetensors")))
    cluster.ask("scancel", "--signal=USR1", "--batch", job)


@pytest.mark.slurm
def test_an_array_runs_each_entry_in_its_folder(limited, array):
    rates = [read_metrics(array / str(index) / "metrics.jsonl")[-1]["step"] for index in (1, 2, 3)]
    assert rates == [150, 2, 2]
    two, three = (load_file(array / index / "learner.safetensors") for index in ("2", "3"))
    assert not all(np.array_equal(two[name], three[name]) for name in two)
    assert all((array / str(index) / "complete").exists() for index in (1, 2, 3))
    assert {path.suffix for path in (array / "logs").iterdir()} == {".log"}


@pytest.mark.slurm
def test_a_chain_is_the_uninterrupted_run(cluster, array):
    (first, second), folder = cluster.submit("chain", "--chain=2", "--", *tiny(cluster))
    assert cluster.show(second)["Dependency"].startswith(f"afterany:{first}")
    stop_on_its_way(cluster, first, folder)
    cluster.wait(first)
    assert cluster.state(first) == "COMPLETED" and not (folder / "complete").exists()
    cluster.wait(second)
    assert (folder / "complete").exists()
    assert_same_run(array / "1", folder)


@pytest.mark.slurm
def test_a_job_that_is_warned_is_queued_again_and_ends_as_the_uninterrupted_run(cluster, array):
    options = ["--ntasks=2", "--nodes=2", "--gpus-per-node=1"]  # a rank on each of two nodes
    (job,), folder = cluster.submit("requeue", *options, "--", *tiny(cluster))
    stop_on_its_way(cluster, job, folder)
    cluster.wait(job, lambda: cluster.show(job)["Restarts"] == "1" and cluster.state(job) == "PENDING")
    # Else after two minutes; at once is too early, as the node still refuses the job that it has just ended.
    cluster.ask("scontrol", "update", f"JobId={job}", "StartTime=now+3")
    cluster.wait(job)
    log = (folder / "logs" / f"{job}.log").read_text()
    assert cluster.state(job) == "COMPLETED" and "start 0" in log and "start 1" in log, log
    assert_same_run(array / "1", folder)


# Stands for launch.py: saves when it is told to and ends, is complete when it is started again.
WARNED = """
import pathlib, signal, sys, time
run = pathlib.Path(sys.argv[-2])
(run / "checkpoints").mkdir(exist_ok=True)
def save(number, frame):
    if sys.argv[-1] == "saves":
        (run / "checkpoints" / "step_1").touch()
    raise SystemExit(0)
signal.signal(signal.SIGUSR1, save)
if (run / "checkpoints" / "step_1").exists():
    (run / "complete").touch()
else:
    time.sleep(600)
"""


def start_with_a_limit(cluster: Cluster, name: str) -> tuple[str, Path]:
    """Submit the body of all jobs by hand with a limit of a minute; return job and run."""
    run = cluster.folder / f"limit_{name}"
    run.mkdir()
    options = ["--parsable", "--time=1", "--signal=B:USR1@30", "--requeue", "--open-mode=append"]
    option = {"saves": "--resume", "idles": "--run_dir"}[name]  # a job may have either
    program = ["python", "-c", WARNED, "launch.py", option, str(run), name]
    job = cluster.ask("sbatch", *options, f"--output={run}/log", "slurm/job.sh", *program).strip()
    return job, run


@pytest.fixture(scope="module")
def limited(cluster):
    """Jobs that meet their time limit while other tests run."""
    return {name: start_with_a_limit(cluster, name) for name in ("saves", "idles")}


# A program that takes its time, and tells which signals it gets.
LISTENER = """
import os, pathlib, signal, time
folder = pathlib.Path(os.environ["HEARD"])
def hear(number, frame):
    with (folder / "heard").open("a") as file:
        file.write(signal.Signals(number).name + " ")
    raise SystemExit(0)
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, hear)
(folder / "ready").touch()
time.sleep(600)
"""


def listener(cluster: Cluster, name: str, *options: str) -> tuple[str, Path]:
    """Submit it, and wait until it listens."""
    heard = cluster.folder / name
    heard.mkdir()
    text = f"HEARD: {heard}"
    (cluster.folder / f"{name}.yaml").write_text(f"directory: {cluster.folder}\nenvironment: {{{text}}}\n")
    site = ["--site", str(cluster.folder / f"{name}.yaml")]
    (job,), _ = cluster.submit(name, *site, *options, "--", "python", "-c", LISTENER)
    cluster.wait(job, (heard / "ready").exists)
    return job, heard


@pytest.mark.slurm
def test_a_job_can_be_told_to_save_and_end(cluster):
    job, heard = listener(cluster, "told")
    cluster.ask("scancel", "--signal=TERM", "--batch", job)
    cluster.wait(job)
    assert cluster.state(job) == "COMPLETED" and (heard / "heard").read_text() == "SIGTERM "


@pytest.mark.slurm
def test_a_cancelled_job_ends_and_is_not_queued_again(cluster):
    job, heard = listener(cluster, "cancelled")
    cluster.ask("scancel", job)
    cluster.wait(job)
    assert cluster.state(job) == "CANCELLED" and (heard / "heard").read_text().startswith("SIG")


@pytest.mark.slurm
def test_a_preempted_job_is_told_and_queued_again_by_slurm(cluster):
    job, heard = listener(cluster, "preempted", "--nodes=2", "--exclusive", "--ntasks=1")
    cluster.ask("sbatch", "--wait", "--output=/dev/null", "--partition=urgent", "--nodes=2", "--wrap=true")
    assert cluster.show(job)["Restarts"] == "1" and (heard / "heard").read_text().startswith("SIG")
    cluster.ask("scancel", job)


@pytest.mark.slurm
@pytest.mark.parametrize("tasks", [1, 2])
def test_the_code_of_a_failing_program_is_that_of_the_job(cluster, tasks):
    program = ["python", "-c", "raise SystemExit(3)"]
    (job, second), _ = cluster.submit("failing", f"--ntasks={tasks}", "--chain=2", "--", *program)
    cluster.wait(job)
    assert (cluster.state(job), cluster.show(job)["ExitCode"]) == ("FAILED", "3:0")
    cluster.wait(second)


@pytest.mark.slurm
def test_a_job_starts_after_another_if_that_ends_well(cluster):
    (good,), _ = cluster.submit("good", "--", "true")
    (bad,), _ = cluster.submit("bad", "--", "false")
    (after_good,), _ = cluster.submit("after_good", "--after", good, "--", "true")
    (after_bad,), _ = cluster.submit("after_bad", "--after", bad, "--", "true")
    cluster.wait(after_good)
    cluster.wait(after_bad)
    assert (cluster.state(after_good), cluster.state(after_bad)) == ("COMPLETED", "CANCELLED")


TELL_GPU = (
    "import os; e = os.environ; print('rank', e['OMPI_COMM_WORLD_RANK'], e['SLURMD_NODENAME'], "
    "e['OMPI_COMM_WORLD_LOCAL_RANK'], e['CUDA_VISIBLE_DEVICES'], e['SLURM_LOCALID'])"
)


@pytest.mark.slurm
@pytest.mark.parametrize("nodes", [1, 2])
def test_ranks_get_the_gpus_of_their_node_in_turn(cluster, nodes):
    options = [f"--nodes={nodes}", "--ntasks=4", f"--ntasks-per-node={4 // nodes}", "--gpus-per-node=2"]
    (job,), folder = cluster.submit(f"gpus{nodes}", *options, "--", "python", "-c", TELL_GPU)
    cluster.wait(job)
    log = (folder / "logs" / f"{job}.log").read_text()
    said = [line.split()[1:] for line in log.splitlines() if line.startswith("rank ")]
    assert sorted(rank for rank, *_ in said) == ["0", "1", "2", "3"], log
    assert len({node for _, node, *_ in said}) == nodes
    for _, _, local, gpu, slurm_local in said:
        assert int(gpu) == int(local) % 2 and slurm_local == "0"
    assert len({(node, local) for _, node, local, *_ in said}) == 4


@pytest.mark.slurm
def test_one_rank_a_node_where_tasks_are_not_counted(cluster):
    program = ["python", "-c", "import os; print('rank on', os.environ['SLURMD_NODENAME'])"]
    site = cluster.folder / "cpu.yaml"  # whole nodes come with their GPUs, which a step must ask for
    site.write_text(f"directory: {cluster.folder}\nsetup: [unset CUDA_VISIBLE_DEVICES SLURM_GPUS_ON_NODE]\n")
    options = ["--site", str(site), "--nodes=2", "--exclusive"]
    (job,), folder = cluster.submit("whole", *options, "--", *program)
    cluster.wait(job)
    log = (folder / "logs" / f"{job}.log").read_text()
    assert sorted(line for line in log.splitlines() if line.startswith("rank on")) == [
        "rank on one",
        "rank on two",
    ]


@pytest.mark.slurm
def test_the_job_script_by_hand(cluster):
    log = cluster.folder / "by_hand.log"
    cluster.ask("sbatch", "--wait", f"--output={log}", "slurm/job.sh", "python", "-c", "print('here')")
    assert log.read_text().endswith("here\n")


@pytest.mark.slurm
def test_ahead_of_the_time_limit_a_run_saves_and_is_queued_again_if_it_came_further(cluster, limited):
    job, run = limited["saves"]
    cluster.wait(job, lambda: cluster.show(job)["Restarts"] == "1")
    if cluster.state(job) == "PENDING":
        cluster.ask("scontrol", "update", f"JobId={job}", "StartTime=now+3")
    cluster.wait(job)
    assert cluster.state(job) == "COMPLETED" and (run / "complete").exists()
    job, run = limited["idles"]
    cluster.wait(job)
    assert (
        cluster.state(job) == "FAILED" and "nothing was saved since this start" in (run / "log").read_text()
    )


# Islands of two jobs that meet in a database. The wide hurdle lets many rules become elites.
ISLANDS = """
call: search
search:
  generations: 12
  database: {database}
  start: {{drawn: false, rules: [delta, hebb]}}
  room: {{slots: 8, constants: 6, initial: 12, operators: 24}}
  breeding: {{population: 16, children: 16, exchange: 2, tune: null}}
  judging: {{learning: [S3], seeds: 2, gates: [4, 12], gates_hurdle: -0.9}}
checkpoint: {{frequency: 4}}
summary: {{frequency: 2}}
tracking: {{wandb: {{mode: disabled}}}}
"""
ISLANDS_ARRAY = "array: [{config: [seed=1]}, {config: [seed=2]}]"


@pytest.mark.slurm
def test_jobs_of_an_array_exchange_elites_through_a_server(cluster):
    pytest.importorskip("psycopg")
    from vsml.search.store import Database
    from vsml.search.store.overview import overview

    with postgres_server.server() as server:
        (cluster.folder / "islands.yaml").write_text(ISLANDS.format(database=server.url()))
        (cluster.folder / "islands_array.yaml").write_text(ISLANDS_ARRAY)
        program = ["python", "launch.py", "--config_files", str(cluster.folder / "islands.yaml")]
        program += ["--array", str(cluster.folder / "islands_array.yaml")]
        (job,), folder = cluster.submit("islands", "--array=1-2", "--", *program)
        for index in (1, 2):
            cluster.wait(f"{job}_{index}", timeout_s=300)
            assert cluster.state(f"{job}_{index}") == "COMPLETED"
        logs = [(folder / "logs" / f"{job}_{index}.log").read_text() for index in (1, 2)]
        with Database(server.url()) as database:
            found = overview(database)
    # Whoever is behind finds what the other one has.
    assert any("elite(s) of other runs" in log for log in logs), logs
    assert len(found.runs) == len(found.workers) == 2
    for index, log in enumerate(logs, 1):
        best = (folder / str(index) / "best.rule").read_text()
        assert best.partition("\n")[2] in log

"""Runs sent by ssh to a private sshd on the loopback address, with GPUs that are made up."""

import os
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import debian
import pytest

from ssh import schedule
from vsml.launching.submission import Site, SubmissionError
from vsml.runs.checkpoint import CheckpointStore

ROOT = Path(__file__).parents[1]
PACKAGES = {"sshd": "openssh-server", "rsync": "rsync", "tmux": "tmux"}


TINY = """
model: {type: hebbian}
training: {dataset: digits, iterations: 4, population_size: 4, episode_length: 5, chunk_size: 2}
evaluation: {datasets: [digits], episode_length: 12, count: 2, frequency: 0, start: false}
checkpoint: {frequency: 2}
summary: {frequency: 1}
tracking: {wandb: {mode: disabled}}
"""

# The second entry is in order, and so is the path of its data, but the file is none.
ARRAY = """
array:
  - {config: {seed: 1}}
  - {config: {training: {dataset: PLACE/broken.npz}}}
  - {config: {seed: 3}}
"""

# Three GPUs; a process computes on the second.
NVIDIA_SMI = """#!/bin/sh
case $1 in
    --query-gpu=*) printf '0, GPU-aa, 3\\n1, GPU-bb, 12000\\n2, GPU-cc, [N/A]\\n' ;;
    --query-compute-apps=*) echo GPU-bb ;;
esac
"""

# What the host offers, and how it is reached.
SSHD = """
Port {port}
ListenAddress 127.0.0.1
HostKey {place}/host_key
PidFile {place}/sshd.pid
AuthorizedKeysFile {place}/user_key.pub
PasswordAuthentication no
UsePAM no
StrictModes no
SetEnv TMUX_TMPDIR={place}/tmux
"""
SSH = """
Host machine
    Port {port}
Host nowhere
    Port 1
Host *
    HostName 127.0.0.1
    IdentityFile {place}/user_key
    IdentitiesOnly yes
    UserKnownHostsFile {place}/known_hosts
    StrictHostKeyChecking accept-new
    LogLevel ERROR
"""
SITE = """
directory: {place}/home
ssh_config: {place}/ssh_config
setup: ["export PATH={place}/bin:{python}:$PATH"]
environment: {{JAX_COMPILATION_CACHE_DIR: "{place}/cache"}}
"""


def free_port() -> int:
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        return any_port.getsockname()[1]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a running sshd, its keys, and what the machine behind it has."""
    debian.need(PACKAGES)
    place = tmp_path_factory.mktemp("ssh")
    for name in ("host_key", "user_key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / name)], check=True)
    values = {"place": place, "port": free_port(), "python": Path(sys.executable).parent}
    for name, text in (("sshd_config", SSHD), ("ssh_config", SSH), ("site.yaml", SITE)):
        (place / name).write_text(text.format(**values))
    (place / "tiny.yaml").write_text(TINY)
    (place / "array.yaml").write_text(ARRAY.replace("PLACE", str(place)))
    (place / "broken.npz").write_text("no array")
    for name in ("bin", "home", "tmux"):
        (place / name).mkdir()
    (place / "bin" / "nvidia-smi").write_text(NVIDIA_SMI)
    (place / "bin" / "nvidia-smi").chmod(0o755)
    if not os.geteuid():
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd of root insists on it
    server = subprocess.Popen(
        ["/usr/sbin/sshd", "-D", "-e", "-f", str(place / "sshd_config")],
        stderr=(place / "sshd.log").open("w"),
    )
    wait_until(lambda: "listening" in (place / "sshd.log").read_text())
    yield place
    remote = ["bash", str(ROOT / "ssh" / "remote.sh"), str(place / "home")]
    environment = os.environ | {"TMUX_TMPDIR": str(place / "tmux")}
    for folder in (place / "home").glob("runs/*"):  # what a failed test has left running
        subprocess.run([*remote, "stop", folder.name, "1"], env=environment, check=True)
    server.terminate()
    server.wait(timeout=10)


@pytest.fixture
def here(place, tmp_path, monkeypatch):
    """The folder to start from."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("VSML_", "WANDB_", "JAX_", "XLA_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("VSML_SITE", str(place / "site.yaml"))
    monkeypatch.setenv("VSML_DATA_DIR", str(tmp_path))  # a folder of this machine, which stays here
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    return tmp_path


def wait_until(true, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def run(capsys, *arguments: str, code: int = 0) -> str:
    """Call ssh/schedule.py and return what it printed."""
    got = schedule.main(arguments)
    output = capsys.readouterr()
    assert got == code, f"exit code {got}\n{output.out}\n{output.err}"
    return output.out + output.err


def submission(place: Path) -> Path:
    """The folder of the newest submission on the machine."""
    return max((place / "home" / "runs").iterdir(), key=lambda folder: folder.stat().st_ctime_ns)


def log_of(folder: Path, name: str = "run") -> str:
    return (folder / "logs" / f"{name}.log").read_text()


def tiny_run(place: Path) -> list[str]:
    return ["--", "python", "launch.py", "--config_files", str(place / "tiny.yaml")]


# ---- with a machine


@pytest.mark.ssh
def test_a_run_goes_to_its_end_and_its_results_come_back(place, here, capsys, monkeypatch):
    odd = "a 'b' \"$HOME\" `id` \n;&"
    monkeypatch.setenv("WANDB_API_KEY", odd)
    show_key = ["--", "bash", "-c", 'printf "<%s>" "$WANDB_API_KEY"; exec "$@"', "show"]
    output = run(capsys, "--host", "machine", "--gpus", "none", "--fetch", *show_key, *tiny_run(place)[1:])
    there = submission(place)
    fetched = here / "runs" / there.name
    assert "complete" in output and f"python ssh/schedule.py status {there.name} --host machine" in output
    assert {path.name for path in fetched.iterdir()} >= {"learner.safetensors", "complete", "submission.json"}
    assert not {path.name for path in fetched.iterdir()} & {"code", "environment.sh", "queue-1.sh"}
    assert f"<{odd}>" in log_of(fetched)
    assert stat.S_IMODE((there / "environment.sh").stat().st_mode) == 0o600
    assert odd not in output and odd not in (fetched / "submission.json").read_text()
    with_key = [path for path in there.rglob("*") if path.is_file() and b"`id`" in path.read_bytes()]
    assert {path.name for path in with_key} == {"environment.sh", "run.log", Path(__file__).name}


@pytest.mark.ssh
def test_an_array_is_spread_over_the_free_gpus_and_the_worst_run_gives_the_exit_code(place, here, capsys):
    say_gpu = ["--", "bash", "-c", 'echo "on GPU $CUDA_VISIBLE_DEVICES"; exec "$@"', "say"]
    program = [*say_gpu, *tiny_run(place)[1:], "--array", str(place / "array.yaml")]
    options = ["--host", "machine", "--array=1-3", "--name", "three.ways"]
    assert "--series" in run(capsys, *options, *program, code=2)
    output = run(capsys, *options, "--series", "--fetch", *program, code=2)
    assert "machine gpu0: 1, then 3" in output and "machine gpu2: 2" in output
    fetched = here / "runs" / submission(place).name
    for name, gpu in (("1", 0), ("2", 2), ("3", 0)):
        assert f"on GPU {gpu}\n" in log_of(fetched, name)
    states = sorted(line.split("machine")[0].split(maxsplit=1) for line in status_lines(output))
    assert [(index, state.strip()) for index, state in states] == [
        ("1", "complete"),
        ("2", "failed (2)"),
        ("3", "complete"),
    ]
    assert "broken.npz" in log_of(fetched, "2")
    assert "seed: 3" in (fetched / "3" / "config.yaml").read_text()


def status_lines(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("   ")]


@pytest.mark.ssh
def test_a_run_of_several_ranks_that_is_stopped_has_saved_and_goes_on(place, here, capsys, monkeypatch):
    monkeypatch.setenv("OMPI_ALLOW_RUN_AS_ROOT", "1")
    monkeypatch.setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
    options = ["--host", "machine", "--gpus", "0", "--ntasks-per-node", "2"]
    options += ["--env", "OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"]
    run(capsys, *options, *tiny_run(place), "--config", "training.iterations=1000000")
    there = submission(place)

    def newest() -> int:
        return max(CheckpointStore(there / "checkpoints", keep=2).steps(), default=0)

    wait_until(lambda: newest() > 0)
    (line,) = status_lines(run(capsys, "status", there.name, "--host", "machine"))
    assert "running" in line and "gpu0" in line
    (line,) = status_lines(run(capsys, "stop", "--host", "machine"))
    assert "stopped" in line
    assert "to go on" in log_of(there)
    first = newest()
    run(capsys, "resume", there.name, "--host", "machine")
    wait_until(lambda: newest() > first)
    (line,) = status_lines(run(capsys, "stop", there.name, "--host", "machine"))
    assert "stopped" in line


@pytest.mark.ssh
def test_what_does_not_end_when_asked_is_killed_and_what_waits_is_not_started(place, here, capsys):
    stubborn = ["--", "bash", "-c", 'trap "" USR1 TERM; echo up; while :; do sleep 0.2; done', "launch.py"]
    options = ["--host", "machine", "--gpus", "0", "--series", "--array", "1,3"]
    run(capsys, *options, *stubborn, "--array", str(place / "array.yaml"))
    there = submission(place)
    wait_until(lambda: (there / "logs" / "1.log").exists() and "up" in log_of(there, "1"))
    # Its GPU does not count as free, though nvidia-smi sees nothing there.
    machine = schedule.places(schedule.parse_launch(["--host", "machine"]))[1][0]
    assert schedule.free_gpus(machine) == ("2",)
    output = run(capsys, "stop", there.name, "--grace", "1", "--host", "machine")
    assert "killed" in output
    first, second = status_lines(output)
    assert "failed (137)" in first and "not started" in second
    assert schedule.free_gpus(machine) == ("0", "2")


@pytest.mark.ssh
def test_a_host_that_cannot_be_reached_is_named(place, here, capsys):
    for arguments in (
        ["--host", "nowhere", "--gpus", "none", *tiny_run(place)],
        ["status", "--host", "nowhere"],
    ):
        output = run(capsys, *arguments, code=2)
        assert "nowhere: cannot be reached" in output


@pytest.mark.ssh
def test_a_submission_that_is_not_there_is_an_error(here, capsys):
    assert "got other" in run(capsys, "stop", "other", "--host", "machine", code=2)


# ---- without


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--host", "m", "--gpus", "0,0"], "--gpus: got 0,0"),
        (["--host", "m", "--gpus", "0", "--nodes", "2"], "--nodes: got 2 GPUs"),
        (["--host", "m", "--host", "m"], "each machine once"),
        ([], "--host: expected a machine"),
        (["--host", "m", "--array", "1-2"], "has no --array FILE"),
        (["--host", "m", "--directory", "~other/x"], "--directory"),
        (["--host", "m", "--env", "NOT_SET_ANYWHERE", "--gpus", "none"], "NOT_SET_ANYWHERE"),
    ],
)
def test_mistakes_are_told_before_anything_is_sent(arguments, message, capsys, monkeypatch, tmp_path):
    (tmp_path / "site.yaml").write_text("{}")
    monkeypatch.setenv("VSML_SITE", str(tmp_path / "site.yaml"))
    assert message in run(capsys, *arguments, "--", "python", "other.py", code=2)


def test_an_array_of_the_program_has_to_be_chosen_from(capsys):
    program = ["--", "python", "launch.py", "--array", str(ROOT / "configs" / "array" / "conv.yaml")]
    assert "--array=1-5" in run(capsys, "--host", "m", "--dry_run", *program, code=2)
    assert "1-6" in run(capsys, "--host", "m", "--dry_run", "--array=1-6", *program, code=2)
    assert "no %" in run(capsys, "--host", "m", "--dry_run", "--array=1-5%2", *program, code=2)


def test_a_dry_run_prints_the_script_and_asks_no_machine(capsys, monkeypatch, tmp_path):
    (tmp_path / "site.yaml").write_text("{setup: [module load cuda], environment: {A: secret}}")
    options = ["--host", "nowhere.invalid", "--site", str(tmp_path / "site.yaml"), "--dry_run"]
    options += ["--nodes=7", "--ntasks-per-node=12"]
    file = str(ROOT / "configs" / "rand_proj.yaml")
    output = run(capsys, *options, "--", "python", "launch.py", "--config_files", file)
    assert "export CUDA_VISIBLE_DEVICES=0,1,2,3,4,5,6\n" in output and "\nmodule load cuda\n" in output
    assert "-n 84 python assign_gpu.py python launch.py" in output and "--continue" in output
    assert "A" in output and "secret" not in output


def test_runs_are_dealt_to_places_in_turn():
    gpus = {"one": ("0", "1", "3"), "two": ("5", "6")}
    queues = schedule.deal((1, 2, 3), gpus, nodes=2, oversubscribe=2)
    assert [(queue.host, queue.gpus, queue.runs) for queue in queues] == [
        ("one", ("0", "1"), (1,)),
        ("two", ("5", "6"), (2,)),
        ("one", ("0", "1"), (3,)),
    ]
    queues = schedule.deal((1, 2, 3, 4, 5), {"one": ()}, series=True, oversubscribe=2)
    assert [(queue.gpus, queue.runs) for queue in queues] == [((), (1, 3, 5)), ((), (2, 4))]
    with pytest.raises(SubmissionError, match=r"got 3 runs .* at most 2, .*one: 0, 1"):
        schedule.deal((1, 2, 3), {"one": ("0", "1")})


def test_hosts_whose_gpus_are_all_busy_are_passed_over(monkeypatch, capsys):
    free = {"one": (), "two": ("3",)}
    monkeypatch.setattr(schedule, "free_gpus", lambda host: free[host.remote.host])
    options = schedule.parse_launch(["--host", "one", "--host", "two"])
    hosts = [schedule.Host(schedule.Remote(name), "vsml") for name in free]
    assert schedule.gpus_to_use(options, hosts, 1) == {"two": ("3",)}
    with pytest.raises(SubmissionError, match="one: no GPU is free"):
        schedule.gpus_to_use(options, hosts[:1], 1)


def test_runs_that_share_a_gpu_share_its_memory_unless_the_user_has_decided():
    queue = schedule.Queue(1, "m", ("0",), (None,))
    assert schedule.device_variables(queue, 2, 3, {})["XLA_CLIENT_MEM_FRACTION"] == "0.150"
    assert "XLA_CLIENT_MEM_FRACTION" not in schedule.device_variables(queue, 2, 1, {})
    decided = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    assert "XLA_CLIENT_MEM_FRACTION" not in schedule.device_variables(queue, 2, 3, decided)


def test_options_of_the_sites_mpirun_replace_those_for_open_mpi():
    assert schedule.under_mpirun(["x"], Site(), 1, gpus=True) == ["x"]
    assert "none" in schedule.under_mpirun(["x"], Site(), 2, gpus=False)
    command = schedule.under_mpirun(["x"], Site(mpirun="mpiexec.hydra -bind-to core"), 2, gpus=False)
    assert command == ["mpiexec.hydra", "-bind-to", "core", "-n", "2", "x"]

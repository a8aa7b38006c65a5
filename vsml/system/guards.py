"""Guards of folders: nothing is written below one unless its owner still says that it is the owner's."""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path


class ForeignFolderError(OSError):
    """A folder that is not, or no longer, that of who wants to write there; the message says why."""


@dataclass(frozen=True, eq=False)
class _Guard:
    """A folder, and what raises unless it is still ours."""

    folder: Path
    check: Callable[[], None]


_guards: list[_Guard] = []


@contextlib.contextmanager
def guarded(folder: str | os.PathLike[str], check: Callable[[], None]) -> Iterator[None]:
    """Let `check` be asked before each write below a folder, by whatever part of this process.

    Args:
        folder: the folder, which may be away for a while.
        check: raises OSError where the folder must not be written to.
    """
    guard = _Guard(_absolute(folder), check)
    _guards.append(guard)
    try:
        yield
    finally:
        _guards.remove(guard)


def is_guarded(folder: str | os.PathLike[str]) -> bool:
    """Whether this process has the folder under guard."""
    return any(guard.folder == _absolute(folder) for guard in _guards)


def prove(path: str | os.PathLike[str]) -> None:
    """Ask the guards whether a file may be written, or removed, now.

    Raises:
        ForeignFolderError: a link on the way leads out of the guarded folder.
        OSError: a check says no.
    """
    place = _absolute(path)
    for guard in tuple(_guards):
        if not place.is_relative_to(guard.folder):
            continue
        guard.check()
        if not place.parent.resolve().is_relative_to(guard.folder.resolve()):
            raise ForeignFolderError(
                f"{path}: a link on the way to it leads out of {guard.folder}; expected folders in there"
            )


def _absolute(path: str | os.PathLike[str]) -> Path:
    """Return an absolute path without following links."""
    return Path(os.path.abspath(path))

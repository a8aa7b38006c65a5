"""Trust in files of the cache: ours or root's, and such that nobody else could have written them.

What is compiled or converted is loaded again later, some of it as code of this process. So it lies in folders
of this user alone, and each file is looked at before it is loaded. Standard library only.
"""

import hashlib
import os
import stat
from pathlib import Path

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_PRIVATE = 0o700


class UntrustedError(OSError):
    """A file or folder of the cache that another user could have made or changed."""


def private_folder(folder: Path) -> Path:
    """Return a folder that nobody else can write, made where it is not there.

    One of ours that others can write is closed. What they could have put there before is removed.

    Args:
        folder: in the cache.

    Raises:
        UntrustedError: it is a link, no folder, or of another user.
        OSError: it cannot be made.
    """
    if os.name != "posix":
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    _make(folder)
    status = os.lstat(folder)
    if not stat.S_ISDIR(status.st_mode):
        raise UntrustedError(f"{folder}: got {_kind(status)}, expected a folder of this user")
    _check_owner(folder, status)
    if status.st_mode & _OTHERS_WRITE:
        # In this order: once it is closed, nobody puts anything there any more.
        os.chmod(folder, _PRIVATE)
        _remove_untrusted(folder)
    return folder


def _make(folder: Path) -> None:
    """Make a folder and those above it; nobody else can write them, whatever the umask says."""
    missing = [folder]
    while not missing[-1].parent.exists():
        missing.append(missing[-1].parent)
    for each in reversed(missing):
        each.mkdir(mode=_PRIVATE, exist_ok=True)


def _remove_untrusted(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            continue  # a folder is looked at as such, when it is used
        try:
            check_trusted(path)
        except UntrustedError:
            path.unlink(missing_ok=True)


def check_trusted(path: Path) -> None:
    """Check a file of the cache before it is loaded.

    Raises:
        UntrustedError: it is no plain file, or another user owns it or can write it.
        OSError: it is not there.
    """
    if os.name == "posix":
        _check_file(path, os.lstat(path))


def open_trusted(path: Path) -> int:
    """Open a file of the cache for reading, checked as by `check_trusted`.

    What is checked is what is opened: nobody can put another file in between.

    Returns:
        Its descriptor, which the caller closes.

    Raises:
        UntrustedError: it is no plain file, or another user owns it or can write it.
        OSError: it cannot be opened.
    """
    # A link is not followed, and a pipe does not block.
    flags = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    if os.path.islink(path):
        raise UntrustedError(f"{path}: got a link, expected a file of this user")
    descriptor = os.open(path, os.O_RDONLY | flags)
    try:
        if os.name == "posix":
            _check_file(path, os.fstat(descriptor))
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def checksum_of(descriptor: int, name: str) -> str:
    """Return the SHA-256 of an open file and of the name that it must have."""
    digest = hashlib.sha256(f"{name}\n".encode())
    with open(descriptor, "rb", closefd=False) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _check_file(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise UntrustedError(f"{path}: got {_kind(status)}, expected a file of this user")
    _check_owner(path, status)
    if status.st_mode & _OTHERS_WRITE:
        mode = stat.S_IMODE(status.st_mode)
        raise UntrustedError(f"{path}: got mode {mode:o}, expected a file that only its owner can write")


def _check_owner(path: Path, status: os.stat_result) -> None:
    if status.st_uid not in (os.geteuid(), 0):
        expected = f"this user ({os.geteuid()}) or root"
        raise UntrustedError(f"{path}: is owned by user {status.st_uid}, expected {expected}")


def _kind(status: os.stat_result) -> str:
    if stat.S_ISLNK(status.st_mode):
        return "a link"
    return "a folder" if stat.S_ISDIR(status.st_mode) else "a file of another kind"

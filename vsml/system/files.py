"""Files that are there as a whole or not at all, and the versions that wrote them."""

import contextlib
import errno
import importlib.metadata
import io
import json
import math
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vsml.system.guards import prove

LEFTOVER_AGE_S = 3600.0
"""Age from which a temporary file is taken for what a killed writer left: none writes for so long."""

_RECORDED_PACKAGES = ("vsml", "jax", "jaxlib", "flax", "optax", "evosax", "numpy")


def atomic_write(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write a file so that a reader, now or after a crash, finds the old content or the new, never a part.

    Several processes and threads may write one path at once: the last one wins.

    Args:
        path: the file to create or replace; its folder must exist.
        data: the whole content; text is written as UTF-8.

    Raises:
        OSError: the disk is full, or the folder is missing, not writable, or no longer that of the run which
            writes (`vsml.system.guards`). The message names the file, and the old one is untouched.
    """
    content = data.encode(errors="backslashreplace") if isinstance(data, str) else data
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(content)


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str], flush: bool = True) -> Iterator[Path]:
    """Give a temporary file to write into, which then replaces `path` in one step.

    The temporary file is hidden, in the same folder, with a name that no other writer has. If the block
    raises, it is removed. What a killed writer left is removed by a later one, after `LEFTOVER_AGE_S`.

        with atomic_path("table.npz") as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)

    Args:
        path: the file to create or replace; its folder must exist.
        flush: whether it is safe from a power failure when this returns; False for what a checksum guards.

    Raises:
        OSError: it cannot be written; the message names it. The old file is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    with naming(path, temporary):
        prove(path)
        _create(temporary)
        try:
            yield temporary
            if flush:
                _flush(temporary)
            prove(path)  # again: the temporary file is in the folder that is asked about now, or not there
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):  # of a folder that is gone by now
                temporary.unlink()
        if flush and os.name == "posix":  # elsewhere a folder cannot be opened
            _flush(path.parent)  # makes the new name, too, survive a power failure
    _remove_leftovers(path)


@contextlib.contextmanager
def naming(path: str | os.PathLike[str], hidden: str | os.PathLike[str] | None = None) -> Iterator[None]:
    """Let an OSError name the file that it is about, which those of a full disk do not do by themselves.

    Args:
        path: the file.
        hidden: another that stands for it meanwhile, and is not to be named.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(hidden), hidden):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


class IrregularFileError(OSError):
    """A link, a pipe or the like, where a file is expected; the message names it."""


def open_regular(path: str | os.PathLike[str], flags: int) -> int:
    """Return a descriptor of a regular file; links are not followed, and pipes not waited for.

    Args:
        path: the file.
        flags: as for os.open; a new file gets the mode that the umask says.

    Raises:
        IrregularFileError: it is a link, or no regular file.
        OSError: it cannot be opened.
    """
    careful = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags | careful, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise IrregularFileError(f"{path}: got {_kind(path)}, expected a regular file") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IrregularFileError(f"{path}: got {_kind(path)}, expected a regular file")
    return descriptor


def read_regular(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a file, or of one that a link leads to; a pipe is not waited for.

    Raises:
        IrregularFileError: it is no regular file.
        OSError: it cannot be read.
    """
    real = os.path.realpath(path)
    with os.fdopen(open_regular(real, os.O_RDONLY), "rb") as file:
        return file.read()


def check_own(path: str | os.PathLike[str]) -> None:
    """Check that what is read from a folder belongs there; a file that is not there is no fault.

    Raises:
        IrregularFileError: it is a link that leads out of its folder, or no regular file.
    """
    path = Path(path)
    real = path.resolve()
    if not real.is_relative_to(path.parent.resolve()):
        raise IrregularFileError(f"{path}: got a link that leads out of its folder, expected a regular file")
    if real.exists() and not real.is_file():
        raise IrregularFileError(f"{path}: got {_kind(real)}, expected a regular file")


def _kind(path: str | os.PathLike[str]) -> str:
    """Return what there is at a path, in words."""
    mode = os.lstat(path).st_mode
    kinds = {stat.S_IFLNK: "a link", stat.S_IFIFO: "a pipe", stat.S_IFDIR: "a folder"}
    return kinds.get(stat.S_IFMT(mode), "a device or socket")


def _create(path: Path) -> None:
    """Make an empty file with the mode that the umask says; it must not be there, not even as a link."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    os.close(os.open(path, flags, 0o666))


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_leftovers(path: Path) -> None:
    """Remove temporary files of `path` whose writers must have been killed; another may do so as well."""
    pattern = re.compile(re.escape(f".{path.name}.") + r"([0-9a-f]{16}\.)?tmp")
    oldest = time.time() - LEFTOVER_AGE_S
    # The new file is there: whatever goes wrong here is no reason to say that it is not.
    with contextlib.suppress(OSError), os.scandir(path.parent) as entries:
        for entry in entries:
            if pattern.fullmatch(entry.name) and entry.stat(follow_symlinks=False).st_mtime < oldest:
                os.unlink(entry.path)


def library_versions() -> dict[str, str]:
    """Return the installed versions of this library and of those that decide its numbers."""
    versions = {}
    for package in _RECORDED_PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def write_arrays(path: str | os.PathLike[str], arrays: Mapping[str, Any]) -> None:
    """Write arrays by name to a compressed .npz file, which is there as a whole or not at all."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    atomic_write(path, buffer.getvalue())


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write what `jsonable` makes of a value as indented JSON, which is there as a whole or not at all."""
    atomic_write(path, json.dumps(jsonable(value), indent=2, allow_nan=False) + "\n")


def jsonable(value: Any) -> Any:
    """Return the value as JSON has it: arrays as numbers or lists, NaN and infinities as None."""
    if isinstance(value, Mapping):
        return {str(name): jsonable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    # Of numpy and of JAX, which is not imported for that.
    if hasattr(value, "__array__"):
        return jsonable(np.asarray(value).tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

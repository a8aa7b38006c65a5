"""Files that are there as a whole or not at all, and the versions that wrote them."""

import contextlib
import importlib.metadata
import io
import json
import math
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

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
        OSError: the disk is full, or the folder is missing or not writable. The old file is untouched.
    """
    content = data.encode() if isinstance(data, str) else data
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
        OSError: it cannot be written. The old file is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    _create(temporary)
    try:
        yield temporary
        if flush:
            _flush(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if flush and os.name == "posix":  # elsewhere a folder cannot be opened
        _flush(path.parent)  # makes the new name, too, survive a power failure
    _remove_leftovers(path)


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

"""What every file that a run writes needs: replacement in one step, and the versions that wrote it."""

import importlib.metadata
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_RECORDED_PACKAGES = ("vsml", "jax", "jaxlib", "flax", "optax", "evosax", "numpy")


def atomic_write(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write a file so that a reader, now or after a crash, finds the old content or the new, never a part.

    The data goes to a hidden file in the same folder, which is flushed to the disk and then renamed. The name
    of that file is fixed by `path`, so that a run killed in mid-write and resumed reuses it; one process
    writes a path.

    Args:
        path: the file to create or replace; its folder must exist.
        data: the whole content; text is written as UTF-8.

    Raises:
        OSError: the disk is full, or the folder is missing or not writable. The old file is untouched.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # elsewhere a folder cannot be opened
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # makes the new name, too, survive a power failure
        finally:
            os.close(folder)


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

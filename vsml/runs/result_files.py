"""Files of a run, read strictly: what is damaged is a ValueError that names the file and the place."""

import json
import lzma
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import yaml

_MOST_ARRAY_BYTES = 2**30
"""Of an array of evaluation.npz; 16,000 examples of 1,000 episodes take a sixteenth of it."""

_MOST_FIGURE_BYTES = 2**23

_MOST_SETTINGS = 20_000
"""Values in a config.yaml; references to other values in it count each time."""

_DEEPEST_SETTINGS = 50
_MOST_BITS = 1024  # of a whole number

BROKEN_ARCHIVE = (
    ValueError,
    OSError,
    EOFError,
    KeyError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
"""What numpy and zipfile raise for archives that are cut, forged or encrypted."""


def _is_too_large(value: Any) -> bool:
    """Return whether nested mappings and lists are more than settings can be, also where they have no end."""
    waiting = [(value, 1)]
    count = 0
    while waiting:
        found, depth = waiting.pop()
        count += 1
        if count > _MOST_SETTINGS or depth > _DEEPEST_SETTINGS:
            return True
        if isinstance(found, int) and found.bit_length() > _MOST_BITS:
            return True
        below: Any = ()
        if isinstance(found, dict):
            below = found.values()
        elif isinstance(found, list | tuple | set):
            below = found
        waiting.extend((each, depth + 1) for each in below)
    return False


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            return {name: _read_member(archive, name) for name in names}
    except FileNotFoundError:
        raise
    except BROKEN_ARCHIVE as error:
        raise ValueError(f"{path}: got a damaged file, expected arrays of numpy: {error}") from error


def read_settings(path: Path) -> dict[str, Any]:
    """Return what a config.yaml holds, without a look at what the settings mean.

    Raises:
        ValueError: the file is damaged, empty, or no mapping.
        OSError: it cannot be read.
    """
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        what = " ".join(str(error).split())  # messages of yaml have several lines
        raise ValueError(f"{path}: got a damaged file, expected YAML: {what}") from error
    if not isinstance(settings, dict):
        got = "nothing" if settings is None else f"a {type(settings).__name__}"
        raise ValueError(f"{path}: got {got}, expected a mapping of settings")
    if _is_too_large(settings):
        most = f"{_MOST_SETTINGS:,} values, {_DEEPEST_SETTINGS} deep, of {_MOST_BITS:,} bits"
        raise ValueError(f"{path}: got more than {most}, expected the settings of a run")
    return settings


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: got a damaged file, expected JSON: {error}") from error


def read_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        ValueError: the file is damaged, or has something else.
        OSError: it cannot be read.
    """
    value = _read_json(path)
    if not isinstance(value, dict):
        raise ValueError(f"{path}: got {_kind(value)}, expected an object")
    return value


def read_list(path: Path) -> list[Any]:
    """Return the list in a JSON file.

    Raises:
        ValueError: the file is damaged, or has something else.
        OSError: it cannot be read.
    """
    value = _read_json(path)
    if not isinstance(value, list):
        raise ValueError(f"{path}: got {_kind(value)}, expected a list of objects")
    return value


def _kind(value: Any) -> str:
    """Return what JSON calls a value."""
    if value is None:
        return "null"
    kinds = {dict: "an object", list: "a list", str: "text", bool: "a truth value"}
    return kinds.get(type(value), "a number")


def check_archive(path: Path) -> bool:
    """Return True.

    Raises:
        ValueError: the file is no archive, or is cut.
    """
    try:
        zipfile.ZipFile(path).close()
    except BROKEN_ARCHIVE as error:
        raise ValueError(f"{path}: got a damaged file, expected arrays of numpy: {error}") from error
    return True


def read_curve(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """Return an array of numbers, [episodes, examples]."""
    array = _read_member(archive, name)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"got values of type {array.dtype}, expected numbers")
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"got shape {array.shape}, expected [episodes, examples]")
    return array


def _read_member(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    member = f"{name}.npy"
    size = archive.getinfo(member).file_size
    if size > _MOST_ARRAY_BYTES:
        raise ValueError(f"{member}: got {size:,} bytes, expected at most {_MOST_ARRAY_BYTES:,}")
    with archive.open(member) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def read_figure(path: Path) -> bytes | None:
    """Return the content of a PNG file.

    Raises:
        ValueError: it is none, or too large for a page.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    if size > _MOST_FIGURE_BYTES:
        raise ValueError(f"{path}: got {size:,} bytes, expected at most {_MOST_FIGURE_BYTES:,}")
    content = path.read_bytes()
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError(f"{path}: got a damaged file, expected a PNG image")
    return content

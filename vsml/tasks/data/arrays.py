"""Arrays of an npz file, read within bounds: what a file claims is compared with what is there first."""

import lzma
import math
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np

from vsml.system.extras import needed_for
from vsml.tasks.data.errors import DataError

MAX_RATIO = 100
"""How many times its packed size an array may have, where it is larger than MAX_UNPACKED_BYTES."""

MAX_UNPACKED_BYTES = 1 << 30

_MEMORY_SHARE = 0.5
"""Share of the free memory that the arrays of a file may take; what is made of them takes as much."""

_SUFFIX = ".npy"

READ_ERRORS = (
    ValueError,
    OSError,
    EOFError,
    RuntimeError,
    SyntaxError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    MemoryError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
"""What zipfile and numpy raise for files that are damaged, encrypted, forged, or packed in another way."""

_HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
"""What reads the header of an array, by the version of its format."""


def names_of(path: Path) -> list[str]:
    """Return the names of the arrays in an npz file.

    Raises:
        DataError: it is none.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
    except READ_ERRORS as error:
        expected = "a zip archive of arrays, as numpy.savez writes"
        raise DataError(f"{path}: not an npz file ({expected}): {error}") from error
    names = [name.removesuffix(_SUFFIX) for name in members]
    twice = sorted({name for name in names if names.count(name) > 1}) if len(names) < 1000 else []
    if twice:
        raise DataError(f"{path}: got the array {twice[0]!r} twice, expected different names")
    return names


def read_arrays(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Return arrays of an npz file; objects, which only pickle would read, never are read.

    Args:
        path: the file.
        names: of arrays that it has.

    Raises:
        DataError: it is damaged, or an array is not what its header says, or larger than what fits into
            memory; names it.
    """
    with needed_for("data sets in files"):
        import psutil

    arrays = {}
    room = int(_MEMORY_SHARE * psutil.virtual_memory().available)
    with zipfile.ZipFile(path) as archive:
        for name in names:
            try:
                arrays[name] = _read(archive, name, room)
            except READ_ERRORS as error:
                told = str(error).partition("\n")[0][:400] or type(error).__name__
                raise DataError(f"{path}: an array could not be read ({name}): {told}") from error
            room -= arrays[name].nbytes
    return arrays


def _read(archive: zipfile.ZipFile, name: str, room: int) -> np.ndarray:
    """Return one array, or raise one of READ_ERRORS."""
    members = archive.namelist()
    member = name if name in members else name + _SUFFIX
    info = archive.getinfo(member)
    with archive.open(info) as stream:
        header_bytes, data_bytes = _sizes(stream)
        if header_bytes + data_bytes != info.file_size:
            got = f"a header that claims {data_bytes} bytes of data"
            expected = f"{info.file_size - header_bytes}, as there are"
            raise ValueError(f"got {got}, expected {expected}")
    if data_bytes > room:
        raise ValueError(f"got an array of {_gib(data_bytes)}, expected at most {_gib(room)} of memory")
    if data_bytes > max(MAX_UNPACKED_BYTES, MAX_RATIO * info.compress_size):
        raise ValueError(
            f"got {info.compress_size} bytes that unpack to {_gib(data_bytes)}, expected at most "
            f"{MAX_RATIO} times as many; if it is meant, store it by numpy.savez, unpacked"
        )
    with archive.open(info) as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
        # To the end, where the checksum is compared.
        stream.read(1)
    return array


def _sizes(stream: IO[bytes]) -> tuple[int, int]:
    """Return how many bytes the header of an array has, and how many its data by that header."""
    version = np.lib.format.read_magic(stream)
    if version not in _HEADER_READERS:
        known = " and ".join(f"{major}.{minor}" for major, minor in _HEADER_READERS)
        raise ValueError(f"got version {version} of the format npy, expected {known}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python, about what a forged header has for a dictionary
        shape, _, dtype = _HEADER_READERS[version](stream)
    if dtype.hasobject:
        raise ValueError(
            "got pickled objects, which images of different sizes and labels of type object become, expected "
            "numbers; save y as whole numbers"
        )
    if any(size < 0 for size in shape):
        raise ValueError(f"got the shape {shape}, expected no negative size")
    return stream.tell(), math.prod(shape) * dtype.itemsize


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"

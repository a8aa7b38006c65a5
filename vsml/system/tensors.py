"""The content of a checkpoint file: tensors by name, and metadata, with a checksum of all of it.

Whoever reads checkpoints without JAX starts here; trees and the files of a run are the business of
`vsml.runs.checkpoint`.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors

FORMAT_VERSION = 1
"""Of the files that this version writes, and the newest that it reads."""

DTYPES = {
    "BOOL": np.dtype(bool),
    **{f"{kind}{bits}": np.dtype(f"{kind.lower()}{bits // 8}") for kind in "IU" for bits in (8, 16, 32, 64)},
    **{f"F{bits}": np.dtype(f"f{bits // 8}") for bits in (16, 32, 64)},
    "C64": np.dtype(np.complex64),
}
"""What safetensors calls the types of arrays that a file may hold."""

# It comes with JAX, and meta-parameters are float32 in any case.
with contextlib.suppress(ImportError):
    import ml_dtypes

    DTYPES["BF16"] = np.dtype(ml_dtypes.bfloat16)


class CheckpointError(ValueError):
    """A file that cannot be used as a checkpoint; the message names it."""


class DamagedCheckpointError(CheckpointError):
    """A file that is cut short, altered, or no checkpoint at all."""


_VERSION_DIGITS = 18

_POINTER = b"version https://git-lfs"
"""What a file begins with that stands for one which Git LFS has not fetched."""


def checksum(tensors: Mapping[str, np.ndarray], text: str) -> str:
    """Return the checksum, in hexadecimal, of tensors by name and of the text of their metadata."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"\n{name} {array.dtype.name} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def decode(data: bytes, where: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return tensors by name and metadata, after all checks that need no template.

    Args:
        data: what is in the file.
        where: its name, for messages.

    Raises:
        DamagedCheckpointError: it is cut short, altered, or no checkpoint.
        CheckpointError: it has a newer format.
    """
    if data.startswith(_POINTER):
        raise DamagedCheckpointError(
            f"{where}: got a pointer of Git LFS, expected the file itself; git lfs pull gets it"
        )
    try:
        views = safetensors.deserialize(data)
    except safetensors.SafetensorError as error:
        raise DamagedCheckpointError(
            f"{where}: damaged, cut short or not a safetensors file ({error})"
        ) from error
    length = int.from_bytes(data[:8], "little")
    header = _object(data[8 : 8 + length], "its header", where).get("__metadata__") or {}
    _check_version(header.get("format_version", ""), where)
    tensors = {}
    for name, view in views:
        if view["dtype"] not in DTYPES:
            raise DamagedCheckpointError(f"{where}: {name} has the unknown dtype {view['dtype']}")
        tensors[name] = np.frombuffer(view["data"], DTYPES[view["dtype"]]).reshape(view["shape"]).copy()
    text = header.get("metadata", "")
    if checksum(tensors, text) != header.get("sha256"):
        raise DamagedCheckpointError(f"{where}: damaged, its content does not match its checksum")
    metadata = _object(text, "its metadata", where)
    if not isinstance(metadata.get("random_keys"), dict):
        got = _shown(metadata.get("random_keys"))
        raise DamagedCheckpointError(f"{where}: got random_keys {got} in its metadata, expected an object")
    return tensors, metadata


def _check_version(version: str, where: str) -> None:
    """Check the version of the format first: another format may have another checksum."""
    if not (version.isascii() and version.isdecimal()):
        raise DamagedCheckpointError(f"{where}: a safetensors file, but not a checkpoint of this library")
    # Compared as text where it is long: Python refuses numbers of thousands of digits.
    is_newer = len(version) > _VERSION_DIGITS or int(version) > FORMAT_VERSION
    if is_newer:
        got = version[:_VERSION_DIGITS] + "..." * (len(version) > _VERSION_DIGITS)
        raise CheckpointError(
            f"{where}: has format version {got}, expected at most {FORMAT_VERSION}: upgrade vsml"
        )


def _object(text: bytes | str, what: str, where: str) -> dict[str, Any]:
    """Return the JSON object in a text.

    Raises:
        DamagedCheckpointError: it is none.
    """
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise DamagedCheckpointError(f"{where}: {what} is nested too deep, expected a JSON object") from error
    except ValueError as error:
        raise DamagedCheckpointError(f"{where}: {what} is no JSON, expected an object: {error}") from error
    if not isinstance(value, dict):
        raise DamagedCheckpointError(f"{where}: got {_shown(value)} as {what}, expected a JSON object")
    return value


def _shown(value: Any) -> str:
    """Return the beginning of a value, for messages."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, a deep nesting
        text = type(value).__name__
    return text if len(text) <= 80 else f"{text[:77]}..."

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
    try:
        views = safetensors.deserialize(data)
    except safetensors.SafetensorError as error:
        raise DamagedCheckpointError(
            f"{where}: damaged, cut short or not a safetensors file ({error})"
        ) from error
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    version = header.get("format_version", "")
    if not version.isdecimal():
        raise DamagedCheckpointError(f"{where}: a safetensors file, but not a checkpoint of this library")
    if int(version) > FORMAT_VERSION:  # asked first: another format may have another checksum
        raise CheckpointError(
            f"{where}: has format version {version}, expected at most {FORMAT_VERSION}: upgrade vsml"
        )
    tensors = {}
    for name, view in views:
        if view["dtype"] not in DTYPES:
            raise DamagedCheckpointError(f"{where}: {name} has the unknown dtype {view['dtype']}")
        tensors[name] = np.frombuffer(view["data"], DTYPES[view["dtype"]]).reshape(view["shape"]).copy()
    text = header.get("metadata", "")
    if checksum(tensors, text) != header.get("sha256"):
        raise DamagedCheckpointError(f"{where}: damaged, its content does not match its checksum")
    return tensors, json.loads(text)

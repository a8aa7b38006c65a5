"""The fast local form of data sets that are slow to decode: one uncompressed file for each half."""

import contextlib
import hashlib
import json
import os
import warnings
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from vsml.system.cache import cache_folder, user_id
from vsml.system.files import atomic_path
from vsml.system.locks import take_turns
from vsml.system.trust import check_trusted, private_folder
from vsml.tasks.data.entry import Examples
from vsml.tasks.data.files import Copy, fingerprint

_VERSION = 1
"""Raised when a decoder changes what it makes of the same files."""


@dataclass(frozen=True)
class Conversion:
    """The fast form of some files, whether or not it is there; make one with `conversion_of`.

    Attributes:
        path: where it lies.
        source: what it is made from: the files with their sizes and times, and the version of the decoders.
    """

    path: Path
    source: str

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Wait while another process converts the same files, then let others wait.

        Where the folder cannot be written, nobody waits: nothing is kept there either.
        """
        with contextlib.ExitStack() as held:
            with contextlib.suppress(OSError):
                private_folder(self.path.parent)
                held.enter_context(take_turns(self.path.with_suffix(".lock")))
            yield

    def load(self, verify: bool) -> Examples | None:
        """Return the examples if they were made from the files as they are now, else None.

        Args:
            verify: whether the files must have passed the checks of `verify` when they were converted.

        Warns:
            UserWarning: the converted file cannot be read or is damaged.
        """
        if not os.path.lexists(self.path):
            return None
        try:
            private_folder(self.path.parent)
            check_trusted(self.path)
            with safe_open(self.path, framework="numpy") as file:
                metadata = file.metadata() or {}
                if metadata.get("source") != self.source or (verify and metadata.get("verified") != "true"):
                    return None
                images, labels = file.get_tensor("images"), file.get_tensor("labels")
            if metadata.get("checksum") == _checksum(images, labels):
                return Examples(images, labels)
            reason = "wrong checksum"
        except (OSError, ValueError, SafetensorError) as error:
            reason = str(error)
        warnings.warn(f"{self.path} cannot be used ({reason}), converting anew", stacklevel=2)
        with contextlib.suppress(OSError):
            self.path.unlink()
        return None

    def save(self, examples: Examples, verified: bool) -> None:
        """Keep examples for the next time; the file is there as a whole or not at all.

        Args:
            examples: what the files were decoded to.
            verified: whether the files have passed the checks of `verify`.

        Warns:
            UserWarning: the folder cannot be written.
        """
        images, labels = np.ascontiguousarray(examples.images), examples.labels.astype(np.int32)
        metadata = {
            "source": self.source,
            "verified": json.dumps(verified),
            "checksum": _checksum(images, labels),
        }
        try:
            private_folder(self.path.parent)
            # Nothing is flushed to the disk: a file that a power failure damages is noticed by its checksum.
            with atomic_path(self.path, flush=False) as temporary:
                save_file({"images": images, "labels": labels}, temporary, metadata)
                os.chmod(temporary, 0o600)  # whatever the umask says
        except (OSError, SafetensorError) as error:
            warnings.warn(f"cannot keep the converted {self.path}, going on without: {error}", stacklevel=2)


def conversion_of(copies: Sequence[Copy]) -> Conversion:
    """Say where the fast form of files lies, and what it must be made from.

    It lies in this user's folder below `converted` of the cache (see `vsml.system.cache`).
    """
    places = [(str(copy.path.absolute()), copy.form.member) for copy in copies]
    key = hashlib.sha256(json.dumps(places).encode()).hexdigest()[:16]
    name = Path(copies[0].form.member or copies[0].path).name
    source = {
        "version": _VERSION,
        "files": [[*place, fingerprint(copy)] for place, copy in zip(places, copies, strict=True)],
    }
    folder = cache_folder("converted") / user_id()
    return Conversion(folder / f"{name}-{key}.safetensors", json.dumps(source))


def _checksum(images: np.ndarray, labels: np.ndarray) -> str:
    """Return what shows damage, at a gigabyte a second; shape and type are part of it."""
    header = f"{images.dtype}{images.shape}{labels.dtype}{labels.shape}".encode()
    return f"{zlib.crc32(labels.data, zlib.crc32(images.data, zlib.crc32(header))):08x}"

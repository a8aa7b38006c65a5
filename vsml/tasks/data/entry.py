"""Entry: a published data set, with its files, checksums and decoder."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from vsml.tasks.data.files import Copy, File


class Examples(NamedTuple):
    """What a decoder makes.

    Attributes:
        images: uint8 [n, H, W, Ch].
        labels: whole numbers [n].
        class_names: what the classes are called, in the order of their numbers, where the files say so.
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...] = ()


def content_checksum(examples: Examples) -> str:
    """Return the SHA-256 of class names, labels and pixels, however they were packed."""
    names = json.dumps(examples.class_names)
    labels = examples.labels.astype("<i4")
    pixels = np.ascontiguousarray(examples.images)
    digest = hashlib.sha256(names.encode())
    digest.update(labels.tobytes())
    digest.update(pixels.data)
    return digest.hexdigest()


Decoder = Callable[[str, tuple[Copy, ...]], Examples]
"""(subset, copies of the subset's files) -> examples."""


@dataclass(frozen=True)
class Entry:
    """A published data set of classes: its files, how to decode them, and what must come out.

    Attributes:
        files: by subset.
        decode: from copies of a subset's files to its examples.
        image_shape: (H, W, Ch).
        num_classes: by subset.
        mean: over all pixels, after scaling.
        std: over all pixels, after scaling.
        scale: what brings images to [0, 1].
        slow: whether decoding takes so long that its result is kept; that of archives always is.
        content: by subset, `content_checksum` of the published examples. Files that have it are the
            published ones, however they are packed.
    """

    files: Mapping[str, tuple[File, ...]]
    decode: Decoder
    image_shape: tuple[int, ...]
    num_classes: Mapping[str, int]
    mean: float
    std: float
    scale: float = 255.0
    slow: bool = False
    content: Mapping[str, str] = field(default_factory=dict)


def both(number: int) -> dict[str, int]:
    """Return the number for either subset."""
    return {"train": number, "test": number}

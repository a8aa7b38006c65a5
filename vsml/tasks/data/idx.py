"""Idx format: images and labels as MNIST has them, and data sets of four such files."""

import math

import numpy as np

from vsml.tasks.data.entry import Entry, Examples, both
from vsml.tasks.data.errors import DataError
from vsml.tasks.data.files import Copy, File, Form, read_all

_UNSIGNED_BYTES = 8
"""The number of the type in a file's first bytes."""


def decode_idx(subset: str, copies: tuple[Copy, ...]) -> Examples:
    """Read images and labels in idx format."""
    del subset
    image_copy, label_copy = copies
    image_bytes, label_bytes = read_all(copies)
    images = _from_idx(image_bytes, 3, image_copy)
    labels = _from_idx(label_bytes, 1, label_copy)
    return Examples(images[..., None], labels)


def _from_idx(
    content: bytes,
    ndim: int,
    copy: Copy,
) -> np.ndarray:
    """Read unsigned bytes in idx format: 0, 0, type 8, ndim, then ndim big-endian sizes, then the data."""
    magic = bytes((0, 0, _UNSIGNED_BYTES, ndim))
    header_bytes = 4 + 4 * ndim
    if content[:4] != magic or len(content) < header_bytes:
        got = content[:4].hex()
        raise DataError(f"{copy}: got the first bytes {got}, expected {magic.hex()} (idx format)")
    sizes = np.frombuffer(content, ">u4", count=ndim, offset=4)
    shape = tuple(int(size) for size in sizes)
    expected_bytes = math.prod(shape)  # of Python's integers, which do not overflow
    data_bytes = len(content) - header_bytes
    if data_bytes != expected_bytes:
        raise DataError(f"{copy}: got {data_bytes} bytes, expected {expected_bytes} for shape {shape}")
    flat = np.frombuffer(content, np.uint8, offset=header_bytes)
    return flat.reshape(shape)


_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def idx_entry(
    folder: str,
    mirrors: tuple[str, ...],
    md5: tuple[str, ...],
    unpacked_md5: tuple[str, ...],
    mean: float,
    std: float,
) -> Entry:
    """Describe a data set of four idx files, of ten classes of 28x28 images.

    Args:
        folder: below the data root.
        mirrors: addresses of the folders that have the files.
        md5: of the packed files: train images and labels, then test images and labels.
        unpacked_md5: of what is in them; empty where it is unknown.
        mean: over all pixels, after scaling.
        std: over all pixels, after scaling.
    """
    files = []
    for name, packed, unpacked in zip(_NAMES, md5, unpacked_md5, strict=True):
        published = Form(f"{folder}/raw/{name}.gz", f"md5:{packed}")
        addresses = tuple(f"{mirror}{name}.gz" for mirror in mirrors)
        checksum = f"md5:{unpacked}" if unpacked else ""
        other = Form(f"{folder}/raw/{name}", checksum)
        files.append(File(published, addresses, (other,)))
    halves = {"train": tuple(files[:2]), "test": tuple(files[2:])}
    return Entry(
        files=halves,
        decode=decode_idx,
        image_shape=(28, 28, 1),
        num_classes=both(10),
        mean=mean,
        std=std,
    )

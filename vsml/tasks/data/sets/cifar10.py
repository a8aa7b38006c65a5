"""CIFAR-10: small colour photographs of ten kinds of things (Krizhevsky, 2009)."""

import numpy as np

from vsml.tasks.data.entry import Entry, Examples, both
from vsml.tasks.data.errors import DataError
from vsml.tasks.data.files import Copy, File, Form, read_all

_SHAPE = (3, 32, 32)
_RECORD_BYTES = 1 + 3 * 32 * 32
_CHECKSUM = "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"


def decode_cifar(subset: str, copies: tuple[Copy, ...]) -> Examples:
    """Read records of one byte, the label, and 3,072 bytes, the image, channel-height-width."""
    del subset
    contents = read_all(copies)
    for copy, content in zip(copies, contents, strict=True):
        if not content or len(content) % _RECORD_BYTES:
            raise DataError(f"{copy}: got {len(content)} bytes, expected a multiple of {_RECORD_BYTES}")
    flat = np.frombuffer(b"".join(contents), np.uint8)
    records = flat.reshape(-1, _RECORD_BYTES)
    labels = records[:, 0]
    images = records[:, 1:].reshape(-1, *_SHAPE)
    return Examples(images.transpose(0, 2, 3, 1), labels)


def _file(name: str) -> File:
    """Describe one file of records, which is in the archive of all."""
    return File(
        published=Form("cifar-10-binary.tar.gz", _CHECKSUM, member=f"cifar-10-batches-bin/{name}"),
        addresses=("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",),
        others=(Form(f"cifar-10-batches-bin/{name}"),),
    )


CIFAR10 = Entry(
    files={
        "train": tuple(_file(f"data_batch_{number}.bin") for number in range(1, 6)),
        "test": (_file("test_batch.bin"),),
    },
    decode=decode_cifar,
    image_shape=(32, 32, 3),
    num_classes=both(10),
    mean=0.4734,
    std=0.2516,
)

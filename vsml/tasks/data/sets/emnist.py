"""EMNIST: handwritten digits and letters, in six splits (Cohen et al., 2017)."""

from functools import partial

import numpy as np

from vsml.tasks.data.entry import Entry, Examples, both
from vsml.tasks.data.files import Copy, File, Form
from vsml.tasks.data.idx import decode_idx

_ARCHIVE = "EMNIST/raw/gzip.zip"
_CHECKSUM = "md5:58c8d27c78d21e728a6bc7b3cc06412e"
_ADDRESS = "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip"


def decode_emnist(subset: str, copies: tuple[Copy, ...], first_label: int = 0) -> Examples:
    """Read idx files whose images are stored transposed, and whose labels begin at `first_label`."""
    images, labels, _ = decode_idx(subset, copies)
    upright = images.swapaxes(1, 2)
    return Examples(upright, labels.astype(np.int32) - first_label)


def _file(split: str, half: str, kind: str) -> File:
    """Describe a file of a split; all of them are in one archive, each packed by itself."""
    name = f"emnist-{split}-{half}-{kind}-ubyte"
    packed = Form(f"EMNIST/raw/{name}.gz")
    unpacked = Form(f"EMNIST/raw/{name}")
    return File(
        published=Form(_ARCHIVE, _CHECKSUM, member=f"gzip/{name}.gz"),
        addresses=(_ADDRESS,),
        others=(packed, unpacked),
    )


def _entry(split: str, num_classes: int, first_label: int = 0) -> Entry:
    """Describe one split."""
    halves = {}
    for half in ("train", "test"):
        images = _file(split, half, "images-idx3")
        labels = _file(split, half, "labels-idx1")
        halves[half] = (images, labels)
    return Entry(
        files=halves,
        decode=partial(decode_emnist, first_label=first_label),
        image_shape=(28, 28, 1),
        num_classes=both(num_classes),
        mean=0.1739,
        std=0.3319,
        slow=True,
    )


EMNIST_BYCLASS = _entry("byclass", 62)
EMNIST_BYMERGE = _entry("bymerge", 47)
EMNIST_BALANCED = _entry("balanced", 47)
EMNIST_LETTERS = _entry("letters", 26, first_label=1)
EMNIST_DIGITS = _entry("digits", 10)
EMNIST_MNIST = _entry("mnist", 10)

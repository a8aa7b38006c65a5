"""Digits: the 1,797 handwritten digits of 8x8 pixels that come with scikit-learn."""

import hashlib

import numpy as np

from vsml.tasks.data.entry import Entry, Examples, both
from vsml.tasks.data.files import Copy

_TRAIN_COUNT = 1300


def decode_digits(subset: str, copies: tuple[Copy, ...]) -> Examples:
    """Split scikit-learn's 1,797 digits into 1,300 for meta-training and 497 held out.

    Digits are ordered by the SHA-256 of their decimal position, which is the same on every platform and in
    every version, and the first 1,300 are the train half.
    """
    from sklearn.datasets import load_digits  # slow to import, and not needed for the others

    del copies
    images, labels = load_digits(return_X_y=True)
    order = sorted(range(len(labels)), key=_place)
    half = order[:_TRAIN_COUNT] if subset == "train" else order[_TRAIN_COUNT:]
    pixels = images[half].astype(np.uint8)
    return Examples(pixels.reshape(-1, 8, 8, 1), labels[half])


def _place(position: int) -> bytes:
    """Return what a digit is ordered by."""
    return hashlib.sha256(str(position).encode()).digest()


DIGITS = Entry(
    files={"train": (), "test": ()},
    decode=decode_digits,
    image_shape=(8, 8, 1),
    num_classes=both(10),
    # Over all pixels of the 1,300 digits for meta-training, divided by 16.
    mean=0.3054,
    std=0.3758,
    scale=16.0,
)

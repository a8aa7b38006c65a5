"""SVHN: house numbers, cropped to single digits (Netzer et al., 2011)."""

import zlib
from io import BytesIO

import numpy as np

from vsml.system.extras import needed_for
from vsml.tasks.data.entry import Entry, Examples, both
from vsml.tasks.data.errors import DataError
from vsml.tasks.data.files import Copy, File, Form, read_all

_MAT_ERRORS = (OSError, ValueError, TypeError, KeyError, IndexError, NotImplementedError, zlib.error)
"""What scipy raises, besides its own error, for a MATLAB file that is damaged or of another version."""


def decode_svhn(subset: str, copies: tuple[Copy, ...]) -> Examples:
    """Read a MATLAB file with X [32, 32, 3, n] and y [n, 1], in which the digit 0 is called 10."""
    del subset
    (copy,) = copies
    (content,) = read_all(copies)
    images, labels = _read_arrays(content, copy)
    right_images = images.ndim == 4 and images.dtype == np.uint8
    right_labels = labels.ndim == 2 and labels.dtype.kind in "iu"
    if not (right_images and right_labels):
        got = f"X {images.dtype} {images.shape} and y {labels.dtype} {labels.shape}"
        raise DataError(f"{copy}: got {got}, expected X uint8 [32, 32, 3, n] and y whole numbers [n, 1]")
    labels = labels.reshape(-1).astype(np.int32)
    if labels.size:
        least, most = labels.min(), labels.max()
        if least < 1 or most > 10:
            raise DataError(f"{copy}: got labels {least}..{most}, expected 1..10")
    return Examples(images.transpose(3, 0, 1, 2), labels % 10)


def _read_arrays(content: bytes, copy: Copy) -> tuple[np.ndarray, np.ndarray]:
    """Return the arrays X and y of a MATLAB file, which must be all that it has."""
    with needed_for("files of SVHN"):
        from scipy.io import loadmat  # slow to import, and not needed for the others
        from scipy.io.matlab import MatReadError

    try:
        arrays = loadmat(BytesIO(content), variable_names=("X", "y"))
    except (MatReadError, *_MAT_ERRORS) as error:
        raise DataError(f"{copy}: not a MATLAB file of version 5, or damaged: {error!r}") from error
    names = sorted(name for name in arrays if not name.startswith("__"))
    if names != ["X", "y"]:
        raise DataError(f"{copy}: got the arrays {names}, expected X and y")
    return np.asarray(arrays["X"]), np.asarray(arrays["y"])


def _file(name: str, md5: str) -> tuple[File]:
    address = f"http://ufldl.stanford.edu/housenumbers/{name}"
    return (File(Form(name, f"md5:{md5}"), (address,)),)


SVHN = Entry(
    files={
        "train": _file("train_32x32.mat", "e26dedcc434d2e4c54c9b2d4a06d8373"),
        "test": _file("test_32x32.mat", "eb5a983be6a315427106f1b164d9cef3"),
    },
    decode=decode_svhn,
    image_shape=(32, 32, 3),
    num_classes=both(10),
    mean=0.4514,
    std=0.1993,
    slow=True,
)

"""Decoders: from the files of one half of a data set to its examples."""

import hashlib
import json
import struct
import zlib
from io import BytesIO
from typing import NamedTuple

import numpy as np

from vsml.tasks.data.errors import DataError
from vsml.tasks.data.files import Copy, read_all, read_archive

_CIFAR_SHAPE = (3, 32, 32)
_CIFAR_RECORD = 1 + 3 * 32 * 32
_DRAWING = (105, 105)

_MAT_ERRORS = (OSError, ValueError, TypeError, KeyError, IndexError, NotImplementedError, zlib.error)
"""What scipy raises, besides its own error, for a MATLAB file that is damaged or of another version."""


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
    digest = hashlib.sha256(json.dumps(examples.class_names).encode())
    digest.update(examples.labels.astype("<i4").tobytes())
    digest.update(np.ascontiguousarray(examples.images).data)
    return digest.hexdigest()


def decode_idx(subset: str, copies: tuple[Copy, ...]) -> Examples:
    """Read images and labels in idx format."""
    del subset
    (images, labels), (pixels, numbers) = copies, read_all(copies)
    return Examples(_from_idx(pixels, 3, images)[..., None], _from_idx(numbers, 1, labels))


def decode_emnist(subset: str, copies: tuple[Copy, ...], first_label: int = 0) -> Examples:
    """Read idx files whose images are stored transposed, and whose labels begin at `first_label`."""
    images, labels, _ = decode_idx(subset, copies)
    return Examples(images.swapaxes(1, 2), labels.astype(np.int32) - first_label)


def _from_idx(content: bytes, ndim: int, copy: Copy) -> np.ndarray:
    """Read unsigned bytes in idx format: 0, 0, type 8, ndim, then ndim big-endian sizes, then the data."""
    magic = bytes((0, 0, 8, ndim))
    header = 4 + 4 * ndim
    if content[:4] != magic or len(content) < header:
        raise DataError(
            f"{copy}: got the first bytes {content[:4].hex()}, expected {magic.hex()} (idx format)"
        )
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", count=ndim, offset=4))
    size = int(np.prod(shape, dtype=np.int64))
    if len(content) - header != size:
        raise DataError(f"{copy}: got {len(content) - header} bytes, expected {size} for shape {shape}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def decode_cifar(subset: str, copies: tuple[Copy, ...]) -> Examples:
    """Read records of one byte, the label, and 3,072 bytes, the image, channel-height-width."""
    del subset
    contents = read_all(copies)
    for copy, content in zip(copies, contents, strict=True):
        if not content or len(content) % _CIFAR_RECORD:
            raise DataError(f"{copy}: got {len(content)} bytes, expected a multiple of {_CIFAR_RECORD}")
    records = np.frombuffer(b"".join(contents), np.uint8).reshape(-1, _CIFAR_RECORD)
    images = records[:, 1:].reshape(-1, *_CIFAR_SHAPE)
    return Examples(images.transpose(0, 2, 3, 1), records[:, 0])


def decode_svhn(subset: str, copies: tuple[Copy, ...]) -> Examples:
    """Read a MATLAB file with X [32, 32, 3, n] and y [n, 1], in which the digit 0 is called 10."""
    from scipy.io import loadmat  # slow to import, and not needed for the others
    from scipy.io.matlab import MatReadError

    del subset
    (copy,), (content,) = copies, read_all(copies)
    try:
        arrays = loadmat(BytesIO(content), variable_names=("X", "y"))
    except (MatReadError, *_MAT_ERRORS) as error:
        raise DataError(f"{copy}: not a MATLAB file of version 5, or damaged: {error!r}") from error
    names = sorted(name for name in arrays if not name.startswith("__"))
    if names != ["X", "y"]:
        raise DataError(f"{copy}: got the arrays {names}, expected X and y")
    images, labels = np.asarray(arrays["X"]), np.asarray(arrays["y"])
    if images.ndim != 4 or labels.ndim != 2 or images.dtype != np.uint8 or labels.dtype.kind not in "iu":
        got = f"X {images.dtype} {images.shape} and y {labels.dtype} {labels.shape}"
        raise DataError(f"{copy}: got {got}, expected X uint8 [32, 32, 3, n] and y whole numbers [n, 1]")
    labels = labels.reshape(-1).astype(np.int32)
    if labels.size and (labels.min() < 1 or labels.max() > 10):
        raise DataError(f"{copy}: got labels {labels.min()}..{labels.max()}, expected 1..10")
    return Examples(images.transpose(3, 0, 1, 2), labels % 10)


def decode_omniglot(subset: str, copies: tuple[Copy, ...]) -> Examples:
    """Read drawings, `<alphabet>/<character>/<drawing>.png`; each character is a class.

    Classes are numbered in the order of alphabet and character, drawings ordered by name. Ink is 0.
    """
    del subset
    (copy,) = copies
    drawings = sorted(_read_drawings(copy).items())
    names = tuple(sorted({f"{alphabet}/{character}" for (alphabet, character, _), _ in drawings}))
    number = {name: label for label, name in enumerate(names)}
    images = np.empty((len(drawings), *_DRAWING, 1), np.uint8)
    labels = np.empty(len(drawings), np.int32)
    for i, (path, content) in enumerate(drawings):
        images[i, ..., 0] = _decode_png(content, f"{copy}, {'/'.join(path)}")
        labels[i] = number["/".join(path[:2])]
    return Examples(images, labels, names)


def _read_drawings(copy: Copy) -> dict[tuple[str, ...], bytes]:
    """Return the content of the files `<alphabet>/<character>/<drawing>.png` by these three names."""
    if copy.form.folder:
        return {path.relative_to(copy.path).parts: path.read_bytes() for path in copy.path.glob("*/*/*.png")}
    top = copy.path.stem

    def is_drawing(name: str) -> bool:
        parts = name.split("/")
        return len(parts) == 4 and parts[0] == top and name.endswith(".png")

    return {tuple(name.split("/")[1:]): png for name, png in read_archive(copy.path, is_drawing).items()}


def _decode_png(content: bytes, where: str) -> np.ndarray:
    from PIL import Image  # slow to import, and not needed for the others

    try:
        with Image.open(BytesIO(content), formats=["PNG"]) as image:
            if (image.height, image.width) != _DRAWING:
                got = f"{image.height}x{image.width}"
                raise DataError(
                    f"{where}: got an image of {got}, expected all of them {_DRAWING[0]}x{_DRAWING[1]}"
                )
            return np.asarray(image.convert("L"))
    except DataError:
        raise
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error) as error:
        raise DataError(f"{where}: truncated or not a PNG image: {error}") from error


def decode_usps(subset: str, copies: tuple[Copy, ...]) -> Examples:
    """Read libsvm text: labels 1..10 are the digits 0..9, and values -1..1 become bytes 0..255."""
    from sklearn.datasets import load_svmlight_file  # slow to import, and not needed for the others

    del subset
    (copy,), (content,) = copies, read_all(copies)
    try:
        values, labels = load_svmlight_file(BytesIO(content), n_features=256)
    except ValueError as error:
        raise DataError(f"{copy}: not libsvm text of 256 features: {error}") from error
    pixels = np.clip(np.rint((values.toarray() + 1) * 127.5), 0, 255).astype(np.uint8)
    return Examples(pixels.reshape(-1, 16, 16, 1), labels.astype(np.int32) - 1)


def decode_digits(subset: str, copies: tuple[Copy, ...]) -> Examples:
    """Split scikit-learn's 1,797 digits into 1,300 for meta-training and 497 held out.

    Digits are ordered by the SHA-256 of their decimal position, which is the same on every platform and in
    every version, and the first 1,300 are the train half.
    """
    from sklearn.datasets import load_digits  # slow to import, and not needed for the others

    del copies
    images, labels = load_digits(return_X_y=True)
    order = sorted(range(len(labels)), key=lambda i: hashlib.sha256(str(i).encode()).digest())
    half = order[:1300] if subset == "train" else order[1300:]
    return Examples(images[half].astype(np.uint8).reshape(-1, 8, 8, 1), labels[half])

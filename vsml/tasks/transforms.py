"""Task transforms: pure functions of a batch of images [n, H, W, Ch] or of labels [n].

`distribution` applies them in the order of this file.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from vsml.types import Array


def rotate(images: Array, turns: Array) -> Array:
    """Turn each of the square images [n, H, H, Ch] by its number of quarter turns, int [n] in 0..3.

    Counter-clockwise, as `numpy.rot90`.
    """
    turned = jnp.stack([jnp.rot90(images, k, axes=(1, 2)) for k in range(4)])
    return turned[turns, jnp.arange(len(images))]


def resize(images: Array, size: Sequence[int]) -> Array:
    """Resize images float [n, H, W, Ch] to [n, *size, Ch], bilinear and antialiased."""
    return jax.image.resize(images, (images.shape[0], *size, images.shape[3]), "bilinear", antialias=True)


def standardise(images: Array, mean: float, std: float) -> Array:
    """Return `(images - mean) / std`."""
    return (images - mean) / std


def pad(images: Array, shape: Sequence[int]) -> Array:
    """Append zeros to images [n, H, W, Ch] at the bottom, the right and the last channels, up to [n, *shape].

    Raises:
        ValueError: `shape` is smaller than the images.
    """
    check_pad(images.shape[1:], shape)
    return jnp.pad(images, ((0, 0), *((0, to - of) for of, to in zip(images.shape[1:], shape, strict=True))))


def project(key: Array, images: Array) -> Array:
    """Multiply each flattened image x by one random R: `x R`, R [d, d] normal with variance 1/d, d = H W Ch.

    Norms stay as they are in expectation, and the shape stays [n, H, W, Ch].
    """
    d = math.prod(images.shape[1:])
    projection = jax.random.normal(key, (d, d)) / math.sqrt(d)
    return (images.reshape(-1, d) @ projection).reshape(images.shape)


def shuffle(key: Array, images: Array) -> Array:
    """Permute all inputs of images [n, H, W, Ch], across pixels and channels, in the same way for all."""
    d = math.prod(images.shape[1:])
    return images.reshape(-1, d)[:, jax.random.permutation(key, d)].reshape(images.shape)


def permute_labels(key: Array, labels: Array, num_classes: int) -> Array:
    """Rename labels int [n] by one random permutation of 0..num_classes-1."""
    return jax.random.permutation(key, num_classes)[labels]


def output_shape(
    image_shape: Sequence[int], size: Sequence[int] | None = None, padded: Sequence[int] | None = None
) -> tuple[int, ...]:
    """Return the shape (H, W, Ch) of an image after resizing to `size` (H, W) and padding to `padded`.

    Raises:
        ValueError: `size` is not two positive numbers, or `padded` is smaller than the image.
    """
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ValueError(f"preprocess.resize: got {list(size)}, expected [height, width], both at least 1")
    shape = tuple(image_shape) if size is None else (*size, image_shape[2])
    if padded is None:
        return shape
    check_pad(shape, padded)
    return tuple(padded)


def check_pad(shape: Sequence[int], padded: Sequence[int]) -> None:
    """Raise a ValueError where images of `shape` (H, W, Ch) cannot be padded to `padded`."""
    if len(padded) != 3 or any(to < of for of, to in zip(shape, padded, strict=True)):
        raise ValueError(
            f"preprocess.pad.input: got {list(padded)}, expected [height, width, channels] of at least "
            f"{list(shape)}, the shape of the images"
        )

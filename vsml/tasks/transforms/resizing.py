"""Resizing: images of another height and width."""

from collections.abc import Sequence

import jax

from vsml.settings import Size
from vsml.tasks.transforms.base import Context, Shape, Transform
from vsml.types import Array


def resize(images: Array, size: Sequence[int]) -> Array:
    """Resize images float [n, H, W, Ch] to [n, *size, Ch], bilinear and antialiased."""
    count, _, _, channels = images.shape
    shape = (count, *size, channels)
    return jax.image.resize(images, shape, "bilinear", antialias=True)


def _act(x: Array, y: Array, size: Sequence[int], context: Context) -> tuple[Array, Array]:
    del context
    return resize(x, size), y


def _shape(shape: Shape, size: Sequence[int]) -> Shape:
    if len(size) != 2 or min(size) < 1:
        got = list(size)
        raise ValueError(f"preprocess.resize: got {got}, expected [height, width], both at least 1")
    *_, channels = shape
    return (*size, channels)


def _size_in_words(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


def _words(size: Sequence[int]) -> str:
    return f"resized to {_size_in_words(size)}"


def _name_part(size: Sequence[int] | None) -> str:
    if size is None:
        return "@unresized"
    return f"@{_size_in_words(size)}"


RESIZE = Transform(
    name="resize",
    setting=Size | None,
    default=None,
    description="[height, width] to resize images to, bilinear and antialiased (pixels)",
    act=_act,
    shape=_shape,
    words=_words,
    name_part=_name_part,
)

"""Padding: larger inputs, the rest of which is 0, and more classes, which are never the label."""

from collections.abc import Sequence

import jax.numpy as jnp
from pydantic import Field

from vsml.settings import Positive, Section
from vsml.settings import Shape as ShapeSetting
from vsml.tasks.transforms.base import Context, Shape, Transform
from vsml.types import Array, Classes, Outputs


class Pad(Section):
    """Padding with zeros."""

    input: ShapeSetting | None = Field(
        default=None,
        description="[height, width, channels] to pad inputs to, at the bottom and right (pixels)",
    )
    output: Positive | None = Field(
        default=None, description="number of classes to pad to; the added ones are never the label"
    )


def pad(images: Array, shape: Sequence[int]) -> Array:
    """Append zeros to images [n, H, W, Ch] at the bottom, the right and the last channels, up to [n, *shape].

    Raises:
        ValueError: `shape` is smaller than the images.
    """
    before = images.shape[1:]
    check_pad(before, shape)
    widths = [(0, 0)]
    for size, padded in zip(before, shape, strict=True):
        widths.append((0, padded - size))
    return jnp.pad(images, widths)


def check_pad(shape: Sequence[int], padded: Sequence[int]) -> None:
    """Raise a ValueError where images of `shape` (H, W, Ch) cannot be padded to `padded`."""
    fits = len(padded) == 3 and all(to >= of for of, to in zip(shape, padded, strict=True))
    if not fits:
        raise ValueError(
            f"preprocess.pad.input: got {list(padded)}, expected [height, width, channels] of at least "
            f"{list(shape)}, the shape of the images"
        )


def _act(x: Array, y: Array, setting: Pad, context: Context) -> tuple[Array, Array]:
    del context
    if setting.input is not None:
        x = pad(x, setting.input)
    return x, y


def _shape(shape: Shape, setting: Pad) -> Shape:
    if setting.input is None:
        return shape
    check_pad(shape, setting.input)
    return setting.input


def _outputs(outputs: Outputs, setting: Pad, source: str) -> Outputs:
    size = setting.output
    if size is None:
        return outputs
    if not isinstance(outputs, Classes):
        raise ValueError(f"preprocess.pad.output: got {size}, expected null for {source}")
    if size < outputs.size:
        raise ValueError(f"preprocess.pad.output: got {size}, expected at least {source}")
    return Classes(size)


def _words(setting: Pad) -> str:
    del setting
    return "padded"


def _name_part(setting: Pad) -> str:
    del setting
    return "+pad"


PAD = Transform(
    name="pad",
    setting=Pad,
    default=Pad(),
    description="padding with zeros, after standardising",
    act=_act,
    off=Pad(),
    shape=_shape,
    outputs=_outputs,
    words=_words,
    name_part=_name_part,
)

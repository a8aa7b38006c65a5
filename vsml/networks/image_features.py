"""Fixed features of images: what a picture is described by before keys of a memory and before synapses.

Both are standardised for each image: mean 0 and variance 1 over its features.

    orientations   gradients by central differences (one-sided at the border), of the mean over channels. Of
                   a gradient of length m and angle t in [-pi, pi], m goes to the two directions next to t out
                   of n, shared linearly. Pooled: means over square cells.
    filters        n random 5 x 5 filters, standard normal, centred and of length 1, always the same ones;
                   rectified both ways, relu(z) and relu(-z), and pooled likewise.

Cells of c pixels begin at every c-th pixel, or at every `stride`-th: then they overlap. Pixel p of a cell,
p = 0, ..., c - 1, counts for 1 / c along each axis with the window `box`, and with `tent` for
min(p + 1/2, c - p - 1/2), divided by the sum of these: what is nearer to the middle counts for more. With
`root`, means are replaced by their square roots, so that one strong edge does not drown the others.

What is left over beyond whole cells, at the right and at the bottom, is not seen.
"""

import math
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from vsml.types import Array

Kind = Literal["orientations", "filters"]
Window = Literal["box", "tent"]

_TINY = 1e-6
_FILTER_SIZE = 5
_SEED = 0  # of the filters, which are numbers of the features, not of an episode


@dataclass(frozen=True)
class ImageFeatures:
    """Features of images of one shape.

    Attributes:
        shape: height, width and channels of an image.
        kind: see the top of this file.
        cell: height and width of a cell, in pixels.
        count: directions, or filters.
        stride: pixels from a cell to the next; None: `cell`.
        window: how pixels of a cell are weighed.
        root: whether square roots of means are taken.

    Raises:
        ValueError: an image has no whole cell.
    """

    shape: tuple[int, int, int]
    kind: Kind
    cell: int
    count: int
    stride: int | None = None
    window: Window = "box"
    root: bool = False

    def __post_init__(self) -> None:
        height, width, _ = self.shape
        if min(height, width) < self.cell:
            raise ValueError(
                f"image_features.cell: got {self.cell}, expected at most {min(height, width)} pixels for "
                f"images of {height} x {width}"
            )

    @property
    def size(self) -> int:
        """How many numbers describe an image."""
        height, width, _ = self.shape
        channels = self.count if self.kind == "orientations" else 2 * self.count
        return self._cells(height) * self._cells(width) * channels

    def _cells(self, pixels: int) -> int:
        """Return the whole cells along an axis."""
        return (pixels - self.cell) // (self.stride or self.cell) + 1

    def __call__(self, images: Array) -> Array:
        """Return the features [K, size] of images [K, height, width, channels]."""
        maps = self._orientations(images) if self.kind == "orientations" else self._filtered(images)
        pooled = self._pooled(maps).reshape(len(images), self.size)
        centred = pooled - pooled.mean(-1, keepdims=True)
        deviation = jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True) + _TINY**2)
        return centred / (deviation + _TINY)

    def _orientations(self, images: Array) -> Array:
        """Return the length of gradients by direction [K, height, width, count]."""
        grey = images.mean(-1)
        down, right = (jnp.asarray(slope) for slope in jnp.gradient(grey, axis=(1, 2)))
        length = jnp.sqrt(jnp.square(down) + jnp.square(right) + _TINY**2)
        turn = (jnp.arctan2(down, right) + math.pi) / (2 * math.pi) * self.count
        lower = jnp.floor(turn)
        upper_share = (turn - lower)[..., None]
        direction = lower.astype(jnp.int32) % self.count
        at_lower = jax.nn.one_hot(direction, self.count)
        at_upper = jax.nn.one_hot((direction + 1) % self.count, self.count)
        return length[..., None] * ((1 - upper_share) * at_lower + upper_share * at_upper)

    def _filtered(self, images: Array) -> Array:
        """Return what filters answer, rectified both ways [K, height, width, 2 count]."""
        channels = self.shape[-1]
        answers = jax.lax.conv_general_dilated(
            images,
            jnp.asarray(self._filters(channels)),
            window_strides=(1, 1),
            padding="SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return jnp.concatenate([jax.nn.relu(answers), jax.nn.relu(-answers)], axis=-1)

    def _filters(self, channels: int) -> np.ndarray:
        """Return the filters [5, 5, channels, count]."""
        shape = (_FILTER_SIZE, _FILTER_SIZE, channels, self.count)
        drawn = np.random.default_rng(_SEED).standard_normal(shape)
        centred = drawn - drawn.mean((0, 1, 2), keepdims=True)
        length = np.sqrt(np.square(centred).sum((0, 1, 2), keepdims=True))
        return (centred / length).astype(np.float32)

    def _pooled(self, maps: Array) -> Array:
        """Return means over whole cells [K, cells down, cells across, channels]."""
        height, width, _ = self.shape
        down, across = jnp.asarray(self._pooling(height)), jnp.asarray(self._pooling(width))
        pooled = jnp.einsum("ah,khwc,bw->kabc", down, maps, across)
        # What rounding leaves of a mean of 0 may be below it.
        return jnp.sqrt(jnp.maximum(pooled, 0.0)) if self.root else pooled

    def _pooling(self, pixels: int) -> np.ndarray:
        """Return the weights of pixels in cells along an axis [cells, pixels]."""
        position = np.arange(self.cell)
        weights = np.ones(self.cell)
        if self.window == "tent":
            weights = np.minimum(position + 0.5, self.cell - position - 0.5)
        pooling = np.zeros((self._cells(pixels), pixels), np.float32)
        for number, row in enumerate(pooling):
            first = number * (self.stride or self.cell)
            row[first : first + self.cell] = weights / weights.sum()
        return pooling

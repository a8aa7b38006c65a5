"""What enters a network of VSML: inputs, described by image features, seen through random features."""

import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from vsml.learners.vsml_config import ImageFeaturesConfig, RandomFeaturesConfig
from vsml.networks.image_features import ImageFeatures
from vsml.networks.wirings.base import ImageShape
from vsml.types import Array

BIAS_STD = 0.5
"""Deviation of the biases of random features."""

TANH_STD = 0.659
"""Deviation of tanh(z + b), for standard normal z, and b as drawn."""

RELU_MEAN, RELU_STD = 0.446, 0.653
"""Mean and deviation of relu(z + b), likewise."""


@dataclass(frozen=True)
class Entering:
    """From inputs to what enters a network, or to the keys of its memory.

    Attributes:
        input_shape: shape of one input.
        image_features: fixed features that images are described by first, if any.
        random_features: a fixed random layer behind them, drawn with every fresh state, if any.
    """

    input_shape: tuple[int, ...]
    image_features: ImageFeaturesConfig
    random_features: RandomFeaturesConfig

    @property
    def shape(self) -> ImageShape:
        """(H, W, channels) of what enters."""
        random = self.random_features
        if random.count is not None:
            return 1, random.count + self.size * random.keep_input, 1
        return image_shape(self.input_shape) if self._images is None else (1, self._images.size, 1)

    @property
    def size(self) -> int:
        """Numbers of an input once it is described."""
        return math.prod(self.input_shape) if self._images is None else self._images.size

    @functools.cached_property
    def _images(self) -> ImageFeatures | None:
        """Features that inputs are described by; None if there are none, or inputs are no images."""
        config = self.image_features
        if config.kind == "none" or len(self.input_shape) not in (2, 3):
            return None
        return ImageFeatures(
            image_shape(self.input_shape),
            config.kind,
            config.cell,
            config.count,
            config.stride,
            config.window,
            config.root,
        )

    def draw(self, key: Array) -> Array | None:
        """Draw weights and, last, bias of the random features [size + 1, F]; None where there are none."""
        count = self.random_features.count
        if count is None:
            return None
        normal = jax.random.normal(key, (self.size + 1, count))
        scale = jnp.full((self.size + 1, 1), self.size**-0.5).at[-1].set(BIAS_STD)
        return normal * scale

    def described(self, x: Array) -> Array:
        """Return x [K, *input_shape], described by image features if there are any, [K, size]."""
        if self._images is not None:
            x = self._images(x.reshape(len(x), *self._images.shape))
        return x.reshape(len(x), -1)

    def through(
        self,
        features: Array | None,
        x: Array,
    ) -> Array:
        """Return described inputs x [K, size] seen through random features, [K, F] or [K, size + F].

        Args:
            features: as `draw` returns them; None: inputs are returned as they are.
            x: the inputs.
        """
        if features is None:
            return x
        settings = self.random_features
        z = x @ features[:-1]
        shift = features[-1:]
        if settings.activation == "tanh":
            z = jnp.tanh(z + shift) / TANH_STD
        elif settings.activation == "relu":
            z = (jax.nn.relu(z + shift) - RELU_MEAN) / RELU_STD
        return jnp.concatenate([x, z], axis=1) if settings.keep_input else z


def image_shape(shape: tuple[int, ...]) -> ImageShape:
    """Return (H, W, channels) of what a layer's units form."""
    if len(shape) == 3:
        return shape
    return (*shape, 1) if len(shape) == 2 else (1, math.prod(shape), 1)

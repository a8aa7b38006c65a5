"""Linear map: online regression on a random linear function of 16 inputs, drawn anew for every episode."""

from jax import random

from vsml.tasks.data.generator import Generator
from vsml.types import Array, Values

INPUTS = 16

NOISE_STD = 0.1
"""Deviation of the noise on targets, whose own is about 1: a hundredth of the variance is not to explain."""

_BIAS_STD = 0.5


def _draw(key: Array, n: int, size: int) -> tuple[Array, Array]:
    """Draw inputs x ~ N(0, 1) and targets `W x + b + noise`, with W ~ N(0, 1/16) and b ~ N(0, 1/4)."""
    (
        input_key,
        weight_key,
        bias_key,
        noise_key,
    ) = random.split(key, 4)
    x = random.normal(input_key, (n, INPUTS))
    normal = random.normal(weight_key, (INPUTS, size))
    weights = normal / INPUTS**0.5
    bias = _BIAS_STD * random.normal(bias_key, (size,))
    noise = NOISE_STD * random.normal(noise_key, (n, size))
    y = x @ weights + bias[None, :] + noise
    return x[:, None, :, None], y


LINEAR_MAP = Generator(
    draw=_draw,
    name="linear_map",
    outputs=Values(1),
    image_shape=(1, INPUTS, 1),
)

"""Tanh network: online regression on a small random network of 16 inputs, drawn anew for every episode."""

import jax.numpy as jnp
from jax import random

from vsml.tasks.data.generator import Generator
from vsml.types import Array, Values

INPUTS = 16
HIDDEN = 8

NOISE_STD = 0.1
"""Deviation of the noise on targets, whose own is about 1."""

_GAIN = 2.0
"""Deviation of what hidden units sum up: enough that tanh bends it."""

_BIAS_STD = 0.5


def _draw(key: Array, n: int, size: int) -> tuple[Array, Array]:
    """Draw inputs x ~ N(0, 1) and targets `V tanh(W x + b) + c + noise`.

    W ~ N(0, 4/16), V ~ N(0, 1/8), b and c ~ N(0, 1/4).
    """
    (
        input_key,
        first_key,
        first_bias_key,
        second_key,
        second_bias_key,
        noise_key,
    ) = random.split(key, 6)
    x = random.normal(input_key, (n, INPUTS))
    first = random.normal(first_key, (INPUTS, HIDDEN))
    first_bias = _BIAS_STD * random.normal(first_bias_key, (HIDDEN,))
    sums = _GAIN * (x @ first) / INPUTS**0.5
    hidden = jnp.tanh(sums + first_bias[None, :])
    second = random.normal(second_key, (HIDDEN, size)) / HIDDEN**0.5
    second_bias = _BIAS_STD * random.normal(second_bias_key, (size,))
    noise = NOISE_STD * random.normal(noise_key, (n, size))
    y = hidden @ second + second_bias[None, :] + noise
    return x[:, None, :, None], y


TANH_NETWORK = Generator(
    draw=_draw,
    name="tanh_network",
    outputs=Values(1),
    image_shape=(1, INPUTS, 1),
)

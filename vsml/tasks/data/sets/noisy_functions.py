"""Noisy functions: online regression on functions as tables hold them, drawn anew for every episode.

Of 16 inputs some matter and others hardly. The target is more or less linear, and more or less of it noise.
"""

import jax.numpy as jnp
from jax import random

from vsml.tasks.data.generator import Generator
from vsml.types import Array, Values

INPUTS = 16
HIDDEN = 8

LEAST_NOISE, MOST_NOISE = 0.01, 0.7
"""Share of the target's variance that is noise: its logarithm is uniform between these."""

_GAIN = 2.0
"""Deviation of what hidden units sum up: enough that tanh bends it."""

_BIAS_STD = 0.5

_UNEQUAL = 1.5
"""Deviation of the logarithm of how much an input matters: of 16 a third does nearly nothing."""


def _draw(key: Array, n: int, size: int) -> tuple[Array, Array]:
    """Draw inputs x ~ N(0, 1) and targets `sqrt(1 - q) f(x) + sqrt(q) noise`, f of variance 1 in the episode.

    f = sqrt(s) W u + sqrt(1 - s) V tanh(2 U u + b), each part of variance 1, s uniform in 0 to 1.
    u_j = r_j x_j with r_j log-normal, the mean of r^2 being 1. W, V ~ N(0, 1), U ~ N(0, 1/16), b ~ N(0, 1/4).
    """
    keys = random.split(key, 9)
    x = random.normal(keys[0], (n, INPUTS))
    matters = jnp.exp(_UNEQUAL * random.normal(keys[1], (INPUTS,)))
    u = x * matters / jnp.sqrt(jnp.mean(matters**2))
    straight = u @ random.normal(keys[2], (INPUTS, size))
    sums = _GAIN * (u @ random.normal(keys[3], (INPUTS, HIDDEN))) / INPUTS**0.5
    hidden = jnp.tanh(sums + _BIAS_STD * random.normal(keys[4], (HIDDEN,)))
    bent = hidden @ random.normal(keys[5], (HIDDEN, size))
    share = random.uniform(keys[6])
    signal = _standard(jnp.sqrt(share) * _standard(straight) + jnp.sqrt(1 - share) * _standard(bent))
    low, high = jnp.log(LEAST_NOISE), jnp.log(MOST_NOISE)
    noise_share = jnp.exp(random.uniform(keys[7], minval=low, maxval=high))
    noise = random.normal(keys[8], (n, size))
    y = jnp.sqrt(1 - noise_share) * signal + jnp.sqrt(noise_share) * noise
    return x[:, None, :, None], y


def _standard(values: Array) -> Array:
    """Return values [n, D] with mean 0 and variance 1."""
    return (values - values.mean(0)) / (values.std(0) + 1e-6)


NOISY_FUNCTIONS = Generator(
    draw=_draw,
    name="noisy_functions",
    outputs=Values(1),
    image_shape=(1, INPUTS, 1),
)

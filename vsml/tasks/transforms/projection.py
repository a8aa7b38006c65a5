"""Projection: each input a random mixture of all inputs, the same for all examples of an episode."""

import math

import jax

from vsml.settings import Bool
from vsml.tasks.transforms.base import Context, Shape, Transform
from vsml.types import Array


def project(key: Array, images: Array) -> Array:
    """Multiply each flattened image x by one random R: `x R`, R [d, d] normal with variance 1/d, d = H W Ch.

    Norms stay as they are in expectation, and the shape stays [n, H, W, Ch].
    """
    inputs = math.prod(images.shape[1:])
    normal = jax.random.normal(key, (inputs, inputs))
    projection = normal / math.sqrt(inputs)
    flat = images.reshape(-1, inputs)
    return (flat @ projection).reshape(images.shape)


def _act(x: Array, y: Array, on: bool, context: Context) -> tuple[Array, Array]:
    del on
    return project(context.key, x), y


def _working_numbers(shape: Shape, on: bool) -> int:
    del on
    return math.prod(shape) ** 2


def _words(on: bool) -> str:
    del on
    return "randomly projected"


RAND_PROJ = Transform(
    name="rand_proj",
    setting=Bool,
    default=False,
    description="multiply inputs by a Gaussian matrix, drawn per episode",
    act=_act,
    words=_words,
    drawn=True,
    purpose=3,
    working_numbers=_working_numbers,
)

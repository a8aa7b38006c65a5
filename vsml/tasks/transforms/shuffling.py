"""Shuffling: all inputs in another order, the same for all examples of an episode."""

import math

import jax

from vsml.settings import Bool
from vsml.tasks.transforms.base import Context, Transform
from vsml.types import Array


def shuffle(key: Array, images: Array) -> Array:
    """Permute all inputs of images [n, H, W, Ch], across pixels and channels, in the same way for all."""
    inputs = math.prod(images.shape[1:])
    order = jax.random.permutation(key, inputs)
    flat = images.reshape(-1, inputs)
    return flat[:, order].reshape(images.shape)


def _act(x: Array, y: Array, on: bool, context: Context) -> tuple[Array, Array]:
    del on
    return shuffle(context.key, x), y


def _words(on: bool) -> str:
    del on
    return "shuffled"


SHUFFLE = Transform(
    name="shuffle",
    setting=Bool,
    default=False,
    description="permute all inputs, drawn per episode; not together with rand_proj",
    act=_act,
    words=_words,
    drawn=True,
    purpose=4,
    excludes=("rand_proj",),
)

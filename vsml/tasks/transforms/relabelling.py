"""Relabelling: from the middle of an episode on, classes have other numbers than before."""

import jax.numpy as jnp

from vsml.settings import Bool
from vsml.tasks.transforms.base import Context, Transform
from vsml.tasks.transforms.label_permutation import permute_labels
from vsml.types import Array


def _act(x: Array, y: Array, on: bool, context: Context) -> tuple[Array, Array]:
    del on
    half = context.episode_length // 2 * context.batch_size
    later = permute_labels(context.key, y[half:], context.outputs.size)
    return x, jnp.concatenate([y[:half], later])


def _words(on: bool) -> str:
    del on
    return "relabelled half way"


RELABEL = Transform(
    name="relabel",
    setting=Bool,
    default=False,
    description="permute the classes once more half way through, drawn per episode",
    act=_act,
    words=_words,
    drawn=True,
    purpose=6,
    classes_only=True,
    few_shot=False,
)

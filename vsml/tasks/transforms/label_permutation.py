"""Label permutation: the classes called by each other's numbers, anew in every episode."""

import jax

from vsml.settings import Bool
from vsml.tasks.transforms.base import Context, Transform
from vsml.types import Array


def permute_labels(key: Array, labels: Array, num_classes: int) -> Array:
    """Rename labels int [n] by one random permutation of 0..num_classes-1."""
    names = jax.random.permutation(key, num_classes)
    return names[labels]


def _act(x: Array, y: Array, on: bool, context: Context) -> tuple[Array, Array]:
    del on
    return x, permute_labels(context.key, y, context.outputs.size)


def _words(on: bool) -> str:
    del on
    return "labels permuted"


PERMUTE_LABELS = Transform(
    name="permute_labels",
    setting=Bool,
    default=False,
    description="permute the classes, drawn per episode",
    act=_act,
    words=_words,
    drawn=True,
    purpose=5,
    classes_only=True,
)

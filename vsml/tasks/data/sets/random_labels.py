"""Random labels: noise images with labels that have nothing to do with them, to be memorised."""

from jax import random

from vsml.tasks.data.generator import Generator
from vsml.types import Array, Classes


def _draw(key: Array, n: int, num_classes: int) -> tuple[Array, Array]:
    """Draw N(0, 1) images with labels that have nothing to do with them."""
    image_key = random.fold_in(key, 0)
    label_key = random.fold_in(key, 1)
    images = random.normal(image_key, (n, 28, 28, 1))
    labels = random.randint(label_key, (n,), 0, num_classes)
    return images, labels


RANDOM = Generator(
    draw=_draw,
    name="random",
    outputs=Classes(10),
    pool_size=20,
    classes_alike=True,
)

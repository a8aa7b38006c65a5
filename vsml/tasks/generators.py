"""Generators: sources without a file, which every episode draws anew."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

from vsml.types import Array


@struct.dataclass
class Generator:
    """A source without a file: every episode draws its own small data set.

    Attributes:
        draw: (key, n, num_classes) -> images float32 [n, H, W, Ch] and labels int32 [n].
        name: what it was loaded as.
        num_classes: how many classes it has by default.
        image_shape: (H, W, Ch).
        pool_size: images drawn per episode, which then repeat; None draws a new one for every example.
        classes_alike: whether some of the classes can be left out (their labels mean nothing).
    """

    draw: Callable[[Array, int, int], tuple[Array, Array]] = struct.field(pytree_node=False)
    name: str = struct.field(pytree_node=False)
    num_classes: int = struct.field(pytree_node=False)
    image_shape: tuple[int, ...] = struct.field(pytree_node=False, default=(28, 28, 1))
    pool_size: int | None = struct.field(pytree_node=False, default=None)
    classes_alike: bool = struct.field(pytree_node=False, default=False)
    scale: float = struct.field(pytree_node=False, default=1.0)
    mean: float = struct.field(pytree_node=False, default=0.0)
    std: float = struct.field(pytree_node=False, default=1.0)


def _draw_random(key: Array, n: int, num_classes: int) -> tuple[Array, Array]:
    """Draw N(0, 1) images with labels that have nothing to do with them."""
    images = jax.random.normal(jax.random.fold_in(key, 0), (n, 28, 28, 1))
    return images, jax.random.randint(jax.random.fold_in(key, 1), (n,), 0, num_classes)


def _draw_sum(key: Array, n: int, num_classes: int) -> tuple[Array, Array]:
    """Draw normal images, cut at +-2, around a mean ~ U(-1, 1); the class is whether they sum to above 0."""
    del num_classes
    mean = jax.random.uniform(jax.random.fold_in(key, 0), (n, 1, 1, 1), minval=-1.0, maxval=1.0)
    images = mean + jax.random.truncated_normal(jax.random.fold_in(key, 1), -2.0, 2.0, (n, 28, 28, 1))
    return images, (images.sum(axis=(1, 2, 3)) > 0).astype(jnp.int32)


GENERATORS: dict[str, Generator] = {
    "random": Generator(draw=_draw_random, name="random", num_classes=10, pool_size=20, classes_alike=True),
    "sum": Generator(draw=_draw_sum, name="sum", num_classes=2),
}

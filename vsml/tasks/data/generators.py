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

    @property
    def always_new(self) -> bool:
        """Whether no example comes twice in an episode."""
        return self.pool_size is None


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


_TABLE_COLUMNS = 16
_CLUSTERS_PER_CLASS = 3


def _draw_table(key: Array, n: int, num_classes: int) -> tuple[Array, Array]:
    """Draw rows of a made-up table: correlated, skewed columns of which some say nothing, standardised.

    A class is three clusters of rows, some more frequent than others, as is one class or another. How far
    clusters are apart, how columns are mixed and how skewed each is are drawn with the table.
    """
    keys = jax.random.split(key, 10)
    clusters, columns = (num_classes, _CLUSTERS_PER_CLASS), _TABLE_COLUMNS
    labels = jax.random.categorical(keys[0], jax.random.normal(keys[1], (num_classes,)) / 2, shape=(n,))
    frequency = jax.random.normal(keys[2], clusters)
    cluster = jax.random.categorical(keys[3], frequency[labels])
    distance = jax.random.uniform(keys[4], minval=0.5, maxval=2.0)
    informative = jax.random.bernoulli(keys[5], 0.7, (columns,))
    centres = distance * informative * jax.random.normal(keys[6], (*clusters, columns))
    rows = centres[labels, cluster] + jax.random.normal(keys[7], (n, columns))
    mixing = jnp.eye(columns) + 0.5 * jax.random.normal(keys[8], (columns, columns)) / columns**0.5
    rows = rows @ mixing
    skew = 0.5 * jax.random.normal(keys[9], (columns,))
    rows = jnp.where(abs(skew) < 0.1, rows, jnp.expm1(skew * rows))
    rows = (rows - rows.mean(0)) / (rows.std(0) + 1e-6)
    return rows[:, None, :, None], labels


GENERATORS: dict[str, Generator] = {
    "random": Generator(draw=_draw_random, name="random", num_classes=10, pool_size=20, classes_alike=True),
    "sum": Generator(draw=_draw_sum, name="sum", num_classes=2),
    "tables": Generator(
        draw=_draw_table,
        name="tables",
        num_classes=10,
        image_shape=(1, _TABLE_COLUMNS, 1),
        classes_alike=True,
    ),
}

"""Few-shot episodes: some classes out of many, some labelled images of each, then queries."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from vsml.tasks import transforms
from vsml.tasks.data.sources import Dataset
from vsml.types import Array

TURNS = 4
"""Quarter turns of an image, each of which makes a class of its own with `rotations`."""

# Purposes: what a key is folded with.
_CLASSES, _IMAGES, _SUPPORT, _QUERIES = range(4)


@struct.dataclass
class FewShot:
    """How N-way K-shot episodes are drawn from the images of a data set; make one with `build_few_shot`.

    An episode of T steps begins with `ways * shots` examples, the support: `shots` of each class, in random
    order. All others are queries, each of a class drawn by itself. No image of a class comes twice.

    Attributes:
        positions: where in the data set the images of each class are, int32 [classes, most], the rest 0.
        counts: how many images each class has, int32 [classes].
        ways: N, classes of an episode; its labels are 0..N-1, in the order in which the classes were drawn.
        shots: K, images of each class in the support.
        rotations: whether classes are drawn out of four times as many: class c + k * classes is class c
            with its images turned by k * 90 degrees, counter-clockwise.
    """

    positions: Array
    counts: Array
    ways: int = struct.field(pytree_node=False)
    shots: int = struct.field(pytree_node=False)
    rotations: bool = struct.field(pytree_node=False)

    def draw(self, key: Array, images: Array, length: int) -> tuple[Array, Array, Array]:
        """Draw the examples of one episode of `length` steps, each of one example.

        Args:
            key: of the draw.
            images: all images of the data set [n, H, W, Ch].
            length: T, more than `ways * shots`.

        Returns:
            Images [T, H, W, Ch], labels int32 [T], and weights float32 [T]: 0 on the support, 1 on queries.
        """
        classes = len(self.counts)
        most = classes * TURNS if self.rotations else classes
        drawn = distinct(jax.random.fold_in(key, _CLASSES), most, self.ways)
        turns, drawn = drawn // classes, drawn % classes
        labels, in_class = self._labels(key, length), self._images(key, drawn, length)
        seen = jnp.cumsum(jax.nn.one_hot(labels, self.ways, dtype=jnp.int32), axis=0)
        nth = seen[jnp.arange(length), labels] - 1  # every example is the next image of its class
        chosen = images[self.positions[drawn[labels], in_class[labels, nth]]]
        if self.rotations:
            chosen = transforms.rotate(chosen, turns[labels])
        weight = jnp.arange(length) >= self.ways * self.shots
        return chosen, labels, weight.astype(jnp.float32)

    def _labels(self, key: Array, length: int) -> Array:
        """Draw the labels [T]: of the support in random order, then of the queries."""
        support = jnp.repeat(jnp.arange(self.ways, dtype=jnp.int32), self.shots)
        queries = length - len(support)
        return jnp.concatenate(
            [
                jax.random.permutation(jax.random.fold_in(key, _SUPPORT), support),
                jax.random.randint(jax.random.fold_in(key, _QUERIES), (queries,), 0, self.ways),
            ]
        )

    def _images(self, key: Array, classes: Array, length: int) -> Array:
        """Draw, for each of the classes, as many of its images as an episode may need: [ways, that many]."""
        needed = self.shots + length - self.ways * self.shots
        key = jax.random.fold_in(key, _IMAGES)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(self.ways))
        return jax.vmap(distinct, (0, 0, None))(keys, self.counts[classes], needed)


def distinct(key: Array, n: Array | int, count: int) -> Array:
    """Draw `count` different numbers out of 0..n-1, in random order, int32 [count].

    Takes time and memory by `count`, not by `n`, which may be traced; `count` must not exceed it.
    """
    places = jnp.arange(count, dtype=jnp.int32)
    ranks = jax.random.randint(key, (count,), 0, n - places)

    def pick(taken: Array, rank: Array) -> tuple[Array, Array]:
        below = (taken - places <= rank).sum(dtype=jnp.int32)  # taken ones before the rank-th that is free
        picked = rank + below
        return jnp.where(places < below, taken, jnp.roll(taken, 1)).at[below].set(picked), picked

    nothing = jnp.full(count, jnp.iinfo(jnp.int32).max)  # `taken` is sorted, with these at its end
    return jax.lax.scan(pick, nothing, ranks)[1]


def build_few_shot(
    dataset: Dataset, index: Sequence[int] | np.ndarray, length: int, ways: int, shots: int, rotations: bool
) -> FewShot:
    """Find the images of each class, and check that there are enough.

    Args:
        dataset: what `sources.load` returns.
        index: positions of the images that may be drawn; classes without any are left out.
        length: T, steps of an episode.
        ways: N, classes of an episode.
        shots: K, images of each class in the support.
        rotations: draw classes out of four times as many, by turning images.

    Raises:
        ValueError: an argument is out of range, or there are not enough classes or images.
    """
    order = np.asarray(index)
    order = order[np.argsort(np.asarray(dataset.labels)[order], kind="stable")]
    classes, counts = np.unique(np.asarray(dataset.labels)[order], return_counts=True)
    height, width, _ = dataset.image_shape
    if rotations and height != width:
        raise ValueError(
            f"few_shot.rotations: got true for images of {height}x{width} ({dataset.name}), expected square "
            "ones"
        )
    most = len(classes) * (TURNS if rotations else 1)
    if not 2 <= ways <= most:
        turned = ", rotated ones included" if rotations else ""
        raise ValueError(
            f"few_shot.ways: got {ways}, expected 2 to {most}, the classes of {dataset.name}{turned}"
        )
    if shots < 1:
        raise ValueError(f"few_shot.shots: got {shots}, expected at least 1")
    queries = length - ways * shots
    if queries < 1:
        raise ValueError(
            f"episode_length: got {length}, expected more than few_shot.ways * shots, {ways * shots}, so "
            "that queries follow the support"
        )
    few = np.flatnonzero(counts < shots + queries)
    if len(few):
        others = f" (and too few of {len(few) - 1} other classes)" if len(few) > 1 else ""
        raise ValueError(
            f"few_shot: got {counts[few[0]]} images of class {classes[few[0]]} of {dataset.name}{others}, "
            f"expected at least {shots + queries}: {shots} for the support, and all {queries} queries may "
            "be of one class; make the episode shorter or leave such classes out (filter_classes)"
        )
    positions = np.zeros((len(classes), counts.max()), np.int32)
    positions[np.arange(counts.max()) < counts[:, None]] = order
    return FewShot(jnp.asarray(positions), jnp.asarray(counts, jnp.int32), ways, shots, rotations)

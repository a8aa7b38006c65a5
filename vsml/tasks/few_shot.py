"""Few-shot episodes: some classes out of many, some labelled images of each, then queries."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from vsml.tasks.data.dataset import Dataset
from vsml.tasks.transforms import rotate
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
        teach_queries: whether a learner is told the labels of queries, too, after it has answered.
        classes_at_once: classes of the support that come together, shuffled, before the next so many do;
            None: all of them.
    """

    positions: Array
    counts: Array
    ways: int = struct.field(pytree_node=False)
    shots: int = struct.field(pytree_node=False)
    rotations: bool = struct.field(pytree_node=False)
    teach_queries: bool = struct.field(pytree_node=False, default=True)
    classes_at_once: int | None = struct.field(pytree_node=False, default=None)

    def draw(
        self,
        key: Array,
        images: Array,
        length: int,
    ) -> tuple[Array, Array, Array]:
        """Draw the examples of one episode of `length` steps, each of one example.

        Args:
            key: of the draw.
            images: all images of the data set [n, H, W, Ch].
            length: T, more than `ways * shots`.

        Returns:
            Images [T, H, W, Ch], labels int32 [T], and weights float32 [T]: 0 on the support, 1 on queries.
        """
        classes = len(self.counts)
        turns_of_a_class = TURNS if self.rotations else 1
        class_key = jax.random.fold_in(key, _CLASSES)
        drawn = distinct(class_key, classes * turns_of_a_class, self.ways)
        turns = drawn // classes
        drawn = drawn % classes
        labels = self._labels(key, length)
        in_class = self._images(key, drawn, length)
        # Every example is the next image of its class.
        steps = jnp.arange(length)
        one_hot = jax.nn.one_hot(labels, self.ways, dtype=jnp.int32)
        seen = jnp.cumsum(one_hot, axis=0)
        nth = seen[steps, labels] - 1
        place = in_class[labels, nth]
        class_of_step = drawn[labels]
        positions = self.positions[class_of_step, place]
        chosen = images[positions]
        if self.rotations:
            chosen = rotate(chosen, turns[labels])
        is_query = steps >= self.ways * self.shots
        return chosen, labels, is_query.astype(jnp.float32)

    def _labels(self, key: Array, length: int) -> Array:
        """Draw the labels [T]: of the support in random order, or group by group, then of the queries."""
        classes = jnp.arange(self.ways, dtype=jnp.int32)
        support = jnp.repeat(classes, self.shots)
        number_of_queries = length - len(support)
        support_key = jax.random.fold_in(key, _SUPPORT)
        query_key = jax.random.fold_in(key, _QUERIES)
        shuffled = jax.random.permutation(support_key, support)
        if self.classes_at_once is not None:
            # The sort is stable: within a group the order stays random.
            shuffled = shuffled[jnp.argsort(shuffled // self.classes_at_once, stable=True)]
        queries = jax.random.randint(query_key, (number_of_queries,), 0, self.ways)
        return jnp.concatenate([shuffled, queries])

    def _images(
        self,
        key: Array,
        classes: Array,
        length: int,
    ) -> Array:
        """Draw, for each of the classes, as many of its images as an episode may need: [ways, that many]."""
        queries = length - self.ways * self.shots
        needed = self.shots + queries
        key = jax.random.fold_in(key, _IMAGES)
        fold_in_each = jax.vmap(jax.random.fold_in, (None, 0))
        keys = fold_in_each(key, jnp.arange(self.ways))
        draw_each = jax.vmap(distinct, (0, 0, None))
        return draw_each(keys, self.counts[classes], needed)


def distinct(
    key: Array,
    n: Array | int,
    count: int,
) -> Array:
    """Draw `count` different numbers out of 0..n-1, in random order, int32 [count].

    Takes time and memory by `count`, not by `n`, which may be traced; `count` must not exceed it.
    """
    places = jnp.arange(count, dtype=jnp.int32)
    ranks = jax.random.randint(key, (count,), 0, n - places)

    def pick(taken: Array, rank: Array) -> tuple[Array, Array]:
        # `taken` is sorted. So many of it come before the rank-th number that is free.
        comes_before = taken - places <= rank
        below = comes_before.sum(dtype=jnp.int32)
        picked = rank + below
        moved_up = jnp.roll(taken, 1)
        with_gap = jnp.where(places < below, taken, moved_up)
        return with_gap.at[below].set(picked), picked

    # Larger than any number, so that what is not taken yet stays at the end.
    largest = jnp.iinfo(jnp.int32).max
    nothing = jnp.full(count, largest)
    _, picked = jax.lax.scan(pick, nothing, ranks)
    return picked


def build_few_shot(
    dataset: Dataset,
    index: Sequence[int] | np.ndarray,
    length: int,
    ways: int,
    shots: int,
    rotations: bool,
    teach_queries: bool = True,
    classes_at_once: int | None = None,
) -> FewShot:
    """Find the images of each class, and check that there are enough.

    Args:
        dataset: what `sources.load` returns.
        index: positions of the images that may be drawn; classes without any are left out.
        length: T, steps of an episode.
        ways: N, classes of an episode.
        shots: K, images of each class in the support.
        rotations: draw classes out of four times as many, by turning images.
        teach_queries: whether a learner is told the labels of queries, too.
        classes_at_once: classes of the support that come before the next ones do; None: all together.

    Raises:
        ValueError: an argument is out of range, or there are not enough classes or images.
    """
    allowed = np.asarray(index)
    labels = np.asarray(dataset.labels)[allowed]
    by_class = np.argsort(labels, kind="stable")
    order = allowed[by_class]
    classes, counts = np.unique(labels, return_counts=True)
    queries = length - ways * shots
    _check_rotations(dataset, rotations)
    _check_ways(dataset, len(classes), ways, rotations)
    if classes_at_once is not None and not 1 <= classes_at_once <= ways:
        raise ValueError(
            f"few_shot.classes_at_once: got {classes_at_once}, expected null or 1 to few_shot.ways, {ways}"
        )
    if shots < 1:
        raise ValueError(f"few_shot.shots: got {shots}, expected at least 1")
    if queries < 1:
        raise ValueError(
            f"episode_length: got {length}, expected more than few_shot.ways * shots, {ways * shots}, so "
            "that queries follow the support"
        )
    _check_counts(dataset, classes, counts, shots, queries)
    most = counts.max()
    positions = np.zeros((len(classes), most), np.int32)
    is_there = np.arange(most) < counts[:, None]
    positions[is_there] = order
    return FewShot(
        positions=jnp.asarray(positions),
        counts=jnp.asarray(counts, jnp.int32),
        ways=ways,
        shots=shots,
        rotations=rotations,
        teach_queries=teach_queries,
        classes_at_once=classes_at_once,
    )


def _check_rotations(dataset: Dataset, rotations: bool) -> None:
    """Raise a ValueError where images are to be turned and are not square."""
    height, width, _ = dataset.image_shape
    if rotations and height != width:
        raise ValueError(
            f"few_shot.rotations: got true for images of {height}x{width} ({dataset.name}), expected square "
            "ones"
        )


def _check_ways(
    dataset: Dataset,
    classes: int,
    ways: int,
    rotations: bool,
) -> None:
    """Raise a ValueError where there are not so many classes."""
    most = classes
    told = f"the classes of {dataset.name}"
    if rotations:
        most *= TURNS
        told += ", rotated ones included"
    if not 2 <= ways <= most:
        raise ValueError(f"few_shot.ways: got {ways}, expected 2 to {most}, {told}")


def _check_counts(
    dataset: Dataset, classes: np.ndarray, counts: np.ndarray, shots: int, queries: int
) -> None:
    """Raise a ValueError where a class has too few images for an episode."""
    needed = shots + queries
    few = np.flatnonzero(counts < needed)
    if not len(few):
        return
    first, *rest = few
    others = f" (and too few of {len(rest)} other classes)" if rest else ""
    raise ValueError(
        f"few_shot: got {counts[first]} images of class {classes[first]} of {dataset.name}{others}, expected "
        f"at least {needed}: {shots} for the support, and all {queries} queries may be of one class; make "
        "the episode shorter or leave such classes out (filter_classes)"
    )

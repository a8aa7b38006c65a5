"""Task distributions: what draws episodes, on the device, from a source and its transforms."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from vsml.tasks.data.sources import Dataset, Generator
from vsml.tasks.few_shot import FewShot, build_few_shot
from vsml.tasks.preprocess import (
    Preprocessing,
    check_few_shot,
    outputs_after,
    read_settings,
    shape_after,
    working_numbers,
)
from vsml.tasks.transforms import Context
from vsml.types import Array, Classes, Episode

# Purposes: what a key is folded with. A draw never shifts another one. Transforms have numbers of their own,
# from 3 on.
_EXAMPLES, _IMAGES, _TASK = range(3)


@struct.dataclass
class TaskDistribution:
    """A distribution of episodes; make one with `build_task`.

    A pytree whose leaves are the data, so pass it to jit-ed functions as an argument.

    Attributes:
        source: the data set or generator.
        index: positions in the source that may be drawn, int32 [n].
        class_map: new label of each class of the source, -1 for those left out, int32 [classes].
        task_key: what the `num_tasks` draws of projections and permutations come from.
        few_shot: draws the examples of few-shot episodes; None in other tasks.
        real_classes: how many different labels there are; `num_classes` counts padded ones too.
        preprocessing: the transforms that are on, in the order in which they act.
    """

    source: Dataset | Generator
    index: Array
    class_map: Array
    task_key: Array
    few_shot: FewShot | None
    name: str = struct.field(pytree_node=False)
    episode_length: int = struct.field(pytree_node=False)
    batch_size: int = struct.field(pytree_node=False)
    real_classes: int = struct.field(pytree_node=False)
    input_shape: tuple[int, ...] = struct.field(pytree_node=False)
    num_classes: int = struct.field(pytree_node=False)
    preprocessing: Preprocessing = struct.field(pytree_node=False)
    num_tasks: int | None = struct.field(pytree_node=False)
    replacement: bool = struct.field(pytree_node=False)

    @property
    def working_numbers(self) -> int:
        """How many numbers its transforms hold beside the examples, at most."""
        return working_numbers(self.source.image_shape, self.preprocessing)

    @property
    def repeats_after(self) -> int | None:
        """After how many examples of an episode images come again; None: at random, or never."""
        always_new = isinstance(self.source, Generator) and self.source.always_new
        return None if self.replacement or self.few_shot is not None or always_new else self.index.size

    def sample(self, key: Array) -> Episode:
        """Draw one episode; pure, to be batched with `vmap` or `lax.map`.

        Draws depend on the key and their purpose alone: a transform that is turned on changes neither which
        examples are drawn nor the other transforms' draws.

        Returns:
            x float32 [T, B, *input_shape], labels int32 [T, B], weight [T, B]: 1 everywhere, but 0 on the
            support of a few-shot episode.
        """
        shape = (self.episode_length, self.batch_size)
        images, labels, weight = self._examples(key)
        x, labels = self._transform(self._task_key(key), images, labels)
        return Episode(
            x=x.reshape(*shape, *self.input_shape), y=labels.reshape(shape), weight=weight.reshape(shape)
        )

    def _examples(self, key: Array) -> tuple[Array, Array, Array]:
        """Return the images, labels and weights of an episode, T times B of each."""
        count = self.episode_length * self.batch_size
        examples_key = jax.random.fold_in(key, _EXAMPLES)
        if isinstance(self.source, Dataset):
            images, labels = self.source.images, self.source.labels
            if self.few_shot is not None:
                return self.few_shot.draw(examples_key, images, count)
        else:
            draw_key = jax.random.fold_in(key, _IMAGES)
            images, labels = self.source.draw(draw_key, self.index.size, self.real_classes)
        chosen = self.index[_draw_order(examples_key, self.index.size, count, self.replacement)]
        return images[chosen], self.class_map[labels[chosen]], jnp.ones(count)

    def _task_key(self, key: Array) -> Array:
        """Return the key of the episode's projection and permutations."""
        if self.num_tasks is None:
            return key
        task = jax.random.randint(jax.random.fold_in(key, _TASK), (), 0, self.num_tasks)
        return jax.random.fold_in(self.task_key, task)

    def _transform(self, key: Array, images: Array, labels: Array) -> tuple[Array, Array]:
        """Return the images and labels of an episode after all transforms."""
        source = self.source
        x = images.astype(jnp.float32) / source.scale
        for each in self.preprocessing:
            context = Context(
                key=jax.random.fold_in(key, each.transform.number),
                outputs=Classes(self.real_classes),
                mean=source.mean,
                std=source.std,
                y_mean=(0.0,),
                y_std=(1.0,),
                episode_length=self.episode_length,
                batch_size=self.batch_size,
            )
            x, labels = each.transform.act(x, labels, each.setting, context)
        return x, labels


def build_task(
    dataset: Dataset | Generator,
    episode_length: int,
    batch_size: int = 1,
    *,
    filter_classes: Sequence[int] | None = None,
    pad_input: Sequence[int] | None = None,
    pad_output: int | None = None,
    num_tasks: int | None = None,
    task_seed: int = 0,
    replacement: bool = True,
    ways: int | None = None,
    shots: int = 1,
    rotations: bool = False,
    name: str | None = None,
    **preprocess: Any,
) -> TaskDistribution:
    """Build the distribution of episodes of one task.

    Transforms are applied in this order: choose classes, rotate, scale to [0, 1], resize, standardise, pad,
    then shuffle or project, permute the labels and relabel. Padded classes are never a label.

    Args:
        dataset: what `sources.load` returns.
        episode_length: T, examples in a row.
        batch_size: B, examples at once.
        filter_classes: the classes that are used, in the order of their new labels 0, 1, ...; None uses all.
        pad_input: height, width and channels to pad inputs to with zeros; short for `pad={"input": ...}`.
        pad_output: number of classes, the real ones first; short for `pad={"output": ...}`.
        num_tasks: draw projection and permutations from a fixed set of so many; None has no limit.
        task_seed: what that fixed set is drawn from.
        replacement: draw examples with replacement; else shuffle all of them, and again once all were seen.
        ways: N, for few-shot episodes: so many classes are drawn per episode, out of all or of
            `filter_classes`, and labelled anew 0..N-1; `replacement` has no say in them, as no image of
            a class comes twice. None draws from all classes throughout.
        shots: K, how many labelled images of each come first (see `few_shot.FewShot`).
        rotations: draw them out of four times as many classes, by turning images.
        name: what the task is called; the data set's name by default.
        **preprocess: settings of transforms by name, as below `data.preprocess` in a configuration:
            normalize (True if not given), resize, rand_proj, shuffle, permute_labels, relabel, pad, and those
            that were added; `extra` maps names of transforms from elsewhere to theirs.

    Raises:
        ValueError: an argument is out of range or does not fit the data set.
    """
    padding = {"input": pad_input, "output": pad_output}
    given = {key: size for key, size in padding.items() if size is not None}
    if given:
        preprocess = {**preprocess, "pad": {**preprocess.get("pad", {}), **given}}
    preprocessing = read_settings(preprocess)
    for what, value in (
        ("episode_length", episode_length),
        ("batch_size", batch_size),
        ("num_tasks", num_tasks),
    ):
        if value is not None and value < 1:
            raise ValueError(f"{what}: got {value}, expected at least 1")
    index, class_map, real_classes = _choose_classes(dataset, filter_classes, episode_length * batch_size)
    few_shot = None
    if ways is not None:
        if isinstance(dataset, Generator):
            raise ValueError(
                f"few_shot: got {dataset.name}, expected a data set that has images of each class; this "
                "one is drawn anew for every episode"
            )
        if batch_size > 1:
            raise ValueError(
                f"batch_size: got {batch_size}, expected 1 with few_shot: several images at once would be "
                "answered before any of them is learned from"
            )
        check_few_shot(preprocessing)
        few_shot = build_few_shot(dataset, index, episode_length, ways, shots, rotations)
        real_classes = ways
    source = f"{real_classes} classes of {dataset.name}" if ways is None else f"{ways} of few_shot.ways"
    outputs = outputs_after(Classes(real_classes), preprocessing, f"the {source}")
    always_new = isinstance(dataset, Generator) and dataset.always_new
    return TaskDistribution(
        source=dataset,
        index=jnp.asarray(index, jnp.int32),
        class_map=jnp.asarray(class_map, jnp.int32),
        task_key=jax.random.key(task_seed),
        few_shot=few_shot,
        name=dataset.name if name is None else name,
        episode_length=episode_length,
        batch_size=batch_size,
        real_classes=real_classes,
        input_shape=shape_after(dataset.image_shape, preprocessing),
        num_classes=outputs.size,
        preprocessing=preprocessing,
        num_tasks=num_tasks,
        replacement=replacement and not always_new,
    )


def _choose_classes(
    source: Dataset | Generator, classes: Sequence[int] | None, count: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return the positions that may be drawn, the new label of each old one, and the number of new labels."""
    if classes is not None:
        wrong = [c for c in classes if not 0 <= c < source.num_classes]
        if wrong or not classes or len(set(classes)) < len(classes):
            raise ValueError(
                f"filter_classes: got {list(classes)}, expected different classes out of "
                f"0..{source.num_classes - 1} of {source.name}"
            )
    chosen = np.arange(source.num_classes) if classes is None else np.asarray(classes)
    if isinstance(source, Generator):
        if len(chosen) < source.num_classes and not source.classes_alike:
            raise ValueError(
                f"filter_classes: got {chosen.tolist()}, expected null: {source.name} draws all classes"
            )
        return np.arange(source.pool_size or count), np.argsort(chosen), len(chosen)
    labels = np.asarray(source.labels)
    class_map = np.full(source.num_classes, -1)
    class_map[chosen] = np.arange(len(chosen))
    empty = sorted(set(classes or ()) - set(labels.tolist()))
    if empty:
        raise ValueError(
            f"filter_classes: got {chosen.tolist()}, but {source.name} has no examples of {empty}"
        )
    return np.flatnonzero(class_map[labels] >= 0), class_map, len(chosen)


def _draw_order(key: Array, n: int, count: int, replacement: bool) -> Array:
    """Draw `count` positions out of n: independently, or as one shuffle of all n after the other."""
    if replacement:
        return jax.random.randint(key, (count,), 0, n)
    shuffles = jnp.arange(math.ceil(count / n))
    orders = jax.vmap(lambda i: jax.random.permutation(jax.random.fold_in(key, i), n))(shuffles)
    return orders.reshape(-1)[:count]

"""Task distributions: what draws episodes, on the device, from a source and its transforms."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from vsml.tasks.data.dataset import Dataset, check_examples, describe
from vsml.tasks.data.generator import Generator, Source
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
from vsml.types import Array, Classes, Episode, Outputs, Values

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
        class_map: new label of each class of the source, -1 for those left out, int32 [classes]; None where
            targets are values.
        task_key: what the `num_tasks` draws of projections and permutations come from.
        few_shot: draws the examples of few-shot episodes; None in other tasks.
        targets: what targets are: classes, padded ones not counted, or values.
        outputs: what a learner answers with: the same, padded classes counted.
        preprocessing: the transforms that are on, in the order in which they act.
    """

    source: Source
    index: Array
    class_map: Array | None
    task_key: Array
    few_shot: FewShot | None
    name: str = struct.field(pytree_node=False)
    episode_length: int = struct.field(pytree_node=False)
    batch_size: int = struct.field(pytree_node=False)
    targets: Outputs = struct.field(pytree_node=False)
    outputs: Outputs = struct.field(pytree_node=False)
    input_shape: tuple[int, ...] = struct.field(pytree_node=False)
    preprocessing: Preprocessing = struct.field(pytree_node=False)
    num_tasks: int | None = struct.field(pytree_node=False)
    replacement: bool = struct.field(pytree_node=False)

    @property
    def num_classes(self) -> int:
        """How many outputs a learner has: classes, padded ones included, or values."""
        return self.outputs.size

    @property
    def real_classes(self) -> int:
        """How many different labels there are; of values, how many a target has."""
        return self.targets.size

    @property
    def chance(self) -> float | None:
        """The accuracy of guessing among the labels that there are; None where targets are values."""
        if isinstance(self.targets, Values):
            return None
        return 1 / self.targets.size

    def is_on(self, transform: str) -> bool:
        """Return whether a transform is on, by its name."""
        return any(each.transform.name == transform for each in self.preprocessing)

    @property
    def working_numbers(self) -> int:
        """How many numbers its transforms hold beside the examples, at most."""
        return working_numbers(self.source.image_shape, self.preprocessing)

    @property
    def repeats_after(self) -> int | None:
        """After how many examples of an episode images come again; None: at random, or never."""
        always_new = isinstance(self.source, Generator) and self.source.always_new
        if self.replacement or self.few_shot is not None or always_new:
            return None
        return self.index.size

    def sample(self, key: Array) -> Episode:
        """Draw one episode; pure, to be batched with `vmap` or `lax.map`.

        Draws depend on the key and their purpose alone: a transform that is turned on changes neither which
        examples are drawn nor the other transforms' draws.

        Returns:
            x float32 [T, B, *input_shape]; y, of classes int32 [T, B], of values float32 [T, B, D]; weight
            [T, B]: 1 everywhere, but 0 on the support of a few-shot episode; taught [T, B]: None, but 0 on
            queries that a few-shot episode does not teach.
        """
        images, targets, weight = self._examples(key)
        task_key = self._task_key(key)
        x, y = self._transform(task_key, images, targets)
        taught = None
        if self.few_shot is not None and not self.few_shot.teach_queries:
            taught = self._steps(1 - weight)
        return Episode(
            x=self._steps(x),
            y=self._steps(y),
            weight=self._steps(weight),
            taught=taught,
        )

    def _steps(self, array: Array) -> Array:
        """Return an array of all examples [T * B, ...] as [T, B, ...]."""
        return array.reshape(self.episode_length, self.batch_size, *array.shape[1:])

    def _examples(self, key: Array) -> tuple[Array, Array, Array]:
        """Return the images, targets and weights of an episode, T times B of each."""
        count = self.episode_length * self.batch_size
        number = self.index.size
        examples_key = jax.random.fold_in(key, _EXAMPLES)
        if isinstance(self.source, Dataset):
            images = self.source.images
            targets = self.source.labels
            if self.few_shot is not None:
                return self.few_shot.draw(examples_key, images, count)
        else:
            draw_key = jax.random.fold_in(key, _IMAGES)
            images, targets = self.source.draw(draw_key, number, self.targets.size)
        order = _draw_order(examples_key, number, count, self.replacement)
        chosen = self.index[order]
        chosen_targets = targets[chosen]
        if self.class_map is not None:
            chosen_targets = self.class_map[chosen_targets]
        return images[chosen], chosen_targets, jnp.ones(count)

    def _task_key(self, key: Array) -> Array:
        """Return the key of the episode's projection and permutations."""
        if self.num_tasks is None:
            return key
        number_key = jax.random.fold_in(key, _TASK)
        number = jax.random.randint(number_key, (), 0, self.num_tasks)
        return jax.random.fold_in(self.task_key, number)

    def _transform(
        self,
        key: Array,
        images: Array,
        y: Array,
    ) -> tuple[Array, Array]:
        """Return the inputs and targets of an episode, after all transforms."""
        source = self.source
        x = images.astype(jnp.float32) / source.scale
        if isinstance(source, Dataset) and source.column_std is not None and self.is_on("normalize"):
            # Before all transforms: they may change which column is where. The mean is 0 and the deviation 1
            # for `normalize`, then.
            column_mean = jnp.asarray(source.column_mean)[:, None]
            column_std = jnp.asarray(source.column_std)[:, None]
            x = (x - column_mean) / column_std
        for each in self.preprocessing:
            transform = each.transform
            context = Context(
                key=jax.random.fold_in(key, transform.number),
                outputs=self.targets,
                mean=source.mean,
                std=source.std,
                y_mean=source.y_mean,
                y_std=source.y_std,
                episode_length=self.episode_length,
                batch_size=self.batch_size,
            )
            x, y = transform.act(x, y, each.setting, context)
        return x, y


def build_task(
    dataset: Source,
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
    teach_queries: bool = True,
    classes_at_once: int | None = None,
    name: str | None = None,
    **preprocess: Any,
) -> TaskDistribution:
    """Build the distribution of episodes of one task.

    Transforms act in this order: choose classes, rotate, scale to [0, 1], resize, standardise, pad, then
    shuffle or project, permute the labels and relabel. Padded classes are never a label.

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
        teach_queries: whether a learner is told the labels of queries, too, after it has answered.
        classes_at_once: classes of the support that come before the next ones do; None: all together.
        name: what the task is called; the data set's name by default.
        **preprocess: settings of transforms by name, as below `data.preprocess` in a configuration:
            normalize (True if not given), resize, rand_proj, shuffle, permute_labels, relabel, pad, and those
            that were added; `extra` maps names of transforms from elsewhere to theirs.

    Raises:
        ValueError: an argument is out of range or does not fit the data set.
    """
    settings = dict(preprocess)
    padding = dict(settings.get("pad", {}))
    if pad_input is not None:
        padding["input"] = pad_input
    if pad_output is not None:
        padding["output"] = pad_output
    if padding:
        settings["pad"] = padding
    preprocessing = read_settings(settings)
    _check_positive("episode_length", episode_length)
    _check_positive("batch_size", batch_size)
    _check_positive("num_tasks", num_tasks)
    choice = _choose_classes(dataset, filter_classes, episode_length * batch_size)
    targets = choice.targets
    source_words = _describe_targets(dataset, targets)
    few_shot = None
    if ways is not None:
        _check_few_shot_source(dataset, batch_size)
        check_few_shot(preprocessing)
        assert isinstance(dataset, Dataset)  # as was checked
        few_shot = build_few_shot(
            dataset,
            choice.index,
            episode_length,
            ways,
            shots,
            rotations,
            teach_queries,
            classes_at_once,
        )
        targets = Classes(ways)
        source_words = f"the {ways} of few_shot.ways"
    always_new = isinstance(dataset, Generator) and dataset.always_new
    class_map = choice.class_map
    return TaskDistribution(
        source=dataset,
        index=jnp.asarray(choice.index, jnp.int32),
        class_map=None if class_map is None else jnp.asarray(class_map, jnp.int32),
        task_key=jax.random.key(task_seed),
        few_shot=few_shot,
        name=dataset.name if name is None else name,
        episode_length=episode_length,
        batch_size=batch_size,
        targets=targets,
        outputs=outputs_after(targets, preprocessing, source_words),
        input_shape=shape_after(dataset.image_shape, preprocessing),
        preprocessing=preprocessing,
        num_tasks=num_tasks,
        replacement=replacement and not always_new,
    )


def _check_positive(what: str, value: int | None) -> None:
    """Raise a ValueError where a number is there and is below 1."""
    if value is not None and value < 1:
        raise ValueError(f"{what}: got {value}, expected at least 1")


def _check_few_shot_source(dataset: Source, batch_size: int) -> None:
    """Raise a ValueError where few-shot episodes cannot be drawn."""
    if isinstance(dataset, Generator):
        raise ValueError(
            f"few_shot: got {dataset.name}, expected a data set that has images of each class; this one is "
            "drawn anew for every episode"
        )
    if isinstance(dataset.outputs, Values):
        raise ValueError(f"few_shot: got {dataset.name}, whose targets are values, expected one of classes")
    if batch_size > 1:
        raise ValueError(
            f"batch_size: got {batch_size}, expected 1 with few_shot: several images at once would be "
            "answered before any of them is learned from"
        )


def _describe_targets(dataset: Source, targets: Outputs) -> str:
    """Say for messages whose targets these are."""
    kind = "values" if isinstance(targets, Values) else "classes"
    return f"the {targets.size} {kind} of {dataset.name}"


@struct.dataclass
class _Choice:
    """Which examples of a source may be drawn.

    Attributes:
        index: their positions, int [n].
        class_map: the new label of each class, -1 for those left out, int [classes]; None for values.
        targets: what targets are.
    """

    index: np.ndarray
    class_map: np.ndarray | None
    targets: Outputs


def _choose_classes(
    source: Source,
    classes: Sequence[int] | None,
    count: int,
) -> _Choice:
    """Return which examples may be drawn; of a generator, how many `count` examples need."""
    if isinstance(source.outputs, Values):
        return _choose_values(source, classes, count)
    _check_classes(source, classes)
    every_class = range(source.num_classes)
    chosen = np.asarray(every_class if classes is None else classes)
    targets = Classes(len(chosen))
    if isinstance(source, Generator):
        if len(chosen) < source.num_classes and not source.classes_alike:
            raise ValueError(
                f"filter_classes: got {chosen.tolist()}, expected null: {source.name} draws all classes"
            )
        index = np.arange(source.pool_size or count)
        class_map = np.argsort(chosen)
        return _Choice(index, class_map, targets)
    labels = np.asarray(source.labels)
    check_examples(labels, labels, source.num_classes, source.name)
    class_map = np.full(source.num_classes, -1)
    class_map[chosen] = np.arange(len(chosen))
    empty = sorted(set(classes or ()) - set(labels.tolist()))
    if empty:
        raise ValueError(
            f"filter_classes: got {chosen.tolist()}, but {source.name} has no examples of {empty}"
        )
    index = np.flatnonzero(class_map[labels] >= 0)
    return _Choice(index, class_map, targets)


def _choose_values(
    source: Source,
    classes: Sequence[int] | None,
    count: int,
) -> _Choice:
    """Return which examples may be drawn where targets are values: all."""
    if classes is not None:
        got = list(classes)
        raise ValueError(f"filter_classes: got {got}, expected null: the targets of {source.name} are values")
    number = count
    if isinstance(source, Dataset):
        number = len(source.labels)
    elif source.pool_size is not None:
        number = source.pool_size
    return _Choice(np.arange(number), None, source.outputs)


def _check_classes(source: Source, classes: Sequence[int] | None) -> None:
    """Raise a ValueError where these are no different classes of the source."""
    if classes is None:
        return
    wrong = [c for c in classes if not 0 <= c < source.num_classes]
    repeated = len(set(classes)) < len(classes)
    if wrong or repeated or not classes:
        told = ""
        if isinstance(source, Dataset):
            told = "".join(f"; {words}" for words in describe(source))
        raise ValueError(
            f"filter_classes: got {list(classes)}, expected different classes out of "
            f"0..{source.num_classes - 1} of {source.name}{told}"
        )


def _draw_order(
    key: Array,
    n: int,
    count: int,
    replacement: bool,
) -> Array:
    """Draw `count` positions out of n: independently, or as one shuffle of all n after the other."""
    if replacement:
        return jax.random.randint(key, (count,), 0, n)

    def shuffled(number: Array) -> Array:
        shuffle_key = jax.random.fold_in(key, number)
        return jax.random.permutation(shuffle_key, n)

    shuffles = jnp.arange(math.ceil(count / n))
    orders = jax.vmap(shuffled)(shuffles)
    return orders.reshape(-1)[:count]

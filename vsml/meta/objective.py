"""What the outer loop minimises: the loss of a learner over an episode, for many units at once.

A unit is what shares one episode: an antithetic pair of members in evolution, one episode in
back-propagation. All that is random in a unit follows from a key and the unit's number, so it does not matter
who evaluates it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vsml.learners import Learner, continue_episode, run_episode
from vsml.losses import cross_entropy, right_answers
from vsml.tasks import TaskDistribution
from vsml.types import Array, Episode, EpisodeResult, Params

LossType = Literal["mean", "last"]
T = TypeVar("T")

UNITS_PER_DEVICE = 8
"""Units that a CPU core takes before gradients are added up: few to hold, enough to make waits rare."""

BACKPROPAGATION_BYTES = 256 * 2**20
"""States of one episode that may be kept for back-propagation; longer episodes are recomputed in segments."""


@dataclass(frozen=True, eq=False)
class Group:
    """Units whose episodes have the same shapes, so that one compiled function serves them.

    Attributes:
        learner: built for these shapes.
        tasks: the task distributions that occur.
        units: numbers of the units, int32 [n].
        options: which of `tasks` each unit takes, int32 [n].
    """

    learner: Learner
    tasks: tuple[TaskDistribution, ...]
    units: np.ndarray
    options: np.ndarray


def group_units(
    tasks: Sequence[TaskDistribution], units: int, make_learner: Callable[[tuple[int, ...], int], Learner]
) -> list[Group]:
    """Group the units of a meta step by the shapes of their episodes.

    Args:
        tasks: the mixture: unit i takes `tasks[i % len(tasks)]`.
        units: how many units there are.
        make_learner: from input shape and number of classes to a learner.

    Raises:
        ValueError: the learners of two shapes do not share meta-parameters.
    """
    by_shape: dict[tuple, list[int]] = {}
    for number in range(min(units, len(tasks))):
        task = tasks[number]
        by_shape.setdefault((task.input_shape, task.num_classes, task.episode_length), []).append(number)
    groups = []
    for (input_shape, num_classes, _), members in by_shape.items():
        distinct = list({id(tasks[number]): tasks[number] for number in members}.values())
        option = {id(task): index for index, task in enumerate(distinct)}
        numbers = [i for i in range(units) if i % len(tasks) in members]
        groups.append(
            Group(
                learner=make_learner(input_shape, num_classes),
                tasks=tuple(distinct),
                units=np.array(numbers, np.int32),
                options=np.array([option[id(tasks[i % len(tasks)])] for i in numbers], np.int32),
            )
        )
    shapes = [params_shapes(group.learner) for group in groups]
    for group, shape in zip(groups, shapes, strict=True):
        if shape != shapes[0]:
            one, other = groups[0].learner, group.learner
            raise ValueError(
                "the meta-parameters of this learner depend on the task: inputs "
                f"{one.input_shape} with {one.num_classes} classes need others than inputs "
                f"{other.input_shape} with {other.num_classes}; pad both to one shape "
                "(data.preprocess.pad, configs/pad.yaml)"
            )
    return groups


def params_shapes(learner: Learner) -> Any:
    """Return the meta-parameters' tree with shapes and dtypes in place of arrays."""
    return jax.eval_shape(learner.init_params, jax.random.key(0))


def state_bytes(learner: Learner, batch_size: int) -> int:
    """Return the size of a learner's inner state, in bytes."""
    key = jax.random.key(0)
    state = jax.eval_shape(lambda: learner.init_state(learner.init_params(key), key, batch_size))
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))


@dataclass(frozen=True, eq=False)
class Chunk:
    """Units that are evaluated in one call: a part of a group, filled up to a fixed size.

    Attributes:
        group: where the units are from.
        units: their numbers, int32 [chunk_size]; the last may be fillers, which are ignored.
        options: which of the group's tasks each takes, int32 [chunk_size].
        count: how many are real.
    """

    group: Group
    units: np.ndarray
    options: np.ndarray
    count: int


def chunks_of(groups: Sequence[Group], chunk_size: int) -> list[Chunk]:
    """Cut each group into chunks of `chunk_size` units, the last of a group filled with ignored ones."""
    chunks = []
    for group in groups:
        for start in range(0, len(group.units), chunk_size):
            units = group.units[start : start + chunk_size]
            fill = (0, chunk_size - len(units))
            options = group.options[start : start + chunk_size]
            chunks.append(
                Chunk(group, np.pad(units, fill, mode="edge"), np.pad(options, fill, mode="edge"), len(units))
            )
    return chunks


@dataclass(frozen=True, eq=False)
class Results:
    """What the units of one meta step came to, in the order of their numbers, the same on every rank.

    Attributes:
        loss: in nats, float32 [units, members of a unit].
        accuracy: likewise.
        gradient: sum of the units' gradients, flat [D], added up as `tree_sum` does, group by group; empty
            where the optimizer needs none.
    """

    loss: np.ndarray
    accuracy: np.ndarray
    gradient: np.ndarray


class MetaOptimizer(Protocol):
    """Finds meta-parameters from what members score. Its state is a pytree, the same on every rank."""

    unit_members: int
    """Members in a unit."""

    def init(self, key: Array, params: Params) -> Any:
        """Start from the given meta-parameters."""

    def params(self, state: Any) -> Params:
        """Return the meta-parameters found so far."""

    def ask(self, state: Any) -> tuple[Any, Any]:
        """Return the state to tell the results to, and the members to evaluate, or what they follow from."""

    def evaluate(self, members: Any, chunk: Chunk, key: Array) -> tuple[Array, Array, Array]:
        """Evaluate the units of a chunk.

        Returns:
            Loss and accuracy [chunk_size, unit_members], and the sum of the gradients, flat (or empty).
        """

    def tell(self, state: Any, members: Any, results: Results) -> tuple[Any, dict[str, Any]]:
        """Improve the meta-parameters, and wait for nothing.

        Args:
            state: from `ask`.
            members: from `ask`.
            results: of all units.

        Returns:
            The new state, and metrics: numbers, or arrays of one number that may still be computed.
        """


def summarise(results: Results) -> dict[str, float]:
    """Return the mean of the finite losses and of their accuracies, and how many losses are not finite."""
    finite = np.isfinite(results.loss)
    return {
        "meta_loss": float(results.loss[finite].mean()) if finite.any() else math.nan,
        "accuracy": float(results.accuracy[finite].mean()) if finite.any() else math.nan,
        "nonfinite": int((~finite).sum()),
    }


def meta_adam(
    learning_rate: optax.ScalarOrSchedule, clip_gradnorm: float | None = None
) -> optax.GradientTransformation:
    """Adam as the outer loop uses it: the norm of the gradient is noted, then clipped to `clip_gradnorm`."""
    clip = optax.identity() if clip_gradnorm is None else optax.clip_by_global_norm(clip_gradnorm)
    return optax.chain(
        optax.snapshot("grad_norm", optax.tree.norm),
        clip,
        optax.adam(learning_rate),
    )


def measurements(state: Any) -> dict[str, Array]:
    """Return what `meta_adam` noted, given a pytree with its state; nothing for another optimizer."""
    norm = optax.tree_utils.tree_get(state, "grad_norm", default=None)
    return {} if norm is None else {"grad_norm": norm}


def descend(
    optimizer: optax.GradientTransformation, params: Params, state: optax.OptState, gradient: Array
) -> tuple[Params, optax.OptState, dict[str, Array]]:
    """Take one step of an optax optimizer along a flat gradient [D].

    Returns:
        The new meta-parameters, the new state of the optimizer, and its `measurements`.
    """
    updates, state = optimizer.update(ravel_pytree(params)[1](gradient), state, params)
    return optax.apply_updates(params, updates), state, measurements(state)


def episode_result(logits: Array, episode: Episode, loss_type: LossType) -> EpisodeResult:
    """Judge the answers to an episode.

    Args:
        logits: [T, B, C].
        episode: with labels and weights [T, B].
        loss_type: "mean" of the loss over all steps, or that of the "last" step.
    """
    weight = episode.weight
    if loss_type == "last":
        weight = weight.at[:-1].set(0.0)
    weight = weight / weight.sum()
    correct = right_answers(logits, episode.y)
    return EpisodeResult(
        loss=(cross_entropy(logits, episode.y) * weight).sum(), accuracy=(correct * weight).sum()
    )


def sample_unit(
    tasks: tuple[TaskDistribution, ...], option: Array | int, key: Array, unit: Array
) -> tuple[Episode, Array]:
    """Return the episode of a unit and the key of its initial state.

    Args:
        tasks: task distributions with the same shapes.
        option: which of them, int [].
        key: of the meta step.
        unit: number of the unit, int [].
    """
    episode_key, state_key = jax.random.split(jax.random.fold_in(key, unit))
    if len(tasks) == 1:
        return tasks[0].sample(episode_key), state_key
    return jax.lax.switch(option, [task.sample for task in tasks], episode_key), state_key


def unit_result(
    learner: Learner,
    loss_type: LossType,
    params: Params,
    episode: Episode,
    key: Array,
    segments: int = 1,
    truncation_length: int | None = None,
) -> EpisodeResult:
    """Run one member over an episode and judge it.

    Args:
        learner: the learning algorithm.
        loss_type: what of an episode is minimised.
        params: its meta-parameters.
        episode: the stream of examples.
        key: for the initial state.
        segments: see `run_episode`; of the part that is judged.
        truncation_length: judge only this many steps, the last of the episode, and let no gradient flow
            into those before. None judges all.
    """
    before = len(episode.y) - (truncation_length or len(episode.y))
    if before <= 0:
        return episode_result(run_episode(learner, params, key, episode, segments), episode, loss_type)
    first, last = jax.tree.map(lambda a: a[:before], episode), jax.tree.map(lambda a: a[before:], episode)
    fixed = jax.lax.stop_gradient(params)
    state = learner.init_state(fixed, key, episode.y.shape[1])
    state = jax.lax.stop_gradient(continue_episode(learner, fixed, state, first)[0])
    return episode_result(continue_episode(learner, params, state, last, segments)[1], last, loss_type)


def segments_of(learner: Learner, length: int, batch_size: int) -> int:
    """Return into how many segments that many steps are cut for back-propagation (see `run_episode`)."""
    kept = length * state_bytes(learner, batch_size)
    return 1 if kept <= BACKPROPAGATION_BYTES else math.ceil(math.sqrt(length))


def kept_states(episode_length: int, segments: int) -> int:
    """Return how many states back-propagation through an episode keeps (see `run_episode`)."""
    return math.ceil(episode_length / segments) + (segments if segments > 1 else 0)


def _mesh() -> Mesh:
    return Mesh(np.array(jax.local_devices()), ("units",))


def replicate(tree: Any) -> Any:
    """Put arrays on every device of this process once, instead of at every call of `map_units`."""
    return jax.device_put(tree, NamedSharding(_mesh(), PartitionSpec()))


def map_units(function: Callable[..., T], units: Any, shared: Any = ()) -> T:
    """Apply a function to each unit, spread over the devices of this process.

    On a CPU, a device takes its units one after the other: the states of one unit stay in its cache. On an
    accelerator it takes them side by side.

    Args:
        function: `(unit, shared) -> result`.
        units: pytree of arrays with a leading axis of units.
        shared: pytree of arrays that all units share.

    Returns:
        The results, with a leading axis of units.
    """
    devices = jax.local_devices()
    count = len(jax.tree.leaves(units)[0])
    fill = -count % len(devices)
    filled = jax.tree.map(lambda a: jnp.concatenate([a, a[:1].repeat(fill, 0)]) if fill else a, units)

    def on_one_device(units: Any, shared: Any) -> T:
        if devices[0].platform == "cpu":
            return jax.lax.map(lambda unit: function(unit, shared), units)
        return jax.vmap(lambda unit: function(unit, shared))(units)

    mesh = _mesh()
    on_all = jax.shard_map(
        on_one_device,
        mesh=mesh,
        in_specs=(PartitionSpec("units"), PartitionSpec()),
        out_specs=PartitionSpec("units"),
        check_vma=False,  # function need not know that it runs on several devices
    )
    results = jax.tree.map(lambda a: a[:count], on_all(filled, shared))
    # On every device, else a sum over units would be one of partial sums and depend on their number.
    return jax.lax.with_sharding_constraint(results, NamedSharding(mesh, PartitionSpec()))


def sum_units(
    function: Callable[..., tuple[T, Array]], units: Any, count: Array | int, shared: Any = ()
) -> tuple[T, Array]:
    """Apply a function to each unit as `map_units` does, and add up the vectors that it returns last.

    They are added as `tree_sum` adds the whole of them, so the sum of a chunk of 2^k units is a node of the
    tree over its group, and bits depend neither on the number of devices nor on which 2^k is taken. On a CPU
    no more than `UNITS_PER_DEVICE` vectors a device (rounded up to a power of two) and one for each level of
    the tree are there at a time, whatever the number of units.

    Args:
        function: `(unit, shared) -> (result, vector)`, the vector float32 [D].
        units: pytree of arrays with a leading axis of units.
        count: how many are real; the others come last, and their vectors do not count.
        shared: pytree of arrays that all units share.

    Returns:
        The results, with a leading axis of units, and the sum [D].
    """
    devices = jax.local_devices()
    size = len(jax.tree.leaves(units)[0])
    streamed = devices[0].platform == "cpu"
    block = min(size, power_of_two(UNITS_PER_DEVICE * len(devices))) if streamed else size
    blocks = math.ceil(size / block)
    fill = blocks * block - size
    filled = jax.tree.map(lambda a: jnp.concatenate([a, a[:1].repeat(fill, 0)]) if fill else a, units)
    split = jax.tree.map(lambda a: a.reshape(blocks, block, *a.shape[1:]), filled)
    real = jnp.arange(blocks * block).reshape(blocks, block) < count

    def sum_of_block(units: Any, real: Array) -> tuple[T, Array]:
        # The barrier: a product fused with the sum behind it would be rounded once instead of twice.
        results, vectors = jax.lax.optimization_barrier(map_units(function, units, shared))
        return results, tree_sum(jnp.where(real[:, None], vectors, 0.0))

    if blocks == 1:
        results, total = sum_of_block(jax.tree.map(lambda a: a[0], split), real[0])
        return jax.tree.map(lambda a: a[:size], results), total

    def add(nodes: Array, block: tuple[Array, Any, Array]) -> tuple[Array, T]:
        """Count up in binary: where a digit is 1, its node and what is carried become one a level higher."""
        number, units, real = block
        results, total = sum_of_block(units, real)
        level, total = jax.lax.while_loop(
            lambda carried: (number >> carried[0]) & 1 == 1,
            lambda carried: (carried[0] + 1, nodes[carried[0]] + carried[1]),
            (0, total),
        )
        return nodes.at[level].set(total), results

    vector = jax.eval_shape(sum_of_block, jax.tree.map(lambda a: a[0], split), real[0])[1]
    levels = blocks.bit_length()
    nodes = jnp.zeros((levels, *vector.shape), vector.dtype)
    nodes, results = jax.lax.scan(add, nodes, (jnp.arange(blocks), split, real))
    complete = [nodes[level] for level in range(levels) if blocks >> level & 1]
    total = complete[0]
    for node in complete[1:]:
        total = node + total
    return jax.tree.map(lambda a: a.reshape(blocks * block, *a.shape[2:])[:size], results), total


def power_of_two(number: int) -> int:
    """Return the smallest power of two that is not below a number."""
    return 1 << (number - 1).bit_length()


def tree_sum(rows: Any) -> Any:
    """Add up the rows of an array [n, ...] of numpy or JAX in the order of a binary tree.

    Neighbours first, then their sums, as if zeros filled the rows up to a power of two. So sums of aligned
    runs of 2^k rows, added up in the same way, give the same bits as all rows (but for the sign of a zero).
    """
    while len(rows) > 1:
        left, right = rows[0::2], rows[1::2]
        joined = left[: len(right)] + right
        rest = left[len(right) :]
        concatenate = np.concatenate if isinstance(rows, np.ndarray) else jnp.concatenate
        rows = concatenate([joined, rest]) if len(rest) else joined
    return rows[0]

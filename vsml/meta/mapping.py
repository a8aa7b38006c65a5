"""Mapping a function over trials, spread over the devices of this process, and adding up what it returns."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vsml.types import Array

T = TypeVar("T")

TRIALS_PER_DEVICE = 8
"""Trials that a CPU core takes before gradients are added up: few to hold, enough to make waits rare."""


def _mesh() -> Mesh:
    devices = np.array(jax.local_devices())
    return Mesh(devices, ("trials",))


def replicate(tree: Any) -> Any:
    """Put arrays on every device of this process once, instead of at every call of `map_trials`."""
    everywhere = NamedSharding(_mesh(), PartitionSpec())
    return jax.device_put(tree, everywhere)


def map_trials(
    function: Callable[..., T],
    trials: Any,
    shared: Any = (),
) -> T:
    """Apply a function to each trial, spread over the devices of this process.

    On a CPU, a device takes its trials one after the other: the states of one trial stay in its cache. On an
    accelerator it takes them side by side.

    Args:
        function: `(trial, shared) -> result`.
        trials: pytree of arrays with a leading axis of trials.
        shared: pytree of arrays that all trials share.

    Returns:
        The results, with a leading axis of trials.
    """
    devices = jax.local_devices()
    count = _length(trials)
    # Every device takes as many trials: the first one again, where some are missing.
    missing = -count % len(devices)
    filled = _fill(trials, missing)

    def on_one_device(trials: Any, shared: Any) -> T:
        def on_one_trial(trial: Any) -> T:
            return function(trial, shared)

        if devices[0].platform == "cpu":
            return jax.lax.map(on_one_trial, trials)
        return jax.vmap(on_one_trial)(trials)

    mesh = _mesh()
    whole = PartitionSpec()
    spread = PartitionSpec("trials")
    on_all = jax.shard_map(
        on_one_device,
        mesh=mesh,
        in_specs=(spread, whole),
        out_specs=spread,
        check_vma=False,  # function need not know that it runs on several devices
    )
    results = on_all(filled, shared)
    results = _first(results, count)
    # On every device, else a sum over trials would be one of partial sums and depend on their number.
    everywhere = NamedSharding(mesh, whole)
    return jax.lax.with_sharding_constraint(results, everywhere)


def _length(trials: Any) -> int:
    """Return the size of the leading axis."""
    leaves = jax.tree.leaves(trials)
    return len(leaves[0])


def _first(trials: Any, count: int) -> Any:
    """Return the first of them."""
    return jax.tree.map(lambda a: a[:count], trials)


def _fill(trials: Any, count: int) -> Any:
    """Append the first trial that many times."""
    if count == 0:
        return trials

    def append(a: Array) -> Array:
        first = a[:1]
        fillers = first.repeat(count, 0)
        return jnp.concatenate([a, fillers])

    return jax.tree.map(append, trials)


def _split(trials: Any, blocks: int) -> Any:
    """Cut the leading axis into blocks: leaves [blocks, trials of a block, ...]."""

    def split(a: Array) -> Array:
        return a.reshape(blocks, -1, *a.shape[1:])

    return jax.tree.map(split, trials)


def _join(blocks: Any) -> Any:
    """Undo `_split`."""

    def join(a: Array) -> Array:
        return a.reshape(-1, *a.shape[2:])

    return jax.tree.map(join, blocks)


def sum_trials(
    function: Callable[..., tuple[T, Array]],
    trials: Any,
    count: Array | int,
    shared: Any = (),
) -> tuple[T, Array]:
    """Apply a function to each trial as `map_trials` does, and add up the vectors that it returns last.

    They are added as `tree_sum` adds the whole of them, so the sum of a chunk of 2^k trials is a node of the
    tree over its group, and bits depend neither on the number of devices nor on which 2^k is taken. On a CPU
    no more than `TRIALS_PER_DEVICE` vectors a device (rounded up to a power of two) and one for each level of
    the tree are there at a time, whatever the number of trials.

    Args:
        function: `(trial, shared) -> (result, vector)`, the vector float32 [D].
        trials: pytree of arrays with a leading axis of trials.
        count: how many are real; the others come last, and their vectors do not count.
        shared: pytree of arrays that all trials share.

    Returns:
        The results, with a leading axis of trials, and the sum [D].
    """
    size = _length(trials)
    block = _block_size(size)
    blocks = math.ceil(size / block)
    filled = _fill(trials, blocks * block - size)
    split = _split(filled, blocks)
    places = jnp.arange(blocks * block)
    real = places.reshape(blocks, block) < count

    def sum_of_block(trials: Any, real: Array) -> tuple[T, Array]:
        # The barrier: a product fused with the sum behind it would be rounded once instead of twice.
        mapped = map_trials(function, trials, shared)
        results, vectors = jax.lax.optimization_barrier(mapped)
        counted = jnp.where(real[:, None], vectors, 0.0)
        return results, tree_sum(counted)

    first_block = _first_block(split)
    if blocks == 1:
        results, total = sum_of_block(first_block, real[0])
        return _first(results, size), total

    def add(nodes: Array, block: Any) -> Any:
        number, trials, real = block
        results, total = sum_of_block(trials, real)
        return _count_up(nodes, number, total), results

    _, vector = jax.eval_shape(sum_of_block, first_block, real[0])
    levels = blocks.bit_length()
    shape = (levels, *vector.shape)
    nodes = jnp.zeros(shape, vector.dtype)
    numbered = jnp.arange(blocks), split, real
    nodes, results = jax.lax.scan(add, nodes, numbered)
    total = _add_nodes(nodes, blocks)
    return _first(_join(results), size), total


def _first_block(blocks: Any) -> Any:
    """Return the first block of `_split`."""
    return jax.tree.map(lambda a: a[0], blocks)


def _block_size(size: int) -> int:
    """Return how many of so many trials are evaluated before their vectors are added up."""
    devices = jax.local_devices()
    if devices[0].platform != "cpu":
        return size
    most = TRIALS_PER_DEVICE * len(devices)
    return min(size, power_of_two(most))


def _count_up(
    nodes: Array,
    number: Array,
    total: Array,
) -> Array:
    """Add the sum of a block to the tree, as one is added to a number in binary.

    Where a digit is 1, its node and what is carried become one a level higher.

    Args:
        nodes: one for each digit, [levels, D]; those whose digit is 0 do not count.
        number: of the block: how many came before, int [].
        total: its sum [D].
    """

    def is_one(carried: Any) -> Array:
        level, _ = carried
        return (number >> level) & 1 == 1

    def carry(carried: Any) -> Any:
        level, total = carried
        return level + 1, nodes[level] + total

    start = jnp.int32(0), total
    level, total = jax.lax.while_loop(is_one, carry, start)
    return nodes.at[level].set(total)


def _add_nodes(nodes: Array, blocks: int) -> Array:
    """Add up the nodes where the number of blocks has a 1 in binary, the last blocks first."""
    levels = range(len(nodes))
    complete = [level for level in levels if blocks >> level & 1]
    total = nodes[complete[0]]
    for level in complete[1:]:
        total = nodes[level] + total
    return total


def power_of_two(number: int) -> int:
    """Return the smallest power of two that is not below a number."""
    return 1 << (number - 1).bit_length()


def tree_sum(rows: Any) -> Any:
    """Add up the rows of an array [n, ...] of numpy or JAX in the order of a binary tree.

    Neighbours first, then their sums, as if zeros filled the rows up to a power of two. So sums of aligned
    runs of 2^k rows, added up in the same way, give the same bits as all rows (but for the sign of a zero).
    """
    library: Any = np if isinstance(rows, np.ndarray) else jnp
    while len(rows) > 1:
        left = rows[0::2]
        right = rows[1::2]
        pairs = len(right)
        joined = left[:pairs] + right
        # Of an odd number, the last has no neighbour.
        rest = left[pairs:]
        if len(rest):
            joined = library.concatenate([joined, rest])
        rows = joined
    return rows[0]

"""Meta steps: ask, deal chunks to ranks, evaluate, exchange results, tell."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from vsml.meta.objective import Chunk, Group, MetaOptimizer, Results, chunks_of, tree_sum
from vsml.system.comm import Communicator, SerialCommunicator
from vsml.types import Array, Params


def meta_train(
    optimizer: MetaOptimizer,
    params: Params,
    groups: Sequence[Group],
    iterations: int,
    key: Array,
    chunk_size: int | None = None,
    comm: Communicator | None = None,
) -> Iterator[tuple[int, Params, dict[str, float]]]:
    """Improve meta-parameters, one meta step at a time, without files.

    Args:
        optimizer: the outer loop.
        params: meta-parameters to start from.
        groups: the units of a meta step, from `group_units`.
        iterations: meta steps.
        key: what all randomness comes from.
        chunk_size: units evaluated in one call; by default all of a group.
        comm: the ranks among which chunks are dealt; by default this process alone.

    Yields:
        Meta steps done, the meta-parameters and metrics (meta_loss in nats, accuracy, ...).
    """
    comm = comm or SerialCommunicator()
    chunks = chunks_of(groups, chunk_size or max(len(group.units) for group in groups))
    if len(chunks) < comm.size:
        raise ValueError(
            f"chunk_size: got {chunk_size}, that is {len(chunks)} chunk(s), expected one for each of the "
            f"{comm.size} ranks or more"
        )
    noise_key, episode_key = jax.random.split(key)
    state = optimizer.init(noise_key, params)
    for step in range(iterations):
        state, metrics = meta_step(optimizer, state, chunks, jax.random.fold_in(episode_key, step), comm)
        yield step + 1, optimizer.params(state), numbers(metrics)


@dataclass(frozen=True, eq=False)
class PendingStep:
    """A meta step that a device may still be at.

    Attributes:
        state: of the outer loop, to tell the results to.
        members: what is evaluated.
        chunks: all of them.
        results: of this rank's chunks, not waited for.
    """

    state: Any
    members: Any
    chunks: Sequence[Chunk]
    results: list[tuple[Array, Array, Array]]


def dispatch_step(
    optimizer: MetaOptimizer, state: Any, chunks: Sequence[Chunk], key: Array, comm: Communicator
) -> PendingStep:
    """Ask, and start to evaluate this rank's chunks, which are dealt in turn; wait for nothing.

    Args:
        optimizer: the outer loop.
        state: its state, the same on every rank.
        chunks: all chunks, of one size.
        key: of this meta step.
        comm: the ranks.
    """
    state, members = optimizer.ask(state)
    results = [optimizer.evaluate(members, chunk, key) for chunk in chunks[comm.rank :: comm.size]]
    return PendingStep(state, members, chunks, results)


def collect_step(
    optimizer: MetaOptimizer, pending: PendingStep, comm: Communicator
) -> tuple[Any, dict[str, Any]]:
    """Wait for this rank's results, exchange them, tell.

    They are put together in chunk order on every rank, so the outcome does not depend on the number of ranks.

    Args:
        optimizer: the outer loop.
        pending: from `dispatch_step`.
        comm: the ranks.

    Returns:
        The new state and metrics, some of which a device may still be at.
    """
    chunks = pending.chunks
    rows = [np.concatenate([np.ravel(part) for part in parts]) for parts in jax.device_get(pending.results)]
    rounds = math.ceil(len(chunks) / comm.size)
    rows += [np.zeros_like(rows[0])] * (rounds - len(rows))
    gathered = comm.allgather(np.stack(rows).astype(np.float32))  # [ranks, rounds, row]
    in_chunk_order = gathered.swapaxes(0, 1).reshape(rounds * comm.size, -1)[: len(chunks)]
    results = _results(in_chunk_order, chunks, optimizer.unit_members)
    return optimizer.tell(pending.state, pending.members, results)


def meta_step(
    optimizer: MetaOptimizer, state: Any, chunks: Sequence[Chunk], key: Array, comm: Communicator
) -> tuple[Any, dict[str, Any]]:
    """Take a whole meta step: `dispatch_step`, then `collect_step`."""
    return collect_step(optimizer, dispatch_step(optimizer, state, chunks, key, comm), comm)


def _results(rows: np.ndarray, chunks: Sequence[Chunk], unit_members: int) -> Results:
    units = sum(chunk.count for chunk in chunks)
    loss, accuracy = np.empty((2, units, unit_members), np.float32)
    by_group: dict[int, list[np.ndarray]] = {}
    for row, chunk in zip(rows, chunks, strict=True):
        size = len(chunk.units) * unit_members
        real = chunk.units[: chunk.count]
        loss[real] = row[:size].reshape(-1, unit_members)[: chunk.count]
        accuracy[real] = row[size : 2 * size].reshape(-1, unit_members)[: chunk.count]
        by_group.setdefault(id(chunk.group), []).append(row[2 * size :])
    gradient = np.zeros(rows.shape[1] - 2 * len(chunks[0].units) * unit_members, np.float32)
    for of_group in by_group.values():
        gradient += tree_sum(np.stack(of_group))
    return Results(loss=loss, accuracy=accuracy, gradient=gradient)


def numbers(metrics: dict[str, Any]) -> dict[str, float]:
    """Wait for metrics that a device is still at."""
    return {name: value.item() if isinstance(value, jax.Array) else value for name, value in metrics.items()}

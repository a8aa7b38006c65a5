"""One meta step: ask, evaluate the chunks of this rank, exchange results, tell; and a plain loop of steps."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from vsml.meta.mapping import tree_sum
from vsml.meta.optimizers.base import MetaOptimizer
from vsml.meta.trials import (
    Chunk,
    Group,
    Results,
    chunks_of,
)
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
        groups: the trials of a meta step, from `group_trials`.
        iterations: meta steps.
        key: what all randomness comes from.
        chunk_size: trials evaluated in one call; by default all of a group.
        comm: the ranks among which chunks are dealt; by default this process alone.

    Yields:
        Meta steps done, the meta-parameters and metrics (meta_loss in nats, accuracy, ...).
    """
    comm = comm or SerialCommunicator()
    largest = max(len(group.trials) for group in groups)
    chunks = chunks_of(groups, chunk_size or largest)
    if len(chunks) < comm.size:
        raise ValueError(
            f"chunk_size: got {chunk_size}, that is {len(chunks)} chunk(s), expected one for each of the "
            f"{comm.size} ranks or more"
        )
    noise_key, episode_key = jax.random.split(key)
    state = optimizer.init(noise_key, params)
    for step in range(iterations):
        step_key = jax.random.fold_in(episode_key, step)
        state, metrics = meta_step(optimizer, state, chunks, step_key, comm)
        yield step + 1, optimizer.params(state), as_numbers(metrics)


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
    optimizer: MetaOptimizer,
    state: Any,
    chunks: Sequence[Chunk],
    key: Array,
    comm: Communicator,
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
    own_chunks = chunks[comm.rank :: comm.size]
    results = [optimizer.evaluate(members, chunk, key) for chunk in own_chunks]
    return PendingStep(state, members, chunks, results)


def collect_step(
    optimizer: MetaOptimizer,
    pending: PendingStep,
    comm: Communicator,
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
    # A row for each chunk: losses, scores and the sum of gradients, one after the other.
    rows = []
    for parts in jax.device_get(pending.results):
        flat = [np.ravel(part) for part in parts]
        rows.append(np.concatenate(flat))
    # A rank may have one chunk less than others; all send as many rows.
    rounds = math.ceil(len(chunks) / comm.size)
    while len(rows) < rounds:
        rows.append(np.zeros_like(rows[0]))
    sent = np.stack(rows).astype(np.float32)
    gathered = comm.allgather(sent)  # [ranks, rounds, row]
    by_round = gathered.swapaxes(0, 1)
    in_turn = by_round.reshape(rounds * comm.size, -1)
    learner = chunks[0].group.learner
    results = _results(
        in_turn[: len(chunks)],
        chunks,
        optimizer.trial_members,
        optimizer.objective.score_name(learner),
    )
    return optimizer.tell(pending.state, pending.members, results)


def meta_step(
    optimizer: MetaOptimizer,
    state: Any,
    chunks: Sequence[Chunk],
    key: Array,
    comm: Communicator,
) -> tuple[Any, dict[str, Any]]:
    """Take a whole meta step: `dispatch_step`, then `collect_step`."""
    pending = dispatch_step(optimizer, state, chunks, key, comm)
    return collect_step(optimizer, pending, comm)


def _results(
    rows: np.ndarray,
    chunks: Sequence[Chunk],
    trial_members: int,
    score_name: str,
) -> Results:
    """Sort rows, one for each chunk, into the results of all trials."""
    trials = sum(chunk.count for chunk in chunks)
    loss = np.empty((trials, trial_members), np.float32)
    score = np.empty_like(loss)
    size = len(chunks[0].trials) * trial_members
    gradients_by_group: dict[int, list[np.ndarray]] = {}
    for row, chunk in zip(rows, chunks, strict=True):
        # Fillers come last in a chunk, and are left out.
        real = chunk.trials[: chunk.count]
        losses, scores, gradient = np.split(row, [size, 2 * size])
        of_real = slice(chunk.count * trial_members)
        loss[real] = losses[of_real].reshape(-1, trial_members)
        score[real] = scores[of_real].reshape(-1, trial_members)
        of_group = gradients_by_group.setdefault(id(chunk.group), [])
        of_group.append(gradient)
    # Chunks of a group are nodes of the tree over its trials.
    dimension = rows.shape[1] - 2 * size
    total = np.zeros(dimension, np.float32)
    for gradients in gradients_by_group.values():
        total += tree_sum(np.stack(gradients))
    return Results(
        loss=loss,
        score=score,
        gradient=total,
        score_name=score_name,
    )


def as_numbers(metrics: dict[str, Any]) -> dict[str, float]:
    """Wait for metrics that a device is still at."""
    numbers = {}
    for name, value in metrics.items():
        if isinstance(value, jax.Array):
            value = value.item()
        numbers[name] = value
    return numbers

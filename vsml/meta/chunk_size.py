"""The choice of how many trials are evaluated in one call."""

import math
from collections.abc import Callable, Sequence

import jax

from vsml.learners import Learner
from vsml.meta.mapping import power_of_two
from vsml.meta.objectives.base import EpisodeShape, Objective
from vsml.meta.trials import Group, params_shapes, tree_bytes
from vsml.system.extras import needed_for

MEMORY_SHARE = 0.5
"""Share of an accelerator's memory that the trials of a chunk may fill, by estimate."""

CPU_CHUNK_SIZE = 1024
"""Most trials of a chunk on a CPU, where memory is no bound: a second Ctrl-C is heard between chunks only."""

TOLERATED_FILL = 0.125
"""Share of the time that fewer, larger chunks on a CPU may cost by fillers and imbalance."""

PERTURBED_COPIES = 4
"""Copies of the meta-parameters that go with a trial: two members, their noise and their gradient."""


def choose_chunk_size(
    groups: Sequence[Group],
    ranks: int,
    trial_bytes: Callable[[Group], int],
    given: int | None = None,
) -> int:
    """Return the trials of a chunk: as given, else a power of two, so that results do not depend on it.

    Of those that give each rank a chunk and keep within the bound, an accelerator takes the one with the
    fewest calls, since it runs a chunk's trials side by side. Its bound is its memory. A CPU takes the
    largest that lets no rank take more than an eighth longer than with the best, whose cores take the trials
    of a chunk, fillers included, in turn; its bound is `CPU_CHUNK_SIZE`.

    Args:
        groups: the trials of a meta step.
        ranks: among how many chunks are dealt.
        trial_bytes: memory that a trial of a group takes (see `memory_of_trial`); asked on accelerators only.
        given: the size to take; None chooses one.

    Raises:
        ValueError: there would be more ranks than chunks.
    """
    sizes = [len(group.trials) for group in groups]
    size = given
    if size is None:
        if jax.default_backend() == "cpu":
            size = _size_on_cpu(sizes, ranks)
        else:
            bound = min(trials_in_memory(trial_bytes(group)) for group in groups)
            size = _size_on_accelerator(sizes, ranks, bound)
    chunks = _chunk_count(sizes, size)
    if chunks < ranks:
        raise ValueError(
            f"training.chunk_size: got {size}, which cuts {sum(sizes)} trials in "
            f"{len(sizes)} group(s) into {chunks} chunks, fewer than the {ranks} ranks; expected a "
            "smaller chunk_size (null chooses it), a larger training.population_size or fewer ranks"
        )
    return size


def _chunk_count(sizes: Sequence[int], size: int) -> int:
    """Return into how many chunks of a size groups of the given sizes are cut."""
    counts = [math.ceil(trials / size) for trials in sizes]
    return sum(counts)


def _possible_sizes(
    sizes: Sequence[int],
    ranks: int,
    bound: int,
) -> list[int]:
    """Return the powers of two within the bound that give each rank a chunk; 1 where there are none."""
    largest = power_of_two(max(sizes))
    possible = [1]
    while 2 * possible[-1] <= min(largest, bound):
        possible.append(2 * possible[-1])
    for_all_ranks = [size for size in possible if _chunk_count(sizes, size) >= ranks]
    return for_all_ranks or [1]


def _size_on_cpu(sizes: Sequence[int], ranks: int) -> int:
    cores = jax.local_device_count()
    turns = {}
    for size in _possible_sizes(sizes, ranks, CPU_CHUNK_SIZE):
        rounds = math.ceil(_chunk_count(sizes, size) / ranks)
        turns[size] = rounds * math.ceil(size / cores)
    tolerated = (1 + TOLERATED_FILL) * min(turns.values())
    return max(size for size in turns if turns[size] <= tolerated)


def _size_on_accelerator(
    sizes: Sequence[int],
    ranks: int,
    bound: int,
) -> int:
    calls = {}
    for size in _possible_sizes(sizes, ranks, bound):
        calls[size] = math.ceil(_chunk_count(sizes, size) / ranks)
    return min(calls, key=lambda size: (calls[size], size))


def memory_of_trial(
    objective: Objective,
    learner: Learner,
    shape: EpisodeShape | None,
    members: int,
    differentiated: bool,
) -> int:
    """Estimate the memory that a trial takes while it is evaluated, copies of meta-parameters included.

    Args:
        objective: what is minimised.
        learner: the learning algorithm.
        shape: of the trial's episode; None where no tasks are needed.
        members: of the trial.
        differentiated: losses are differentiated by meta-parameters.
    """
    params = tree_bytes(params_shapes(learner))
    evaluated = objective.trial_bytes(learner, shape, members, differentiated)
    return evaluated + PERTURBED_COPIES * params


def trials_in_memory(trial_bytes: int) -> int:
    """Return how many trials of so many bytes may fill the memory there is."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    memory = statistics.get("bytes_limit")
    if memory is None:
        with needed_for("devices that do not tell their memory"):
            import psutil
        memory = psutil.virtual_memory().available
    available = MEMORY_SHARE * memory * jax.local_device_count()
    return max(1, int(available // trial_bytes))

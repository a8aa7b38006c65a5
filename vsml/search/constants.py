"""Constants of one rule, tuned by a small evolution strategy."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import jax
import numpy as np

from vsml.search.genome import NUMBERS, Genome
from vsml.types import Array

MEMBERS = 16
"""Rules of a round, as many as learn in one call; the first is the best one so far, as it is."""

_FIRST_STEP = 0.5
"""Standard deviation of the logarithm of the first factors."""

_GROWTH, _SHRINKAGE = 1.5, 0.6
"""What the step is multiplied by after a round that found a better rule, and after one that did not."""

_FLIP = 0.05
"""Share of constants that get the other sign."""

Fitness = Callable[[Sequence[Genome], Array], list[float]]
"""`(genomes, key) -> fitness`, of all on the same tasks."""


def has_constants(genome: Genome) -> bool:
    """Whether there are constants besides 0 and 1 that something may read."""
    return int(genome.num_constants) > len(NUMBERS)


def tuned(genome: Genome, fitness: Fitness, rounds: int, key: Array) -> Genome:
    """Return a rule with constants that are better, or the rule itself.

    A (1 + 15) evolution strategy: constants are multiplied by the exponential of normal draws. All rules of a
    round, the best one so far among them, meet the same tasks, and each round has other ones. The rules have
    one program, and they are run in a loop in which each instruction is a real branch.

    Args:
        genome: the rule, on the host.
        fitness: of rules; higher is better.
        rounds: how often.
        key: of draws and tasks.
    """
    best, step = genome, _FIRST_STEP
    for number in range(rounds):
        draws, signs, tasks = jax.random.split(jax.random.fold_in(key, number), 3)
        shape = (MEMBERS, *genome.constants.shape)
        factors = np.exp(step * np.asarray(jax.random.normal(draws, shape)))
        flips = np.asarray(jax.random.uniform(signs, shape)) < _FLIP
        factors = np.where(flips, -factors, factors).astype(np.float32)
        # The numbers 0 and 1 stay, and so does the first member.
        factors[:, : len(NUMBERS)] = 1
        factors[0] = 1
        members = [replace(best, constants=best.constants * factor) for factor in factors]
        scores = fitness(members, tasks)
        place = int(np.argmax(scores))
        step *= _GROWTH if place else _SHRINKAGE
        best = members[place]
    return best

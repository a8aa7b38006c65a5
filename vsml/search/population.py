"""Populations of rules: who breeds, who enters, and who dies."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vsml.search.genome import Genome
from vsml.types import Array

NAMES = tuple(Genome.__dataclass_fields__)
"""The arrays of a genome."""


def taken(genomes: Genome, places: np.ndarray) -> Genome:
    """Return the genomes at some places [n] of stacked ones, on the host."""
    arrays: dict[str, Any] = {name: np.asarray(getattr(genomes, name))[places] for name in NAMES}
    return Genome(**arrays)


def joined(first: Genome, second: Genome) -> Genome:
    """Return stacked genomes one after the other, on the host."""
    arrays: dict[str, Any] = {}
    for name in NAMES:
        arrays[name] = np.concatenate([np.asarray(getattr(each, name)) for each in (first, second)])
    return Genome(**arrays)


def arrays_of(genomes: Genome) -> dict[str, np.ndarray]:
    """Return stacked genomes as arrays by name, for a checkpoint."""
    return {name: np.asarray(getattr(genomes, name)) for name in NAMES}


def genomes_in(arrays: Mapping[str, Any]) -> Genome:
    """Return the genomes of which `arrays_of` returned the arrays."""
    hosts: dict[str, Any] = {name: np.asarray(arrays[name]) for name in NAMES}
    return Genome(**hosts)


@dataclass(frozen=True, eq=False)
class Population:
    """Rules of an island, the oldest first.

    Attributes:
        genomes: on the host, with a leading axis.
        fitness: float32 [P].
    """

    genomes: Genome
    fitness: np.ndarray

    @property
    def size(self) -> int:
        """P."""
        return len(self.fitness)

    def entered_by(self, genomes: Genome, fitness: np.ndarray) -> "Population":
        """Return it with newcomers, for each of which the oldest died."""
        size = self.size
        every = joined(self.genomes, genomes)
        newest = np.arange(self.size + len(fitness))[-size:]
        return Population(taken(every, newest), np.concatenate([self.fitness, fitness])[-size:])

    def best(self, count: int) -> np.ndarray:
        """Return the places of the fittest, the younger first among equals."""
        order = np.lexsort((np.arange(self.size), self.fitness))
        return order[::-1][:count]

    def with_genome(self, place: int, genome: Genome, fitness: float) -> "Population":
        """Return it with another rule at a place."""
        arrays: dict[str, Any] = {name: np.array(getattr(self.genomes, name)) for name in NAMES}
        for name, array in arrays.items():
            array[place] = getattr(genome, name)
        levels = self.fitness.copy()
        levels[place] = fitness
        return replace(self, genomes=Genome(**arrays), fitness=levels)


@partial(jax.jit, static_argnums=(1, 2))
def tournaments(key: Array, count: int, size: int, fitness: Array) -> Array:
    """Return the winners of tournaments, int32 [count]: of `size` members by chance, the fittest.

    Args:
        key: of the draws.
        count: tournaments.
        size: members of each; the same one may be drawn twice.
        fitness: of the population [P].
    """
    drawn = jax.random.randint(key, (count, size), 0, fitness.shape[0])
    winners = jnp.argmax(fitness[drawn], axis=1)
    return jnp.take_along_axis(drawn, winners[:, None], 1)[:, 0]

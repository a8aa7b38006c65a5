"""Islands: populations that breed by themselves, each with an archive of its elites."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np

from vsml.search.elites import Archive
from vsml.search.genome import Genome, stack_genomes
from vsml.search.judge import Survivor
from vsml.search.population import Population, taken


@dataclass(eq=False)
class Island:
    """A population that breeds by itself.

    Attributes:
        population: the rules.
        archive: its elites.
        improved: generation in which its best elite was last beaten.
        highest: the highest bound of an elite so far, since it began.
        restarts: how often it began anew.
    """

    population: Population
    archive: Archive
    improved: int = 0
    highest: float = -np.inf
    restarts: int = 0

    def enter(self, survivor: Survivor) -> None:
        """Let a rule into the population as its youngest."""
        newest = jax.device_get(stack_genomes([survivor.genome]))
        level = np.array([survivor.fitness], np.float32)
        self.population = self.population.entered_by(newest, level)

    def replace_members(self, is_member: np.ndarray) -> None:
        """Put the fittest of the others in the place of some members.

        Args:
            is_member: which ones, bool [P].
        """
        if not is_member.any():
            return
        population = self.population
        order = population.best(population.size)
        best = int(order[~is_member[order]][0])
        places = np.where(is_member, best, np.arange(population.size))
        genomes = taken(population.genomes, places)
        self.population = replace(population, genomes=genomes, fitness=population.fitness[places])


def migrate(islands: Sequence[Island], count: int) -> None:
    """Send copies of the fittest of each island to the next one, where they count as the youngest.

    Args:
        islands: in a ring.
        count: how many migrate.
    """
    migrants: list[tuple[Genome, np.ndarray]] = []
    for island in islands:
        places = island.population.best(count)
        migrants.append((taken(island.population.genomes, places), island.population.fitness[places]))
    for number, island in enumerate(islands):
        island.population = island.population.entered_by(*migrants[number - 1])

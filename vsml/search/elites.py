"""Elites: the best rule of each cell of an archive, scored again and again on fresh seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import jax
import numpy as np

from vsml.search.genome import Genome, stack_genomes, unstack_genomes
from vsml.search.population import arrays_of, genomes_in

_SIZES = (10, 20, 30, 40, 60)
"""Live operators of a tick at which cells begin."""

FIRST_SPREAD = 0.2
"""Standard deviation of scores that is presumed, with the weight of one score, before there are many."""


@dataclass(frozen=True)
class Scores:
    """Scores of one rule on different seeds, as their number, mean and spread.

    Attributes:
        count: how many.
        mean: their mean.
        squares: sum of squared distances from the mean.
        passes: how many of the last ones passed the last stage, one after the other.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    passes: int = 0

    def plus(self, score: float, passed: bool) -> "Scores":
        """Return them with one more (Welford's algorithm)."""
        count = self.count + 1
        distance = score - self.mean
        mean = self.mean + distance / count
        squares = self.squares + distance * (score - mean)
        return Scores(count, mean, squares, self.passes + 1 if passed else 0)

    @property
    def standard_error(self) -> float:
        """Of the mean; a rule that was scored once is presumed to vary by `FIRST_SPREAD`."""
        if not self.count:
            return math.inf
        variance = (self.squares + FIRST_SPREAD**2) / self.count
        return math.sqrt(variance / self.count)

    @property
    def bound(self) -> float:
        """The mean less one standard error: what elites are ranked by."""
        return self.mean - self.standard_error if self.count else -math.inf


@dataclass(frozen=True, eq=False)
class Elite:
    """The best rule of a cell.

    Attributes:
        genome: the rule, on the host.
        scores: of its fitness on fresh seeds; the first is that for which it was taken.
        cell: name of its cell.
        born: generation in which it was found.
    """

    genome: Genome
    scores: Scores
    cell: str
    born: int

    def scored(self, fitness: float, passing: float) -> "Elite":
        """Return it with one more score.

        Args:
            fitness: on fresh seeds.
            passing: the least fitness of a rule that passes the last stage.
        """
        return replace(self, scores=self.scores.plus(fitness, fitness >= passing))


def cell_of(genome: Genome, stage: str, where: str) -> str:
    """Return the name of the cell of a rule: its size, how and where it is taught, and what it passed.

    Args:
        genome: the rule.
        stage: the last one that it passed.
        where: how rules are taught, and on which kinds of graphs.
    """
    size = int(genome.num_tick)
    least = max([start for start in (0, *_SIZES) if start <= size])
    above = [start for start in _SIZES if start > size]
    sizes = f"size {least}-{above[0] - 1}" if above else f"size {least} and more"
    return f"{sizes}, {where}, {stage}"


@dataclass
class Archive:
    """The elites of an island, one a cell.

    Attributes:
        elites: by the name of their cell, in the order in which cells were first filled.
    """

    elites: dict[str, Elite] = field(default_factory=dict)

    @property
    def best(self) -> Elite | None:
        """The elite of the highest bound; the first one of equals; None where there is none."""
        return max(self.elites.values(), key=lambda elite: elite.scores.bound, default=None)

    def wants(self, cell: str, fitness: float) -> bool:
        """Whether a rule of that fitness is worth a score on fresh seeds: it beats the bound of its cell."""
        held = self.elites.get(cell)
        return held is None or fitness > held.scores.bound

    def take(self, elite: Elite) -> bool:
        """Keep an elite if its bound is above that of its cell; return whether it is kept."""
        held = self.elites.get(elite.cell)
        if held is not None and elite.scores.bound <= held.scores.bound:
            return False
        self.elites[elite.cell] = elite
        return True

    def rows(self) -> list[dict[str, Any]]:
        """Return what the elites are, without their genomes, ready for JSON."""
        found: list[dict[str, Any]] = []
        for elite in self.elites.values():
            scores = elite.scores
            found.append(
                {
                    "cell": elite.cell,
                    "born": elite.born,
                    "count": scores.count,
                    "mean": scores.mean,
                    "squares": scores.squares,
                    "passes": scores.passes,
                }
            )
        return found

    def tree(self) -> dict[str, np.ndarray]:
        """Return the genomes of elites, stacked, as arrays by name; nothing where there are none."""
        genomes = [elite.genome for elite in self.elites.values()]
        return arrays_of(jax.device_get(stack_genomes(genomes))) if genomes else {}

    @classmethod
    def read(cls, arrays: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Self:
        """Return the archive of which `tree` and `rows` returned these."""
        archive = cls()
        genomes = unstack_genomes(genomes_in(arrays)) if rows else []
        for genome, row in zip(genomes, rows, strict=True):
            scores = Scores(row["count"], row["mean"], row["squares"], row["passes"])
            archive.elites[row["cell"]] = Elite(genome, scores, row["cell"], row["born"])
        return archive

"""Plans of a child: a changed genome, and where expressions are still to be drawn."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from flax import struct

from vsml.search.choices import Chances
from vsml.search.expressions import Expressions
from vsml.search.genome import NOTHING, Genome
from vsml.search.growing import Growing
from vsml.search.sites import Site
from vsml.search.splicing import replaced, substituted, unless
from vsml.search.tables import Tables, base_of
from vsml.types import Array

SLOT_OPERATORS = 8
"""Operators that a new expression of a slot may have."""


@dataclass(frozen=True)
class Parent:
    """A genome that is to be changed.

    Attributes:
        tables: how expressions are drawn.
        genome: the genome.
        types: of its registers, int32 [50 + L].
        other: another genome, of which crossover takes a slot.
    """

    tables: Tables
    genome: Genome
    types: Array
    other: Genome

    def type_at(self, site: Site) -> Array:
        """Return the type of what is written at a place."""
        return self.types[jnp.maximum(site.read(self.genome), 0)]


@struct.dataclass
class Plan:
    """A genome that was changed, and where expressions are still to be drawn.

    Attributes:
        genome: the genome.
        site: where the first expression goes.
        wanted: what it has to be; `NOTHING` for none, int32 [].
        guard_wanted: what the guard of the slot `site.row` has to be; `NOTHING` for none, int32 [].
        operators: operators that an expression may have, int32 [].
        passes: number of an instruction that only passes its first operand on, and goes when that has been
            drawn; `NOTHING` for none, int32 [].
    """

    genome: Genome
    site: Site
    wanted: Array
    guard_wanted: Array
    operators: Array
    passes: Array

    @staticmethod
    def done(genome: Genome) -> "Plan":
        """Return a plan in which nothing is left to be drawn."""
        nowhere = Site(jnp.array(False), jnp.int32(0), jnp.int32(0))
        nothing = jnp.int32(NOTHING)
        return Plan(genome, nowhere, nothing, nothing, jnp.int32(1), nothing)

    def carried_out(self, tables: Tables, chances: Chances) -> Genome:
        """Return the genome with its expressions drawn."""

        def step(turn: Array, genome: Genome) -> Genome:
            of_guard = Site(jnp.array(False), self.site.row, jnp.int32(1))
            site = jax.tree.map(partial(jnp.where, turn == 0), self.site, of_guard)
            wanted = jnp.where(turn == 0, self.wanted, self.guard_wanted)
            grown = grow_at(tables, genome, site, wanted, self.operators, chances.part(turn))
            return unless(wanted == NOTHING, grown, genome)

        grown = jax.lax.fori_loop(0, 2, step, self.genome)
        # New instructions stand before it.
        number = self.passes + grown.num_tick - self.genome.num_tick
        operand = grown.tick[jnp.clip(number, 0, grown.tick.shape[0] - 1), 1]
        return unless(self.passes == NOTHING, replaced(grown, number, operand), grown)


def grow_at(
    tables: Tables,
    genome: Genome,
    site: Site,
    wanted: Array,
    operators: Array,
    chances: Chances,
) -> Genome:
    """Return a genome with a drawn expression at a place, of at most so many operators."""
    limit = 1 + chances.below(operators)
    growing = Growing.none(SLOT_OPERATORS, limit, base_of(tables, chances))
    rows, count, roots = Expressions(tables, genome).grow(growing, wanted[None], chances)
    return substituted(genome, site, rows, count, roots[0])

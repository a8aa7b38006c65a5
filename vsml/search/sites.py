"""Places of a genome where a register is written, which a mutation may change."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from flax import struct

from vsml.rules.rule import FIRST_INSTRUCTION
from vsml.search.choices import Chances
from vsml.search.genome import IS_REV, Genome
from vsml.types import Array

_TRIES = 4
"""How often a leaf is looked for."""


@struct.dataclass
class Site:
    """A place where a register is written: an operand of an instruction, or the value or guard of a slot.

    Attributes:
        is_operand: whether it is an operand, bool [].
        row: the instruction or slot, int32 [].
        column: of an operand 0 to 2; 0 is a slot's value and 1 its guard, int32 [].
    """

    is_operand: Array
    row: Array
    column: Array

    def read(self, genome: Genome) -> Array:
        """Return the register that is written there."""
        row, column = jnp.maximum(self.row, 0), self.column
        operand = genome.tick[jnp.minimum(row, genome.tick.shape[0] - 1), 1 + column]
        slot = jnp.minimum(row, genome.kind.shape[0] - 1)
        root = jnp.where(column == 0, genome.value[slot], genome.guard[slot])
        return jnp.where(self.is_operand, operand, root)

    def write(self, genome: Genome, register: Array) -> Genome:
        """Return a genome with another register there."""
        rows = jnp.arange(genome.tick.shape[0])
        columns = jnp.arange(genome.tick.shape[1])
        here = self.is_operand & (rows == self.row)[:, None] & (columns == self.column + 1)
        slots = (jnp.arange(genome.kind.shape[0]) == self.row) & ~self.is_operand
        return replace(
            genome,
            tick=jnp.where(here, register, genome.tick),
            value=jnp.where(slots & (self.column == 0), register, genome.value),
            guard=jnp.where(slots & (self.column == 1), register, genome.guard),
        )

    def limit(self, genome: Genome) -> Array:
        """Return how many instructions come before it: those that it may read."""
        return jnp.where(self.is_operand, self.row, genome.num_tick)


def draw_leaf_site(genome: Genome, chances: Chances) -> Site:
    """Return a place where a leaf is read, if one of a few tries finds one."""

    def step(turn: Array, site: Site) -> Site:
        again = (site.read(genome) >= FIRST_INSTRUCTION) | is_operand_of_rev(genome, site)
        other = draw_site(genome, chances.part(turn))
        return jax.tree.map(partial(jnp.where, again), other, site)

    return jax.lax.fori_loop(0, _TRIES, step, draw_site(genome, chances))


def draw_site(genome: Genome, chances: Chances) -> Site:
    """Return a place, each instruction and each slot as likely."""
    share = genome.num_tick / jnp.maximum(genome.num_tick + genome.num_slots, 1)
    is_operand = chances.happens(share)
    number = chances.below(genome.num_tick)
    operands = (genome.tick[number, 1:] >= 0).sum()
    slot = chances.below(genome.num_slots)
    has_guard = genome.guard[slot] >= 0
    return Site(
        is_operand=is_operand,
        row=jnp.where(is_operand, number, slot),
        column=jnp.where(is_operand, chances.below(operands), chances.below(1 + has_guard)),
    )


def is_operand_of_rev(genome: Genome, site: Site) -> Array:
    """Return whether a place is what `rev` reads: it has to be a private edge slot."""
    operator = genome.tick[jnp.minimum(site.row, genome.tick.shape[0] - 1), 0]
    return site.is_operand & jnp.asarray(IS_REV)[operator]

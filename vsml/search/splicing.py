"""Genomes with instructions put in or taken out."""

from dataclasses import replace

import jax
import jax.numpy as jnp

from vsml.rules.rule import FIRST_INSTRUCTION
from vsml.search.genome import Genome
from vsml.search.growing import placed
from vsml.search.sites import Site
from vsml.types import Array


def spliced(
    genome: Genome,
    place: Array,
    rows: Array,
    count: Array,
) -> Genome:
    """Return a genome with new instructions before one of its own; too long if there is no room for them.

    Args:
        genome: the genome.
        place: the number of the instruction that they come before.
        rows: int32 [M, 4]; registers of new ones are `NEW` + place.
        count: how many they are.
    """
    first = FIRST_INSTRUCTION + place

    def moved(registers: Array) -> Array:
        return jnp.where(registers >= first, registers + count, registers)

    old = genome.tick.at[:, 1:].set(moved(genome.tick[:, 1:]))
    new = rows.at[:, 1:].set(placed(rows[:, 1:], first))
    numbers = jnp.arange(genome.tick.shape[0])
    of_old = jnp.where(numbers < place, numbers, numbers - count)
    of_new = jnp.clip(numbers - place, 0, rows.shape[0] - 1)
    is_new = (numbers >= place) & (numbers < place + count)
    tick = jnp.where(is_new[:, None], new[of_new], old[jnp.clip(of_old, 0, genome.tick.shape[0] - 1)])
    return replace(
        genome,
        tick=tick,
        value=moved(genome.value),
        guard=moved(genome.guard),
        sizes=genome.sizes.at[3].add(count),
    )


def substituted(
    genome: Genome,
    site: Site,
    rows: Array,
    count: Array,
    root: Array,
) -> Genome:
    """Return a genome with new instructions, whose value `root` is written at a place."""
    place = site.limit(genome)
    longer = spliced(genome, place, rows, count)
    row = jnp.where(site.is_operand, site.row + count, site.row)
    return replace(site, row=row).write(longer, placed(root, FIRST_INSTRUCTION + place))


def replaced(genome: Genome, number: Array, register: Array) -> Genome:
    """Return a genome with another register wherever the value of an instruction was read."""
    old = FIRST_INSTRUCTION + number

    def moved(registers: Array) -> Array:
        return jnp.where(registers == old, register, registers)

    tick = genome.tick.at[:, 1:].set(moved(genome.tick[:, 1:]))
    child = replace(genome, tick=tick, value=moved(genome.value), guard=moved(genome.guard))
    return unless(genome.num_tick == 0, child, genome)


def unless(condition: Array, child: Genome, genome: Genome) -> Genome:
    """Return the child, or the second genome where a condition [] holds."""
    return jax.tree.map(lambda new, old: jnp.where(condition, old, new), child, genome)

"""What slots begin with, and what they store."""

from dataclasses import replace

import jax.numpy as jnp

from vsml.rules.rule import EDGE_TYPE, FIRST_INSTRUCTION, NO_REGISTER, NODE, NODE_TYPE
from vsml.search.choices import Chances
from vsml.search.genome import NOTHING, Genome
from vsml.search.growing import TRUTH_OF_EDGE, TRUTH_OF_NODE, placed
from vsml.search.tables import Tables, register_of
from vsml.types import Array

_NODE_ROOT = 0.2
"""Share of edge slots that store a node value."""


def begin_slot(
    tables: Tables,
    genome: Genome,
    slot: Array,
    choice: Array,
) -> Genome:
    """Return a genome whose slot has one of the initialisations; none if there is no room for it."""
    rows = jnp.asarray(tables.beginnings)[choice]
    length = jnp.asarray(tables.lengths)[choice]
    start = jnp.asarray(tables.starts)[choice]
    first = genome.num_beginning
    fits = first + length <= genome.beginning.shape[0]
    order = jnp.arange(genome.beginning.shape[0]) - first
    taken = rows[jnp.clip(order, 0, rows.shape[0] - 1)]
    taken = taken.at[:, 1:].set(placed(taken[:, 1:], FIRST_INSTRUCTION + first))
    is_new = (order >= 0) & (order < length) & fits
    register = jnp.where(fits, placed(start, FIRST_INSTRUCTION + first), NO_REGISTER)
    return replace(
        genome,
        initial=genome.initial.at[slot].set(register),
        beginning=jnp.where(is_new[:, None], taken, genome.beginning),
        sizes=genome.sizes.at[2].add(jnp.where(fits, length, 0)),
    )


def roots_of(
    tables: Tables,
    kind: Array,
    chances: Chances,
) -> tuple[Array, Array]:
    """Return what the value and the guard of a slot of a kind want."""
    is_node = (kind == NODE) | chances.happens(_NODE_ROOT)
    value = jnp.where(is_node, NODE_TYPE, EDGE_TYPE)
    truth = jnp.where(kind == NODE, TRUTH_OF_NODE, TRUTH_OF_EDGE)
    guard = jnp.where(chances.happens(tables.settings.guards), truth, NOTHING)
    return value, guard


def not_itself(slot: Array, kind: Array, register: Array) -> Array:
    """Return registers to store: something else where a slot would store itself, if it stores anything."""
    other = jnp.where(kind == NODE, register_of("x"), register_of("incoming"))
    return jnp.where(register == slot, other, register)

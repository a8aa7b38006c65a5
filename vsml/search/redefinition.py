"""Another definition of a value, wherever a tick reads it.

A line that several others read is one value. If it is wrong, each reader is wrong, and mending one of them
is seldom any better than mending none.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp

from vsml.rules.operators import OPCODE
from vsml.rules.rule import EDGE_TYPE, FIRST_CONSTANT, FIRST_INSTRUCTION, NO_REGISTER, NODE_TYPE
from vsml.search.choices import Chances
from vsml.search.expressions import Expressions
from vsml.search.genome import ARITY, NOTHING, NUMBERS, ZERO, Genome
from vsml.search.growing import TRUTH_OF_EDGE, TRUTH_OF_NODE
from vsml.search.leaf import Leaf
from vsml.search.plans import Parent, Plan
from vsml.search.sites import Site
from vsml.search.splicing import spliced
from vsml.types import Array

_OPERATORS = 3
"""Operators that a drawn definition may have."""

_OTHER, _AROUND, _DRAWN = range(3)
"""Another value of the rule; an operator around the old value; an expression that is drawn."""

_WANTED = (NODE_TYPE, EDGE_TYPE, TRUTH_OF_NODE, TRUTH_OF_EDGE)
"""What a new definition may be; where that does not fit, the child is as its parent."""


def read_in_ticks(genome: Genome) -> Array:
    """Return which constants, but 0 and 1, a tick reads, bool [C]."""
    return _read_in(genome, [genome.tick[:, 1:].reshape(-1), genome.value, genome.guard])


def read_constants(genome: Genome) -> Array:
    """Return which constants, but 0 and 1, something reads, bool [C]."""
    of_beginnings = _read_in(genome, [genome.beginning[:, 1:].reshape(-1), genome.initial])
    return read_in_ticks(genome) | of_beginnings


def _read_in(genome: Genome, registers: list[Array]) -> Array:
    """Return which constants, but 0 and 1, are among registers, bool [C]."""
    places = jnp.arange(genome.constants.shape[0])
    is_read = (jnp.concatenate(registers)[:, None] == FIRST_CONSTANT + places).any(0)
    return is_read & (places >= len(NUMBERS))


def redefine(parent: Parent, chances: Chances) -> Plan:
    """Give a value another definition wherever a tick reads it; what slots begin with stays.

    The value is an instruction or a constant other than 0 and 1. Its new definition is, each as likely,
    another value of the rule, an operator around the old one, or an expression that is drawn.
    """
    genome = parent.genome
    old, place = _chosen(genome, chances)
    longer = opened(genome, old, place)
    way = chances.below(3)
    expressions = Expressions(parent.tables, longer)
    leaves = Leaf(parent.tables, longer)
    wanted = jnp.array(_WANTED)[chances.below(len(_WANTED))]
    type_ = jnp.where((wanted == NODE_TYPE) | (wanted == TRUTH_OF_NODE), NODE_TYPE, EDGE_TYPE)

    def value(of: Chances) -> Array:
        """Return a leaf, or an instruction before the place, but not the old value."""
        # An old value that is an instruction is the last one before the place.
        others = place - (old >= FIRST_INSTRUCTION)
        earlier = FIRST_INSTRUCTION + of.below(others)
        return jnp.where(of.happens(0.5) & (others > 0), earlier, leaves.draw(type_, of))

    as_other = longer.tick.at[place, 1].set(value(chances))
    operator = chances.one_of(parent.tables.edge_operators)
    arity = jnp.asarray(ARITY)[operator]
    own = chances.below(arity)
    operands = []
    for number in range(3):
        operand = jnp.where(own == number, old, value(chances))
        operands.append(jnp.where(number < arity, operand, NO_REGISTER))
    as_around = longer.tick.at[place].set(expressions.row(operator, jnp.stack(operands), chances))
    tick = jnp.where(way == _OTHER, as_other, jnp.where(way == _AROUND, as_around, longer.tick))
    # Where there is no room, nothing stands at the place.
    is_full = genome.num_tick >= genome.tick.shape[0]
    plan = Plan(
        genome=replace(longer, tick=tick),
        site=Site(jnp.array(True), place, jnp.int32(0)),
        wanted=jnp.where(way == _DRAWN, wanted, NOTHING),
        guard_wanted=jnp.int32(NOTHING),
        operators=jnp.int32(_OPERATORS),
        passes=jnp.where(way == _AROUND, NOTHING, place),
    )
    return jax.tree.map(partial(jnp.where, is_full), Plan.done(genome), plan)


def _chosen(genome: Genome, chances: Chances) -> tuple[Array, Array]:
    """Return the register of a value, and the instruction before which its new definition stands."""
    is_read = read_in_ticks(genome)
    constant, has_constant = chances.where(is_read)
    number = chances.below(genome.num_tick)
    count = is_read.sum()
    of_constant = has_constant & chances.happens(count / jnp.maximum(count + genome.num_tick, 1))
    register = jnp.where(of_constant, FIRST_CONSTANT + constant, FIRST_INSTRUCTION + number)
    # A constant is defined before all that read it; an instruction may be read by its new definition.
    reads = (genome.tick[:, 1:] == register).any(1)
    first = jnp.where(reads.any(), jnp.argmax(reads), genome.num_tick)
    place = jnp.where(of_constant, first, number + 1)
    return register.astype(jnp.int32), jnp.minimum(place, genome.num_tick).astype(jnp.int32)


def opened(genome: Genome, old: Array, place: Array) -> Genome:
    """Return a genome with an instruction that passes a value on to all that read it from there on."""
    passes = jnp.stack([jnp.int32(OPCODE["add"]), old, jnp.int32(ZERO), jnp.int32(NOTHING)])
    longer = spliced(genome, place, passes[None], jnp.int32(1))
    register = FIRST_INSTRUCTION + place
    is_later = jnp.arange(longer.tick.shape[0])[:, None] > place

    def moved(registers: Array) -> Array:
        return jnp.where(registers == old, register, registers)

    tick = longer.tick.at[:, 1:].set(jnp.where(is_later, moved(longer.tick[:, 1:]), longer.tick[:, 1:]))
    return replace(longer, tick=tick, value=moved(longer.value), guard=moved(longer.guard))

"""Changes that make a child of a rule.

Each is for one genome and always gives a rule of the language: what a change would break, or what finds no
room, leaves the genome as it was. The cache of known rules then knows the child.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vsml.rules.operators import OPCODE, OPERATORS
from vsml.rules.rule import (
    EDGE_TYPE,
    FIRST_CONSTANT,
    FIRST_INSTRUCTION,
    FIRST_PORT,
    FLOAT_TYPE,
    KINDS,
    NO_REGISTER,
    NODE,
    NODE_TYPE,
    PRIVATE,
)
from vsml.search.analysis import is_valid, pruned, types_of
from vsml.search.choices import Chances, cumulative, seeds_of
from vsml.search.expressions import Expressions
from vsml.search.genome import ARITY, NOTHING, NUMBERS, ZERO, Genome
from vsml.search.growing import NEW, placed
from vsml.search.leaf import Leaf
from vsml.search.one_kernel import one_kernel
from vsml.search.plans import SLOT_OPERATORS, Parent, Plan
from vsml.search.redefinition import read_constants, redefine
from vsml.search.settings import Drawing, Mutations
from vsml.search.sites import Site, draw_leaf_site, draw_site, is_operand_of_rev
from vsml.search.slots import begin_slot, not_itself, roots_of
from vsml.search.splicing import replaced, spliced, substituted, unless
from vsml.search.tables import Tables, tables_of
from vsml.types import Array

_LEAF_OPERATORS = 3
"""Operators that a leaf may become."""

_OTHER_TYPE = 0.4
"""Share of new arguments whose type is drawn: a value of nodes or of edges, whatever stood there."""

_FLIP = 0.1
"""Share of changed constants that get the other sign."""

_FACTORS = (0.5, 2.0)
"""Least and largest number that a constant is multiplied by."""


def _alternatives() -> tuple[np.ndarray, np.ndarray]:
    """Return for each operator those of its form, itself first, [29, most], and how many they are."""
    forms = [(operator.family, operator.operands) for operator in OPERATORS]
    rows = []
    for number, form in enumerate(forms):
        others = [other for other, its in enumerate(forms) if its == form and other != number]
        rows.append([number, *others])
    longest = max(map(len, rows))
    table = np.array([row + row[:1] * (longest - len(row)) for row in rows], np.int32)
    return table, np.array([len(row) for row in rows], np.int32)


_SAME_FORM, _NUM_SAME_FORM = _alternatives()


def insert(parent: Parent, chances: Chances) -> Plan:
    """Put an operator around a value."""
    genome = parent.genome
    site = draw_site(genome, chances)
    register = site.read(genome)
    type_ = jnp.maximum(parent.type_at(site), NODE_TYPE)
    expressions = Expressions(parent.tables, genome)
    operator = chances.one_of(parent.tables.edge_operators)
    arity = jnp.asarray(ARITY)[operator]
    own = chances.below(arity)
    operands = []
    for place in range(3):
        wanted = jnp.where(chances.happens(parent.tables.settings.floats), FLOAT_TYPE, type_)
        leaf = Leaf(parent.tables, genome).draw(wanted, chances)
        operand = jnp.where(own == place, register, leaf)
        operands.append(jnp.where(place < arity, operand, NO_REGISTER))
    row = expressions.row(operator, jnp.stack(operands), chances)
    child = substituted(genome, site, row[None], jnp.int32(1), jnp.int32(NEW))
    # A slot that nothing is stored to has no value to put an operator around.
    has_no_place = (register < 0) | is_operand_of_rev(genome, site)
    return Plan.done(unless(has_no_place, child, genome))


def delete(parent: Parent, chances: Chances) -> Plan:
    """Replace an operator by one of its operands."""
    genome = parent.genome
    number = chances.below(genome.num_tick)
    operands = (genome.tick[number, 1:] >= 0).sum()
    return Plan.done(replaced(genome, number, genome.tick[number, 1 + chances.below(operands)]))


def knock_out(parent: Parent, chances: Chances) -> Plan:
    """Replace an operator by 0 or 1."""
    genome = parent.genome
    number = ZERO + chances.below(len(NUMBERS))
    return Plan.done(replaced(genome, chances.below(genome.num_tick), number))


def shrink(parent: Parent, chances: Chances) -> Plan:
    """Replace an operator by a leaf of its type: decrease the complexity."""
    genome = parent.genome
    number = chances.below(genome.num_tick)
    type_ = parent.types[FIRST_INSTRUCTION + number]
    return Plan.done(replaced(genome, number, Leaf(parent.tables, genome).draw(type_, chances)))


def grow(parent: Parent, chances: Chances) -> Plan:
    """Replace a leaf by an expression: increase the complexity."""
    genome = parent.genome
    site = draw_leaf_site(genome, chances)
    is_leaf = (site.read(genome) < FIRST_INSTRUCTION) & ~is_operand_of_rev(genome, site)
    type_ = jnp.maximum(parent.type_at(site), NODE_TYPE)
    wanted = jnp.where(is_leaf, type_, NOTHING)
    return replace(Plan.done(genome), site=site, wanted=wanted, operators=jnp.int32(_LEAF_OPERATORS))


def argument(parent: Parent, chances: Chances) -> Plan:
    """Read another value at a place: a leaf, or an instruction before it."""
    genome = parent.genome
    site = draw_site(genome, chances)
    is_of_rev = is_operand_of_rev(genome, site)
    # The right operand may be of another type than the one that stands there.
    other_type = jnp.where(chances.happens(0.5), NODE_TYPE, EDGE_TYPE)
    type_ = jnp.where(chances.happens(_OTHER_TYPE), other_type, parent.type_at(site))
    leaf = Leaf(parent.tables, genome).draw(type_, chances)
    before = site.limit(genome)
    earlier = FIRST_INSTRUCTION + chances.below(before)
    register = jnp.where(chances.happens(0.5) & (before > 0), earlier, leaf)
    private, _ = chances.where(genome.kind == PRIVATE)
    return Plan.done(site.write(genome, jnp.where(is_of_rev, private, register)))


def operator(parent: Parent, chances: Chances) -> Plan:
    """Swap an operator for another one of its form."""
    genome = parent.genome
    number = chances.below(genome.num_tick)
    old = genome.tick[number, 0]
    choice = 1 + chances.below(jnp.asarray(_NUM_SAME_FORM)[old] - 1)
    new = jnp.asarray(_SAME_FORM)[old, choice]
    child = replace(genome, tick=genome.tick.at[number, 0].set(new))
    return Plan.done(unless(genome.num_tick == 0, child, genome))


def constant(parent: Parent, chances: Chances) -> Plan:
    """Multiply a constant by a number from 0.5 to 2, one in ten with the other sign."""
    genome = parent.genome
    place, is_there = chances.where(read_constants(genome))
    least, largest = _FACTORS
    factor = least + (largest - least) * chances.take()
    factor = jnp.where(chances.happens(_FLIP), -factor, factor)
    child = replace(genome, constants=genome.constants.at[place].multiply(factor))
    return Plan.done(unless(~is_there, child, genome))


def slot(parent: Parent, chances: Chances) -> Plan:
    """Draw another expression and another guard for a slot."""
    genome = parent.genome
    return _redrawn(parent.tables, genome, chances.below(genome.num_slots), chances)


def _redrawn(tables: Tables, genome: Genome, number: Array, chances: Chances) -> Plan:
    """Return the plan of another expression and another guard for a slot."""
    value, guard = roots_of(tables, genome.kind[number], chances)
    without = replace(genome, guard=genome.guard.at[number].set(NO_REGISTER))
    return Plan(
        genome=without,
        site=Site(jnp.array(False), number, jnp.int32(0)),
        wanted=value,
        guard_wanted=guard,
        operators=jnp.int32(SLOT_OPERATORS),
        passes=jnp.int32(NOTHING),
    )


def accumulate(parent: Parent, chances: Chances) -> Plan:
    """Let a slot build on what it holds: it is added to what is stored, or read by the last operator of that.

    What learns is stored in steps, each from the one before.
    """
    genome = parent.genome
    number, is_stored = chances.where(genome.value >= 0)
    value = genome.value[number]
    is_added = chances.happens(0.5)
    operator = jnp.where(chances.happens(0.5), OPCODE["add"], OPCODE["sub"])
    row = jnp.stack([operator, number, value, jnp.int32(NOTHING)]).astype(jnp.int32)
    root = Site(jnp.array(False), number, jnp.int32(0))
    longer = substituted(genome, root, row[None], jnp.int32(1), jnp.int32(NEW))
    last = jnp.maximum(value - FIRST_INSTRUCTION, 0)
    operands = (genome.tick[last, 1:] >= 0).sum()
    read = Site(jnp.array(True), last, chances.below(operands))
    reading = read.write(genome, number)
    has_no_operand = (value < FIRST_INSTRUCTION) | is_operand_of_rev(genome, read)
    reading = unless(has_no_operand, reading, genome)
    child = jax.tree.map(partial(jnp.where, is_added), longer, reading)
    return Plan.done(unless(~is_stored, child, genome))


def guard(parent: Parent, chances: Chances) -> Plan:
    """Remove the guard of a slot, or add one."""
    genome = parent.genome
    number = chances.below(genome.num_slots)
    has_guard = genome.guard[number] >= 0
    _, wanted = roots_of(parent.tables, genome.kind[number], chances)
    without = replace(genome, guard=genome.guard.at[number].set(NO_REGISTER))
    site = Site(jnp.array(False), number, jnp.int32(1))
    nothing = jnp.int32(NOTHING)
    wanted = jnp.where(has_guard, nothing, wanted)
    return Plan(without, site, nothing, wanted, jnp.int32(_LEAF_OPERATORS), nothing)


def kind(parent: Parent, chances: Chances) -> Plan:
    """Give a slot another kind, a kind of edge slots."""
    genome = parent.genome
    # The slot that is read stays a node slot.
    number = 1 + chances.below(genome.num_slots - 1)
    old = genome.kind[jnp.minimum(number, genome.kind.shape[0] - 1)]
    edge_kinds = len(KINDS) - 1
    other_edge = 1 + (old - 1 + 1 + chances.below(edge_kinds - 1)) % edge_kinds
    any_edge = 1 + chances.below(edge_kinds)
    new = jnp.where(old == NODE, any_edge, other_edge)
    child = replace(genome, kind=genome.kind.at[number].set(new))
    return Plan.done(unless(genome.num_slots < 2, child, genome))


def initial(parent: Parent, chances: Chances) -> Plan:
    """Give a slot another initialisation."""
    genome = parent.genome
    number = chances.below(genome.num_slots)
    return Plan.done(begin_slot(parent.tables, genome, number, chances.one_of(parent.tables.initials)))


def new_slot(parent: Parent, chances: Chances) -> Plan:
    """Add a slot, and read it somewhere."""
    genome = parent.genome
    number = genome.num_slots
    room = genome.kind.shape[0]
    at = jnp.minimum(number, room - 1)
    site = draw_site(genome, chances)
    type_ = parent.type_at(site)
    edge_kind = 1 + chances.below(len(KINDS) - 1)
    new_kind = jnp.where(type_ == EDGE_TYPE, edge_kind, NODE)
    longer = replace(
        genome,
        kind=genome.kind.at[at].set(new_kind),
        sizes=genome.sizes.at[0].set(at + 1),
    )
    longer = begin_slot(parent.tables, longer, at, chances.one_of(parent.tables.initials))
    # Read at its own end, or, if it is private, at the parent.other one.
    crosses = (new_kind == PRIVATE) & chances.happens(0.5)
    rev = jnp.stack([jnp.int32(OPCODE["rev"]), at, jnp.int32(NOTHING), jnp.int32(NOTHING)])
    read = substituted(
        longer, site, rev[None], jnp.where(crosses, 1, 0), jnp.where(crosses, NEW, at).astype(jnp.int32)
    )
    plan = _redrawn(parent.tables, read, at, chances)
    refused = (number >= room) | is_operand_of_rev(genome, site)
    return jax.tree.map(partial(jnp.where, refused), Plan.done(genome), plan)


def crossover(parent: Parent, chances: Chances) -> Plan:
    """Take value and guard of a slot from another rule; what they read are own slots and constants."""
    genome = parent.genome
    number = chances.below(jnp.minimum(genome.num_slots, parent.other.num_slots))
    place = genome.num_tick

    def taken(registers: Array) -> Array:
        own_slots = jnp.where(registers < 0, registers, registers % jnp.maximum(genome.num_slots, 1))
        own_constants = FIRST_CONSTANT + (registers - FIRST_CONSTANT) % genome.num_constants
        is_slot = registers < FIRST_PORT
        is_constant = (registers >= FIRST_CONSTANT) & (registers < FIRST_INSTRUCTION)
        is_instruction = registers >= FIRST_INSTRUCTION
        moved = jnp.where(is_instruction, registers - FIRST_INSTRUCTION + NEW, registers)
        moved = jnp.where(is_constant, own_constants, moved)
        return jnp.where(is_slot, own_slots, moved)

    rows = parent.other.tick.at[:, 1:].set(taken(parent.other.tick[:, 1:]))
    child = spliced(genome, place, rows, parent.other.num_tick)
    for column, register in enumerate((parent.other.value[number], parent.other.guard[number])):
        site = Site(jnp.array(False), number, jnp.int32(column))
        child = site.write(child, placed(taken(register), FIRST_INSTRUCTION + place))
    is_the_same_kind = genome.kind[number] == parent.other.kind[number]
    return Plan.done(unless(~is_the_same_kind, child, genome))


Mutation = Callable[[Parent, Chances], Plan]
"""`(parent, chances) -> plan of the child`, which is checked afterwards."""

MUTATIONS: dict[str, Mutation] = {
    "insert": insert,
    "delete": delete,
    "argument": argument,
    "operator": operator,
    "constant": constant,
    "slot": slot,
    "knock_out": knock_out,
    "accumulate": accumulate,
    "guard": guard,
    "kind": kind,
    "initial": initial,
    "grow": grow,
    "shrink": shrink,
    "new_slot": new_slot,
    "redefine": redefine,
    "crossover": crossover,
}
"""All mutations by name; those of `Mutations` are these."""


def checked(
    child: Genome,
    genome: Genome,
) -> Genome:
    """Return a child, less what is not live; the genome itself where the child is none of the language."""
    shortened = pruned(child)
    # A child that has no room was cut off, and says so by its size.
    fits = (child.num_tick <= child.tick.shape[0]) & is_valid(shortened)
    # Without a store the slot that is read stays 0 for ever.
    fits &= shortened.value[0] >= 0
    return unless(~fits, shortened, genome)


def mutate_one(
    tables: Tables,
    weights: Array,
    genome: Genome,
    other: Genome,
    seed: Array,
) -> tuple[Genome, Array]:
    """Return a child of a genome and the number of its mutation among `MUTATIONS`.

    Args:
        tables: how expressions are drawn.
        weights: `cumulative` ones of the mutations.
        genome: the parent.
        other: of which crossover takes a slot.
        seed: of all that is drawn, uint32 [2].
    """
    chances = Chances(seed)
    chosen = chances.one_of(weights)
    parent = Parent(tables, genome, types_of(genome), other)
    branches = [partial(_plan, mutation, parent, chances.part(1)) for mutation in MUTATIONS.values()]
    plan = jax.lax.switch(chosen, branches)
    child = plan.carried_out(tables, chances.part(2))
    slots = jnp.arange(genome.kind.shape[0])
    child = replace(child, value=not_itself(slots, child.kind, child.value))
    return checked(child, genome), chosen


def _plan(mutation: Mutation, parent: Parent, chances: Chances) -> Plan:
    """Return the plan of a mutation, its arrays in the types that all branches have."""
    plan = mutation(parent, Chances(chances.seed))
    return jax.tree.map(lambda new, old: new.astype(old.dtype), plan, Plan.done(parent.genome))


def mutate_genomes(
    drawing: Drawing,
    weights: Mutations,
    genomes: Genome,
    others: Genome,
    key: Array,
) -> tuple[Genome, Array]:
    """Return a child of each of some genomes, and the numbers of their mutations among `MUTATIONS`.

    Args:
        drawing: how expressions are drawn.
        weights: of the mutations.
        genomes: parents, with a leading axis.
        others: of which crossover takes slots, as many.
        key: of all that is drawn.
    """
    given = weights.model_dump()
    table = cumulative([given[name] for name in MUTATIONS])
    return _mutate(drawing)(jnp.asarray(table), genomes, others, key)


@lru_cache(maxsize=32)
def _mutate(drawing: Drawing):  # type: ignore[no-untyped-def]  # a jit-ed function
    tables = tables_of(drawing)

    def mutate_all(weights: Array, *given: Any) -> tuple[Genome, Array]:
        return jax.lax.map(lambda each: mutate_one(tables, weights, *each), given)

    compiled = one_kernel(mutate_all)

    def run(weights: Array, genomes: Genome, others: Genome, key: Array) -> tuple[Genome, Array]:
        return compiled(weights, genomes, others, seeds_of(key, genomes.sizes.shape[0]))

    return jax.jit(run)

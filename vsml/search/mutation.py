"""Changes that make a child of a rule.

Each is for one genome and always gives a rule of the language: what a change would break, or what finds no
room, leaves the genome as it was. The cache of known rules then knows the child.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

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
from vsml.search.drawing import (
    NEW,
    Expressions,
    Growing,
    Leaf,
    Tables,
    base_of,
    begin_slot,
    not_itself,
    placed,
    roots_of,
    tables_of,
)
from vsml.search.genome import ARITY, IS_REV, NOTHING, NUMBERS, ZERO, Genome
from vsml.search.one_kernel import one_kernel
from vsml.search.settings import Drawing, Mutations
from vsml.types import Array

_SLOT_OPERATORS = 8
"""Operators that a new expression of a slot may have."""

_LEAF_OPERATORS = 3
"""Operators that a leaf may become."""

_TRIES = 4
"""How often a leaf is looked for."""

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
    """

    genome: Genome
    site: Site
    wanted: Array
    guard_wanted: Array
    operators: Array

    @staticmethod
    def done(genome: Genome) -> "Plan":
        """Return a plan in which nothing is left to be drawn."""
        nowhere = Site(jnp.array(False), jnp.int32(0), jnp.int32(0))
        nothing = jnp.int32(NOTHING)
        return Plan(genome, nowhere, nothing, nothing, jnp.int32(1))

    def carried_out(self, tables: Tables, chances: Chances) -> Genome:
        """Return the genome with its expressions drawn."""

        def step(turn: Array, genome: Genome) -> Genome:
            of_guard = Site(jnp.array(False), self.site.row, jnp.int32(1))
            site = jax.tree.map(partial(jnp.where, turn == 0), self.site, of_guard)
            wanted = jnp.where(turn == 0, self.wanted, self.guard_wanted)
            grown = _grow_at(tables, genome, site, wanted, self.operators, chances.part(turn))
            return _unless(wanted == NOTHING, grown, genome)

        return jax.lax.fori_loop(0, 2, step, self.genome)


def draw_leaf_site(genome: Genome, chances: Chances) -> Site:
    """Return a place where a leaf is read, if one of a few tries finds one."""

    def step(turn: Array, site: Site) -> Site:
        again = (site.read(genome) >= FIRST_INSTRUCTION) | _is_operand_of_rev(genome, site)
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


def _is_operand_of_rev(genome: Genome, site: Site) -> Array:
    operator = genome.tick[jnp.minimum(site.row, genome.tick.shape[0] - 1), 0]
    return site.is_operand & jnp.asarray(IS_REV)[operator]


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


def _grow_at(
    tables: Tables,
    genome: Genome,
    site: Site,
    wanted: Array,
    operators: Array,
    chances: Chances,
) -> Genome:
    """Return a genome with a drawn expression at a place, of at most so many operators."""
    limit = 1 + chances.below(operators)
    growing = Growing.none(_SLOT_OPERATORS, limit, base_of(tables, chances))
    rows, count, roots = Expressions(tables, genome).grow(growing, wanted[None], chances)
    return substituted(genome, site, rows, count, roots[0])


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
    has_no_place = (register < 0) | _is_operand_of_rev(genome, site)
    return Plan.done(_unless(has_no_place, child, genome))


def delete(parent: Parent, chances: Chances) -> Plan:
    """Replace an operator by one of its operands."""
    genome = parent.genome
    number = chances.below(genome.num_tick)
    operands = (genome.tick[number, 1:] >= 0).sum()
    return Plan.done(_replaced(genome, number, genome.tick[number, 1 + chances.below(operands)]))


def knock_out(parent: Parent, chances: Chances) -> Plan:
    """Replace an operator by 0 or 1."""
    genome = parent.genome
    number = ZERO + chances.below(len(NUMBERS))
    return Plan.done(_replaced(genome, chances.below(genome.num_tick), number))


def shrink(parent: Parent, chances: Chances) -> Plan:
    """Replace an operator by a leaf of its type: decrease the complexity."""
    genome = parent.genome
    number = chances.below(genome.num_tick)
    type_ = parent.types[FIRST_INSTRUCTION + number]
    return Plan.done(_replaced(genome, number, Leaf(parent.tables, genome).draw(type_, chances)))


def _replaced(genome: Genome, number: Array, register: Array) -> Genome:
    """Return a genome with another register wherever the value of an instruction was read."""
    old = FIRST_INSTRUCTION + number

    def moved(registers: Array) -> Array:
        return jnp.where(registers == old, register, registers)

    tick = genome.tick.at[:, 1:].set(moved(genome.tick[:, 1:]))
    child = replace(genome, tick=tick, value=moved(genome.value), guard=moved(genome.guard))
    return _unless(genome.num_tick == 0, child, genome)


def grow(parent: Parent, chances: Chances) -> Plan:
    """Replace a leaf by an expression: increase the complexity."""
    genome = parent.genome
    site = draw_leaf_site(genome, chances)
    is_leaf = (site.read(genome) < FIRST_INSTRUCTION) & ~_is_operand_of_rev(genome, site)
    type_ = jnp.maximum(parent.type_at(site), NODE_TYPE)
    wanted = jnp.where(is_leaf, type_, NOTHING)
    return replace(Plan.done(genome), site=site, wanted=wanted, operators=jnp.int32(_LEAF_OPERATORS))


def argument(parent: Parent, chances: Chances) -> Plan:
    """Read another value at a place: a leaf, or an instruction before it."""
    genome = parent.genome
    site = draw_site(genome, chances)
    is_of_rev = _is_operand_of_rev(genome, site)
    leaf = Leaf(parent.tables, genome).draw(parent.type_at(site), chances)
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
    return Plan.done(_unless(genome.num_tick == 0, child, genome))


def constant(parent: Parent, chances: Chances) -> Plan:
    """Multiply a constant by a number from 0.5 to 2, one in ten with the other sign."""
    genome = parent.genome
    place, is_there = chances.where(_read_constants(genome))
    least, largest = _FACTORS
    factor = least + (largest - least) * chances.take()
    factor = jnp.where(chances.happens(_FLIP), -factor, factor)
    child = replace(genome, constants=genome.constants.at[place].multiply(factor))
    return Plan.done(_unless(~is_there, child, genome))


def _read_constants(genome: Genome) -> Array:
    """Return which constants, but 0 and 1, something reads, bool [C]."""
    places = jnp.arange(genome.constants.shape[0])
    read = [genome.tick[:, 1:].reshape(-1), genome.beginning[:, 1:].reshape(-1)]
    read += [genome.value, genome.guard, genome.initial]
    is_read = (jnp.concatenate(read)[:, None] == FIRST_CONSTANT + places).any(0)
    return is_read & (places >= len(NUMBERS))


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
        operators=jnp.int32(_SLOT_OPERATORS),
    )


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
    return Plan(without, site, nothing, wanted, jnp.int32(_LEAF_OPERATORS))


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
    return Plan.done(_unless(genome.num_slots < 2, child, genome))


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
    refused = (number >= room) | _is_operand_of_rev(genome, site)
    return jax.tree.map(partial(jnp.where, refused), Plan.done(genome), plan)


def crossover(parent: Parent, chances: Chances) -> Plan:
    """Take value and guard of a slot from another rule; slots and constants they read are the own ones."""
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
    return Plan.done(_unless(~is_the_same_kind, child, genome))


def _unless(condition: Array, child: Genome, genome: Genome) -> Genome:
    """Return the child, or the second genome where a condition [] holds."""
    return jax.tree.map(lambda new, old: jnp.where(condition, old, new), child, genome)


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
    "guard": guard,
    "kind": kind,
    "initial": initial,
    "grow": grow,
    "shrink": shrink,
    "new_slot": new_slot,
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
    return _unless(~fits, shortened, genome)


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

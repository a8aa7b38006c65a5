"""Expressions drawn at random, typed by construction.

An expression is drawn from the top down. A hole has a wanted type; it is filled with a leaf, with a value
that stands elsewhere already, or with a new operator, whose operands are holes again.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from vsml.rules.operators import OPCODE, OPERATORS
from vsml.rules.rule import EDGE_TYPE, FLOAT_TYPE, NO_REGISTER, NODE_TYPE, PRIVATE
from vsml.search.choices import Chances
from vsml.search.genome import ARITY, IS_COUNT, IS_REDUCER, NOTHING, ONE, ZERO, Genome
from vsml.search.growing import NEW, REV, TRUTH_OF_EDGE, TRUTH_OF_NODE, Growing
from vsml.search.leaf import Leaf
from vsml.search.tables import Tables
from vsml.types import Array

_SAME_TWICE = ("sub", "div", "gt", "ge", "minimum", "maximum")
"""Operators that make a constant, or nothing, of two equal operands."""


@dataclass(frozen=True)
class Expressions:
    """Draws expressions for one genome.

    Attributes:
        tables: how.
        genome: whose slots and constants they use.
    """

    tables: Tables
    genome: Genome

    def fill(
        self,
        growing: Growing,
        wanted: Array,
        after: Array,
        may_cross: Array | bool,
        chances: Chances,
    ) -> tuple[Growing, Array]:
        """Fill a hole.

        Args:
            growing: new instructions so far.
            wanted: what the hole wants; `NOTHING` for no hole.
            after: number of the new instruction that reads it, -1 if none does.
            may_cross: whether it may be what the other end shows.
            chances: numbers to choose by.

        Returns:
            The new instructions, and the register; `NO_REGISTER` if no hole was there.
        """
        settings = self.tables.settings
        is_plain = chances.happens(settings.plain_truth)
        is_truth = (wanted == TRUTH_OF_NODE) | (wanted == TRUTH_OF_EDGE)
        of_truth = jnp.where(wanted == TRUTH_OF_NODE, NODE_TYPE, EDGE_TYPE)
        type_ = jnp.where(is_truth, of_truth, wanted)
        has_private = (self.genome.kind == PRIVATE).any()
        is_rev = (type_ == EDGE_TYPE) & chances.happens(settings.rev) & has_private & may_cross
        type_ = jnp.where(is_rev, REV, type_)
        leaf = Leaf(self.tables, self.genome).draw(jnp.where(is_truth & is_plain, wanted, type_), chances)
        is_leaf = chances.happens(growing.base) & ~is_rev
        is_leaf |= (growing.count >= growing.limit) | (wanted == FLOAT_TYPE) | (is_truth & is_plain)
        # A value that stands elsewhere: any of the row after the reader.
        waiting = growing.count - after - 1
        other = after + 1 + chances.below(waiting)
        shared = growing.wanted[jnp.clip(other, 0, growing.wanted.shape[0] - 1)]
        is_shared = chances.happens(settings.reuse) & (waiting > 0) & (shared == type_)
        is_new = ~is_leaf & ~is_shared & (wanted != NOTHING)
        place = jnp.minimum(growing.count, growing.wanted.shape[0] - 1)
        new_wanted = jnp.where(is_new, growing.wanted.at[place].set(type_), growing.wanted)
        register = jnp.where(is_leaf, leaf, jnp.where(is_shared, NEW + other, NEW + place))
        grown = replace(growing, wanted=new_wanted, count=growing.count + is_new)
        register = jnp.where(wanted == NOTHING, NO_REGISTER, register).astype(jnp.int32)
        return grown.reading(register), register

    def fill_all(
        self,
        growing: Growing,
        holes: Array,
        after: Array,
        chances: Chances,
    ) -> tuple[Growing, Array]:
        """Fill the holes of an operator or of a slot, int32 [n]; see `fill`."""

        def step(
            place: Array,
            found: tuple[Growing, Array, Array],
        ) -> tuple[Growing, Array, Array]:
            growing, registers, may_cross = found
            count = growing.count
            growing, register = self.fill(growing, holes[place], after, may_cross, chances.part(place))
            # Once is enough: with one private slot, it would be the same value again.
            newest = growing.wanted[jnp.maximum(growing.count - 1, 0)]
            may_cross &= (growing.count == count) | (newest != REV)
            return growing, registers.at[place].set(register), may_cross

        nothing = jnp.full(holes.shape[0], NO_REGISTER, jnp.int32)
        start = (growing, nothing, jnp.array(True))
        growing, registers, _ = jax.lax.fori_loop(0, holes.shape[0], step, start)
        return growing, registers

    def choose(
        self,
        wanted: Array,
        chances: Chances,
    ) -> tuple[Array, Array]:
        """Return an operator for what a new instruction has to be, and what its operands want, int32 [3]."""
        of_node = chances.one_of(self.tables.node_operators)
        of_edge = chances.one_of(self.tables.edge_operators)
        operator = jnp.where(wanted == NODE_TYPE, of_node, of_edge)
        holes = jnp.stack(self._holes(operator, wanted, chances)).astype(jnp.int32)
        # A rev has its slot, and no hole.
        is_rev = wanted == REV
        operator = jnp.where(is_rev, OPCODE["rev"], operator).astype(jnp.int32)
        return operator, jnp.where(is_rev, NOTHING, holes)

    def row(
        self,
        operator: Array,
        operands: Array,
        chances: Chances,
    ) -> Array:
        """Return an instruction, int32 [4], of an operator and its filled operands, int32 [3]."""
        same = jnp.asarray(np.isin(np.arange(len(OPERATORS)), [OPCODE[name] for name in _SAME_TWICE]))
        first, second = operands[0], operands[1]
        is_idle = same[operator] & (first == second)
        second = jnp.where(is_idle, jnp.where(first == ONE, ZERO, ONE), second)
        slot, _ = chances.where(self.genome.kind == PRIVATE)
        first = jnp.where(operator == OPCODE["rev"], slot, first)
        return jnp.stack([operator, first, second, operands[2]])

    def operator(
        self,
        growing: Growing,
        number: Array,
        chances: Chances,
    ) -> Growing:
        """Draw the operator of the new instruction whose turn it is, and fill its operands."""
        operator, holes = self.choose(growing.wanted[number], chances)
        growing, operands = self.fill_all(growing, holes, number, chances)
        return self.written(growing, number, self.row(operator, operands, chances))

    def written(
        self,
        growing: Growing,
        number: Array,
        row: Array,
    ) -> Growing:
        """Return the new instructions with one of them, int32 [4], in its place."""
        growing = replace(growing, rows=growing.rows.at[number].set(row))
        # What `rev` reads was no hole.
        return growing.reading(jnp.where(row[0] == OPCODE["rev"], row[1], NO_REGISTER))

    def _holes(
        self,
        operator: Array,
        wanted: Array,
        chances: Chances,
    ) -> list[Array]:
        """Return what the three operands of an operator want, `NOTHING` for those it has not."""
        settings = self.tables.settings
        arity = jnp.asarray(ARITY)[operator]
        is_reducer = jnp.asarray(IS_REDUCER)[operator]
        is_count = jnp.asarray(IS_COUNT)[operator]
        # One operand has the type of the result, any of them; others are numbers, or may be lower.
        main = chances.below(arity)
        has_filter = chances.happens(settings.filters)
        holes = []
        for place in range(3):
            is_number = chances.happens(settings.floats)
            is_lower = chances.happens(settings.nodes) & (wanted == EDGE_TYPE)
            other = jnp.where(is_lower, NODE_TYPE, wanted)
            # A condition that is a number chooses nothing.
            is_condition = (operator == OPCODE["sel"]) & (place == 0)
            other = jnp.where(is_number & ~is_condition, FLOAT_TYPE, other)
            hole = jnp.where(main == place, wanted, other)
            hole = jnp.where(place < arity, hole, NOTHING)
            holes.append(hole)
        first, second, third = holes
        first = jnp.where(is_reducer, EDGE_TYPE, jnp.where(is_count, TRUTH_OF_EDGE, first))
        second = jnp.where(is_reducer, jnp.where(has_filter, TRUTH_OF_EDGE, NOTHING), second)
        return [first, second, third]

    def grow(
        self,
        growing: Growing,
        wanted: Array,
        chances: Chances,
    ) -> tuple[Array, Array, Array]:
        """Draw an expression for each of some holes.

        Args:
            growing: no instructions yet.
            wanted: what the holes want, int32 [W].
            chances: numbers to choose by.

        Returns:
            Instructions [M, 4] in the order in which they are computed, how many, and a register for each
            hole [W]. Registers of instructions are `NEW` + place.
        """
        growing, roots = self.fill_all(growing, wanted, jnp.int32(-1), chances)

        def step(state: tuple[Array, Growing]) -> tuple[Array, Growing]:
            number, growing = state
            return number + 1, self.operator(growing, number, chances.part(NEW + number))

        def is_waiting(state: tuple[Array, Growing]) -> Array:
            return state[0] < state[1].count

        _, growing = jax.lax.while_loop(is_waiting, step, (jnp.int32(0), growing))
        rows, roots = growing.turned(roots)
        return rows, growing.count, roots

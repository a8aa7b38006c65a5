"""Rules drawn at random, typed by construction.

An expression is drawn from the top down. A hole has a wanted type; it is filled with a leaf, with a value
that stands elsewhere already, or with a new operator, whose operands are holes again. New operators wait in
a row until their turn comes, so that an operand always has a higher number than what reads it; at the end
the row is turned around.
"""

from dataclasses import dataclass, replace
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from vsml.rules.canonical import instruction_array
from vsml.rules.operators import OPCODE, OPERATORS
from vsml.rules.parser import parse
from vsml.rules.rule import (
    EDGE_TYPE,
    FIRST_CONSTANT,
    FIRST_GRAPH_VALUE,
    FIRST_INSTRUCTION,
    FIRST_PORT,
    FLOAT_TYPE,
    GRAPH_VALUES,
    NO_REGISTER,
    NODE,
    NODE_TYPE,
    PORTS,
    PRIVATE,
)
from vsml.search.analysis import pruned
from vsml.search.choices import Chances, cumulative, seeds_of
from vsml.search.genome import (
    ARITY,
    IS_COUNT,
    IS_ELEMENTWISE,
    IS_REDUCER,
    NOTHING,
    NUMBERS,
    ONE,
    ZERO,
    Genome,
    empty_genome,
)
from vsml.search.one_kernel import one_kernel
from vsml.search.settings import Drawing, Room
from vsml.types import Array

# What a hole wants, beside the three types.
REV, TRUTH_OF_NODE, TRUTH_OF_EDGE = range(3, 6)
"""What the other end shows; something that is 0 or 1, for a guard or a filter."""

NEW = 1000
"""Registers of new instructions, in the order of the row, as long as their place is not known."""

MIN_CONSTANT, MAX_CONSTANT = 0.01, 2.0
"""Sizes of constants that are drawn, uniform in their logarithm."""

_NEGATIVE = 0.2
"""Share of drawn constants that are below 0."""

_NODE_ROOT = 0.2
"""Share of edge slots that store a node value."""

_GROUPS = {
    "arithmetic": {"add": 3.0, "sub": 2.0, "mul": 4.0, "neg": 0.5, "div": 1.0},
    "comparison": {"gt": 1.0, "ge": 0.5, "minimum": 0.5, "maximum": 0.5, "sel": 1.5},
    "function": {
        "abs": 0.5,
        "square": 1.0,
        "sin": 0.2,
        "tanh": 2.0,
        "relu": 1.0,
        "sign": 1.0,
        "sigmoid": 0.5,
        "exp": 0.2,
        "log": 0.1,
        "sqrt": 0.5,
    },
    "reducer": {"sum": 4.0, "mean": 2.0, "max": 0.7, "min": 0.7, "std": 0.6},
    "count": {"count": 1.0},
}
"""Shares of operators within their groups."""

_SAME_TWICE = ("sub", "div", "gt", "ge", "minimum", "maximum")
"""Operators that make a constant, or nothing, of two equal operands."""

_NODE_LEAVES = ("x", "x_on", "t", "t_on", "node_noise", "degree")
_EDGE_LEAVES = ("edge_noise", "parity", "incoming", "outgoing")


def register_of(name: str) -> int:
    """Return the register of a port or graph value."""
    if name in PORTS:
        return FIRST_PORT + PORTS.index(name)
    return FIRST_GRAPH_VALUE + GRAPH_VALUES.index(name)


_TRUTHS = [register_of(name) for name in ("x_on", "t_on", "incoming", "outgoing")]


@dataclass(frozen=True, eq=False)
class Tables:
    """What `Drawing` says, as tables of cumulative weights.

    Attributes:
        settings: where they are from.
        node_operators, edge_operators: by operator, of results of that type.
        kinds: by kind of slot.
        initials: by initialisation.
        beginnings: instructions of each initialisation, int32 [n, m, 4]; results of it are `NEW` + place.
        starts: register of each initialisation's value, int32 [n].
        lengths: instructions of each, int32 [n].
        base: by range of the probability that an expression is a leaf.
        node_leaves, edge_leaves: by leaf, slots last.
    """

    settings: Drawing
    node_operators: np.ndarray
    edge_operators: np.ndarray
    kinds: np.ndarray
    initials: np.ndarray
    beginnings: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    base: np.ndarray
    node_leaves: np.ndarray
    edge_leaves: np.ndarray


@lru_cache(maxsize=32)
def tables_of(settings: Drawing) -> Tables:
    """Return the tables of some settings.

    Raises:
        ValueError: an initialisation uses other numbers than 0 and 1, or constants.
        RuleError: an initialisation has mistakes.
    """
    weights = np.zeros(len(OPERATORS))
    for group, shares in _GROUPS.items():
        total = sum(shares.values())
        for name, share in shares.items():
            weights[OPCODE[name]] = getattr(settings, group) * share / total
    begin = [_initial_rows(each.expression) for each in settings.initials]
    longest = max(1, *(len(rows) for rows, _ in begin))
    beginnings = np.full((len(begin), longest, 4), NOTHING, np.int32)
    for number, (rows, _) in enumerate(begin):
        beginnings[number, : len(rows)] = rows
    leaves = settings.leaves
    return Tables(
        settings=settings,
        node_operators=cumulative(list(weights)),
        edge_operators=cumulative(list(weights * IS_ELEMENTWISE)),
        kinds=cumulative(settings.kinds),
        initials=cumulative([each.weight for each in settings.initials]),
        beginnings=beginnings,
        starts=np.array([start for _, start in begin], np.int32),
        lengths=np.array([len(rows) for rows, _ in begin], np.int32),
        base=cumulative([each.weight for each in settings.base]),
        node_leaves=cumulative([*(getattr(leaves, name) for name in _NODE_LEAVES), leaves.node_slot]),
        edge_leaves=cumulative([*(getattr(leaves, name) for name in _EDGE_LEAVES), leaves.edge_slot]),
    )


def _initial_rows(expression: str | None) -> tuple[np.ndarray, int]:
    """Return the instructions of an initialisation and the register of its value."""
    if expression is None:
        return np.zeros((0, 4), np.int32), NO_REGISTER
    rule = parse(f"a : node\nw : edge = {expression}\nout = a\n")
    numbers = [constant.value for constant in rule.constants]
    if not set(numbers) <= set(NUMBERS):
        raise ValueError(f"initials: got {expression!r}, expected no numbers but 0 and 1")

    def moved(register: int) -> int:
        if register >= FIRST_INSTRUCTION:
            return register - FIRST_INSTRUCTION + NEW
        if register >= FIRST_CONSTANT:
            return FIRST_CONSTANT + NUMBERS.index(numbers[register - FIRST_CONSTANT])
        return register

    rows = instruction_array(rule.initial).astype(np.int32)
    for row in rows:
        row[1:] = [moved(int(register)) for register in row[1:]]
    return rows, moved(rule.slots[1].initial)


@struct.dataclass
class Growing:
    """New instructions under construction. M is their room.

    Attributes:
        rows: operator and operands, int32 [M, 4].
        wanted: what each has to be, int32 [M].
        count: how many there are, int32 [].
        slots: slots that they read, as bits, uint32 [].
        limit: how many there may be, int32 [].
        base: probability that an expression is a leaf, [].
    """

    rows: Array
    wanted: Array
    count: Array
    slots: Array
    limit: Array
    base: Array

    @staticmethod
    def none(room: int, limit: Array | int, base: Array) -> "Growing":
        """Return none."""
        return Growing(
            rows=jnp.full((room, 4), NOTHING, jnp.int32),
            wanted=jnp.full(room, NOTHING, jnp.int32),
            count=jnp.int32(0),
            slots=jnp.uint32(0),
            limit=jnp.minimum(jnp.int32(limit), room),
            base=base,
        )

    def reading(self, register: Array) -> "Growing":
        """Return the same with a register noted, if it is a slot's."""
        is_slot = (register >= 0) & (register < FIRST_PORT)
        bit = jnp.uint32(1) << jnp.clip(register, 0, FIRST_PORT - 1).astype(jnp.uint32)
        return replace(self, slots=jnp.where(is_slot, self.slots | bit, self.slots))

    def turned(self, registers: Array) -> tuple[Array, Array]:
        """Return the instructions in the order they are computed in, and registers of new ones in it."""
        last = self.count - 1

        def turn(register: Array) -> Array:
            return jnp.where(register >= NEW, NEW + last - (register - NEW), register)

        order = last - jnp.arange(self.rows.shape[0])
        rows = self.rows[jnp.maximum(order, 0)]
        rows = jnp.where((order >= 0)[:, None], rows.at[:, 1:].set(turn(rows[:, 1:])), NOTHING)
        return rows, turn(registers)


@dataclass(frozen=True)
class Leaf:
    """Draws leaves for one genome.

    Attributes:
        tables: how.
        genome: of whose slots and constants.
    """

    tables: Tables
    genome: Genome

    def draw(self, wanted: Array, chances: Chances) -> Array:
        """Return the register of a leaf of a type."""
        truths = jnp.array(_TRUTHS)
        of_nodes = jnp.array([register_of(name) for name in (*_NODE_LEAVES, "x")])
        of_edges = jnp.array([register_of(name) for name in (*_EDGE_LEAVES, "incoming")])
        is_edge = (wanted == EDGE_TYPE) | (wanted == REV)
        is_node_slot = self.genome.kind == NODE
        mask = jnp.where(is_edge, self.genome.kind > NODE, is_node_slot)
        slot, is_there = chances.where(mask)
        node_place = chances.one_of(self.tables.node_leaves)
        edge_place = chances.one_of(self.tables.edge_leaves)
        takes_slot = jnp.where(is_edge, edge_place == len(_EDGE_LEAVES), node_place == len(_NODE_LEAVES))
        given = jnp.where(is_edge, of_edges[edge_place], of_nodes[node_place])
        found = jnp.where(takes_slot & is_there, slot, given)
        number = chances.take()
        # Any constant but 0.
        constant = ONE + jnp.floor(number * (self.genome.num_constants - 1)).astype(jnp.int32)
        found = jnp.where(wanted == FLOAT_TYPE, constant, found)
        truth = truths[jnp.floor(number * jnp.where(wanted == TRUTH_OF_EDGE, 4, 2)).astype(jnp.int32)]
        is_truth = (wanted == TRUTH_OF_NODE) | (wanted == TRUTH_OF_EDGE)
        return jnp.where(is_truth, truth, found).astype(jnp.int32)


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


def placed(register: Array, first: Array) -> Array:
    """Return registers with those of new instructions counted from the register of the first of them."""
    return jnp.where(register >= NEW, register - NEW + first, register)


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


def base_of(tables: Tables, chances: Chances) -> Array:
    """Return the probability that an expression of a rule is a leaf."""
    ranges = tables.settings.base
    number = chances.one_of(tables.base)
    least = jnp.array([each.least for each in ranges])[number]
    most = jnp.array([each.most for each in ranges])[number]
    return least + chances.take() * (most - least)


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


@struct.dataclass
class _Drawn:
    """A rule under construction.

    Attributes:
        turn: of the loop, int32 [].
        number: the operator whose turn it is, int32 [].
        growing: operators so far.
        roots: value and guard of each slot, int32 [S, 2].
        done: slots that have them, as bits, uint32 [].
    """

    turn: Array
    number: Array
    growing: Growing
    roots: Array
    done: Array

    @property
    def next_slot(self) -> Array:
        """The first slot that is read and not done, int32 []."""
        open_slots = self.growing.slots & ~self.done
        places = jnp.arange(self.roots.shape[0], dtype=jnp.uint32)
        is_open = ((open_slots >> places) & 1) > 0
        return jnp.where(is_open, places, FIRST_PORT).min().astype(jnp.int32)

    @property
    def is_going_on(self) -> Array:
        """Whether there is an operator or a slot left."""
        return (self.number < self.growing.count) | ((self.growing.slots & ~self.done) > 0)


def draw_one(
    tables: Tables,
    room: Room,
    seed: Array,
) -> Genome:
    """Draw a rule.

    Args:
        tables: how.
        room: how large it may become.
        seed: of all that is drawn, uint32 [2].
    """
    settings = tables.settings
    chances = Chances(seed)
    of_constants, of_slots, of_steps = (chances.part(number) for number in range(3))
    genome = jax.tree.map(jnp.asarray, empty_genome(room.capacity))
    genome = _with_constants(genome, settings, of_constants)
    genome = _with_slots(genome, tables, of_slots, chances)
    expressions = Expressions(tables, genome)
    least, most = settings.operators
    limit = least + chances.below(most - least + 1)
    base = base_of(tables, chances)
    num_operators = min(settings.operators[1], room.operators)
    growing = Growing.none(num_operators, limit, base).reading(jnp.int32(0))
    roots = jnp.full((room.slots, 2), NO_REGISTER, jnp.int32)

    # Expressions of a slot are drawn once something reads it, from the slot that is read on: so all is live.
    def step(state: _Drawn) -> _Drawn:
        chances = of_steps.part(state.turn)
        is_operator = state.number < state.growing.count
        slot = state.next_slot
        operator, holes = expressions.choose(state.growing.wanted[state.number], chances)
        value, guard = roots_of(tables, genome.kind[slot], chances)
        of_slot = jnp.stack([value, guard, jnp.int32(NOTHING)])
        after = jnp.where(is_operator, state.number, -1)
        # The slot that is read is never a leaf.
        growing = replace(state.growing, base=jnp.where(is_operator | (slot > 0), base, 0.0))
        growing, filled = expressions.fill_all(
            growing, jnp.where(is_operator, holes, of_slot), after, chances
        )
        row = expressions.row(operator, filled, chances)
        written = expressions.written(growing, state.number, row)
        growing = jax.tree.map(partial(jnp.where, is_operator), written, growing)
        pair = jnp.where(is_operator, state.roots[slot], filled[:2])
        bit = jnp.uint32(1) << slot.astype(jnp.uint32)
        return _Drawn(
            turn=state.turn + 1,
            number=state.number + is_operator,
            growing=growing,
            roots=state.roots.at[slot].set(pair),
            done=jnp.where(is_operator, state.done, state.done | bit),
        )

    start = _Drawn(jnp.int32(0), jnp.int32(0), growing, roots, jnp.uint32(0))
    drawn = jax.lax.while_loop(lambda state: state.is_going_on, step, start)
    rows, roots = drawn.growing.turned(drawn.roots)
    roots = placed(roots, jnp.int32(FIRST_INSTRUCTION))
    rows = rows.at[:, 1:].set(placed(rows[:, 1:], jnp.int32(FIRST_INSTRUCTION)))
    rows = jnp.pad(rows, ((0, room.operators - num_operators), (0, 0)), constant_values=NOTHING)
    genome = replace(
        genome,
        value=not_itself(jnp.arange(room.slots), genome.kind, roots[:, 0]),
        guard=roots[:, 1],
        tick=rows,
        sizes=genome.sizes.at[3].set(drawn.growing.count),
    )
    return pruned(genome)


def drawn_constant(chances: Chances) -> Array:
    """Return a constant that may be tuned, []."""
    size = MIN_CONSTANT * (MAX_CONSTANT / MIN_CONSTANT) ** chances.take()
    return jnp.where(chances.happens(_NEGATIVE), -size, size)


def _with_constants(
    genome: Genome,
    settings: Drawing,
    chances: Chances,
) -> Genome:
    """Return a genome with constants that a drawn rule may use."""
    room = genome.constants.shape[0]
    count = min(len(NUMBERS) + settings.constants, room)

    def draw(place: Array, constants: Array) -> Array:
        return constants.at[place].set(drawn_constant(chances.part(place)))

    places = jnp.arange(room)
    return replace(
        genome,
        constants=jax.lax.fori_loop(len(NUMBERS), count, draw, genome.constants),
        tuned=(places >= len(NUMBERS)) & (places < count),
        sizes=genome.sizes.at[1].set(count),
    )


def _with_slots(
    genome: Genome,
    tables: Tables,
    of_slots: Chances,
    chances: Chances,
) -> Genome:
    """Return a genome with slots of drawn kinds and initialisations."""
    least, most = tables.settings.slots
    count = jnp.minimum(least + chances.below(most - least + 1), genome.kind.shape[0])

    def begin(slot: Array, genome: Genome) -> Genome:
        chances = of_slots.part(slot)
        drawn = chances.one_of(tables.kinds)
        # The first is read, and the second can be seen from the other end.
        kind = jnp.where(slot == 0, NODE, jnp.where(slot == 1, PRIVATE, drawn))
        genome = replace(genome, kind=genome.kind.at[slot].set(kind))
        return begin_slot(tables, genome, slot, chances.one_of(tables.initials))

    genome = replace(genome, sizes=genome.sizes.at[0].set(count))
    return jax.lax.fori_loop(0, count, begin, genome)


def draw_genomes(
    settings: Drawing,
    room: Room,
    key: Array,
    count: int,
) -> Genome:
    """Draw rules, with a leading axis; each depends on the key and its number alone.

    Args:
        settings: how.
        room: how large they may become.
        key: of all that is drawn.
        count: how many.
    """
    return _draw(settings, room)(key, count)


@lru_cache(maxsize=32)
def _draw(settings: Drawing, room: Room):  # type: ignore[no-untyped-def]  # a jit-ed function
    tables = tables_of(settings)
    draw_all = one_kernel(lambda seeds: jax.lax.map(lambda seed: draw_one(tables, room, seed), seeds))
    return jax.jit(lambda key, count: draw_all(seeds_of(key, count)), static_argnums=1)

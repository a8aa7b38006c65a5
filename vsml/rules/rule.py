"""Rules as programs: slots, constants and instructions over numbered registers."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from vsml.rules.mistakes import did_you_mean
from vsml.rules.operators import OPERATORS

PORTS = ("x", "x_on", "t", "t_on", "node_noise", "edge_noise")
"""What the harness fills in every tick."""

GRAPH_VALUES = ("degree", "parity", "incoming", "outgoing")
"""What the graph says of a node or of a half-edge."""

KINDS = ("node", "edge", "edge shared(owner)", "edge shared(mean)", "edge shared(sum)")
"""Kinds of slots; the number of a kind is its place."""

NODE, PRIVATE, OWNER, MEAN, SUM = range(len(KINDS))

MAX_SLOTS = 16
MAX_CONSTANTS = 24
MAX_OPERATORS = 96
MAX_INITIAL_OPERATORS = 32

# Registers of a program, in this order; those of the instructions are last.
FIRST_PORT = MAX_SLOTS
FIRST_GRAPH_VALUE = FIRST_PORT + len(PORTS)
FIRST_CONSTANT = FIRST_GRAPH_VALUE + len(GRAPH_VALUES)
FIRST_INSTRUCTION = FIRST_CONSTANT + MAX_CONSTANTS
NO_REGISTER = -1
"""Stands for a value that is not there: no filter, no guard, no store, no initialisation."""

# Types, in the order of broadcasting.
FLOAT_TYPE, NODE_TYPE, EDGE_TYPE = range(3)
TYPE_NAMES = ("float", "node", "edge")

NAMED_TYPES = {
    "x": NODE_TYPE,
    "x_on": NODE_TYPE,
    "t": NODE_TYPE,
    "t_on": NODE_TYPE,
    "node_noise": NODE_TYPE,
    "edge_noise": EDGE_TYPE,
    "degree": NODE_TYPE,
    "parity": EDGE_TYPE,
    "incoming": EDGE_TYPE,
    "outgoing": EDGE_TYPE,
}
"""Types of ports and graph values."""


@dataclass(frozen=True)
class Constant:
    """A number of a rule.

    Attributes:
        value: the number.
        name: of a constant that may be tuned; None for a number in an expression.
    """

    value: float
    name: str | None = None


@dataclass(frozen=True)
class Instruction:
    """One operator and the registers of its operands; its result is a register of its own.

    Attributes:
        operator: number of the operator, its place in `OPERATORS`.
        operands: registers, in order; a reducer without a filter has one.
    """

    operator: int
    operands: tuple[int, ...]

    @property
    def name(self) -> str:
        """The name of the operator."""
        return OPERATORS[self.operator].name


@dataclass(frozen=True)
class Slot:
    """Memory of every node or edge.

    Attributes:
        name: its name.
        kind: number of its kind, its place in `KINDS`.
        initial: register of the program of initialisations; `NO_REGISTER`: it starts as 0, and is a signal.
        value: register that is stored; `NO_REGISTER`: nothing is.
        guard: register of the guard; `NO_REGISTER`: it is stored everywhere.
    """

    name: str
    kind: int
    initial: int = NO_REGISTER
    value: int = NO_REGISTER
    guard: int = NO_REGISTER

    @property
    def is_signal(self) -> bool:
        """Whether it has no initialisation expression."""
        return self.initial == NO_REGISTER


@dataclass(frozen=True)
class Definition:
    """A name for a register, in the place of the text where it is defined."""

    name: str
    register: int


@dataclass(frozen=True)
class Store:
    """The place in the text of the store to a slot, by the slot's number."""

    slot: int


@dataclass(frozen=True)
class Rule:
    """What every node and every edge of a graph does in one tick.

    Two rules are equal if their programs and their names are. `show` writes a rule as text, `rule_hash`
    tells whether two do the same.

    Attributes:
        slots: memory, at most 16.
        constants: named ones first, in the order of their lines; then numbers in the order of their use.
        initial: instructions of all initialisations, slot by slot.
        tick: instructions of one tick, in the order of the text.
        out: number of the node slot that is read.
        body: definitions and stores, in the order of the text; for printing.
    """

    slots: tuple[Slot, ...]
    constants: tuple[Constant, ...]
    initial: tuple[Instruction, ...]
    tick: tuple[Instruction, ...]
    out: int
    body: tuple[Definition | Store, ...] = ()

    @property
    def tuned(self) -> dict[str, float]:
        """The constants that may be tuned: the rule's meta-parameters and their values."""
        return {constant.name: constant.value for constant in self.constants if constant.name is not None}

    @property
    def size(self) -> int:
        """How many operators a tick has."""
        return len(self.tick)

    def slot_number(self, name: str) -> int:
        """Return the number of a slot.

        Raises:
            ValueError: the rule has no such slot.
        """
        names = [slot.name for slot in self.slots]
        if name not in names:
            raise ValueError(f"slot: got {name!r}, expected one of {', '.join(names)}")
        return names.index(name)

    def instruction(self, register: int) -> Instruction | None:
        """Return the instruction of the tick whose result is a register; None for any other register."""
        if register < FIRST_INSTRUCTION:
            return None
        return self.tick[register - FIRST_INSTRUCTION]

    def uses(self, port: str) -> bool:
        """Return whether anything in a tick reads a port."""
        register = FIRST_PORT + PORTS.index(port)
        return register in set(self.reads())

    def reads(self) -> Iterator[int]:
        """Yield every register that a tick reads, as often as it does."""
        for instruction in self.tick:
            yield from instruction.operands
        for slot in self.slots:
            yield slot.value
            yield slot.guard


def slot_order(rule: Rule) -> list[int]:
    """Return the numbers of the live slots in order of the first visit.

    The visit starts at the slot that is read. It goes depth first from a slot to what it stores, to the
    guard, and from operators to their operands from left to right.
    """
    order: list[int] = []
    visited: set[int] = set()
    pending = [rule.out]
    # What is to be visited next is last.
    while pending:
        register = pending.pop()
        if register in visited or register == NO_REGISTER:
            continue
        visited.add(register)
        if register < FIRST_PORT:
            order.append(register)
            slot = rule.slots[register]
            pending += [slot.guard, slot.value]
        elif instruction := rule.instruction(register):
            pending += reversed(instruction.operands)
    return order


def draw_streams(rule: Rule) -> dict[int, int]:
    """Return for every slot the number that its random draws depend on.

    It is the slot's place among the live ones, so that rules with one hash draw the same numbers however
    they are written. Dead slots follow, in the order of their lines.
    """
    live = slot_order(rule)
    dead = [number for number in range(len(rule.slots)) if number not in live]
    return {number: place for place, number in enumerate([*live, *dead])}


def with_constants(
    rule: Rule,
    given: Mapping[str, Any],
) -> Rule:
    """Return a rule with other values for constants that may be tuned.

    Args:
        rule: the rule.
        given: values by name; others keep theirs.

    Raises:
        ValueError: there is no such constant, or a value is not a finite number.
    """
    for name, value in given.items():
        if name not in rule.tuned:
            expected = f"one of {', '.join(rule.tuned)}" if rule.tuned else "none: the rule has none"
            raise ValueError(f"constants: got {name!r}, expected {expected}{did_you_mean(name, rule.tuned)}")
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (is_number and math.isfinite(value)):
            raise ValueError(f"constants: {name}: got {value!r}, expected a finite number")
    constants = []
    for constant in rule.constants:
        value = given.get(constant.name, constant.value) if constant.name else constant.value
        constants.append(replace(constant, value=float(value)))
    return replace(rule, constants=tuple(constants))

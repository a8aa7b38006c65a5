"""Rules as integers that can be drawn, changed and compared on the device."""

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import struct

from vsml.rules.canonical import canonical, instruction_array
from vsml.rules.operators import OPERATORS
from vsml.rules.program import Capacity
from vsml.rules.rule import (
    FIRST_CONSTANT,
    MAX_CONSTANTS,
    NO_REGISTER,
    Constant,
    Instruction,
    Rule,
    Slot,
    Store,
    slot_order,
)
from vsml.types import Array

NUMBERS = (0.0, 1.0)
"""The first constants of every genome: plain numbers that a mutation may need."""

ZERO, ONE = range(FIRST_CONSTANT, FIRST_CONSTANT + len(NUMBERS))
"""Their registers."""

NOTHING = -1
"""Operator or kind of a place that is empty."""


@struct.dataclass
class Genome:
    """A rule as integers. Registers are those of `Rule`; filled places come first, in each array.

    Letters: S slots, C constants, I instructions of initialisations, L of a tick. Slot 0 is the one that is
    read. An instruction reads slots, ports, graph values, constants and earlier instructions.

    Attributes:
        kind: of each slot, int32 [S]; `NOTHING` where there is none.
        initial: register of each slot's initialisation, int32 [S].
        value: register that is stored, int32 [S].
        guard: register of the guard, int32 [S].
        constants: float32 [C]; the first two are the numbers 0 and 1.
        tuned: whether a constant may be tuned; else it is a plain number, bool [C].
        beginning: operator and operands of initialisations, int32 [I, 4].
        tick: operator and operands of a tick, int32 [L, 4].
        sizes: how many slots, constants, instructions of initialisations and of a tick there are, int32 [4].
    """

    kind: Array
    initial: Array
    value: Array
    guard: Array
    constants: Array
    tuned: Array
    beginning: Array
    tick: Array
    sizes: Array

    @property
    def num_slots(self) -> Array:
        """How many slots there are, int32 [...]."""
        return self.sizes[..., 0]

    @property
    def num_constants(self) -> Array:
        """How many constants there are, the two numbers included, int32 [...]."""
        return self.sizes[..., 1]

    @property
    def num_beginning(self) -> Array:
        """How many instructions the initialisations have, int32 [...]."""
        return self.sizes[..., 2]

    @property
    def num_tick(self) -> Array:
        """How many instructions a tick has, int32 [...]."""
        return self.sizes[..., 3]

    @property
    def capacity(self) -> Capacity:
        """The room of the arrays of one genome."""
        return Capacity(
            slots=self.kind.shape[-1],
            constants=self.constants.shape[-1],
            initial=self.beginning.shape[-2],
            tick=self.tick.shape[-2],
        )


def empty_genome(capacity: Capacity) -> Genome:
    """Return a genome without slots and instructions, on the host.

    Raises:
        ValueError: there is no room for the two numbers, or more than registers of `Rule` have.
    """
    if not len(NUMBERS) < capacity.constants <= MAX_CONSTANTS:
        raise ValueError(f"capacity: got {capacity.constants} constants, expected 3 to {MAX_CONSTANTS}")
    constants = np.zeros(capacity.constants, np.float32)
    constants[: len(NUMBERS)] = NUMBERS
    nothing = np.full(capacity.slots, NO_REGISTER, np.int32)
    arrays: dict[str, Any] = {
        "kind": np.full(capacity.slots, NOTHING, np.int32),
        "initial": nothing,
        "value": nothing,
        "guard": nothing,
        "constants": constants,
        "tuned": np.zeros(capacity.constants, bool),
        "beginning": np.full((capacity.initial, 4), NOTHING, np.int32),
        "tick": np.full((capacity.tick, 4), NOTHING, np.int32),
        "sizes": np.array([0, len(NUMBERS), 0, 0], np.int32),
    }
    return Genome(**arrays)


def genome_of(
    rule: Rule,
    capacity: Capacity,
) -> Genome:
    """Return a rule as a genome, on the host: its canonical form.

    Args:
        rule: the rule.
        capacity: the room of the arrays.

    Raises:
        ValueError: the rule has no room in it.
    """
    rule = canonical(rule)
    capacity.check_holds(rule)
    found = empty_genome(capacity)
    # Numbers that every genome has are not kept twice.
    registers: dict[int, int] = {}
    size = len(NUMBERS)
    for place, constant in enumerate(rule.constants):
        is_number = constant.name is None and constant.value in NUMBERS
        if is_number:
            registers[FIRST_CONSTANT + place] = FIRST_CONSTANT + NUMBERS.index(constant.value)
            continue
        if size == capacity.constants:
            raise ValueError(
                f"capacity: got a rule of {len(rule.constants)} constants, expected at most "
                f"{capacity.constants - len(NUMBERS)} besides 0 and 1"
            )
        registers[FIRST_CONSTANT + place] = FIRST_CONSTANT + size
        found.constants[size] = constant.value
        found.tuned[size] = constant.name is not None
        size += 1
    # Slots in the order of the first visit, so that random draws are those of the rule.
    order = slot_order(rule)
    registers |= {old: new for new, old in enumerate(order)}
    slots: dict[str, Any] = {
        name: np.full(capacity.slots, NO_REGISTER, np.int32) for name in ("initial", "value", "guard")
    }
    for new, old in enumerate(order):
        found.kind[new] = rule.slots[old].kind
        for name, array in slots.items():
            register = getattr(rule.slots[old], name)
            array[new] = registers.get(register, register)
    for name, program in (("beginning", rule.initial), ("tick", rule.tick)):
        rows = instruction_array(program).astype(np.int32)
        rows[:, 1:] = np.vectorize(lambda old: registers.get(old, old), otypes=[np.int32])(rows[:, 1:])
        getattr(found, name)[: len(rows)] = rows
    sizes: Any = np.array([len(order), size, len(rule.initial), len(rule.tick)], np.int32)
    return replace(found, sizes=sizes, **slots)


def rule_of(genome: Genome) -> Rule:
    """Return the canonical rule of a genome that is on the host.

    Slots are m0, m1, ... and constants that may be tuned c0, c1, ...
    """
    num_slots, num_constants, num_beginning, num_tick = (int(size) for size in genome.sizes)
    slots: list[Slot] = []
    for number in range(num_slots):
        registers = [int(array[number]) for array in (genome.initial, genome.value, genome.guard)]
        slots.append(Slot(f"m{number}", int(genome.kind[number]), *registers))
    constants: list[Constant] = []
    for number in range(num_constants):
        # The shortest number that is the same as float32.
        value = float(str(np.float32(genome.constants[number])))
        name = f"c{len(constants)}" if genome.tuned[number] else None
        constants.append(Constant(value, name))
    stores = tuple(Store(number) for number, slot in enumerate(slots) if slot.value != NO_REGISTER)
    rule = Rule(
        slots=tuple(slots),
        constants=tuple(constants),
        initial=_instructions(np.asarray(genome.beginning)[:num_beginning]),
        tick=_instructions(np.asarray(genome.tick)[:num_tick]),
        out=0,
        body=stores,
    )
    return _with_plain_names(canonical(rule))


def _instructions(rows: np.ndarray) -> tuple[Instruction, ...]:
    found: list[Instruction] = []
    for operator, *operands in rows.tolist():
        given = tuple(operand for operand in operands if operand != NO_REGISTER)
        found.append(Instruction(operator, given))
    return tuple(found)


def _with_plain_names(rule: Rule) -> Rule:
    """Return a canonical rule whose slots and constants are numbered in their order."""
    slots = tuple(replace(slot, name=f"m{place}") for place, slot in enumerate(rule.slots))
    constants: list[Constant] = []
    for constant in rule.constants:
        name = f"c{len(constants)}" if constant.name is not None else None
        constants.append(Constant(constant.value, name))
    return replace(rule, slots=slots, constants=tuple(constants))


def stack_genomes(genomes: list[Genome]) -> Genome:
    """Return genomes of one capacity with a leading axis."""
    names = Genome.__dataclass_fields__
    stacked = {name: jnp.asarray(np.stack([getattr(each, name) for each in genomes])) for name in names}
    return Genome(**stacked)


def unstack_genomes(genomes: Genome) -> list[Genome]:
    """Return genomes with a leading axis one by one, on the host."""
    names = list(Genome.__dataclass_fields__)
    hosts = {name: np.asarray(getattr(genomes, name)) for name in names}
    count = len(hosts["sizes"])
    return [Genome(**{name: hosts[name][place] for name in names}) for place in range(count)]


# What operators are, as tables that a traced operator indexes.

ARITY = np.array([operator.operands for operator in OPERATORS], np.int32)
"""Operands of each operator, the filter of a reducer not counted."""

_FAMILIES = np.array([operator.family for operator in OPERATORS])
IS_ELEMENTWISE = _FAMILIES == "elementwise"
IS_REV = _FAMILIES == "rev"
IS_REDUCER = _FAMILIES == "reducer"
IS_COUNT = _FAMILIES == "count"
IS_NODE_VALUED = IS_REDUCER | IS_COUNT

"""The canonical form of rules, and their hash."""

import hashlib
from dataclasses import dataclass, field, replace

import numpy as np

from vsml.rules.parser import parse
from vsml.rules.printer import show
from vsml.rules.rule import (
    FIRST_CONSTANT,
    FIRST_INSTRUCTION,
    FIRST_PORT,
    MAX_CONSTANTS,
    NO_REGISTER,
    Constant,
    Definition,
    Instruction,
    Rule,
    Slot,
    Store,
    slot_order,
)

HASH_VERSION = b"vsml rule 1"
"""First bytes of what is hashed: another layout of the arrays would be another version."""


@dataclass
class Renumbering:
    """Registers of the live code, under construction.

    Attributes:
        rule: the rule whose code it is.
        slots: new number of each live slot.
        constants: old numbers of the live constants, in order of the first visit.
        program: instructions so far; `merged` finds one by operator and operands.
        merged: register of each instruction.
        uses: how often each register is an operand, a value or a guard.
        merge: whether equal instructions become one.
    """

    rule: Rule
    slots: dict[int, int]
    constants: list[int]
    merge: bool
    program: list[Instruction] = field(default_factory=list)
    merged: dict[Instruction, int] = field(default_factory=dict)
    uses: dict[int, int] = field(default_factory=dict)

    def register(
        self,
        old: int,
        source: tuple[Instruction, ...],
    ) -> int:
        """Return the new register of an old one, and note that it is used once more."""
        new = self._register(old, source)
        self.uses[new] = self.uses.get(new, 0) + 1
        return new

    def _register(
        self,
        old: int,
        source: tuple[Instruction, ...],
    ) -> int:
        if old == NO_REGISTER:
            return old
        if old < FIRST_PORT:
            return self.slots[old]
        if old < FIRST_CONSTANT:
            return old
        if old < FIRST_INSTRUCTION:
            return self._constant(old)
        instruction = source[old - FIRST_INSTRUCTION]
        return self._instruction(instruction, source)

    def _constant(self, old: int) -> int:
        if old not in self.constants:
            self.constants.append(old)
        return FIRST_CONSTANT + self.constants.index(old)

    def _instruction(
        self,
        old: Instruction,
        source: tuple[Instruction, ...],
    ) -> int:
        before = (len(self.program), dict(self.uses))
        operands = tuple(self.register(operand, source) for operand in old.operands)
        new = Instruction(old.operator, operands)
        if self.merge and new in self.merged:
            # All operands are there already, being those of the equal one: they are used no more often.
            assert len(self.program) == before[0]
            self.uses = before[1]
            return self.merged[new]
        self.program.append(new)
        register = FIRST_INSTRUCTION + len(self.program) - 1
        self.merged[new] = register
        return register


def canonical(rule: Rule) -> Rule:
    """Return the rule's live code in an order that depends on nothing but what it computes.

    Live are the slot that is read, value and guard of every live slot's store, and all that these use. Slots
    come in the order of `slot_order`, and so do instructions; equal instructions are one. What is used more
    than once is a definition, v0, v1, ... Names of slots and constants stay.

    It computes the same numbers in live slots, and random draws are the same.
    """
    order = slot_order(rule)
    numbers = {old: new for new, old in enumerate(order)}
    initial = Renumbering(rule, numbers, [], merge=False)
    initials = [initial.register(rule.slots[old].initial, rule.initial) for old in order]
    tick = Renumbering(rule, numbers, initial.constants, merge=True)
    slots: list[Slot] = []
    body: list[Definition | Store] = []
    for new, old in enumerate(order):
        slot = rule.slots[old]
        first = len(tick.program)
        value = tick.register(slot.value, rule.tick)
        guard = tick.register(slot.guard, rule.tick)
        slots.append(replace(slot, initial=initials[new], value=value, guard=guard))
        # Names are given below, once it is known which of them are used more than once.
        body += [Definition("", FIRST_INSTRUCTION + place) for place in range(first, len(tick.program))]
        if value != NO_REGISTER:
            body.append(Store(new))
    constants = tuple(rule.constants[old - FIRST_CONSTANT] for old in tick.constants)
    shared = Rule(
        slots=tuple(slots),
        constants=constants,
        initial=tuple(initial.program),
        tick=tuple(tick.program),
        out=0,
        body=_name_shared(body, tick.uses, _free_names(slots, constants)),
    )
    # Once through the text, so that constants and instructions are in the order in which `parse` makes them.
    return parse(show(shared))


def _free_names(
    slots: list[Slot],
    constants: tuple[Constant, ...],
) -> list[str]:
    taken = {slot.name for slot in slots} | {constant.name for constant in constants}
    candidates = [f"v{number}" for number in range(4 * MAX_CONSTANTS + len(taken))]
    return [name for name in candidates if name not in taken]


def _name_shared(
    body: list[Definition | Store],
    uses: dict[int, int],
    names: list[str],
) -> tuple[Definition | Store, ...]:
    named: list[Definition | Store] = []
    free = iter(names)
    for statement in body:
        if isinstance(statement, Store):
            named.append(statement)
        elif uses[statement.register] > 1:
            named.append(Definition(next(free), statement.register))
    return tuple(named)


def program_arrays(rule: Rule) -> dict[str, np.ndarray]:
    """Return a rule as arrays of fixed types, without names.

    Returns:
        `slots` int16 [S, 4] (kind, initialisation, value, guard), `out` int16 [1], `constants` float32 [C],
        `tuned` int16 [C], and `initial` and `tick` int16 [instructions, 4] (operator, operands; -1 for none).
    """
    slots = [(slot.kind, slot.initial, slot.value, slot.guard) for slot in rule.slots]
    return {
        "slots": np.array(slots, np.int16).reshape(-1, 4),
        "out": np.array([rule.out], np.int16),
        "constants": np.array([constant.value for constant in rule.constants], np.float32),
        "tuned": np.array([constant.name is not None for constant in rule.constants], np.int16),
        "initial": instruction_array(rule.initial),
        "tick": instruction_array(rule.tick),
    }


def instruction_array(program: tuple[Instruction, ...]) -> np.ndarray:
    """Return instructions as int16 [instructions, 4]: operator and operands, -1 for those it has not."""
    rows = [(entry.operator, *entry.operands, *[NO_REGISTER] * 3)[:4] for entry in program]
    return np.array(rows, np.int16).reshape(-1, 4)


def rule_hash(rule: Rule) -> str:
    """Return the hex SHA-256 of a rule's canonical arrays: what it computes, without names.

    Rules whose texts differ in comments, blanks, names, order of independent lines or unused parts have the
    same hash. Another number, operator, operand order, kind, guard or initialisation gives another one.
    """
    digest = hashlib.sha256(HASH_VERSION)
    for name, array in program_arrays(canonical(rule)).items():
        digest.update(f"{name} {array.shape}".encode())
        # The same bytes on every machine.
        digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()

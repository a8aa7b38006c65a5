"""Edits that make a rule smaller: an operator is replaced, or a store, guard, filter or start is removed."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from vsml.rules.operators import OPERATORS
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

OPERATOR, STARTING_OPERATOR, STORE, GUARD, FILTER, START = (
    "operator",
    "operator of a start",
    "store",
    "guard",
    "filter",
    "start",
)
"""What an edit is about: an operator of a tick or of an initialisation is replaced, all else is removed."""


@dataclass(frozen=True)
class Edit:
    """A change that makes a rule smaller.

    Attributes:
        about: one of the names above.
        number: of the instruction, or of the slot for stores, guards and starts.
        by: register that takes the place of an operator's result; else `NO_REGISTER`.
    """

    about: str
    number: int
    by: int = NO_REGISTER


def with_number(rule: Rule, value: float) -> tuple[Rule, int]:
    """Return a rule that has a number among its constants, and the register of it.

    Raises:
        ValueError: there is no room for another constant.
    """
    number = Constant(value)
    if number in rule.constants:
        return rule, FIRST_CONSTANT + rule.constants.index(number)
    if len(rule.constants) == MAX_CONSTANTS:
        raise ValueError(f"constants: got {MAX_CONSTANTS}, which leaves no room for {value:g}")
    return replace(rule, constants=(*rule.constants, number)), FIRST_CONSTANT + len(rule.constants)


def _with_numbers(rule: Rule) -> tuple[Rule, list[int]]:
    """Return a rule that has 0 and 1 as far as there is room, and their registers."""
    registers: list[int] = []
    for value in (0.0, 1.0):
        try:
            rule, register = with_number(rule, value)
        except ValueError:
            continue
        registers.append(register)
    return rule, registers


def edits_of(rule: Rule) -> Iterator[Edit]:
    """Yield all edits of a rule; those that the language does not allow, too.

    Each operator is replaced by each of its operands, by 0 and by 1. Each store, guard, filter and
    initialisation is removed.
    """
    rule, numbers = _with_numbers(rule)
    for about, program in ((OPERATOR, rule.tick), (STARTING_OPERATOR, rule.initial)):
        for number, instruction in enumerate(program):
            others = dict.fromkeys([*instruction.operands, *numbers])
            for other in others:
                yield Edit(about, number, other)
    for number, instruction in enumerate(rule.tick):
        if _has_filter(instruction):
            yield Edit(FILTER, number)
    for number, slot in enumerate(rule.slots):
        if slot.value != NO_REGISTER:
            yield Edit(STORE, number)
        if slot.guard != NO_REGISTER:
            yield Edit(GUARD, number)
        if slot.initial != NO_REGISTER:
            yield Edit(START, number)


def _has_filter(instruction: Instruction) -> bool:
    return OPERATORS[instruction.operator].family == "reducer" and len(instruction.operands) > 1


def edited(rule: Rule, edits: Iterable[Edit]) -> Rule:
    """Return a rule with some of its edits, tidied; of several edits at one place the last counts.

    Raises:
        RuleError: the language does not allow it.
    """
    rule, _ = _with_numbers(rule)
    replaced: dict[str, dict[int, int]] = {OPERATOR: {}, STARTING_OPERATOR: {}}
    tick = list(rule.tick)
    slots = list(rule.slots)
    for edit in edits:
        if edit.about in replaced:
            replaced[edit.about][FIRST_INSTRUCTION + edit.number] = edit.by
        elif edit.about == FILTER:
            instruction = tick[edit.number]
            tick[edit.number] = replace(instruction, operands=instruction.operands[:1])
        else:
            slots[edit.number] = _without(slots[edit.number], edit.about)
    with_less = replace(rule, tick=tuple(tick), slots=tuple(slots))
    return tidied(substituted(with_less, replaced[OPERATOR], replaced[STARTING_OPERATOR]))


def _without(slot: Slot, about: str) -> Slot:
    """Return a slot without its store, its guard or its initialisation."""
    if about == STORE:
        return replace(slot, value=NO_REGISTER, guard=NO_REGISTER)
    if about == GUARD:
        return replace(slot, guard=NO_REGISTER)
    return replace(slot, initial=NO_REGISTER)


def substituted(
    rule: Rule,
    tick: dict[int, int],
    initial: dict[int, int],
) -> Rule:
    """Return a rule in which other registers are read.

    Args:
        rule: the rule.
        tick: by register of an instruction of the tick, the register that is read in its place. It belongs
            to an earlier instruction, or to none.
        initial: the same of the initialisations.
    """
    slots: list[Slot] = []
    for slot in rule.slots:
        slots.append(
            replace(
                slot,
                initial=_resolved(slot.initial, initial),
                value=_resolved(slot.value, tick),
                guard=_resolved(slot.guard, tick),
            )
        )
    body: list[Definition | Store] = []
    for statement in rule.body:
        if isinstance(statement, Definition):
            statement = replace(statement, register=_resolved(statement.register, tick))
        body.append(statement)
    return replace(
        rule,
        slots=tuple(slots),
        initial=_rewired(rule.initial, initial),
        tick=_rewired(rule.tick, tick),
        body=tuple(body),
    )


def _resolved(register: int, by: dict[int, int]) -> int:
    while register in by:
        register = by[register]
    return register


def _rewired(program: tuple[Instruction, ...], by: dict[int, int]) -> tuple[Instruction, ...]:
    rewired: list[Instruction] = []
    for instruction in program:
        operands = tuple(_resolved(operand, by) for operand in instruction.operands)
        rewired.append(replace(instruction, operands=operands))
    return tuple(rewired)


@dataclass
class Statements:
    """Statements of a rule's text under construction.

    Attributes:
        rule: the rule.
        uses: how often each register is read.
        names: by register, names that the text has.
        free: names that nothing has.
        body: statements so far.
        done: registers whose value stands somewhere already.
    """

    rule: Rule
    uses: dict[int, int]
    names: dict[int, str]
    free: Iterator[str]
    body: list[Definition | Store]
    done: set[int]

    def value(self, register: int) -> None:
        """Make statements for what a value needs: for what has a name, or is read more than once."""
        instruction = self.rule.instruction(register)
        if instruction is None or register in self.done:
            return
        for operand in instruction.operands:
            self.value(operand)
        self.done.add(register)
        if register in self.names:
            self.body.append(Definition(self.names[register], register))
        elif self.uses[register] > 1 and instruction.name != "rev":
            # What is shorter than a name is written as often as it is read.
            self.body.append(Definition(next(self.free), register))


def tidied(rule: Rule) -> Rule:
    """Return the live part of a rule: names and the order of lines stay, which `canonical` does not keep.

    Values that are read more than once and have no name get one: v0, v1, ... But `rev(slot)` is written out.

    Raises:
        RuleError: the language does not allow the rule.
    """
    live = sorted(slot_order(rule))
    uses = _uses(rule, live)
    names: dict[int, str] = {}
    for statement in rule.body:
        if isinstance(statement, Definition) and statement.register in uses:
            names.setdefault(statement.register, statement.name)
    statements = Statements(rule, uses, names, _free_names(rule), [], set())
    for statement in rule.body:
        if isinstance(statement, Definition):
            if statement.register in uses:
                statements.value(statement.register)
            continue
        slot = rule.slots[statement.slot]
        if statement.slot in live and slot.value != NO_REGISTER:
            statements.value(slot.value)
            statements.value(slot.guard)
            statements.body.append(Store(live.index(statement.slot)))
    return parse(show(_with_slots(rule, live, uses, statements.body)))


def _uses(rule: Rule, live: list[int]) -> dict[int, int]:
    """Return how often each register is read by the live code of a tick."""
    pending: list[int] = []
    for number in live:
        pending += [rule.slots[number].value, rule.slots[number].guard]
    return _reads_below(rule.tick, pending)


def _reads_below(program: tuple[Instruction, ...], roots: list[int]) -> dict[int, int]:
    """Return how often each register is read, where some roots are and nothing else is."""
    reads: dict[int, int] = {}
    pending = list(roots)
    while pending:
        register = pending.pop()
        reads[register] = reads.get(register, 0) + 1
        if register >= FIRST_INSTRUCTION and reads[register] == 1:
            pending += program[register - FIRST_INSTRUCTION].operands
    return reads


def _free_names(rule: Rule) -> Iterator[str]:
    taken = {slot.name for slot in rule.slots} | set(rule.tuned)
    taken |= {statement.name for statement in rule.body if isinstance(statement, Definition)}
    number = 0
    while True:
        if f"v{number}" not in taken:
            yield f"v{number}"
        number += 1


def _with_slots(
    rule: Rule,
    live: list[int],
    uses: dict[int, int],
    body: list[Definition | Store],
) -> Rule:
    """Return a rule with some of its slots, the constants that are read, and other statements."""
    moved = {old: new for new, old in enumerate(live)}

    def place(register: int) -> int:
        # Slots that are not live are read by dead code alone, which no statement writes.
        return moved.get(register, register) if 0 <= register < FIRST_PORT else register

    tick: list[Instruction] = []
    for entry in rule.tick:
        tick.append(replace(entry, operands=tuple(map(place, entry.operands))))
    slots: list[Slot] = []
    for number in live:
        slot = rule.slots[number]
        slots.append(replace(slot, value=place(slot.value), guard=place(slot.guard)))
    read = uses.keys() | _reads_below(rule.initial, [slot.initial for slot in slots]).keys()
    constants: list[Constant] = []
    for number, constant in enumerate(rule.constants):
        is_read = FIRST_CONSTANT + number in read
        # Without a name it is a number, which is written where it is read: nowhere.
        constants.append(constant if is_read else Constant(constant.value))
    return replace(
        rule,
        slots=tuple(slots),
        constants=tuple(constants),
        tick=tuple(tick),
        out=moved[rule.out],
        body=tuple(body),
    )

"""The printer of rules: program to text."""

from vsml.rules.operators import OPERATORS, Operator
from vsml.rules.rule import (
    FIRST_CONSTANT,
    FIRST_GRAPH_VALUE,
    FIRST_INSTRUCTION,
    FIRST_PORT,
    GRAPH_VALUES,
    KINDS,
    NO_REGISTER,
    PORTS,
    Definition,
    Instruction,
    Rule,
    Slot,
)

# How tightly an expression holds together: what is looser than its place asks for goes into parentheses.
COMPARED, ADDED, MULTIPLIED, SIGNED, TIGHT = range(5)
PRECEDENCE = {
    "gt": COMPARED,
    "ge": COMPARED,
    "add": ADDED,
    "sub": ADDED,
    "mul": MULTIPLIED,
    "div": MULTIPLIED,
    "neg": SIGNED,
}


class Printer:
    """The text of one program's registers.

    Args:
        rule: the rule.
        program: its instructions of the tick, or of the initialisations.
    """

    def __init__(
        self,
        rule: Rule,
        program: tuple[Instruction, ...],
    ) -> None:
        self.rule = rule
        self.program = program
        self.named: dict[int, str] = {}

    def text(self, register: int) -> str:
        """Return the expression of a register."""
        return self._expression(register)[0]

    def name(self, definition: Definition) -> None:
        """Use the name of a definition from here on, unless its value has a name already."""
        is_result = definition.register >= FIRST_INSTRUCTION
        if is_result:
            self.named.setdefault(definition.register, definition.name)

    def _expression(self, register: int) -> tuple[str, int]:
        if register in self.named:
            return self.named[register], TIGHT
        if register >= FIRST_INSTRUCTION:
            return self._instruction(self.program[register - FIRST_INSTRUCTION])
        if register >= FIRST_CONSTANT:
            return self._constant(register - FIRST_CONSTANT)
        if register >= FIRST_GRAPH_VALUE:
            return GRAPH_VALUES[register - FIRST_GRAPH_VALUE], TIGHT
        if register >= FIRST_PORT:
            return PORTS[register - FIRST_PORT], TIGHT
        return self.rule.slots[register].name, TIGHT

    def _constant(self, number: int) -> tuple[str, int]:
        constant = self.rule.constants[number]
        if constant.name is not None:
            return constant.name, TIGHT
        return number_text(constant.value), TIGHT if constant.value >= 0 else SIGNED

    def _instruction(self, instruction: Instruction) -> tuple[str, int]:
        operator = OPERATORS[instruction.operator]
        if operator.sign:
            return self._signed(operator, instruction.operands)
        operands = [self.text(operand) for operand in instruction.operands]
        return f"{operator.name}({', '.join(operands)})", TIGHT

    def _signed(
        self,
        operator: Operator,
        operands: tuple[int, ...],
    ) -> tuple[str, int]:
        own = PRECEDENCE[operator.name]
        if len(operands) == 1:
            return f"{operator.sign}{self._at_least(own, operands[0])}", own
        # Equal signs group from the left; comparisons do not group at all.
        left = self._at_least(ADDED if own == COMPARED else own, operands[0])
        right = self._at_least(own + 1, operands[1])
        return f"{left} {operator.sign} {right}", own

    def _at_least(
        self,
        precedence: int,
        register: int,
    ) -> str:
        text, own = self._expression(register)
        return text if own >= precedence else f"({text})"


def number_text(value: float) -> str:
    """Return the shortest text of a number that gives it back."""
    return str(int(value)) if value == int(value) else repr(value)


def show(rule: Rule) -> str:
    """Return the text of a rule: constants, slots, then definitions and stores in their order, then `out`.

    `parse` gives the same rule back, names included, if the rule came from a text. Instructions that are used
    more than once and have no name are written as often.
    """
    lines = [f"@{name} = {number_text(value)}" for name, value in rule.tuned.items()]
    initials = Printer(rule, rule.initial)
    for slot in rule.slots:
        lines.append(declaration(slot, initials))
    tick = Printer(rule, rule.tick)
    for statement in rule.body:
        if isinstance(statement, Definition):
            lines.append(f"{statement.name} = {tick.text(statement.register)}")
            tick.name(statement)
        else:
            lines.append(store(rule.slots[statement.slot], tick))
    lines.append(f"out = {rule.slots[rule.out].name}")
    return "\n".join(lines) + "\n"


def declaration(
    slot: Slot,
    printer: Printer,
) -> str:
    """Return the line that declares a slot."""
    line = f"{slot.name} : {KINDS[slot.kind]}"
    return line if slot.is_signal else f"{line} = {printer.text(slot.initial)}"


def store(
    slot: Slot,
    printer: Printer,
) -> str:
    """Return the line that stores to a slot."""
    line = f"{slot.name} <- {printer.text(slot.value)}"
    return line if slot.guard == NO_REGISTER else f"{line} if {printer.text(slot.guard)}"

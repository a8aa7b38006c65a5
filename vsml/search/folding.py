"""Exact simplification: what can be left out of a rule so that it computes the same numbers."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import jax.numpy as jnp
import numpy as np

from vsml.rules.canonical import rule_hash
from vsml.rules.operators import OPCODE, OPERATORS, repair
from vsml.rules.rule import (
    FIRST_CONSTANT,
    FIRST_GRAPH_VALUE,
    FIRST_INSTRUCTION,
    FIRST_PORT,
    GRAPH_VALUES,
    NO_REGISTER,
    PORTS,
    Instruction,
    Rule,
    Slot,
)
from vsml.search.edits import substituted, tidied, with_number

_TRUTHS = frozenset(
    [FIRST_PORT + PORTS.index(name) for name in ("x_on", "t_on")]
    + [FIRST_GRAPH_VALUE + GRAPH_VALUES.index(name) for name in ("incoming", "outgoing")]
)
"""Registers that are 0 or 1."""

_COMMUTES = ("add", "mul", "minimum", "maximum")
_NEVER_BELOW_ZERO = ("abs", "square", "relu", "sigmoid", "exp", "sqrt", "std", "count", "gt", "ge")
_ZERO_AT_ZERO = ("neg", "abs", "square", "sin", "tanh", "relu", "sign", "sqrt", "sum", "mean", "max", "min")


def folded(rule: Rule) -> Rule:
    """Return a rule that computes the same numbers by fewer operators, with the names that it has.

    Without what is dead, constants that an expression comes to, values that are computed twice, operators
    without effect such as `a + 0`, slots that never change, and conditions that always or never hold. Numbers
    are folded in float32. Constants that may be tuned and initialisations are left alone. Where slots
    disappear, the initialisations of others may draw other numbers, as draws belong to the order of slots.
    """
    rule = tidied(rule)
    while True:
        less = tidied(_Pass(rule).run())
        if rule_hash(less) == rule_hash(rule) and less.size == rule.size:
            return less
        rule = less


@dataclass
class _Pass:
    """One pass over a rule, instruction by instruction.

    Attributes:
        rule: the rule; numbers that are needed are added to its constants.
        tick: instructions, rewritten so far.
        by: by register of an instruction, the register that is read in its place.
        found: by operator and operands, the register of an instruction that computes it.
    """

    rule: Rule
    tick: list[Instruction] = field(default_factory=list)
    by: dict[int, int] = field(default_factory=dict)
    found: dict[tuple[int, tuple[int, ...]], int] = field(default_factory=dict)

    def run(self) -> Rule:
        """Return the rule with less."""
        old = self.rule
        for number, instruction in enumerate(old.tick):
            register = FIRST_INSTRUCTION + number
            operands = tuple(map(self.place, instruction.operands))
            new = Instruction(instruction.operator, operands)
            less = self.less(new)
            if isinstance(less, Instruction):
                new = less
            elif less is not None:
                self.by[register] = less
            self.tick.append(new)
            key = self.key(new)
            if register not in self.by and key in self.found:
                self.by[register] = self.found[key]
            self.found.setdefault(key, register)
        slots = [self.slot(number, slot) for number, slot in enumerate(old.slots)]
        body = old.body
        with_less = replace(self.rule, tick=tuple(self.tick), slots=tuple(slots), body=body)
        return substituted(with_less, self.by, {})

    def place(self, register: int) -> int:
        """Return the register that is read in the place of one: of a slot that never changes its number."""
        register = self.by.get(register, register)
        if not 0 <= register < FIRST_PORT:
            return register
        slot = self.rule.slots[register]
        if slot.value != NO_REGISTER:
            return register
        if slot.initial == NO_REGISTER:
            number = self.number(0.0)
            return register if number is None else number
        return slot.initial if FIRST_CONSTANT <= slot.initial < FIRST_INSTRUCTION else register

    def key(self, instruction: Instruction) -> tuple[int, tuple[int, ...]]:
        """Return what equal instructions share."""
        operands = instruction.operands
        if instruction.name in _COMMUTES:
            operands = tuple(sorted(operands))
        return instruction.operator, operands

    def number(self, value: float) -> int | None:
        """Return the register of a number; None where there is no room for it."""
        try:
            self.rule, register = with_number(self.rule, value)
        except ValueError:
            return None
        return register

    def value(self, register: int) -> float | None:
        """Return the number that a register holds; None if it may change, or may be tuned."""
        if not FIRST_CONSTANT <= register < FIRST_INSTRUCTION:
            return None
        constant = self.rule.constants[register - FIRST_CONSTANT]
        return constant.value if constant.name is None else None

    def made_by(self, register: int, *names: str) -> Instruction | None:
        """Return the instruction of a register if it is one of some operators."""
        if register < FIRST_INSTRUCTION:
            return None
        instruction = self.tick[register - FIRST_INSTRUCTION]
        return instruction if not names or instruction.name in names else None

    def is_truth(self, register: int) -> bool:
        """Return whether a register is always 0 or 1."""
        if register in _TRUTHS or self.value(register) in (0.0, 1.0):
            return True
        if self.made_by(register, "gt", "ge"):
            return True
        both = self.made_by(register, "mul", "minimum", "maximum")
        return both is not None and all(map(self.is_truth, both.operands))

    def slot(self, number: int, slot: Slot) -> Slot:
        """Return a slot without a guard that always holds, and without a store that changes nothing."""
        value = self.place(slot.value)
        guard = self.condition(self.place(slot.guard))
        holds = None if guard == NO_REGISTER else self.value(guard)
        if holds is not None:
            guard = NO_REGISTER
        if slot.value != NO_REGISTER and (value == number or (holds is not None and holds <= 0)):
            return replace(slot, value=NO_REGISTER, guard=NO_REGISTER)
        return replace(slot, value=value, guard=guard)

    def condition(self, register: int) -> int:
        """Return a register that is above 0 wherever another one is: `a > 0` is a condition as a is."""
        compared = self.made_by(register, "gt") if register != NO_REGISTER else None
        if compared is not None and self.value(compared.operands[1]) == 0.0:
            return self.condition(compared.operands[0])
        return register

    def less(self, instruction: Instruction) -> Instruction | int | None:
        """Return a register or an operator that gives the same as an instruction; None: there is none."""
        operator = OPERATORS[instruction.operator]
        operands = instruction.operands
        if operator.family == "rev":
            # The other end of a slot that never changes holds the same number.
            return operands[0] if operands[0] >= FIRST_PORT else None
        values = [self.value(operand) for operand in operands]
        if operator.family == "elementwise" and None not in values:
            return self._folded(operator.compute, [value for value in values if value is not None])
        if operator.name in _ZERO_AT_ZERO and values[0] == 0.0:
            return operands[0]
        rules: dict[str, Callable[..., Instruction | int | None]] = {
            "add": self._add,
            "sub": self._sub,
            "mul": self._mul,
            "neg": self._neg,
            "div": self._div,
            "gt": self._compared,
            "ge": self._compared,
            "minimum": self._same,
            "maximum": self._maximum,
            "sel": self._sel,
            "abs": self._of_size,
            "square": self._of_size,
            "relu": self._of_size,
            "sign": self._sign,
            "count": self._count,
        }
        if operator.family == "reducer":
            return self._reduced(instruction)
        rule = rules.get(operator.name)
        return None if rule is None else rule(instruction.name, *operands)

    def _folded(self, compute: Callable | None, values: list[float]) -> int | None:
        assert compute is not None
        result = repair(compute(*[jnp.float32(value) for value in values]))
        # The shortest number that is the same as float32; there is no -0.
        return self.number(float(str(np.float32(result))) + 0.0)

    def _made(self, name: str, *operands: int) -> Instruction:
        return Instruction(OPCODE[name], operands)

    def _add(self, name: str, a: int, b: int) -> Instruction | int | None:
        del name
        for this, other in ((a, b), (b, a)):
            if self.value(this) == 0.0:
                return other
            if negated := self.made_by(this, "neg"):
                return self._made("sub", other, negated.operands[0])
        return None

    def _sub(self, name: str, a: int, b: int) -> Instruction | int | None:
        del name
        if a == b:
            return self.number(0.0)
        if self.value(b) == 0.0:
            return a
        if self.value(a) == 0.0:
            return self._made("neg", b)
        if negated := self.made_by(b, "neg"):
            return self._made("add", a, negated.operands[0])
        return None

    def _mul(self, name: str, a: int, b: int) -> Instruction | int | None:
        del name
        for this, other in ((a, b), (b, a)):
            if self.value(this) == 0.0:
                return this
            if self.value(this) == 1.0:
                return other
            if self.value(this) == -1.0:
                return self._made("neg", other)
        first, second = self.made_by(a, "neg"), self.made_by(b, "neg")
        if first and second:
            return self._made("mul", first.operands[0], second.operands[0])
        return a if a == b and self.is_truth(a) else None

    def _neg(self, name: str, a: int) -> Instruction | int | None:
        del name
        if negated := self.made_by(a, "neg"):
            return negated.operands[0]
        if difference := self.made_by(a, "sub"):
            return self._made("sub", *reversed(difference.operands))
        return None

    def _div(self, name: str, a: int, b: int) -> int | None:
        del name
        return a if self.value(a) == 0.0 or self.value(b) == 1.0 else None

    def _compared(self, name: str, a: int, b: int) -> int | None:
        if a == b:
            return self.number(float(name == "ge"))
        # A truth above 0 is the truth itself.
        return a if name == "gt" and self.value(b) == 0.0 and self.is_truth(a) else None

    def _same(self, name: str, a: int, b: int) -> int | None:
        del name
        return a if a == b else None

    def _maximum(self, name: str, a: int, b: int) -> Instruction | int | None:
        for this, other in ((a, b), (b, a)):
            if self.value(this) == 0.0:
                return other if self.is_truth(other) else self._made("relu", other)
        return self._same(name, a, b)

    def _sel(self, name: str, condition: int, a: int, b: int) -> Instruction | int | None:
        del name
        if a == b:
            return a
        holds = self.value(condition)
        if holds is not None:
            return a if holds > 0 else b
        if self.is_truth(condition) and self.value(a) == 1.0 and self.value(b) == 0.0:
            return condition
        plain = self.condition(condition)
        return self._made("sel", plain, a, b) if plain != condition else None

    def _of_size(self, name: str, a: int) -> Instruction | int | None:
        if name in ("abs", "relu") and (self.made_by(a, *_NEVER_BELOW_ZERO) or self.is_truth(a)):
            return a
        if name != "relu" and (inner := self.made_by(a, "neg", "abs")):
            return self._made(name, inner.operands[0])
        return a if name == "square" and self.is_truth(a) else None

    def _sign(self, name: str, a: int) -> int | None:
        del name
        return a if self.is_truth(a) or self.made_by(a, "sign") else None

    def _count(self, name: str, a: int) -> Instruction | None:
        plain = self.condition(a)
        return self._made(name, plain) if plain != a else None

    def _reduced(self, instruction: Instruction) -> Instruction | int | None:
        """Return a reducer without a filter that always holds; 0 where it never does."""
        if len(instruction.operands) == 1:
            return None
        value, condition = instruction.operands
        plain = self.condition(condition)
        holds = self.value(plain)
        if holds is None:
            return Instruction(instruction.operator, (value, plain)) if plain != condition else None
        return Instruction(instruction.operator, (value,)) if holds > 0 else self.number(0.0)

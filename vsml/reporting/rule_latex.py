"""Rules as equations: LaTeX by way of sympy."""

from dataclasses import dataclass
from typing import Any

from vsml.rules.operators import OPERATORS, Operator
from vsml.rules.printer import number_text
from vsml.rules.rule import (
    EDGE_TYPE,
    FIRST_CONSTANT,
    FIRST_GRAPH_VALUE,
    FIRST_INSTRUCTION,
    FIRST_PORT,
    FLOAT_TYPE,
    GRAPH_VALUES,
    NAMED_TYPES,
    NO_REGISTER,
    NODE,
    NODE_TYPE,
    OWNER,
    PORTS,
    PRIVATE,
    SUM,
    Definition,
    Instruction,
    Rule,
    Slot,
)
from vsml.system.extras import needed_for

with needed_for("equations of rules"):
    import sympy
    from sympy.printing.latex import LatexPrinter

_NODE_INDEX = "i"
_EDGE_INDEX = "ij"
_OTHER_END = "ji"

_LEAVES = {
    "x": "x",
    "x_on": r"x^{\mathrm{on}}",
    "t": "t",
    "t_on": r"t^{\mathrm{on}}",
    "node_noise": r"\xi",
    "edge_noise": r"\xi",
    "degree": "d",
    "parity": "p",
}

# In \left and \right, as a plain bracket after a line break of LaTeX would be its option.
_ARROWS = {"incoming": r"\left[j \to i\right]", "outgoing": r"\left[i \to j\right]"}
_WHERE = {rf"{sign} > 0": sign.removeprefix(r"\left[").removesuffix(r"\right]") for sign in _ARROWS.values()}
"""How a condition is written that an edge leads to a node, or away from it."""

_REDUCERS = {
    "sum": r"\sum",
    "mean": r"\operatorname{mean}",
    "max": r"\max",
    "min": r"\min",
    "std": r"\operatorname{std}",
    "count": r"\#",
}

_NOTES = (
    "i: a node. j: a neighbour of i. j -> i: j is lower than i, i -> j: j is higher.",
    "s_ij: what i holds of its edge to j; s_ji: what j holds of it.",
    "All stores of a tick happen together, with the numbers of the tick before.",
    "Real numbers are meant. What a rule computes is bounded: results are clipped to 10000 in size,",
    "NaN and a / b with b below 1e-6 in size are 0, and log and sqrt take the size of their operand.",
)


class Truth(sympy.Function):
    """1 where a condition holds, else 0: Iverson's bracket."""

    nargs = 1

    def _latex(self, printer: Any) -> str:
        return rf"\left[{printer._print(self.args[0])}\right]"


class Sigmoid(sympy.Function):
    """1 / (1 + exp(-a))."""

    nargs = 1

    def _latex(self, printer: Any) -> str:
        return rf"\sigma\left({printer._print(self.args[0])}\right)"


class Reduced(sympy.Function):
    """A value that is reduced over the half-edges of a node: name of the reducer, value, condition."""

    nargs = 3
    is_real = True

    def _latex(self, printer: Any) -> str:
        name, value, condition = self.args
        set_of = _set(printer, condition)
        sign = _REDUCERS[str(name)]
        if str(name) == "count":
            return rf"{sign}\left\{{{set_of}\right\}}"
        return rf"{sign}_{{{set_of}}} {_grouped(printer, value)}"


def _grouped(printer: Any, value: Any) -> str:
    """Return a value in parentheses, where a reader could not see where it ends."""
    text = printer._print(value)
    return text if value.is_Symbol else rf"\left({text}\right)"


def _set(printer: Any, condition: Any) -> str:
    """Return over which neighbours a reducer goes."""
    if condition == sympy.true:
        return "j"
    text = printer._print(condition)
    return text if text in _WHERE.values() else rf"j :\, {text}"


class _Printer(LatexPrinter):
    """Prints expressions of rules: what is kept first, then what changes it; cases with "if"."""

    def _print_Add(self, expr: Any, order: Any = None) -> str:  # noqa: N802  # a name of sympy
        terms = sorted(
            self._as_ordered_terms(expr, order=order),
            key=lambda term: (term.could_extract_minus_sign(), not term.is_Symbol),
        )
        text = self._print(terms[0])
        for term in terms[1:]:
            is_negative = term.could_extract_minus_sign()
            size = self._print(-term if is_negative else term)
            if term.is_Piecewise or (-term).is_Add:
                size = rf"\left({size}\right)"
            text += f" - {size}" if is_negative else f" + {size}"
        return text

    def _print_Piecewise(self, expr: Any) -> str:  # noqa: N802  # a name of sympy
        cases: list[str] = []
        for value, condition in expr.args:
            when = r"\text{otherwise}"
            if condition != sympy.true:
                when = rf"\text{{if}}\: {self._print(condition)}"
            cases.append(f"{self._print(value)} & {when}")
        body = r" \\ ".join(cases)
        return rf"\begin{{cases}} {body} \end{{cases}}"

    def _print_Relational(self, expr: Any) -> str:  # noqa: N802  # a name of sympy
        # `n <= 0` is kept as `0 >= n`.
        shown = expr.reversed if expr.lhs.is_number else expr
        text = super()._print_Relational(shown)
        return _WHERE.get(text, text)


@dataclass(frozen=True)
class Equation:
    """A statement of a rule as an equation.

    Attributes:
        left: what is defined or stored to, as LaTeX.
        is_store: whether it is a store.
        value: its value, an expression of sympy.
        guard: when a store happens, a condition of sympy; None: always.
        register: the register of the value.
    """

    left: str
    is_store: bool
    value: Any
    guard: Any
    register: int


class Algebra:
    """Registers of a rule's tick as expressions of sympy.

    Args:
        rule: the rule.
    """

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.named: dict[int, str] = {}

    def equations(self) -> list[Equation]:
        """Return the definitions and stores of the rule, in the order of its text."""
        found: list[Equation] = []
        for statement in self.rule.body:
            if isinstance(statement, Definition):
                register = statement.register
                value = self.value(register)
                left = _named(statement.name, self.type_of(register))
                found.append(Equation(left, False, value, None, register))
                if register >= FIRST_INSTRUCTION:
                    self.named.setdefault(register, statement.name)
                continue
            slot = self.rule.slots[statement.slot]
            guard = None if slot.guard == NO_REGISTER else self.condition(slot.guard)
            left = self._slot(slot)
            found.append(Equation(left, True, self.value(slot.value), guard, slot.value))
        return found

    def type_of(self, register: int) -> int:
        """Return the type of a register."""
        if register >= FIRST_INSTRUCTION:
            instruction = self.rule.tick[register - FIRST_INSTRUCTION]
            family = OPERATORS[instruction.operator].family
            if family == "rev":
                return EDGE_TYPE
            if family in ("reducer", "count"):
                return NODE_TYPE
            return max(map(self.type_of, instruction.operands))
        if register >= FIRST_CONSTANT:
            return FLOAT_TYPE
        if register >= FIRST_PORT:
            return NAMED_TYPES[(*PORTS, *GRAPH_VALUES)[register - FIRST_PORT]]
        return NODE_TYPE if self.rule.slots[register].kind == NODE else EDGE_TYPE

    def value(self, register: int) -> Any:
        """Return the expression of a register."""
        if register in self.named:
            return _symbol(_named(self.named[register], self.type_of(register)))
        if register >= FIRST_INSTRUCTION:
            return self._result(self.rule.tick[register - FIRST_INSTRUCTION])
        if register >= FIRST_CONSTANT:
            constant = self.rule.constants[register - FIRST_CONSTANT]
            if constant.name is not None:
                return _symbol(_named(constant.name, FLOAT_TYPE))
            return sympy.sympify(number_text(constant.value))
        if register >= FIRST_GRAPH_VALUE:
            name = GRAPH_VALUES[register - FIRST_GRAPH_VALUE]
            return _symbol(_ARROWS[name]) if name in _ARROWS else _symbol(_leaf(name))
        if register >= FIRST_PORT:
            return _symbol(_leaf(PORTS[register - FIRST_PORT]))
        return _symbol(self._slot(self.rule.slots[register]))

    def condition(self, register: int) -> Any:
        """Return the condition that a register is above 0."""
        instruction = None
        if register >= FIRST_INSTRUCTION and register not in self.named:
            instruction = self.rule.tick[register - FIRST_INSTRUCTION]
        if instruction is not None and instruction.name in ("gt", "ge"):
            return self._comparison(instruction)
        if instruction is not None and self._joins_truths(instruction):
            parts = [self.condition(operand) for operand in instruction.operands]
            return sympy.Or(*parts) if instruction.name == "maximum" else sympy.And(*parts)
        return self.value(register) > 0

    def _joins_truths(self, instruction: Instruction) -> bool:
        """Return whether an instruction says of two values that are 0 or 1 that both are, or one is."""
        joins = instruction.name in ("mul", "minimum", "maximum")
        return joins and all(map(self._is_truth, instruction.operands))

    def _is_truth(self, register: int) -> bool:
        if register >= FIRST_INSTRUCTION:
            instruction = self.rule.tick[register - FIRST_INSTRUCTION]
            return instruction.name in ("gt", "ge") or self._joins_truths(instruction)
        if not FIRST_PORT <= register < FIRST_CONSTANT:
            return False
        name = (*PORTS, *GRAPH_VALUES)[register - FIRST_PORT]
        return name in ("x_on", "t_on", *_ARROWS)

    def _comparison(self, instruction: Instruction) -> Any:
        left, right = map(self.value, instruction.operands)
        return left > right if instruction.name == "gt" else left >= right

    def _slot(self, slot: Slot) -> str:
        return _named(slot.name, NODE_TYPE if slot.kind == NODE else EDGE_TYPE)

    def _result(self, instruction: Instruction) -> Any:
        operator = OPERATORS[instruction.operator]
        if operator.family == "rev":
            slot = self.rule.slots[instruction.operands[0]]
            return _symbol(f"{_word(slot.name)}_{{{_OTHER_END}}}")
        if operator.family in ("reducer", "count"):
            return self._reduced(operator, instruction)
        if operator.name == "sel":
            condition, yes, no = instruction.operands
            cases = [(self.value(yes), self.condition(condition)), (self.value(no), True)]
            return sympy.Piecewise(*cases)
        if operator.name in ("gt", "ge"):
            return _truth(self._comparison(instruction))
        return _arithmetic(operator.name, *map(self.value, instruction.operands))

    def _reduced(self, operator: Operator, instruction: Instruction) -> Any:
        name = sympy.Symbol(operator.name)
        if operator.family == "count":
            return Reduced(name, sympy.Integer(1), self.condition(instruction.operands[0]))
        value = self.value(instruction.operands[0])
        passes: Any = sympy.true
        if len(instruction.operands) > 1:
            passes = self.condition(instruction.operands[1])
        return Reduced(name, value, passes)


def _truth(condition: Any) -> Any:
    if condition in (sympy.true, sympy.false):
        return sympy.Integer(condition == sympy.true)
    return Truth(condition)


def _arithmetic(name: str, *operands: Any) -> Any:
    """Return the result of an elementwise operator."""
    a, *rest = operands
    if rest:
        b = rest[0]
        both = {
            "add": lambda: a + b,
            "sub": lambda: a - b,
            "mul": lambda: a * b,
            "div": lambda: sympy.Integer(0) if b == 0 else a / b,
            "minimum": lambda: sympy.Min(a, b),
            "maximum": lambda: sympy.Max(a, b),
        }
        return both[name]()
    one = {
        "neg": lambda: -a,
        "abs": lambda: sympy.Abs(a),
        "square": lambda: a**2,
        "sin": lambda: sympy.sin(a),
        "tanh": lambda: sympy.tanh(a),
        "relu": lambda: sympy.Max(a, 0),
        "sign": lambda: sympy.sign(a),
        "sigmoid": lambda: Sigmoid(a),
        "exp": lambda: sympy.exp(a),
        "log": lambda: sympy.log(sympy.Abs(a)),
        "sqrt": lambda: sympy.sqrt(sympy.Abs(a)),
    }
    return one[name]()


def _symbol(latex: str) -> Any:
    """Return a real number that is printed as it is given."""
    return sympy.Symbol(latex, real=True)


def _word(name: str) -> str:
    """Return a name as LaTeX: one letter in italics, others upright."""
    if len(name) == 1:
        return name
    escaped = name.replace("_", r"\_")
    return rf"\mathrm{{{escaped}}}"


def _named(name: str, type_: int) -> str:
    """Return a name with the indices of its type."""
    index = {FLOAT_TYPE: "", NODE_TYPE: f"_{{{_NODE_INDEX}}}", EDGE_TYPE: f"_{{{_EDGE_INDEX}}}"}
    return _word(name) + index[type_]


def _leaf(name: str) -> str:
    index = _EDGE_INDEX if NAMED_TYPES[name] == EDGE_TYPE else _NODE_INDEX
    return f"{_LEAVES[name]}_{{{index}}}"


def latex(rule: Rule) -> str:
    """Return a rule as LaTeX: comments that say what is meant, then its statements in `aligned`.

    Reducers are sums and the like over neighbours, `sel` and guards are cases, and comparisons Iverson
    brackets. sympy orders and joins terms. That is right for real numbers: it takes no notice of clipping,
    nor of a / b being 0 where b is. The environment needs the package amsmath.

    Args:
        rule: the rule.

    Raises:
        MissingExtraError: sympy is not installed.
    """
    printer = _Printer({"mul_symbol": r" \, "})
    lines = [f"% {note}" for note in _NOTES]
    for slot in rule.slots:
        if note := _kind_note(slot):
            lines.append(f"% {note}")
    for name, value in rule.tuned.items():
        lines.append(f"% {name} = {number_text(value)}")
    equations = [_line(equation, printer) for equation in Algebra(rule).equations()]
    out = _named(rule.slots[rule.out].name, NODE_TYPE)
    equations.append(rf"\mathrm{{out}}_{{{_NODE_INDEX}}} &= {out}")
    body = " \\\\\n".join(equations)
    return "\n".join([*lines, r"\begin{aligned}", body, r"\end{aligned}"]) + "\n"


def _kind_note(slot: Slot) -> str | None:
    """Return what two ends of an edge do with a slot that they share; None for one that they do not."""
    if slot.kind in (NODE, PRIVATE):
        return None
    if slot.kind == OWNER:
        return f"{slot.name}: one number an edge, written by its higher end."
    if slot.kind == SUM:
        return f"{slot.name}: one number an edge, to which each end adds its change."
    return f"{slot.name}: one number an edge; where both ends write, it is their mean."


def _line(equation: Equation, printer: _Printer) -> str:
    """Return an equation as a line of `aligned`; the guard of a store as cases."""
    value = printer.doprint(equation.value)
    if not equation.is_store:
        return f"{equation.left} &= {value}"
    arrow = r"&\leftarrow"
    if equation.guard is None or equation.guard == sympy.true:
        return f"{equation.left} {arrow} {value}"
    guard = printer.doprint(equation.guard)
    here = rf"{value} & \text{{if}}\: {guard}"
    elsewhere = rf"{equation.left} & \text{{otherwise}}"
    return rf"{equation.left} {arrow} \begin{{cases}} {here} \\ {elsewhere} \end{{cases}}"

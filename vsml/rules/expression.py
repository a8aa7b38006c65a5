"""Expressions of rules: text, and the tree that a rule is made of."""

import ast
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

from vsml.rules.mistakes import did_you_mean
from vsml.rules.operators import BOUND, CALLED, OPCODE, OPERATORS
from vsml.rules.rule import EDGE_TYPE, FLOAT_TYPE, MAX_OPERATORS, NODE_TYPE, PRIVATE

Source = TypeVar("Source")

BINARY = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div"}
"""Operators of arithmetic, by Python's name for them."""

COMPARISONS = {ast.Gt: ("gt", False), ast.GtE: ("ge", False), ast.Lt: ("gt", True), ast.LtE: ("ge", True)}
"""Operators of comparison, and whether their operands change places."""

OUTSIDE = {
    ast.Pow: "**",
    ast.Mod: "%",
    ast.FloorDiv: "//",
    ast.MatMult: "@",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.In: "in",
    ast.NotIn: "not in",
    ast.Is: "is",
    ast.IsNot: "is not",
    ast.And: "and",
    ast.Or: "or",
    ast.Not: "not",
    ast.Invert: "~",
    ast.UAdd: "unary +",
    ast.IfExp: "if else",
    ast.Lambda: "lambda",
    ast.Attribute: "an attribute",
    ast.Subscript: "an index",
    ast.Starred: "*",
    ast.NamedExpr: ":=",
    ast.Tuple: "a comma outside of a call",
    ast.List: "a list",
    ast.Dict: "a dictionary",
    ast.Set: "a set",
    ast.JoinedStr: "a string",
}
"""Parts of Python that are no part of the language, as a message calls them."""

MOST_PARTS = 40 * MAX_OPERATORS
"""An expression with more parts is not looked into: it is beyond every limit."""


class StatementError(Exception):
    """What is wrong with a statement: one message or several."""

    def __init__(self, *messages: str) -> None:
        self.messages = messages
        super().__init__(*messages)


class UnknownNameError(Exception):
    """An expression uses a name whose own line has a mistake: nothing can be said of it."""


@dataclass(frozen=True)
class Number:
    """A number in an expression."""

    value: float
    type: int = FLOAT_TYPE


@dataclass(frozen=True)
class Name:
    """What a name stands for.

    Attributes:
        name: as it is written.
        role: slot, port, graph, constant or definition.
        type: of its value.
        number: of the slot, port, graph value or constant; of a definition its place among them.
        kind: of a slot.
    """

    name: str
    role: str
    type: int
    number: int
    kind: int = -1


@dataclass(frozen=True)
class Call:
    """An operator with its operands."""

    operator: int
    operands: tuple["Tree", ...]
    type: int


Tree = Number | Name | Call


@dataclass(frozen=True)
class Reader:
    """How expressions of one statement are read.

    Attributes:
        look_up: gives what a name stands for; it raises StatementError or UnknownNameError.
        draw_type: type of draws; None where there are none, outside of initialisations.
    """

    look_up: Callable[[str], Name]
    draw_type: int | None = None

    def read(self, text: str) -> Tree:
        """Return the tree of an expression.

        Raises:
            StatementError: there is something wrong with it.
            UnknownNameError: it cannot be judged.
        """
        return self._tree(syntax_tree(text))

    def _tree(self, node: ast.expr) -> Tree:
        number = number_of(node)
        if number is not None:
            return Number(number)
        match node:
            case ast.Name():
                return self._name(node.id)
            case ast.UnaryOp(op=ast.USub()):
                return self._call("neg", [node.operand])
            case ast.BinOp() if type(node.op) in BINARY:
                return self._call(BINARY[type(node.op)], [node.left, node.right])
            case ast.Compare():
                return self._comparison(node)
            case ast.Call():
                return self._written_call(node)
        raise StatementError(f"{describe(node)} is not part of the language")

    def _name(self, name: str) -> Name:
        if name in CALLED:
            raise StatementError(f"{name} is an operator, and reserved: expected {name}(...)")
        return self.look_up(name)

    def _comparison(self, node: ast.Compare) -> Tree:
        if len(node.ops) > 1:
            raise StatementError("a chained comparison is not part of the language: expected one comparison")
        kind = type(node.ops[0])
        if kind not in COMPARISONS:
            raise StatementError(f"{OUTSIDE[kind]} is not part of the language")
        name, swapped = COMPARISONS[kind]
        operands = [node.left, node.comparators[0]]
        return self._call(name, operands[::-1] if swapped else operands)

    def _written_call(self, node: ast.Call) -> Tree:
        if not isinstance(node.func, ast.Name):
            raise StatementError(f"a call of {describe(node.func)} is not part of the language")
        name = node.func.id
        if name not in CALLED:
            raise StatementError(f"unknown operator {name}{did_you_mean(name, CALLED)}")
        if node.keywords:
            raise StatementError(f"a keyword in {name}(...) is not part of the language")
        expected = CALLED[name].counts
        if len(node.args) not in expected:
            counts = " or ".join(map(str, expected))
            raise StatementError(
                f"wrong number of operands of {name}: got {len(node.args)}, expected {counts}"
            )
        return self._call(name, node.args)

    def _call(
        self,
        name: str,
        operands: list[ast.expr],
    ) -> Call:
        operator = OPERATORS[OPCODE[name]]
        if operator.family == "draw" and self.draw_type is None:
            raise StatementError(
                f"{name} outside of an initialisation; node_noise and edge_noise are for ticks"
            )
        if operator.family == "rev":
            return self._rev(operands[0])
        trees = tuple(read_all(self._tree, operands))
        return Call(OPCODE[name], trees, self._type_of(operator.family, trees))

    def _rev(self, operand: ast.expr) -> Call:
        if not isinstance(operand, ast.Name):
            raise StatementError("rev takes the name of a private edge slot, and no expression")
        slot = self._name(operand.id)
        if slot.kind != PRIVATE:
            raise StatementError(f"rev of {slot.name}, which is no private edge slot")
        return Call(OPCODE["rev"], (slot,), EDGE_TYPE)

    def _type_of(
        self,
        family: str,
        operands: tuple[Tree, ...],
    ) -> int:
        if family == "draw":
            assert self.draw_type is not None  # refused before
            return self.draw_type
        if family == "elementwise":
            return max(operand.type for operand in operands)
        return NODE_TYPE


def read_all(
    read: Callable[[Source], Tree],
    sources: Iterable[Source],
) -> list[Tree]:
    """Return the tree of each source, or raise the mistakes of them all.

    Raises:
        StatementError: some have mistakes.
        UnknownNameError: none has, but one cannot be judged.
    """
    trees: list[Tree] = []
    messages: list[str] = []
    is_unknown = False
    for source in sources:
        try:
            trees.append(read(source))
        except StatementError as mistake:
            messages += mistake.messages
        except UnknownNameError:
            is_unknown = True
    if messages:
        raise StatementError(*messages)
    if is_unknown:
        raise UnknownNameError
    return trees


def syntax_tree(text: str) -> ast.expr:
    """Return Python's tree of an expression.

    Raises:
        StatementError: it cannot be read, or is too long to be looked into.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's, such as of numbers that are called
            body = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else str(error) or "too deep"
        raise StatementError(f"syntax: {text.strip()!r} cannot be read: {reason}") from error
    # A deep tree of a long chain would exhaust the stack below.
    if sum(1 for _ in ast.walk(body)) > MOST_PARTS:
        raise StatementError(f"too many operators in one expression: a rule has at most {MAX_OPERATORS}")
    return body


def number_of(node: ast.expr) -> float | None:
    """Return the number that an expression is, a minus before it included; None where it is none.

    Raises:
        StatementError: it is larger than 10000 in size.
    """
    sign = 1
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        sign = -1
        node = node.operand
    if not isinstance(node, ast.Constant) or type(node.value) not in (int, float):
        return None
    value = node.value
    assert isinstance(value, int | float)
    if not abs(value) <= BOUND:
        raise StatementError(
            f"number out of range: got {ast.unparse(node)[:40]}, expected at most 10000 in size"
        )
    # There is no -0: no operator tells it from 0.
    return sign * float(value) + 0.0


def describe(node: ast.AST) -> str:
    """Return what a message calls a part that is not of the language."""
    for part in (node, getattr(node, "op", None)):
        if type(part) in OUTSIDE:
            return OUTSIDE[type(part)]
    if isinstance(node, ast.Constant):
        kind = "a string" if isinstance(node.value, str | bytes) else "a constant of Python"
        return f"{kind} ({node.value!r})"
    return type(node).__name__


def operators_in(tree: Tree) -> int:
    """Return how many operators are written in an expression."""
    if not isinstance(tree, Call):
        return 0
    return 1 + sum(operators_in(operand) for operand in tree.operands)


def numbers_in(tree: Tree) -> list[float]:
    """Return the numbers in an expression in the order in which its instructions use them."""
    if isinstance(tree, Number):
        return [tree.value]
    found: list[float] = []
    if isinstance(tree, Call):
        for operand in tree.operands:
            found += numbers_in(operand)
    return found

"""The parser of rules: text to program, or all its mistakes at once."""

import keyword
import re
from dataclasses import dataclass, field

from vsml.rules.expression import (
    Call,
    Name,
    Number,
    Reader,
    StatementError,
    Tree,
    UnknownNameError,
    number_of,
    numbers_in,
    operators_in,
    read_all,
    syntax_tree,
)
from vsml.rules.mistakes import RuleError, did_you_mean
from vsml.rules.operators import CALLED
from vsml.rules.rule import (
    EDGE_TYPE,
    FIRST_CONSTANT,
    FIRST_GRAPH_VALUE,
    FIRST_INSTRUCTION,
    FIRST_PORT,
    FLOAT_TYPE,
    GRAPH_VALUES,
    KINDS,
    MAX_CONSTANTS,
    MAX_INITIAL_OPERATORS,
    MAX_OPERATORS,
    MAX_SLOTS,
    NAMED_TYPES,
    NO_REGISTER,
    NODE,
    NODE_TYPE,
    PORTS,
    Constant,
    Definition,
    Instruction,
    Rule,
    Slot,
    Store,
)

NAME = r"[A-Za-z_][A-Za-z0-9_]*"
CONSTANT_LINE = re.compile(rf"@\s*({NAME})\s*=(?!=)(.*)")
STORE_LINE = re.compile(rf"({NAME})\s*<-(.*)")
SLOT_LINE = re.compile(rf"({NAME})\s*:(?!=)([^=]*)(?:=(.*))?")
DEFINITION_LINE = re.compile(rf"({NAME})\s*=(?!=)(.*)")
GUARD = re.compile(r"\bif\b")
STATEMENTS = "@name = number | name : kind [= expression] | name = expression | slot <- expression [if guard]"

BUILT_IN = {
    **{name: Name(name, "port", NAMED_TYPES[name], number) for number, name in enumerate(PORTS)},
    **{name: Name(name, "graph", NAMED_TYPES[name], number) for number, name in enumerate(GRAPH_VALUES)},
}
"""Ports and graph values, by name."""

ROLES = {
    "slot": "slot",
    "port": "port",
    "graph": "graph value",
    "constant": "constant",
    "definition": "definition",
}
"""What messages call the parts that names have."""


@dataclass
class Entry:
    """A name that the text defines.

    Attributes:
        line: where.
        meaning: what it stands for; None if its line has a mistake, so that nothing is known of it.
    """

    line: int
    meaning: Name | None


@dataclass
class Declaration:
    """A slot under construction: its kind, the trees of its expressions, and whether it has a store."""

    name: str
    kind: int
    initial: Tree | None = None
    value: Tree | None = None
    guard: Tree | None = None
    store_line: int = 0


@dataclass
class Parser:
    """The state of reading one text, line by line.

    Attributes:
        mistakes: so far, with their lines.
        names: what the text defined so far.
        later: of every name that the text defines anywhere the line, for messages.
        slots: declarations, in order.
        constants: named ones, in order.
        definitions: their names and trees, in order.
        body: definitions and stores, in order.
        out: the node slot that is read.
        numbers: different numbers in expressions so far.
        tick_size: operators of the tick so far.
        initial_size: operators of initialisations so far.
        exceeded: limits that were reported.
    """

    mistakes: list[tuple[int, str]] = field(default_factory=list)
    names: dict[str, Entry] = field(default_factory=dict)
    later: dict[str, int] = field(default_factory=dict)
    slots: list[Declaration] = field(default_factory=list)
    constants: list[Constant] = field(default_factory=list)
    definitions: list[tuple[str, Tree]] = field(default_factory=list)
    body: list[Definition | Store] = field(default_factory=list)
    out: int | None = None
    out_line: int = 0
    numbers: set[float] = field(default_factory=set)
    tick_size: int = 0
    initial_size: int = 0
    exceeded: set[str] = field(default_factory=set)

    def read(self, text: str) -> Rule:
        """Read a text.

        Raises:
            RuleError: it has mistakes.
        """
        lines = [line.partition("#")[0].strip() for line in lines_of(text)]
        for number, line in enumerate(lines, 1):
            found = (
                SLOT_LINE.fullmatch(line) or CONSTANT_LINE.fullmatch(line) or DEFINITION_LINE.fullmatch(line)
            )
            if found:
                self.later.setdefault(found[1], number)
        for number, line in enumerate(lines, 1):
            if line:
                self.statement(number, line)
        if not self.mistakes and self.out is None:
            self.mistakes.append((max(1, len(lines)), "out is missing: expected `out = slot` once"))
        if self.mistakes:
            raise RuleError(self.mistakes)
        return assemble(self)

    def statement(
        self,
        line: int,
        text: str,
    ) -> None:
        """Read one statement, and note its mistake if it has one."""
        try:
            if text.startswith("@"):
                self.constant(line, text)
            elif found := STORE_LINE.fullmatch(text):
                self.store(line, found[1], found[2])
            elif found := SLOT_LINE.fullmatch(text):
                self.slot(line, found[1], found[2], found[3])
            elif found := DEFINITION_LINE.fullmatch(text):
                self.definition(line, found[1], found[2])
            else:
                raise StatementError(f"syntax: {text!r} is not a statement; expected {STATEMENTS}")
        except StatementError as mistake:
            self.mistakes += [(line, message) for message in mistake.messages]
        except UnknownNameError:
            pass  # the mistake is in another line, and noted there

    def constant(
        self,
        line: int,
        text: str,
    ) -> None:
        """Read `@name = number`."""
        found = CONSTANT_LINE.fullmatch(text)
        if not found:
            raise StatementError(f"syntax: {text!r} is not a statement; expected @name = number")
        name, expression = found[1], found[2]
        self.define(line, name)
        value = number_of(syntax_tree(expression))
        if value is None:
            raise StatementError(f"constant @{name}: {expression.strip()!r} is not one number")
        self.constants.append(Constant(value, name))
        self.names[name].meaning = Name(name, "constant", FLOAT_TYPE, len(self.constants) - 1)
        self.check_constants()

    def slot(
        self,
        line: int,
        name: str,
        kind_text: str,
        expression: str | None,
    ) -> None:
        """Read `name : KIND` or `name : KIND = expression`."""
        self.define(line, name)
        kind = kind_of(kind_text)
        place_type = NODE_TYPE if kind == NODE else EDGE_TYPE
        declaration = Declaration(name, kind)
        self.slots.append(declaration)
        # Known even if its initialisation is wrong: what follows can be judged.
        self.names[name].meaning = Name(name, "slot", place_type, len(self.slots) - 1, kind)
        self.check_limit("slots", len(self.slots), MAX_SLOTS)
        if expression is None:
            return
        tree = Reader(self.look_up_initial, place_type).read(expression)
        declaration.initial = tree
        check_fits(declaration, tree, "value of an initialisation")
        self.initial_size += operators_in(tree)
        self.check_limit("operators in initialisations", self.initial_size, MAX_INITIAL_OPERATORS)
        self.count_numbers(tree)

    def definition(
        self,
        line: int,
        name: str,
        expression: str,
    ) -> None:
        """Read `name = expression` or `out = slot`."""
        if name == "out":
            self.choose_out(line, expression)
            return
        self.define(line, name)
        tree = Reader(self.look_up).read(expression)
        self.definitions.append((name, tree))
        number = len(self.definitions) - 1
        self.names[name].meaning = Name(name, "definition", tree.type, number)
        self.body.append(Definition(name, number))
        self.count_tick(tree)

    def choose_out(
        self,
        line: int,
        expression: str,
    ) -> None:
        """Read `out = slot`."""
        if self.out_line:
            raise StatementError(f"out is given twice: first in line {self.out_line}")
        self.out_line = line
        name = expression.strip()
        if not re.fullmatch(NAME, name):
            raise StatementError(f"out: {name!r} is not a node slot; expected the name of one")
        meaning = self.look_up(name) if name not in CALLED else None
        if meaning is None or meaning.kind != NODE:
            raise StatementError(f"out: {name} is not a node slot")
        self.out = meaning.number

    def store(
        self,
        line: int,
        name: str,
        expression: str,
    ) -> None:
        """Read `slot <- expression` or `slot <- expression if guard`."""
        if name == "out":
            raise StatementError("out is reserved: expected `out = slot`, and stores to that slot")
        if name in CALLED:
            raise StatementError(f"store to {name}, an operator: read-only")
        meaning = self.look_up(name)
        if meaning.role != "slot":
            raise StatementError(f"store to {name}, a {ROLES[meaning.role]}: read-only")
        slot = self.slots[meaning.number]
        if slot.store_line:
            raise StatementError(f"second store to {name}: the first is in line {slot.store_line}")
        slot.store_line = line
        parts = GUARD.split(expression)
        if len(parts) > 2:
            raise StatementError(f"syntax: two `if` in the store to {name}; expected one guard")
        value, *guards = read_all(Reader(self.look_up).read, parts)
        check_fits(slot, value, "value")
        for guard in guards:
            check_fits(slot, guard, "guard")
            slot.guard = guard
        slot.value = value
        self.body.append(Store(meaning.number))
        self.count_tick(value, *guards)

    def define(
        self,
        line: int,
        name: str,
    ) -> None:
        """Note that a line defines a name, of which nothing is known yet."""
        if name in BUILT_IN or name in CALLED or name == "out":
            raise StatementError(f"{name} is reserved: expected another name")
        if keyword.iskeyword(name):
            raise StatementError(f"{name} is reserved, being a word of Python's: expected another name")
        if name in self.names:
            raise StatementError(f"{name} is already defined in line {self.names[name].line}")
        self.names[name] = Entry(line, None)

    def look_up(self, name: str) -> Name:
        """Return what a name stands for in this line."""
        if name in BUILT_IN:
            return BUILT_IN[name]
        if name == "out":
            raise StatementError("out is reserved, and no value: expected the slot's own name")
        if name not in self.names:
            raise StatementError(f"{name} is not defined above this line{self.hint(name)}")
        meaning = self.names[name].meaning
        if meaning is None:
            raise UnknownNameError
        return meaning

    def look_up_initial(self, name: str) -> Name:
        """Return what a name stands for in an initialisation."""
        meaning = self.look_up(name)
        if meaning.role not in ("constant", "graph"):
            allowed = "numbers, constants and graph values can"
            raise StatementError(f"{ROLES[meaning.role]} {name} cannot stand in an initialisation: {allowed}")
        return meaning

    def hint(self, name: str) -> str:
        """Return what may have been meant by a name that is not defined."""
        if name in self.later:
            return f", but in line {self.later[name]}"
        return did_you_mean(name, [*self.names, *BUILT_IN, *CALLED])

    def count_tick(self, *trees: Tree) -> None:
        """Count operators and numbers of a statement of the tick."""
        for tree in trees:
            self.tick_size += operators_in(tree)
        self.check_limit("operators", self.tick_size, MAX_OPERATORS)
        for tree in trees:
            self.count_numbers(tree)

    def count_numbers(self, tree: Tree) -> None:
        """Count the different numbers in expressions."""
        self.numbers |= set(numbers_in(tree))
        self.check_constants()

    def check_constants(self) -> None:
        """Refuse more constants than there may be."""
        self.check_limit("constants", len(self.constants) + len(self.numbers), MAX_CONSTANTS)

    def check_limit(
        self,
        what: str,
        count: int,
        limit: int,
    ) -> None:
        """Refuse more than a limit, once."""
        if count > limit and what not in self.exceeded:
            self.exceeded.add(what)
            raise StatementError(f"too many {what}: got {count}, expected at most {limit}")


def lines_of(text: str) -> list[str]:
    """Return the lines of a text as editors count them: other separators, as in a comment, end no line."""
    return text.replace("\r\n", "\n").replace("\r", "\n").removesuffix("\n").split("\n")


def kind_of(text: str) -> int:
    """Return the number of a kind of slot.

    Raises:
        StatementError: there is no such kind.
    """
    # One blank between two words and none around brackets, however it is written.
    words = " ".join(re.findall(r"\w+|[^\w\s]", text))
    written = words.replace(" ( ", "(").replace(" )", ")")
    if written not in KINDS:
        raise StatementError(f"unknown slot kind {text.strip()!r}: expected one of {', '.join(KINDS)}")
    return KINDS.index(written)


def check_fits(
    slot: Declaration,
    tree: Tree,
    what: str,
) -> None:
    """Refuse edge values for a node slot."""
    if slot.kind == NODE and tree.type == EDGE_TYPE:
        raise StatementError(
            f"edge {what} for the node slot {slot.name}: reduce it first (sum, mean, max, ...)"
        )


@dataclass
class Assembly:
    """Registers of a program under construction.

    Attributes:
        num_named: how many constants have a name.
        numbers: registers of numbers in expressions.
        definitions: register of each definition.
    """

    num_named: int
    numbers: dict[float, int] = field(default_factory=dict)
    definitions: list[int] = field(default_factory=list)

    def register(
        self,
        tree: Tree,
        program: list[Instruction],
    ) -> int:
        """Append the instructions of a tree to a program, and return the register of its value."""
        if isinstance(tree, Number):
            return self.number(tree.value)
        if isinstance(tree, Name):
            return self.named(tree)
        assert isinstance(tree, Call)
        operands = tuple(self.register(operand, program) for operand in tree.operands)
        program.append(Instruction(tree.operator, operands))
        return FIRST_INSTRUCTION + len(program) - 1

    def number(self, value: float) -> int:
        """Return the register of a number."""
        register = FIRST_CONSTANT + self.num_named + len(self.numbers)
        return self.numbers.setdefault(value, register)

    def named(self, name: Name) -> int:
        """Return the register of what a name stands for."""
        if name.role == "definition":
            return self.definitions[name.number]
        first = {"slot": 0, "port": FIRST_PORT, "graph": FIRST_GRAPH_VALUE, "constant": FIRST_CONSTANT}
        return first[name.role] + name.number


def assemble(parser: Parser) -> Rule:
    """Return the program of a text without mistakes."""
    assembly = Assembly(len(parser.constants))
    initial: list[Instruction] = []
    initials = [NO_REGISTER] * len(parser.slots)
    for number, slot in enumerate(parser.slots):
        if slot.initial is not None:
            initials[number] = assembly.register(slot.initial, initial)

    tick: list[Instruction] = []
    stored: dict[int, tuple[int, int]] = {}
    body: list[Definition | Store] = []
    for statement in parser.body:
        if isinstance(statement, Definition):
            name, tree = parser.definitions[statement.register]
            register = assembly.register(tree, tick)
            assembly.definitions.append(register)
            body.append(Definition(name, register))
            continue
        slot = parser.slots[statement.slot]
        assert slot.value is not None
        value = assembly.register(slot.value, tick)
        guard = NO_REGISTER if slot.guard is None else assembly.register(slot.guard, tick)
        stored[statement.slot] = (value, guard)
        body.append(statement)

    slots: list[Slot] = []
    for number, slot in enumerate(parser.slots):
        value, guard = stored.get(number, (NO_REGISTER, NO_REGISTER))
        slots.append(Slot(slot.name, slot.kind, initials[number], value, guard))
    numbers = [Constant(value) for value in assembly.numbers]
    assert parser.out is not None
    return Rule(
        slots=tuple(slots),
        constants=(*parser.constants, *numbers),
        initial=tuple(initial),
        tick=tuple(tick),
        out=parser.out,
        body=tuple(body),
    )


def parse(text: str) -> Rule:
    """Return the rule that a text describes.

    Args:
        text: one statement a line; docs/rules.md describes the language.

    Raises:
        RuleError: the text has mistakes; it lists them all, with their lines.
    """
    return Parser().read(text)

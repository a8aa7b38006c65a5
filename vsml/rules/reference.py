"""The reference page of operators, names and settings of rules: `make docs`."""

from vsml.rules.operators import OPERATORS, Operator
from vsml.rules.rule import (
    GRAPH_VALUES,
    KINDS,
    MAX_CONSTANTS,
    MAX_INITIAL_OPERATORS,
    MAX_OPERATORS,
    MAX_SLOTS,
    NAMED_TYPES,
    PORTS,
    TYPE_NAMES,
)
from vsml.rules.settings import Settings

INTRODUCTION = """\
# Operators of rules

Generated from the code in `vsml/rules/` by `make docs`. [rules.md](rules.md) explains the language.

A value is a float (the same everywhere), a node value (one number a node) or an edge value (one number a
half-edge). Where a higher type is needed, a node value is used at all half-edges of its own node. Every
result is repaired: NaN becomes 0, then it is clipped to [-10000, 10000]. A number above 0 is true.
"""

LETTERS = "abc"

NAMES_OF_FAMILIES = {
    "elementwise": "the highest among its operands",
    "rev": "edge",
    "reducer": "node",
    "count": "node",
    "draw": "that of the slot",
}

MEANINGS = {
    "x": "the input of the node",
    "x_on": "1 where an input is given now",
    "t": "the teaching of the node",
    "t_on": "1 where teaching is given now",
    "node_noise": "a fresh normal draw for every node and tick",
    "edge_noise": "a fresh normal draw for every half-edge and tick",
    "degree": "how many edges the node has",
    "parity": "1 if the other end has the higher number, -1 if the lower",
    "incoming": "1 if the other end has the lower number, else 0",
    "outgoing": "1 if the other end has the higher number, else 0",
}


def forms(operator: Operator) -> str:
    """Return how an operator is written."""
    letters = LETTERS[: operator.operands]
    if operator.sign and operator.operands == 1:
        return f"`{operator.sign}a`"
    if operator.sign:
        return f"`a {operator.sign} b`"
    if operator.family == "reducer":
        return f"`{operator.name}(a)`, `{operator.name}(a, filter)`"
    return f"`{operator.name}({', '.join(letters)})`"


def table(
    headings: tuple[str, ...],
    rows: list[tuple[str, ...]],
) -> str:
    """Return a table of Markdown."""
    lines = [headings, ("---",) * len(headings), *rows]
    cells = [" | ".join(text.replace("|", "\\|") for text in line) for line in lines]
    return "\n".join(f"| {line} |" for line in cells) + "\n"


def operator_table() -> str:
    """Return the table of operators."""
    rows: list[tuple[str, ...]] = []
    for operator in OPERATORS:
        meaning = operator.meaning
        if operator.family == "reducer":
            meaning += " with filter > 0, without filter over all; 0 over none"
        rows.append((forms(operator), meaning, NAMES_OF_FAMILIES[operator.family]))
    return table(("operator", "result", "type"), rows)


def name_table() -> str:
    """Return the table of ports and graph values."""
    rows: list[tuple[str, ...]] = []
    for name in (*PORTS, *GRAPH_VALUES):
        rows.append((f"`{name}`", TYPE_NAMES[NAMED_TYPES[name]], MEANINGS[name]))
    return table(("name", "type", "what"), rows)


def setting_table() -> str:
    """Return the table of settings of the harness."""
    rows: list[tuple[str, ...]] = []
    for name, field in Settings.model_fields.items():
        default = "required" if field.is_required() else f"`{field.default}`".replace("None", "null")
        rows.append((f"`{name}`", default, field.description or ""))
    return table(("setting", "default", "what"), rows)


def reference() -> str:
    """Return the page."""
    limits = f"""\
A rule has at most {MAX_SLOTS} slots, {MAX_CONSTANTS} constants, {MAX_OPERATORS} operators in a tick and
{MAX_INITIAL_OPERATORS} in initialisations. A slot is one of `{"`, `".join(KINDS)}`.
"""
    parts = [
        INTRODUCTION,
        operator_table(),
        "## Names\n",
        name_table(),
        "## Limits\n",
        limits,
        "## Settings of the harness\n",
        setting_table(),
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    print(reference(), end="")

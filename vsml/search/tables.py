"""How rules are drawn, as tables of cumulative weights."""

from dataclasses import dataclass
from functools import lru_cache

import jax.numpy as jnp
import numpy as np

from vsml.rules.canonical import instruction_array
from vsml.rules.operators import OPCODE, OPERATORS
from vsml.rules.parser import parse
from vsml.rules.rule import (
    FIRST_CONSTANT,
    FIRST_GRAPH_VALUE,
    FIRST_INSTRUCTION,
    FIRST_PORT,
    GRAPH_VALUES,
    NO_REGISTER,
    PORTS,
)
from vsml.search.choices import Chances, cumulative
from vsml.search.genome import IS_ELEMENTWISE, NOTHING, NUMBERS
from vsml.search.growing import NEW
from vsml.search.settings import Drawing
from vsml.types import Array

_GROUPS = {
    "arithmetic": {"add": 3.0, "sub": 2.0, "mul": 4.0, "neg": 0.5, "div": 1.0},
    "comparison": {"gt": 1.0, "ge": 0.5, "minimum": 0.5, "maximum": 0.5, "sel": 1.5},
    "function": {
        "abs": 0.5,
        "square": 1.0,
        "sin": 0.2,
        "tanh": 2.0,
        "relu": 1.0,
        "sign": 1.0,
        "sigmoid": 0.5,
        "exp": 0.2,
        "log": 0.1,
        "sqrt": 0.5,
    },
    "reducer": {"sum": 4.0, "mean": 2.0, "max": 0.7, "min": 0.7, "std": 0.6},
    "count": {"count": 1.0},
}
"""Shares of operators within their groups."""


NODE_LEAVES = ("x", "x_on", "t", "t_on", "node_noise", "degree")
EDGE_LEAVES = ("edge_noise", "parity", "incoming", "outgoing")
"""Leaves beside slots, in the order of their tables."""


def register_of(name: str) -> int:
    """Return the register of a port or graph value."""
    if name in PORTS:
        return FIRST_PORT + PORTS.index(name)
    return FIRST_GRAPH_VALUE + GRAPH_VALUES.index(name)


@dataclass(frozen=True, eq=False)
class Tables:
    """What `Drawing` says, as tables of cumulative weights.

    Attributes:
        settings: where they are from.
        node_operators, edge_operators: by operator, of results of that type.
        kinds: by kind of slot.
        initials: by initialisation.
        beginnings: instructions of each initialisation, int32 [n, m, 4]; results of it are `NEW` + place.
        starts: register of each initialisation's value, int32 [n].
        lengths: instructions of each, int32 [n].
        base: by range of the probability that an expression is a leaf.
        node_leaves, edge_leaves: by leaf, slots last.
    """

    settings: Drawing
    node_operators: np.ndarray
    edge_operators: np.ndarray
    kinds: np.ndarray
    initials: np.ndarray
    beginnings: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    base: np.ndarray
    node_leaves: np.ndarray
    edge_leaves: np.ndarray


@lru_cache(maxsize=32)
def tables_of(settings: Drawing) -> Tables:
    """Return the tables of some settings.

    Raises:
        ValueError: an initialisation uses other numbers than 0 and 1, or constants.
        RuleError: an initialisation has mistakes.
    """
    weights = np.zeros(len(OPERATORS))
    for group, shares in _GROUPS.items():
        total = sum(shares.values())
        for name, share in shares.items():
            weights[OPCODE[name]] = getattr(settings, group) * share / total
    begin = [_initial_rows(each.expression) for each in settings.initials]
    longest = max(1, *(len(rows) for rows, _ in begin))
    beginnings = np.full((len(begin), longest, 4), NOTHING, np.int32)
    for number, (rows, _) in enumerate(begin):
        beginnings[number, : len(rows)] = rows
    leaves = settings.leaves
    return Tables(
        settings=settings,
        node_operators=cumulative(list(weights)),
        edge_operators=cumulative(list(weights * IS_ELEMENTWISE)),
        kinds=cumulative(settings.kinds),
        initials=cumulative([each.weight for each in settings.initials]),
        beginnings=beginnings,
        starts=np.array([start for _, start in begin], np.int32),
        lengths=np.array([len(rows) for rows, _ in begin], np.int32),
        base=cumulative([each.weight for each in settings.base]),
        node_leaves=cumulative([*(getattr(leaves, name) for name in NODE_LEAVES), leaves.node_slot]),
        edge_leaves=cumulative([*(getattr(leaves, name) for name in EDGE_LEAVES), leaves.edge_slot]),
    )


def _initial_rows(expression: str | None) -> tuple[np.ndarray, int]:
    """Return the instructions of an initialisation and the register of its value."""
    if expression is None:
        return np.zeros((0, 4), np.int32), NO_REGISTER
    rule = parse(f"a : node\nw : edge = {expression}\nout = a\n")
    numbers = [constant.value for constant in rule.constants]
    if not set(numbers) <= set(NUMBERS):
        raise ValueError(f"initials: got {expression!r}, expected no numbers but 0 and 1")

    def moved(register: int) -> int:
        if register >= FIRST_INSTRUCTION:
            return register - FIRST_INSTRUCTION + NEW
        if register >= FIRST_CONSTANT:
            return FIRST_CONSTANT + NUMBERS.index(numbers[register - FIRST_CONSTANT])
        return register

    rows = instruction_array(rule.initial).astype(np.int32)
    for row in rows:
        row[1:] = [moved(int(register)) for register in row[1:]]
    return rows, moved(rule.slots[1].initial)


def base_of(tables: Tables, chances: Chances) -> Array:
    """Return the probability that an expression of a rule is a leaf."""
    ranges = tables.settings.base
    number = chances.one_of(tables.base)
    least = jnp.array([each.least for each in ranges])[number]
    most = jnp.array([each.most for each in ranges])[number]
    return least + chances.take() * (most - least)

"""The page on which one steps through a rule: a slider over ticks, the drawn graph, and what it holds.

One HTML file that needs no network: style, script and all numbers are in it.
"""

import html
import json
from pathlib import Path
from typing import Any

import numpy as np

from vsml.graphs.graph import Graph
from vsml.reporting.rule_text import example_line, happenings, role_of, store_lines
from vsml.rules.printer import show
from vsml.rules.rule import NO_REGISTER, NODE, PORTS, PRIVATE, Rule, Slot
from vsml.rules.watching import Numbers, Tick, Watched

DIGITS = 6
"""Significant digits of the numbers in a page."""

SHOWN_PORTS = PORTS[:4]
"""Ports that a page shows: input and teaching, each with its switch."""


def rule_page(
    watched: Watched,
    title: str,
    layout: str = "levels",
    first: int = 0,
) -> str:
    """Return a page about what was watched, as HTML.

    Args:
        watched: what was watched.
        title: of the page.
        layout: where nodes are drawn; see `vsml.graphs.drawing.positions`.
        first: place of the tick that it shows first.

    Raises:
        ValueError: there is no such layout.
    """
    # In a script "<" could end it, or begin a comment.
    numbers = page_data(watched, layout, first)
    data = json.dumps(numbers, separators=(",", ":"), allow_nan=False)
    data = data.replace("<", "\\u003c")
    style = _beside("page.css") + _beside("rule_page.css")
    parts = {
        "TITLE": html.escape(title),
        "STYLE": style,
        "SCRIPT": _beside("rule_page.js"),
        "DATA": data,
    }
    page, *others = _beside("rule_page.html").split("{{")
    for other in others:
        name, _, rest = other.partition("}}")
        page += parts[name] + rest
    return page


def page_data(
    watched: Watched,
    layout: str = "levels",
    first: int = 0,
) -> dict[str, Any]:
    """Return what the script of the page draws; see `rule_page`."""
    rule = watched.rule
    examples = {str(example.place): example_line(example) for example in watched.examples}
    return {
        "first": first,
        "lines": _lines(rule),
        "nodes": _nodes(watched.graph, layout),
        "edges": watched.graph.edges.tolist(),
        "slots": [_slot(slot) for slot in rule.slots],
        "out": rule.slots[rule.out].name,
        "examples": examples,
        "ticks": [_tick(watched, tick) for tick in watched.ticks],
    }


def _lines(rule: Rule) -> list[dict[str, Any]]:
    """Return the lines of the rule's text, with the slot that each stores to, and whether it has a guard."""
    lines: list[dict[str, Any]] = [{"text": text} for text in show(rule).splitlines()]
    for name, place in store_lines(rule).items():
        slot = rule.slots[rule.slot_number(name)]
        lines[place] |= {"slot": name, "guarded": slot.guard != NO_REGISTER}
    return lines


def _nodes(
    graph: Graph,
    layout: str,
) -> list[dict[str, Any]]:
    from vsml.graphs.drawing import positions  # slow to import, and text needs no drawing

    place = positions(graph, layout)
    found: list[dict[str, Any]] = []
    for node in range(graph.num_nodes):
        x, y = (round(float(value), 4) for value in place[node])
        found.append({"x": x, "y": y, "role": role_of(graph, node)})
    return found


def _slot(slot: Slot) -> dict[str, Any]:
    """Return a slot's name, and whether it is of a node, of an edge, or of each end of one."""
    names = {NODE: "node", PRIVATE: "ends"}
    return {"name": slot.name, "of": names.get(slot.kind, "edge")}


def _tick(
    watched: Watched,
    tick: Tick,
) -> dict[str, Any]:
    changed = {slot.name: tick.changed(slot.name) for slot in watched.rule.slots}
    ports = {name: tick.ports[name] for name in SHOWN_PORTS}
    return {
        "example": tick.example,
        "number": tick.number,
        "told": happenings(watched.settings, tick),
        "ports": _rounded(ports),
        "slots": _rounded(tick.after),
        "fires": _places(tick.fires),
        "changed": _places(changed),
    }


def _rounded(numbers: Numbers) -> dict[str, list[float]]:
    """Return numbers with as many digits as a page has, as lists."""
    found: dict[str, list[float]] = {}
    for name, values in numbers.items():
        found[name] = [float(f"{value:.{DIGITS}g}") for value in values.tolist()]
    return found


def _places(truths: Numbers) -> dict[str, list[int]]:
    """Return where each of some truths holds."""
    return {name: np.flatnonzero(truth).tolist() for name, truth in truths.items()}


def _beside(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")

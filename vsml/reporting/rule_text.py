"""Rules as text for a terminal: what is in one, and what happens in each tick."""

from collections.abc import Iterator, Sequence

import numpy as np

from vsml.graphs.graph import Graph
from vsml.reporting.tables import Table, plain
from vsml.rules.canonical import canonical, rule_hash
from vsml.rules.printer import show
from vsml.rules.rule import KINDS, NO_REGISTER, NODE, PRIVATE, Rule, Slot, Store
from vsml.rules.settings import Settings
from vsml.rules.watching import Example, Tick, Watched

CHANGED = "*"
"""Stands behind numbers that have changed in the tick."""

MOST_PLACES = 12
"""Places that are listed by name; of more the first ones."""


def description(rule: Rule) -> str:
    """Return what is in a rule: text, canonical form, hash, slots and constants."""
    parts = [
        ("text", show(rule).rstrip()),
        ("canonical form", show(canonical(rule)).rstrip()),
        ("hash", rule_hash(rule)),
        ("slots", plain(_slots(rule))),
        ("constants that may be tuned", plain(_constants(rule)) if rule.tuned else "none"),
        ("size", f"{rule.size} operators a tick"),
    ]
    return "\n\n".join(f"{title}:\n{_indented(text)}" for title, text in parts)


def _slots(rule: Rule) -> Table:
    rows = []
    for number, slot in enumerate(rule.slots):
        roles = ["signal" if slot.is_signal else "kept"]
        if number == rule.out:
            roles.append("read as the answer")
        if slot.value == NO_REGISTER:
            roles.append("never stored to")
        rows.append([slot.name, KINDS[slot.kind], ", ".join(roles)])
    headings = ["slot", "kind", "what it is"]
    return Table(headings, rows, left=frozenset(headings))


def _constants(rule: Rule) -> Table:
    rows = [[name, value] for name, value in rule.tuned.items()]
    return Table(["constant", "value"], rows, left=frozenset(["constant"]))


def _indented(text: str) -> str:
    return "\n".join(f"  {line}".rstrip() for line in text.splitlines())


def store_lines(rule: Rule) -> dict[str, int]:
    """Return for each slot that is stored to which line of `show(rule)` does it, counted from 0."""
    above = len(rule.tuned) + len(rule.slots)
    found: dict[str, int] = {}
    for place, statement in enumerate(rule.body):
        if isinstance(statement, Store):
            found[rule.slots[statement.slot].name] = above + place
    return found


def role_of(
    graph: Graph,
    node: int,
) -> str:
    """Return input, output or hidden."""
    if node in graph.inputs:
        return "input"
    return "output" if node in graph.outputs else "hidden"


def happenings(
    settings: Settings,
    tick: Tick,
) -> str:
    """Return what the harness does in a tick, in words; empty for nothing."""
    said: list[str] = []
    if tick.ports["x_on"].any() and tick.number < settings.x_ticks:
        said.append("the input stands")
    if tick.number == settings.read_tick:
        said.append("the answer is read after it")
    if tick.ports["t_on"].any():
        said.append("teaching stands")
    elif settings.teach == "target_as_input" and tick.number >= settings.first_teach_tick:
        said.append("the target stands at the outputs")
    return ", ".join(said)


def example_line(example: Example) -> str:
    """Return what an example asks and what was answered, as one line."""
    parts = {"x": example.x, "target": example.target, "answer": example.answer}
    told = [f"{name} {_numbers(values)}" for name, values in parts.items()]
    return f"example {example.place + 1}: {', '.join(told)}"


def _numbers(values: np.ndarray) -> str:
    return " ".join(f"{value:.4g}" for value in values)


def watched_text(
    watched: Watched,
    most_ticks: int | None = None,
) -> Iterator[str]:
    """Yield blocks of text about what was watched: of each example a line, of each tick what happened.

    Args:
        watched: what was watched.
        most_ticks: how many ticks are told at most; None: all.
    """
    examples = {example.place: example for example in watched.examples}
    for tick in watched.ticks[:most_ticks]:
        if tick.number == 0:
            yield example_line(examples[tick.example])
        yield tick_text(watched, tick)


def tick_text(
    watched: Watched,
    tick: Tick,
) -> str:
    """Return what happened in a tick: which guards fire, and what nodes and edges hold after it."""
    told = happenings(watched.settings, tick)
    title = f"tick {tick.number}" + (f": {told}" if told else "")
    guards = guards_table(watched, tick)
    told_guards = plain(guards) if guards.rows else "no store has a guard: all happen everywhere"
    parts = [told_guards, plain(nodes_table(watched, tick))]
    if any(slot.kind != NODE for slot in watched.rule.slots):
        parts.append(plain(edges_table(watched, tick)))
    return "\n\n".join([title, *map(_indented, parts)])


def guards_table(
    watched: Watched,
    tick: Tick,
) -> Table:
    """Return a row for each store that has a guard: where it is true."""
    rule = watched.rule
    lines = show(rule).splitlines()
    rows: list[list[str]] = []
    for name, line in store_lines(rule).items():
        slot = rule.slots[rule.slot_number(name)]
        if slot.guard != NO_REGISTER:
            rows.append([lines[line], fired_places(watched.graph, slot, tick.fires[name])])
    headings = ["guard", "fires at"]
    return Table(headings, rows, left=frozenset(headings))


def fired_places(
    graph: Graph,
    slot: Slot,
    fires: np.ndarray,
) -> str:
    """Return where a guard is true: nodes by their numbers, half-edges as `node>other node`."""
    places = np.flatnonzero(fires)
    if not len(places):
        return "-"
    if len(places) == len(fires):
        return "all nodes" if slot.kind == NODE else "all half-edges"
    if slot.kind == NODE:
        names = [str(place) for place in places]
    else:
        names = [half_edge_name(graph, int(place)) for place in places]
    more = len(names) - MOST_PLACES
    listed = " ".join(names[:MOST_PLACES])
    kind = "nodes" if slot.kind == NODE else "half-edges"
    return f"{kind} {listed}" + (f" and {more} more" if more > 0 else "")


def half_edge_name(
    graph: Graph,
    half_edge: int,
) -> str:
    """Return the name of a half-edge: its node, and the node at the other end."""
    return f"{graph.node[half_edge]}>{graph.node[half_edge ^ 1]}"


def nodes_table(
    watched: Watched,
    tick: Tick,
) -> Table:
    """Return a row for each node: its role, the ports that are on anywhere, and its slots."""
    graph = watched.graph
    slots = [slot for slot in watched.rule.slots if slot.kind == NODE]
    ports: list[str] = []
    for name, switch in (("x", "x_on"), ("t", "t_on")):
        if tick.ports[switch].any():
            ports.append(name)
    rows: list[list[str]] = []
    for node in range(graph.num_nodes):
        given = [_port(tick, name, node) for name in ports]
        held = [_slot(tick, slot.name, node) for slot in slots]
        rows.append([str(node), role_of(graph, node), *given, *held])
    headings = ["node", "role", *ports, *[slot.name for slot in slots]]
    return Table(headings, rows, left=frozenset(["role"]))


def edges_table(
    watched: Watched,
    tick: Tick,
) -> Table:
    """Return a row for each edge; a slot with a number for each end has two columns."""
    graph = watched.graph
    slots = [slot for slot in watched.rule.slots if slot.kind != NODE]
    headings = ["edge", *_edge_headings(slots)]
    rows: list[list[str]] = []
    for edge, (low, high) in enumerate(graph.edges):
        row = [f"{low}-{high}"]
        for slot in slots:
            row.append(_slot(tick, slot.name, 2 * edge))
            if slot.kind == PRIVATE:
                row.append(_slot(tick, slot.name, 2 * edge + 1))
        rows.append(row)
    return Table(headings, rows, left=frozenset(["edge"]))


def _edge_headings(slots: Sequence[Slot]) -> Iterator[str]:
    """Yield names of columns: what the lower node shows upwards, then what the higher shows downwards."""
    for slot in slots:
        if slot.kind == PRIVATE:
            yield f"{slot.name} up"
            yield f"{slot.name} down"
        else:
            yield slot.name


def _port(
    tick: Tick,
    name: str,
    node: int,
) -> str:
    """Return what a port holds at a node; nothing where it is off."""
    is_on = tick.ports[f"{name}_on"][node] > 0
    return f"{tick.ports[name][node]:.4g}" if is_on else ""


def _slot(
    tick: Tick,
    name: str,
    place: int,
) -> str:
    """Return what a slot holds at a place, marked if it has changed."""
    text = f"{tick.after[name][place]:.4g}"
    has_changed = tick.before[name][place] != tick.after[name][place]
    return text + CHANGED if has_changed else text + " "

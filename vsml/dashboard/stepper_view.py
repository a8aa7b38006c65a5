"""The page on which one goes through a rule on a graph, tick by tick."""

import asyncio
import contextlib
import html
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from vsml.dashboard.look import begin_page, linked, markup, told_errors
from vsml.graphs import KINDS, generate
from vsml.launching.rule_options import settings_of
from vsml.reporting.rule_page import rule_page
from vsml.reporting.rule_text import edges_table, example_line, guards_table, happenings, nodes_table
from vsml.reporting.search_parts import note
from vsml.reporting.tables import html_table
from vsml.rules.known import known_names, read_rule
from vsml.rules.rule import NODE, Rule
from vsml.rules.settings import Settings, Teaching
from vsml.rules.stepping import Stepper
from vsml.search.stages import timing_of
from vsml.search.store.database import Database
from vsml.search.store.queries import rule_of_hash
from vsml.system.extras import needed_for
from vsml.tasks.data.small_tasks import NUM_INPUTS, TASKS

with needed_for("dashboards"):
    from nicegui import ui

_RECENT = 50
"""Examples over which the error is averaged."""

_NOWHERE = np.zeros(0, bool)
"""Where guards fire before the first tick."""

_BUSY = "is computed; the first time takes some seconds ..."

_TEACH = ("as the rule says", "error", "target", "target_as_input", "broadcast_error", "reward", "none")


@dataclass(frozen=True)
class Experiment:
    """What a rule is gone through on.

    Attributes:
        rule: name of a rule that ships, or the first digits of the hash of one in the database.
        task: one of `TASKS`.
        kind: kind of graph.
        hidden: hidden nodes.
        seed: of the graph, the task and the start.
        examples: length of the stream.
        teach: how the rule is taught.
    """

    rule: str = "backprop"
    task: str = "xor"
    kind: str = "layered"
    hidden: int = 4
    seed: int = 0
    examples: int = 1000
    teach: str = _TEACH[0]


def stepper_for(database: Database, experiment: Experiment) -> Stepper:
    """Return the stepper of an experiment; as `vsml rules step` draws it, if the seed is 0.

    Raises:
        ValueError: there is no such rule or graph.
        StoreError: the database cannot be used.
    """
    graph = generate(experiment.kind, NUM_INPUTS, experiment.hidden, 1, experiment.seed)
    given = {} if experiment.teach == _TEACH[0] else {"teach": experiment.teach}
    rule: Rule
    settings: Settings
    if experiment.rule in known_names():
        rule = read_rule(experiment.rule)
        settings = settings_of(experiment.rule, given, graph)
    else:
        rule = rule_of_hash(database, experiment.rule).rule
        settings = timing_of([graph], Teaching.model_validate(given))
    start = jax.random.fold_in(jax.random.key(experiment.seed), 0)
    x, targets = TASKS[experiment.task].draw(experiment.examples, jax.random.fold_in(start, 1))
    return Stepper(rule, graph, settings, x, targets, jax.random.fold_in(start, 0))


def told_state(stepper: Stepper) -> str:
    """Return where a stepper is and how well the rule answers, in words."""
    watched = stepper.watched
    (example,) = watched.examples
    if not stepper.done:
        return f"before the first tick of {stepper.length:,}"
    errors = stepper.errors[-_RECENT:]
    error = (
        f"; mean squared error of the last {len(errors)}: {sum(errors) / len(errors):.4g}" if errors else ""
    )
    told = happenings(watched.settings, watched.ticks[stepper.number])
    place = f"example {example.place + 1}, tick {stepper.number} of {stepper.ticks}"
    return f"{place}{': ' + told if told else ''}{error}"


def tick_tables(stepper: Stepper) -> str:
    """Return what a tick has done as HTML: the example, which guards fire and where, nodes and edges."""
    watched, tick = stepper.watched, stepper.tick
    if tick is None:
        first = watched.ticks[0]
        nowhere = {name: np.zeros_like(values) for name, values in first.ports.items()}
        tick = replace(first, ports=nowhere, after=first.before, fires=dict.fromkeys(first.fires, _NOWHERE))
    guards = guards_table(watched, tick)
    said = example_line(watched.examples[0]) if stepper.done else "What memory holds at the beginning:"
    parts = [
        f"<p>{html.escape(said)}</p>",
        "<h3>Guards</h3>",
        html_table(guards) if guards.rows else note("No store has a guard: all happen everywhere."),
        "<h3>Nodes after the tick; * has changed in it</h3>",
        html_table(nodes_table(watched, tick)),
    ]
    if any(slot.kind != NODE for slot in watched.rule.slots):
        parts += ["<h3>Edges after the tick</h3>", html_table(edges_table(watched, tick))]
    return "\n".join(parts)


@contextlib.contextmanager
def _alone(buttons: Iterable[ui.button]) -> Iterator[None]:
    """Let nobody press buttons as long as something is computed."""
    held = list(buttons)
    for button in held:
        button.disable()
    try:
        yield
    finally:
        for button in held:
            button.enable()


def stepper_page(database: Database, rule: str) -> None:
    """Build the page, for a rule that ships or is in the database."""
    begin_page("Step through a rule")
    holder: dict[str, Any] = {"stepper": None, "drawn": None}
    with ui.row().classes("panel-row"):
        fields: dict[str, Any] = {
            "rule": ui.input("rule: a name, or digits of a hash", value=rule),
            "task": ui.select(list(TASKS), value="xor", label="task"),
            "kind": ui.select(list(KINDS), value="layered", label="graph"),
            "hidden": ui.number("hidden nodes", value=4, min=0, max=64, precision=0),
            "seed": ui.number("seed", value=0, min=0, precision=0),
            "teach": ui.select(list(_TEACH), value=_TEACH[0], label="teaching"),
        }
        load = ui.button("load")
    error = ui.label().classes("said")
    with ui.row().classes("panel-row steps"):
        buttons = {
            "start": ui.button("back to start"),
            "back": ui.button("tick back"),
            "tick": ui.button("one tick"),
            "example": ui.button("one example"),
            "many": ui.button("go on by"),
            "end": ui.button("to the end"),
        }
        count = ui.number("ticks", value=100, min=1, precision=0)
    state = ui.label().classes("note")
    frame = ui.html("", sanitize=False).classes("w-full")
    tables = markup()

    def show() -> None:
        stepper: Stepper | None = holder["stepper"]
        if stepper is None:
            return
        state.set_text(told_state(stepper))
        tables.set_content(linked(tick_tables(stepper)))
        watched = stepper.watched
        place = watched.examples[0].place
        if not stepper.done:
            holder["drawn"] = None
            frame.set_content("")
            return
        if holder["drawn"] == place:
            # The page of this example is there: only its slider moves.
            ui.run_javascript(f"""
                const page = document.querySelector("iframe.ticks").contentWindow;
                const slider = page.document.getElementById("slider");
                if (slider) {{
                    slider.value = {stepper.number};
                    slider.dispatchEvent(new page.Event("input"));
                }}""")
            return
        holder["drawn"] = place
        page = rule_page(watched, "All ticks of this example", first=stepper.number)
        frame.set_content(f'<iframe class="ticks" title="graph" srcdoc="{html.escape(page)}"></iframe>')

    async def go(name: str) -> None:
        with told_errors(error), _alone(buttons.values()):
            stepper: Stepper | None = holder["stepper"]
            if stepper is None:
                raise ValueError("rule: got none, expected one that is loaded")
            moves = {
                "start": lambda: stepper.go_to(0),
                "back": lambda: stepper.go(-1),
                "tick": lambda: stepper.go(1),
                "example": lambda: stepper.go_examples(1),
                "many": lambda: stepper.go(int(count.value or 0)),
                "end": lambda: stepper.go_to(stepper.length),
            }
            state.set_text(_BUSY)
            await asyncio.to_thread(moves[name])
            show()
        if error.text:
            state.set_text("")

    async def begin() -> None:
        with told_errors(error), _alone([load, *buttons.values()]):
            given: dict[str, Any] = {name: field.value or "" for name, field in fields.items()}
            given |= {name: int(fields[name].value or 0) for name in ("hidden", "seed")}
            experiment = Experiment(**given)
            holder["stepper"] = None
            frame.set_content("")
            tables.set_content("")
            state.set_text(_BUSY)
            holder["stepper"] = await asyncio.to_thread(stepper_for, database, experiment)
            holder["drawn"] = None
            show()
        if error.text:
            state.set_text("")

    load.on_click(begin)
    for name, button in buttons.items():
        button.on_click(lambda name=name: go(name))
    ui.timer(0.1, begin, once=True)

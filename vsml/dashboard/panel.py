"""The page that steers: buttons for all commands, forks, and what became of what was sent."""

import asyncio
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vsml.calls.asking import ask, config_of, parsed_value, why_it_waits
from vsml.dashboard.look import begin_page, linked, markup, told_errors
from vsml.launching.forking import fork, points_of
from vsml.reporting.search_runs import commands
from vsml.rules.known import known_names, rule_text
from vsml.runs.commands import resume_command
from vsml.runs.directory import RunDirectory
from vsml.search.changing import SETTINGS, RefusedError, value_of
from vsml.search.steering import COMMANDS, OF_RULES
from vsml.search.store.commands import commands_of
from vsml.search.store.database import Database
from vsml.search.store.overview import runs_of
from vsml.system.extras import needed_for
from vsml.system.program import run_program

with needed_for("dashboards"):
    from nicegui import ui

_EVERY_S = 1.0
"""Seconds between two looks at what became of commands."""


class Sender:
    """Sends commands, and shows what was sent or why it was not.

    Args:
        database: the database that the run writes.
        chosen: returns the name of the run; None for the one that works, or else began last.
    """

    def __init__(self, database: Database, chosen: Callable[[], str | None]) -> None:
        self.database, self.chosen = database, chosen
        self.error = ui.label().classes("said")
        self.sent = ui.label().classes("done")

    async def send(self, do: str, given: Mapping[str, Any] | None = None) -> None:
        """Send a command."""
        self.sent.set_text("")
        with told_errors(self.error):
            command = await asyncio.to_thread(ask, self.database, do, self.chosen(), given)
            waits = await asyncio.to_thread(why_it_waits, self.database, command)
            self.sent.set_text(f"sent to {command.run}: {do}" + (f"; {waits}" if waits else ""))


def rule_buttons(database: Database, digits: str) -> None:
    """Show the buttons of commands about a rule, and the choice of a run that they go to."""
    with ui.row().classes("panel-row"):
        chosen = _choice_of_runs(database)
    row = ui.row().classes("panel-row")
    sender = Sender(database, lambda: chosen.value)
    with row:
        for do in OF_RULES:
            ui.button(do, on_click=lambda do=do: sender.send(do, {"hash": digits})).tooltip(COMMANDS[do])


def steering_page(database: Database, rule: str) -> None:
    """Build the page; `rule` are digits of a hash to begin with."""
    begin_page("Steer")
    error = ui.label().classes("said")
    row = ui.row().classes("panel-row")
    with row:
        chosen = _choice_of_runs(database)
    sender = Sender(database, lambda: chosen.value)
    with row:
        for do in ("pause", "resume"):
            button = ui.button(do, on_click=lambda do=do: sender.send(do))
            button.tooltip(COMMANDS[do])
    _settings(database, sender)
    _rules(sender, rule)
    _forks(database)
    markup("<h2>Commands</h2>")
    told = markup()
    shown = {"content": ""}

    async def look() -> None:
        with told_errors(error):
            content = commands(await asyncio.to_thread(commands_of, database))
            if content != shown["content"]:
                shown["content"] = content
                told.set_content(linked(content))

    ui.timer(_EVERY_S, look, immediate=True)


def _choice_of_runs(database: Database) -> ui.select:
    """Show a choice of runs, the one that began last first."""
    error = ui.label().classes("said")
    names: list[str] = []
    with told_errors(error):
        names = [each.id for each in reversed(runs_of(database))]
    return ui.select(names, value=names[0] if names else None, label="run").classes("wide")


def _settings(database: Database, sender: Sender) -> None:
    markup("<h2>Settings</h2>")
    now = ui.label().classes("note")
    # Apart from those of commands, which a look every second would wipe away.
    error = ui.label().classes("said")
    with ui.row().classes("panel-row"):
        name = ui.select(list(SETTINGS), value=SETTINGS[0], label="setting", with_input=True)
        name.classes("wide")
        value = ui.input("value, in YAML")

        async def set_it() -> None:
            with told_errors(sender.error):
                if not (value.value or "").strip():
                    raise RefusedError("set: got no value, expected one; null has to be typed")
                given = {"name": name.value, "value": parsed_value(value.value)}
                await sender.send("set", given)

        ui.button("set", on_click=set_it)

    async def tell() -> None:
        with told_errors(error):
            now.set_text(await asyncio.to_thread(_present, database, sender.chosen(), name.value))

    name.on_value_change(tell)
    ui.timer(_EVERY_S, tell, immediate=True)


def _present(database: Database, run_id: str | None, name: str | None) -> str:
    """Return what a setting is now, in words."""
    runs = [each for each in runs_of(database) if each.id == run_id]
    if not runs or name is None:
        return ""
    try:
        return f"{name} is {value_of(config_of(database, runs[0]), name)}"
    except RefusedError:
        return "The settings of this run are not in the database."


def _rules(sender: Sender, rule: str) -> None:
    markup("<h2>Rules</h2>")
    with ui.row().classes("panel-row"):
        digits = ui.input("first digits of a hash", value=rule)
        for do in OF_RULES:
            button = ui.button(do, on_click=lambda do=do: sender.send(do, {"hash": digits.value or ""}))
            button.tooltip(COMMANDS[do])
    text = ui.textarea("text of a rule (docs/rules.md)").classes("w-full")
    text.props("input-class=font-mono autogrow")
    with ui.row().classes("panel-row"):
        ui.button("paste", on_click=lambda: sender.send("paste", {"text": text.value or ""}))
        known = ui.select(list(known_names()), label="or begin with one that ships")
        known.on_value_change(lambda event: text.set_value(rule_text(event.value)))


def _forks(database: Database) -> None:
    """Show how a run is forked: the folder of the run has to be on this machine."""
    markup("<h2>Fork</h2>")
    file = database.file
    guess = "" if file is None or not (file.parent / "config.yaml").exists() else str(file.parent)
    with ui.row().classes("panel-row"):
        folder = ui.input("folder of the run, on this machine", value=guess).classes("wide")
        point = ui.input("generation (default: the newest)")
        changes = ui.input("settings: key=value ...").classes("wide")
        starts = ui.checkbox("start it here")
        button = ui.button("fork")
    error = ui.label().classes("said")
    told = ui.label().classes("done")

    async def make() -> None:
        told.set_text("")
        with told_errors(error):
            generation = _generation(point.value or "", folder.value or "")
            given = (changes.value or "").split()
            new = await asyncio.to_thread(fork, Path(folder.value or ""), generation, given)
            words = f"made {new.path}; to start it: {resume_command(new.path)}"
            if starts.value:
                started = await asyncio.to_thread(start, new)
                words = f"made {new.path}, and started it as process {started}; what it says is in output.txt"
            told.set_text(words)

    button.on_click(make)


def _generation(text: str, folder: str) -> int | None:
    """Return the generation that was typed; None for the newest one.

    Raises:
        ValueError: it is no number; the message says which there are.
    """
    if not text.strip():
        return None
    if not text.strip().isdigit():
        points = ", ".join(map(str, points_of(Path(folder))))
        raise ValueError(f"generation: got {text!r}, expected one of {points}")
    return int(text)


def start(new: RunDirectory) -> int:
    """Start a fork in the background, and return the number of its process; it outlives the dashboard.

    Raises:
        OSError: it cannot be started.
    """
    with (new.path / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            [*run_program(), "--resume", str(new.path)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    # Else a run that has ended stays in the table of processes as long as the dashboard lives.
    threading.Thread(target=process.wait, daemon=True).start()
    return process.pid

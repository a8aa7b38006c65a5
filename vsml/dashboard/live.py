"""The first page of the dashboard: the page about a search, from the database as it is now."""

import asyncio
from dataclasses import dataclass, field

from vsml.dashboard.look import begin_page, linked, markup, told_errors
from vsml.reporting.search_page import search_sections
from vsml.reporting.search_parts import when
from vsml.search.store.commands import commands_of
from vsml.search.store.database import Database
from vsml.search.store.overview import Overview, overview, proposals
from vsml.system.extras import needed_for

with needed_for("dashboards"):
    from nicegui import ui

_EVERY_S = 2.0
"""Seconds between two looks at the database."""


@dataclass
class Speed:
    """How many rules are proposed a second now, by two looks at counters.

    Attributes:
        seen: proposals and time of the last heartbeat, by worker.
    """

    seen: dict[str, tuple[int, float]] = field(default_factory=dict)

    def between(self, now: Overview) -> float | None:
        """Return proposals a second since workers were last seen; None where nobody went on."""
        total, is_going_on = 0.0, False
        for worker in now.workers:
            count, time_s = proposals(worker.counters), worker.heartbeat_s
            before = self.seen.get(worker.id)
            if before is None:
                self.seen[worker.id] = (count, time_s)
            elif time_s > before[1]:
                self.seen[worker.id] = (count, time_s)
                total += max(count - before[0], 0) / (time_s - before[1])
                is_going_on = True
        return total if is_going_on else None


def states_of(database: Database) -> list[str]:
    """Return which runs are paused, and how many commands wait, in words."""
    paused: dict[str, bool] = {}
    waiting = 0
    for command, outcome in commands_of(database):
        if outcome is None:
            waiting += 1
        elif outcome.done and command.do in ("pause", "resume"):
            paused[command.run] = command.do == "pause"
    told = [f"{run} is paused" for run, is_paused in paused.items() if is_paused]
    return told + ([f"{waiting} command(s) wait"] if waiting else [])


def live_page(database: Database, price_per_hour: float | None) -> None:
    """Build the page."""
    begin_page("Search for rules")
    state = ui.label().classes("note")
    error = ui.label().classes("said")
    places: dict[str, ui.html] = {}
    shown: dict[str, str] = {}
    column = ui.column().classes("w-full gap-0")
    speed = Speed()

    async def look() -> None:
        with told_errors(error):
            seen = await asyncio.to_thread(overview, database)
            parts = await asyncio.to_thread(search_sections, database, seen, price_per_hour)
            told = await asyncio.to_thread(states_of, database)
            rate = speed.between(seen)
            if rate is not None:
                told.append(f"{rate:,.0f} rules a second now")
            state.set_text("; ".join([f"{seen.name}, read {when(seen.read_s)}", *told]))
            for heading, content in parts.items():
                whole = f"<h2>{heading}</h2>\n{content}" if heading else content
                if heading not in places:
                    with column:
                        places[heading] = markup()
                # What has not changed stays, with what was opened, scrolled or marked in it.
                if shown.get(heading) != whole:
                    shown[heading] = whole
                    places[heading].set_content(linked(whole))

    ui.timer(_EVERY_S, look, immediate=True)

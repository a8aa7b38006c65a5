"""Tables of who searched: workers, runs as a tree of forks, events, and commands."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from vsml.reporting.search_parts import HOUR_S, method_of, note, table, when
from vsml.reporting.tables import Table, table_of
from vsml.search.store.commands import COMMAND, DONE, REFUSED, Told
from vsml.search.store.lives import RESUMED, SILENT_S
from vsml.search.store.overview import Overview, proposals
from vsml.search.store.rows import EventRow, RunRow
from vsml.system.hashes import SHOWN_DIGITS

_SHOWN_WORKERS = 100
_SHOWN_COMMANDS = 30
_SHOWN_CHARACTERS = 60


def workers(seen: Overview) -> str:
    """Return who searches, the last heard first, as HTML."""
    if not seen.workers:
        return note("No worker has said that it works.")
    rows: list[dict[str, Any]] = []
    for worker in seen.workers[:_SHOWN_WORKERS]:
        seconds = worker.heartbeat_s - worker.started_s
        proposed = proposals(worker.counters)
        silent_s = seen.read_s - worker.heartbeat_s
        rows.append(
            {
                "worker": worker.id,
                "machine": worker.host,
                "run": worker.run,
                "hours": seconds / HOUR_S,
                "proposed": proposed,
                "a second": proposed / seconds if seconds > 0 else None,
                "last heard": when(worker.heartbeat_s),
                "": "alive" if silent_s < SILENT_S else "silent",
            }
        )
    more = len(seen.workers) - len(rows)
    return table(rows) + (note(f"{more:,} more workers are in the database.") if more else "")


def runs(seen: Overview) -> str:
    """Return the runs, each below the one that it was forked from, as HTML."""
    if not seen.runs:
        return note("No run is in this database.")
    islands: dict[str, list[int]] = {}
    for island in seen.islands:
        islands.setdefault(island.run, []).append(island.step)
    rows: list[dict[str, Any]] = []
    for depth, run in fork_tree(seen.runs):
        steps = islands.get(run.id, [])
        rows.append(
            {
                "run": "\u2003" * (depth - 1) + ("\u2514 " if depth else "") + run.id,
                "method": method_of(run),
                "islands": len(steps) or None,
                "generation": max(steps, default=None),
                "began": when(run.started_s),
                "machine": run.host,
                "commit": run.git[:10],
                "fork of": run.parent_run,
                "at generation": run.step if run.parent_run else None,
            }
        )
    return table(rows)


def fork_tree(all_runs: Sequence[RunRow]) -> Iterator[tuple[int, RunRow]]:
    """Yield each run behind the one that it was forked from, with how many forks are above it.

    A run whose parent is not there, or that is above itself, stands at the top.
    """
    ids = {run.id for run in all_runs}
    below: dict[str | None, list[RunRow]] = {}
    for run in all_runs:
        parent = run.parent_run if run.parent_run in ids else None
        below.setdefault(parent, []).append(run)
    done: set[str] = set()
    # A circle of parents, which only a person can write, is not below the top: its first run begins it.
    tops = [*below.get(None, []), *all_runs]
    for top in tops:
        pending = [(0, top)]
        while pending:
            depth, run = pending.pop()
            if run.id in done:
                continue
            done.add(run.id)
            yield depth, run
            pending += [(depth + 1, each) for each in reversed(below.get(run.id, []))]


def events(seen: Overview) -> str:
    """Return what happened, the newest first, as HTML; commands have a table of their own."""
    if not seen.event_counts:
        return note("Nothing that happened was written down.")
    counts = ", ".join(f"{kind} {count:,}" for kind, count in seen.event_counts.items())
    rows = [
        {
            "when": when(event.time_s),
            "what": event.kind,
            "run": event.run,
            "more": _more(event),
        }
        for event in seen.events
        if event.kind not in (COMMAND, DONE, REFUSED)
    ]
    return note(f"In all: {counts}. The last ones:") + table(rows)


def _more(event: EventRow) -> str:
    """Return what stands beside an event; nothing where that would be all settings or all lines of a rule."""
    return "" if event.kind == RESUMED or "lines" in event.detail else json.dumps(event.detail)


def commands(told: Sequence[Told]) -> str:
    """Return the last commands, the newest first, as HTML."""
    if not told:
        return note("No command was sent. `vsml rules steer DATABASE` sends one.")
    more = len(told) - _SHOWN_COMMANDS
    last = list(reversed(told))[:_SHOWN_COMMANDS]
    older = note(f"{more:,} older commands are in the database.") if more > 0 else ""
    return table(command_rows(last)) + older


def commands_table(told: Sequence[Told]) -> Table:
    """Return commands and what became of them, as a table."""
    return table_of(command_rows(told))


def command_rows(told: Sequence[Told]) -> Iterator[dict[str, Any]]:
    """Yield a row for each command."""
    for command, outcome in told:
        state, said, generation = "waits", "", None
        if outcome is not None:
            state = DONE if outcome.done else REFUSED
            said, generation = outcome.said, outcome.generation
        yield {
            "sent": when(command.time_s),
            "command": command.do,
            "with": _shown(command.arguments),
            "at": command.at,
            "state": state,
            "after generation": generation,
            "said": said,
            "run": command.run,
        }


def _shown(arguments: Any) -> str:
    """Return what a command is to be done with, short enough for a table."""
    if "name" in arguments:
        text = f"{arguments['name']}={arguments.get('value')}"
    elif "hash" in arguments:
        text = str(arguments["hash"])[:SHOWN_DIGITS]
    else:
        text = " ".join(str(arguments.get("text", "")).split())
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[: _SHOWN_CHARACTERS - 3]}..."

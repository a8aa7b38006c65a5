"""Lives of runs, as their events tell them: when they went on, when they were complete, when they were heard.

A resumption names the events that it goes on from, so the clocks of two machines need not agree.
"""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vsml.search.store.database import Database
from vsml.search.store.errors import StoreError
from vsml.search.store.rows import RunRow
from vsml.search.store.tables import EVENT, RUN, WORKER
from vsml.system.extras import needed_for

with needed_for("databases of rules"):
    import sqlalchemy as sa

RESUMED = "resumed"
"""The kind of an event that says that a run went on: its settings, and which commands these have in them."""

COMPLETE = "complete"
"""The kind of an event that says that a run has done all that it was to do."""

SILENT_S = 600.0
"""Seconds without a heartbeat after which a worker counts as gone, as for its claims."""


@dataclass(frozen=True)
class Life:
    """What a run has said of itself.

    Attributes:
        events: ids of its resumptions and completions.
        complete: it has done all that it was to do, and was not resumed since.
        settings: those with which it last went on; None for one that was never resumed: its row has them.
        commands: ids of commands that are in these settings.
        heard_s: when one of its workers last said that it works; None if none ever did.
    """

    events: tuple[str, ...] = ()
    complete: bool = False
    settings: Mapping[str, Any] | None = None
    commands: frozenset[str] = frozenset()
    heard_s: float | None = None

    @property
    def works(self) -> bool:
        """Whether it was heard of late, and is not complete."""
        is_heard = self.heard_s is not None and time.time() - self.heard_s < SILENT_S
        return is_heard and not self.complete


def life_of(database: Database, run: str) -> Life:
    """Return the life of a run; that of one that has said nothing where there is no such run.

    Raises:
        StoreError: the database cannot be used.
    """
    return lives_of(database, [run]).get(run, Life())


def lives_of(database: Database, runs: Sequence[str] | None = None) -> dict[str, Life]:
    """Return the lives of runs that have said something.

    Args:
        database: the database.
        runs: which; None for all.

    Raises:
        StoreError: the database cannot be used.
    """
    told = sa.select(EVENT).where(EVENT.c.kind.in_([COMPLETE, RESUMED])).order_by(EVENT.c.time_s, EVENT.c.id)
    heard = sa.select(WORKER.c.run, sa.func.max(WORKER.c.heartbeat_s)).group_by(WORKER.c.run)
    if runs is not None:
        told, heard = told.where(EVENT.c.run.in_(runs)), heard.where(WORKER.c.run.in_(runs))
    with database.reading() as connection:
        events = [dict(row) for row in connection.execute(told).mappings()]
        last_s = {run: heard_s for run, heard_s in connection.execute(heard) if run is not None}
    by_run: dict[str, list[dict[str, Any]]] = {run: [] for run in last_s}
    for event in events:
        by_run.setdefault(str(event["run"]), []).append(event)
    return {run: _life(own, last_s.get(run)) for run, own in by_run.items()}


def _life(events: Sequence[Mapping[str, Any]], heard_s: float | None) -> Life:
    """Return the life that events of a run tell, the oldest first."""
    over: set[str] = set()
    for number, event in enumerate(events):
        if event["kind"] != RESUMED:
            continue
        named = detail_of(event).get("after")
        # Without a list the database was away then: all that was written before is over.
        before = named if isinstance(named, list) else [each["id"] for each in events[:number]]
        over |= set(map(str, before))
    now = [event for event in events if event["id"] not in over]
    resumed = [detail_of(event) for event in now if event["kind"] == RESUMED]
    settings = resumed[-1].get("settings") if resumed else None
    done = resumed[-1].get("commands") if resumed else None
    return Life(
        events=tuple(event["id"] for event in events),
        complete=any(event["kind"] == COMPLETE for event in now),
        settings=settings if isinstance(settings, dict) else None,
        commands=frozenset(map(str, done)) if isinstance(done, list) else frozenset(),
        heard_s=heard_s,
    )


def run_named(database: Database, name: str | None = None) -> RunRow:
    """Return a run by the beginning of its name; without a name the one that works, or else began last.

    Raises:
        StoreError: there is no such run, or several; or the database cannot be used.
    """
    query = sa.select(RUN).order_by(RUN.c.started_s.desc(), RUN.c.id)
    with database.reading() as connection:
        runs = [RunRow(**row) for row in connection.execute(query).mappings()]
    if name is None:
        return _at_work(runs, lives_of(database))
    exact = [run for run in runs if run.id == name]
    found = exact or [run for run in runs if run.id.startswith(name)]
    if not found:
        raise StoreError(f"run: got {name!r}, expected {_listed(runs)}")
    if len(found) > 1:
        raise StoreError(f"run: got {name!r}, with which several begin, expected {_listed(found)}")
    return found[0]


def _at_work(runs: Sequence[RunRow], lives: Mapping[str, Life]) -> RunRow:
    """Return the one of runs that works, or else the first of them.

    Raises:
        StoreError: several work, or there is none.
    """
    working = [run for run in runs if run.id in lives and lives[run.id].works]
    if len(working) > 1:
        raise StoreError(f"run: got no name, and several work here, expected {_listed(working)}")
    if not runs:
        raise StoreError(f"run: got no name, expected {_listed(runs)}")
    return working[0] if working else runs[0]


def _listed(runs: Iterable[RunRow]) -> str:
    names = [run.id for run in list(runs)[:10]]
    return f"one of {', '.join(names)}" if names else "a database with a run"


def detail_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the detail of an event; nothing where somebody has written what is no JSON."""
    try:
        found = json.loads(row["detail"])
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}

"""Commands to a search that runs, and what became of them: events of a database of rules.

A command is an event of the kind `command`. Its outcome is another one, whose key follows from the command,
so that each command has one outcome, whoever sends it again. No row is ever changed.
"""

import math
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vsml.search.store.database import Database
from vsml.search.store.errors import AwayError
from vsml.search.store.lives import COMPLETE, detail_of
from vsml.search.store.rows import EventRow
from vsml.search.store.tables import EVENT, insert_all
from vsml.search.store.writer import Writer
from vsml.system.extras import needed_for

with needed_for("databases of rules"):
    import sqlalchemy as sa

COMMAND, DONE, REFUSED = "command", "done", "refused"
"""Kinds of events: a command, and its outcomes."""


@dataclass(frozen=True)
class Command:
    """Something that a run is asked to do between two generations.

    Attributes:
        run: the run.
        do: what, one of `vsml.search.steering.COMMANDS`.
        arguments: what it is to be done with, ready for JSON.
        at: generation before which it waits; None: as soon as it is read.
        time_s: when it was sent; commands are done in this order.
        id: is drawn.
    """

    run: str
    do: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    at: int | None = None
    time_s: float = field(default_factory=time.time)
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def row(self) -> EventRow:
        """The row of it."""
        detail = {"do": self.do, "arguments": dict(self.arguments), "at": self.at}
        return EventRow(COMMAND, self.run, detail=detail, time_s=self.time_s, id=self.id)


@dataclass(frozen=True)
class Outcome:
    """What became of a command.

    Attributes:
        done: whether it was done; else it was refused.
        generation: after which generation.
        said: what was done, or why not.
    """

    done: bool
    generation: int
    said: str

    def row(self, command: str, run: str, worker: str | None = None) -> EventRow:
        """Return the row of it.

        Args:
            command: id of the command.
            run: the run that says so.
            worker: its worker.
        """
        kind = DONE if self.done else REFUSED
        detail = {"command": command, "generation": self.generation, "said": self.said}
        return EventRow(kind, run, worker, detail, id=f"{command} outcome")


Told = tuple[Command, Outcome | None]
"""A command, and what became of it; None while it waits."""


def send(database: Database, command: Command) -> None:
    """Write a command into the database, where its run reads it.

    Raises:
        StoreError: the database cannot be used.
    """
    with database.writing() as connection:
        insert_all(connection, {"event": [command.row.values()]})


def commands_of(database: Database, run: str | None = None) -> list[Told]:
    """Return commands in the order in which they were sent, with what became of them.

    Args:
        database: the database.
        run: the run; None for all.

    Raises:
        StoreError: the database cannot be used.
    """
    query = sa.select(EVENT).where(EVENT.c.kind.in_([COMMAND, DONE, REFUSED]))
    if run is not None:
        query = query.where(EVENT.c.run == run)
    with database.reading() as connection:
        ordered = query.order_by(EVENT.c.time_s, EVENT.c.id)
        rows = [dict(row) for row in connection.execute(ordered).mappings()]
    outcomes = {row["id"]: row for row in rows if row["kind"] != COMMAND}
    found: list[Told] = []
    for row in rows:
        if row["kind"] == COMMAND:
            outcome = outcomes.get(f"{row['id']} outcome")
            found.append((_command(row), None if outcome is None else _outcome(outcome)))
    return found


_RETRY_S = 5.0
"""Seconds for which a database that was away is not asked for commands again."""


@dataclass
class Desk:
    """Where a run takes its commands, and says what became of them; of rank 0.

    Attributes:
        writer: of the database.
        run: id of the run.
        worker: name of this process.
    """

    writer: Writer
    run: str
    worker: str | None = None
    _next_try: float = -math.inf

    def due(self, generation: int) -> list[Command]:
        """Return the commands that are to be done now; none while the database is away.

        What is done already is among them: a run that was resumed from an earlier generation does it again,
        after the same generation as before, and keeps by itself what it has done.

        Raises:
            StoreError: the database is missing, damaged or of another version.
        """
        if time.monotonic() < self._next_try:
            return []
        try:
            told = commands_of(self.writer.database, self.run)
        except AwayError:
            # A server that does not answer takes seconds to be found away.
            self._next_try = time.monotonic() + _RETRY_S
            return []
        found: list[Command] = []
        for command, outcome in told:
            at = command.at or 0
            if outcome is not None:
                at = outcome.generation
            if at <= generation and (outcome is None or outcome.done):
                found.append(command)
        return found

    def orders(self, generation: int) -> list[dict[str, Any]]:
        """Return what is `due` ready for JSON, for `vsml.search.steering.Steering.apply`."""
        due = self.due(generation)
        return [{"id": each.id, "do": each.do, "arguments": dict(each.arguments)} for each in due]

    def answer(self, answers: Mapping[str, Mapping[str, Any]]) -> None:
        """Write what became of commands, by their ids; what is there already stays.

        Raises:
            StoreError: the database refuses the rows.
        """
        for command, told in answers.items():
            self.writer.write(Outcome(**told).row(command, self.run, self.worker))
        if answers:
            self.writer.flush()

    def close(self, generation: int) -> None:
        """Say that the run is complete, and refuse the commands that still wait.

        Raises:
            StoreError: the database cannot be used.
        """
        self.writer.write(EventRow(COMPLETE, self.run, self.worker, {"generation": generation}))
        self.writer.flush()
        try:
            told = commands_of(self.writer.database, self.run)
        except AwayError:
            return
        left = [command.id for command, outcome in told if outcome is None]
        refusal = {"done": False, "generation": generation, "said": "the run is complete"}
        self.answer(dict.fromkeys(left, refusal))


def _command(row: Mapping[str, Any]) -> Command:
    # Rows may be written by hand, so a part of another type counts as missing.
    detail = detail_of(row)
    do, arguments, at = (detail.get(name) for name in ("do", "arguments", "at"))
    return Command(
        run=str(row["run"]),
        do=do if isinstance(do, str) else "",
        arguments=arguments if isinstance(arguments, dict) else {},
        at=at if isinstance(at, int) else None,
        time_s=row["time_s"],
        id=row["id"],
    )


def _outcome(row: Mapping[str, Any]) -> Outcome:
    detail = detail_of(row)
    return Outcome(row["kind"] == DONE, int(detail.get("generation", 0)), str(detail.get("said", "")))

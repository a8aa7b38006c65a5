"""What writes to a database of rules, and loses nothing."""

import os
import time
from dataclasses import dataclass

from vsml.search.store.database import Database
from vsml.search.store.errors import AwayError
from vsml.search.store.rows import Row
from vsml.search.store.spool import Spool
from vsml.search.store.tables import Key, insert_all

_MOST_ENTRIES = 2000
"""Entries of the spool that one transaction takes: more only come together while a server is away."""


@dataclass(frozen=True)
class Flush:
    """What became of rows that were written.

    Attributes:
        new: by table, the keys of rows that changed the database. All others were there already.
        waiting: entries of the spool that the database has not got.
        reason: why they wait; None if the database was not asked again, or nothing waits.
    """

    new: dict[str, set[Key]]
    waiting: int
    reason: str | None = None

    @property
    def new_rules(self) -> set[str]:
        """Hashes of rules that nobody had sent before."""
        return {key[0] for key in self.new.get("rule", ())}


class Writer:
    """Writes rows to a spool at once, and from there to a database, one transaction for each flush.

        with Writer(Database("rules.db", create=True), "rules.spool") as writer:
            writer.write(rule_row(rule, origin="drawn"), EvaluationRow(...))
            print(writer.flush().new_rules)

    When `write` returns, the rows are on the local disk. A killed writer, or a server that is away, leaves
    them there, and the next flush sends them, also of another process with this spool. Rows that the database
    has got twice, as after a kill between its commit and the end of the flush, are there once.

    One thread uses a writer. Of SQLite, let one process write; others wait for their turn.

    Args:
        database: where rows go.
        spool: file of the spool, on a local disk.
        retry_s: seconds for which a database that was away is not asked again.

    Raises:
        HeldError: another process has the spool.
        StoreError: the spool is damaged or of another version.
    """

    def __init__(
        self,
        database: Database,
        spool: str | os.PathLike[str],
        retry_s: float = 5.0,
    ) -> None:
        self.database = database
        self._spool = Spool(spool)
        self._retry_s = retry_s
        self._next_try = -float("inf")

    def write(self, *rows: Row) -> None:
        """Put rows that belong together on the local disk; they go to the database as a whole.

        An evaluation, a cell or a child comes with its rule, or after it.

        Raises:
            OSError: the local disk is full or broken.
        """
        entry: dict[str, list] = {}
        for row in rows:
            entry.setdefault(row.table, []).append(row.values())
        if entry:
            self._spool.append(entry)

    def flush(self, now: bool = False) -> Flush:
        """Send what is in the spool.

        Args:
            now: also if the database was away a moment ago.

        Raises:
            StoreError: the database refuses the rows, or is missing, damaged or of another version. They
                stay in the spool.
        """
        new: dict[str, set[Key]] = {}
        if time.monotonic() < self._next_try and not now:
            return Flush(new, len(self._spool))
        while len(self._spool):
            entries, place = self._spool.read(_MOST_ENTRIES)
            try:
                with self.database.writing() as connection:
                    changed = insert_all(connection, _by_table(entries))
            except AwayError as error:
                self._next_try = time.monotonic() + self._retry_s
                return Flush(new, len(self._spool), str(error))
            self._spool.drop(place)
            for name, keys in changed.items():
                new.setdefault(name, set()).update(keys)
        return Flush(new, 0)

    def close(self) -> Flush:
        """Flush for a last time, and give the spool back; what could not be sent stays there."""
        try:
            return self.flush(now=True)
        finally:
            self._spool.close()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _by_table(entries: list[dict[str, list]]) -> dict[str, list]:
    """Return the rows of several entries by their table."""
    found: dict[str, list] = {}
    for entry in entries:
        for name, rows in entry.items():
            found.setdefault(name, []).extend(rows)
    return found

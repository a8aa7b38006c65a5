"""The best rules of other runs that share a database: islands of many jobs, on many machines."""

import json
from dataclasses import dataclass, field
from typing import Any

from vsml.search.store.database import Database
from vsml.search.store.tables import CELL, RULE, RUN
from vsml.system.extras import needed_for

with needed_for("databases of rules"):
    import sqlalchemy as sa

_OF_JUDGING = ("judging", "teaching")
"""Settings of a search that decide what a score means."""


@dataclass(frozen=True)
class Immigrant:
    """An elite of another run.

    Attributes:
        hash: of the rule.
        text: the rule.
        run: whose elite it is.
    """

    hash: str
    text: str
    run: str


@dataclass
class Exchange:
    """Asks a database for elites of other runs, each of them once.

    Attributes:
        database: the one that the runs share.
        run: id of this run.
        config: its settings, as the row of a run has them.
        met: hashes of the rules that it was given; a run that is resumed passes them on.
    """

    database: Database
    run: str
    config: str
    met: set[str] = field(default_factory=set)
    _judges_alike: dict[str, bool] = field(default_factory=dict)

    def immigrants(self, count: int) -> list[Immigrant]:
        """Return elites of other runs that were not returned before.

        Runs count whose search judges and teaches rules as this one does. The best come first: by the mean
        score less one standard error.

        Args:
            count: most of them.

        Raises:
            StoreError: the database cannot be used.
        """
        bound = CELL.c.score - sa.func.coalesce(CELL.c.standard_error, 0.0)
        columns = (RULE.c.hash, RULE.c.text, CELL.c.run)
        with self.database.reading() as connection:
            runs = self._runs_alike(connection)
            query = (
                sa.select(*columns)
                .join(RULE, RULE.c.hash == CELL.c.rule)
                .where(CELL.c.run.in_(runs))
                .order_by(bound.desc(), RULE.c.hash)
            )
            rows = connection.execute(query).all() if runs else []
        found: list[Immigrant] = []
        for rule, text, run in rows:
            if len(found) == count:
                break
            if rule not in self.met:
                self.met.add(rule)
                found.append(Immigrant(rule, text, run))
        return found

    def _runs_alike(self, connection: sa.Connection) -> list[str]:
        """Return the other runs whose scores mean what those of this run mean."""
        own = _of_judging(self.config)
        others = sa.select(RUN.c.id).where(RUN.c.id != self.run)
        unknown = [run for run in connection.execute(others).scalars() if run not in self._judges_alike]
        for run in unknown:
            config = connection.execute(sa.select(RUN.c.config).where(RUN.c.id == run)).scalar_one()
            self._judges_alike[run] = _of_judging(config) == own
        return [run for run, is_alike in self._judges_alike.items() if is_alike]


def _of_judging(config: str) -> dict[str, Any] | None:
    """Return what decides how a search scores rules; None where the text is no settings of a search."""
    try:
        search = json.loads(config)["search"]
        return {name: search[name] for name in _OF_JUDGING}
    except (ValueError, KeyError, TypeError):
        return None

"""What a database of rules says of the search as a whole: runs, workers, counters, the best so far."""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vsml.search.store.database import Database
from vsml.search.store.queries import sizes
from vsml.search.store.rows import EventRow, IslandRow, RuleRow, RunRow, WorkerRow
from vsml.search.store.tables import CELL, EVALUATION, EVENT, ISLAND, RULE, RUN, WORKER, is_pending
from vsml.system.extras import needed_for

with needed_for("databases of rules"):
    import sqlalchemy as sa

PROPOSED, PASSED = "proposed", "passed"
"""Counters of workers beside stages and reasons: all that was proposed, and what passed a stage."""

_LAST_EVENTS = 20


@dataclass(frozen=True)
class BestCell:
    """The best rule of a cell, over all runs and islands.

    Attributes:
        name: the cell.
        run, island: where it was found.
        rule: the rule.
        score: its mean score.
        standard_error: of the mean; None where it is not known.
    """

    name: str
    run: str
    island: int
    rule: RuleRow
    score: float
    standard_error: float | None

    @property
    def bound(self) -> float:
        """The score less one standard error."""
        return self.score - (self.standard_error or 0.0)


@dataclass(frozen=True)
class TestTaken:
    """How rules did in a test.

    Attributes:
        test, level: which test.
        evaluations: that were made.
        passed: of them.
        best: the highest score; None where there is none.
    """

    __test__ = False  # not for pytest, whatever its name looks like

    test: str
    level: str
    evaluations: int
    passed: int
    best: float | None


@dataclass(frozen=True)
class Progress:
    """How the best score of a run in a test rose.

    Attributes:
        run: the run.
        test: name of the test, and its level.
        times_s: when it rose, seconds since 1970.
        scores: to what.
    """

    run: str
    test: str
    times_s: tuple[float, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True)
class Overview:
    """What a database says of the search.

    Attributes:
        name: of the database.
        read_s: when it was read.
        sizes: rows by table.
        runs: the oldest first.
        workers: the newest heartbeat first.
        islands: by run and number.
        cells: the best first.
        tests: by test and level.
        progress: by run and test.
        event_counts: events by kind.
        events: the last ones, the newest first.
        ablations: by hash of a rule, the newest event that says what its lines are worth.
    """

    name: str
    read_s: float
    sizes: Mapping[str, int]
    runs: tuple[RunRow, ...]
    workers: tuple[WorkerRow, ...]
    islands: tuple[IslandRow, ...]
    cells: tuple[BestCell, ...]
    tests: tuple[TestTaken, ...]
    progress: tuple[Progress, ...]
    event_counts: Mapping[str, int]
    events: tuple[EventRow, ...]
    ablations: Mapping[str, EventRow]

    @property
    def counters(self) -> dict[str, dict[str, int]]:
        """Counters of all workers together, by stage, then by reason."""
        total: dict[str, dict[str, int]] = {}
        for worker in self.workers:
            for stage, reasons in worker.counters.items():
                own = total.setdefault(stage, {})
                for why, count in reasons.items():
                    own[why] = own.get(why, 0) + count
        return total

    @property
    def worker_s(self) -> float:
        """Seconds for which workers have worked, together."""
        return sum(max(worker.heartbeat_s - worker.started_s, 0.0) for worker in self.workers)


def proposals(counters: Mapping[str, Mapping[str, int]]) -> int:
    """Return how many rules were proposed, by counters; without that counter, those that came to a stage."""
    if PROPOSED in counters:
        return sum(counters[PROPOSED].values())
    return max((sum(reasons.values()) for reasons in counters.values()), default=0)


def overview(database: Database) -> Overview:
    """Return what a database says of the search.

    Raises:
        StoreError: the database cannot be used.
    """
    counts = sizes(database)
    with database.reading() as connection:
        return Overview(
            name=database.name,
            read_s=time.time(),
            sizes=counts,
            runs=tuple(_runs(connection)),
            workers=tuple(_workers(connection)),
            islands=tuple(_islands(connection)),
            cells=tuple(_cells(connection)),
            tests=tuple(_tests(connection)),
            progress=tuple(_progress(connection)),
            event_counts=_event_counts(connection),
            events=tuple(_events(connection)),
            ablations=_ablations(connection),
        )


def runs_of(database: Database) -> list[RunRow]:
    """Return all runs, the oldest first.

    Raises:
        StoreError: the database cannot be used.
    """
    with database.reading() as connection:
        return list(_runs(connection))


def _runs(connection: sa.Connection) -> Iterator[RunRow]:
    for row in connection.execute(sa.select(RUN).order_by(RUN.c.started_s, RUN.c.id)).mappings():
        yield RunRow(**row)


def _workers(connection: sa.Connection) -> Iterator[WorkerRow]:
    query = sa.select(WORKER).order_by(WORKER.c.heartbeat_s.desc(), WORKER.c.id)
    for row in connection.execute(query).mappings():
        yield WorkerRow(**{**row, "counters": json.loads(row["counters"])})


def _islands(connection: sa.Connection) -> Iterator[IslandRow]:
    query = sa.select(ISLAND).order_by(ISLAND.c.run, ISLAND.c.number)
    for row in connection.execute(query).mappings():
        yield IslandRow(**{**row, "detail": json.loads(row["detail"])})


def _cells(connection: sa.Connection) -> list[BestCell]:
    query = (
        sa.select(CELL, RULE)
        .join(RULE, RULE.c.hash == CELL.c.rule)
        .set_label_style(sa.LABEL_STYLE_TABLENAME_PLUS_COL)
    )
    best: dict[str, BestCell] = {}
    for row in connection.execute(query).mappings():
        rule = RuleRow(**{column.name: row[f"rule_{column.name}"] for column in RULE.columns})
        cell = BestCell(
            name=row["cell_name"],
            run=row["cell_run"],
            island=row["cell_island"],
            rule=rule,
            score=row["cell_score"],
            standard_error=row["cell_standard_error"],
        )
        if cell.name not in best or cell.bound > best[cell.name].bound:
            best[cell.name] = cell
    return sorted(best.values(), key=lambda cell: (-cell.bound, cell.rule.size, cell.name))


def _tests(connection: sa.Connection) -> Iterator[TestTaken]:
    columns = EVALUATION.c
    passed = sa.func.sum(sa.case((columns.status == "pass", 1), else_=0))
    query = (
        sa.select(columns.test, columns.level, sa.func.count(), passed, sa.func.max(columns.score))
        .where(~is_pending(columns.status))
        .group_by(columns.test, columns.level)
        .order_by(columns.test, columns.level)
    )
    for row in connection.execute(query):
        yield TestTaken(*row)


def _progress(connection: sa.Connection) -> Iterator[Progress]:
    """Yield how best scores rose; the database leaves out what was no better."""
    columns = EVALUATION.c
    group = (columns.run, columns.test, columns.level)
    order = (columns.time_s, columns.rule, columns.seeds, columns.harness)
    before = sa.func.max(columns.score).over(partition_by=group, order_by=order, rows=(None, -1))
    scored = (
        sa.select(*group, columns.time_s, columns.score, before.label("before"))
        .where(columns.score.is_not(None), columns.run.is_not(None))
        .subquery()
    )
    rises = sa.or_(scored.c.before.is_(None), scored.c.score > scored.c.before)
    query = (
        sa.select(scored)
        .where(rises)
        .order_by(scored.c.run, scored.c.test, scored.c.level, scored.c.time_s, scored.c.score)
    )
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for run, test, level, time_s, score, _ in connection.execute(query):
        name = f"{test} {level}".strip()
        found.setdefault((run, name), []).append((time_s, score))
    for (run, test), points in found.items():
        times, scores = zip(*points, strict=True)
        yield Progress(run, test, times, scores)


def _event_counts(connection: sa.Connection) -> dict[str, int]:
    query = sa.select(EVENT.c.kind, sa.func.count()).group_by(EVENT.c.kind).order_by(EVENT.c.kind)
    return {row[0]: row[1] for row in connection.execute(query)}


def _events(connection: sa.Connection) -> Iterator[EventRow]:
    query = sa.select(EVENT).order_by(EVENT.c.time_s.desc(), EVENT.c.id).limit(_LAST_EVENTS)
    for row in connection.execute(query).mappings():
        yield EventRow(**{**row, "detail": json.loads(row["detail"])})


ABLATION = "ablation"
"""Kind of the events that say what the lines of a rule are worth."""


def _ablations(connection: sa.Connection) -> dict[str, EventRow]:
    query = sa.select(EVENT).where(EVENT.c.kind == ABLATION).order_by(EVENT.c.time_s, EVENT.c.id)
    found: dict[str, EventRow] = {}
    for row in connection.execute(query).mappings():
        event = EventRow(**{**row, "detail": json.loads(row["detail"])})
        found[event.detail["hash"]] = event
    return found

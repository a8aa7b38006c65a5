"""Work that workers share: evaluations that wait, each claimed by one worker."""

import time
from collections.abc import Collection
from dataclasses import dataclass

from vsml.search.store.database import Database
from vsml.search.store.rows import EvaluationRow
from vsml.search.store.tables import CLAIMED, EVALUATION, RULE, WAITING, WORKER
from vsml.system.extras import needed_for

with needed_for("databases of rules"):
    import sqlalchemy as sa

STALE_S = 600.0
"""Seconds without a heartbeat after which another worker may take what one has claimed."""


@dataclass(frozen=True)
class Claim:
    """An evaluation that a worker has to make.

    Attributes:
        evaluation: which one; when it is made, write it again with its score and a final status.
        text: text of the rule.
    """

    evaluation: EvaluationRow
    text: str


def claim(
    database: Database,
    worker: str,
    count: int,
    tests: Collection[str] | None = None,
    stale_s: float = STALE_S,
) -> list[Claim]:
    """Return evaluations that nobody else has claimed, the oldest first.

    Two workers never get the same one, unless the first has sent no heartbeat for `stale_s`; clocks of
    machines should differ by less. Then it may be made twice, and the first result stays.

    Args:
        database: the database.
        worker: name of the worker, which has sent a `WorkerRow`.
        count: most evaluations.
        tests: names of tests that it can make; None for all.
        stale_s: how long others may be silent.

    Raises:
        StoreError: the database cannot be used.
    """
    now = time.time()
    of_the_living = sa.exists().where(
        WORKER.c.id == EVALUATION.c.worker, WORKER.c.heartbeat_s >= now - stale_s
    )
    is_fresh = EVALUATION.c.time_s >= now - stale_s
    is_left = (EVALUATION.c.status == CLAIMED) & ~of_the_living & ~is_fresh
    query = (
        sa.select(EVALUATION, RULE.c.text)
        .join(RULE, RULE.c.hash == EVALUATION.c.rule)
        .where((EVALUATION.c.status == WAITING) | is_left)
        .order_by(EVALUATION.c.time_s)
        .limit(count)
        # SQLite knows no such locks and needs none: its writers take turns.
        .with_for_update(of=EVALUATION, skip_locked=True)
    )
    if tests is not None:
        query = query.where(EVALUATION.c.test.in_(list(tests)))
    with database.writing() as connection:
        rows = [dict(row) for row in connection.execute(query).mappings()]
        keys = [column.name for column in EVALUATION.primary_key]
        update = (
            sa.update(EVALUATION)
            .where(*[EVALUATION.c[name] == sa.bindparam(f"key_{name}") for name in keys])
            .values(status=CLAIMED, worker=worker, time_s=now)
        )
        if rows:
            connection.execute(update, [{f"key_{name}": row[name] for name in keys} for row in rows])
    claims: list[Claim] = []
    for row in rows:
        text = row.pop("text")
        row |= {"status": CLAIMED, "worker": worker, "time_s": now}
        claims.append(Claim(EvaluationRow(**row), text))
    return claims


def release(database: Database, worker: str) -> int:
    """Give back what a worker has claimed and not made, and return how much that was.

    Raises:
        StoreError: the database cannot be used.
    """
    update = (
        sa.update(EVALUATION)
        .where(EVALUATION.c.status == CLAIMED, EVALUATION.c.worker == worker)
        .values(status=WAITING, worker=None)
    )
    with database.writing() as connection:
        return connection.execute(update).rowcount

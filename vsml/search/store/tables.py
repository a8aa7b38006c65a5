"""Tables of a database of rules, and how a row meets one with its key.

Keys come from what a row says and never from a counter: whoever sends a row twice, or sends one that another
machine has sent, changes nothing. All times are seconds since 1970.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vsml.system.extras import needed_for

with needed_for("databases of rules"):
    import sqlalchemy as sa
    from sqlalchemy.dialects import postgresql, sqlite

SCHEMA_VERSION = 1
"""Goes up with every change of the tables below."""

WAITING, CLAIMED = "waiting", "claimed"
PENDING = (WAITING, CLAIMED)
"""Statuses of an evaluation that is still to be made."""

FINAL = ("pass", "fail", "limit", "nan", "duplicate", "stage")
"""Statuses of an evaluation that is made."""

METADATA = sa.MetaData()


def is_pending(status: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Return as SQL whether an evaluation with this status is still to be made."""
    # Literals, as parameters cannot stand in an index nor behind many rows of an INSERT.
    return sa.or_(*[status == sa.literal_column(f"'{pending}'") for pending in PENDING])


SCHEMA = sa.Table("schema_version", METADATA, sa.Column("version", sa.Integer, primary_key=True))

RULE = sa.Table(
    "rule",
    METADATA,
    sa.Column("hash", sa.String(64), primary_key=True),
    sa.Column("program", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("size", sa.Integer, nullable=False, index=True),
    sa.Column("kinds", sa.Text, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("run", sa.Text),
    sa.Column("found_s", sa.Double, nullable=False),
)

# A parent may be a row that another machine has not sent yet, so it is no foreign key.
PARENT = sa.Table(
    "parent",
    METADATA,
    sa.Column("child", sa.String(64), sa.ForeignKey("rule.hash"), primary_key=True),
    sa.Column("parent", sa.String(64), primary_key=True, index=True),
    sa.Column("mutation", sa.Text, nullable=False),
)

RUN = sa.Table(
    "run",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("parent_run", sa.Text, index=True),
    sa.Column("step", sa.BigInteger, nullable=False),
    sa.Column("config", sa.Text, nullable=False),
    sa.Column("git", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("started_s", sa.Double, nullable=False),
)

EVALUATION = sa.Table(
    "evaluation",
    METADATA,
    sa.Column("rule", sa.String(64), sa.ForeignKey("rule.hash"), primary_key=True),
    sa.Column("test", sa.Text, primary_key=True),
    sa.Column("level", sa.Text, primary_key=True),
    sa.Column("seeds", sa.Text, primary_key=True),
    sa.Column("harness", sa.Text, primary_key=True),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("score", sa.Double),
    sa.Column("standard_error", sa.Double),
    sa.Column("ticks", sa.BigInteger),
    sa.Column("wall_s", sa.Double),
    sa.Column("run", sa.Text),
    sa.Column("worker", sa.Text),
    sa.Column("time_s", sa.Double, nullable=False),
)
sa.Index("evaluation_score", EVALUATION.c.test, EVALUATION.c.level, EVALUATION.c.score)
# Most evaluations are made: those that are not are few, and found at once.
_IS_PENDING = is_pending(EVALUATION.c.status)
sa.Index("evaluation_pending", EVALUATION.c.time_s, sqlite_where=_IS_PENDING, postgresql_where=_IS_PENDING)

WORKER = sa.Table(
    "worker",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("run", sa.Text, index=True),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("started_s", sa.Double, nullable=False),
    sa.Column("heartbeat_s", sa.Double, nullable=False),
    sa.Column("counters", sa.Text, nullable=False),
)

ISLAND = sa.Table(
    "island",
    METADATA,
    sa.Column("run", sa.Text, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("worker", sa.Text),
    sa.Column("step", sa.BigInteger, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("updated_s", sa.Double, nullable=False),
)

CELL = sa.Table(
    "cell",
    METADATA,
    sa.Column("run", sa.Text, primary_key=True),
    sa.Column("island", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("rule", sa.String(64), sa.ForeignKey("rule.hash"), nullable=False, index=True),
    sa.Column("score", sa.Double, nullable=False),
    sa.Column("standard_error", sa.Double),
    sa.Column("updated_s", sa.Double, nullable=False),
)

EVENT = sa.Table(
    "event",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("run", sa.Text, index=True),
    sa.Column("worker", sa.Text),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("time_s", sa.Double, nullable=False, index=True),
)
# Commands are found among many events of a run; a database without this index is only slower.
sa.Index("event_kind", EVENT.c.run, EVENT.c.kind)

TABLES = {table.name: table for table in (RULE, PARENT, RUN, EVALUATION, WORKER, ISLAND, CELL, EVENT)}
"""By name, in an order in which rows can be inserted."""

_NEWEST = {"worker": "heartbeat_s", "island": "updated_s", "cell": "updated_s"}
"""Tables whose rows say how things are now, and the column with the time: the newest row stays."""

_INSERT: Mapping[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}

Key = tuple[Any, ...]
Values = Mapping[str, Any]


def key_of(table: sa.Table, values: Values) -> Key:
    """Return the primary key of a row."""
    return tuple(values[column.name] for column in table.primary_key)


def insert_rows(connection: sa.Connection, table: sa.Table, rows: Iterable[Values]) -> set[Key]:
    """Insert rows into one of `TABLES`, and return the keys of those that changed it.

    Of most tables the row that is there stays. Of workers, islands and cells the newest stays. An evaluation
    that was waiting or claimed is finished by one that is made; one that is made stays.

    Args:
        connection: in a transaction.
        table: the table.
        rows: with a value for each column.
    """
    kept: dict[Key, Values] = {}
    for row in rows:
        key = key_of(table, row)
        # PostgreSQL refuses to change a row twice in one statement.
        if key not in kept or _replaces(table, kept[key], row):
            kept[key] = row
    if not kept:
        return set()
    # Everyone takes the locks in the same order, so no two transactions wait for each other.
    ordered = [dict(kept[key]) for key in sorted(kept)]
    statement = _statement(connection.dialect.name, table)
    changed = connection.execute(statement.returning(*table.primary_key), ordered)
    return {tuple(row) for row in changed}


def insert_all(connection: sa.Connection, rows: Mapping[str, Sequence[Values]]) -> dict[str, set[Key]]:
    """Insert rows of several tables, and return the keys of those that changed them.

    Args:
        connection: in a transaction.
        rows: by the name of their table.
    """
    return {name: insert_rows(connection, table, rows.get(name, ())) for name, table in TABLES.items()}


def _replaces(table: sa.Table, old: Values, new: Values) -> bool:
    """Return whether a row takes the place of another one with its key."""
    if table is EVALUATION:
        return old["status"] in PENDING and new["status"] not in PENDING
    if time := _NEWEST.get(table.name):
        return new[time] > old[time]
    return False


def _statement(dialect: str, table: sa.Table) -> Any:
    """Return the INSERT of a table; what `_replaces` says of two rows, said in SQL."""
    insert: Any = _INSERT[dialect](table)  # what both dialects have, and no common type of SQLAlchemy says
    keys = list(table.primary_key)
    offered = insert.excluded
    if table is EVALUATION:
        replaces = is_pending(table.c.status) & ~is_pending(offered.status)
    elif time := _NEWEST.get(table.name):
        replaces = offered[time] > table.c[time]
    else:
        return insert.on_conflict_do_nothing(index_elements=keys)
    others = {column.name: offered[column.name] for column in table.columns if not column.primary_key}
    return insert.on_conflict_do_update(index_elements=keys, set_=others, where=replaces)

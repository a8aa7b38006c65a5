"""The database of rules: SQLite, or PostgreSQL for many jobs, with a spool on disk before it.

What is to be stored is on disk before anything is asked of the database, and is taken from there once the
database has it. Writing the same twice changes nothing. So a killed writer or a server that is away loses no
rule, and none is counted twice.
"""

import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsml.rules import Rule, parse, rule_hash, show
from vsml.rules.canonical import canonical
from vsml.rules.rule import KINDS
from vsml.system.extras import needed_for
from vsml.system.files import atomic_write

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, MetaData, Table

HARNESS = 1
"""Version of how rules are judged: another one makes other scores, which stand beside the old ones."""

_BUSY_S = 60.0
"""How long a writer waits for another one on SQLite."""

_ROWS = 500
"""Rows that are sent at once: SQLite takes a limited number of values in a statement."""


class StoreError(ValueError):
    """A database that cannot be opened or read; the message says which and why."""


@dataclass(frozen=True)
class StoredRule:
    """A rule as it is stored.

    Attributes:
        hash: of what it computes.
        text: canonical.
        size: live operators.
        slots: how many it has.
        kinds: their kinds, each once, in their order, with ` | ` between.
        origin: drawn, child, known or given.
        run: of the run that found it; empty for none.
    """

    hash: str
    text: str
    size: int
    slots: int
    kinds: str
    origin: str
    run: str = ""

    @staticmethod
    def of(rule: Rule, origin: str, run: str = "") -> "StoredRule":
        """Return a rule ready to be stored."""
        plain = canonical(rule)
        used = {slot.kind for slot in plain.slots}
        kinds = " | ".join(kind for number, kind in enumerate(KINDS) if number in used)
        return StoredRule(rule_hash(rule), show(plain), plain.size, len(plain.slots), kinds, origin, run)


@dataclass(frozen=True)
class Evaluation:
    """A score of a rule.

    Attributes:
        rule: its hash.
        test: a stage, or a test of the battery.
        level: of the test, as text.
        seeds: what its episodes were drawn from, as text.
        score: higher is better.
        status: pass, fail, limit, nan, duplicate or stage.
        harness: version of how it was judged.
        standard_error: of the score over seeds; None if it is not known.
        ticks: that it ran.
        wall_s: seconds that it took.
    """

    rule: str
    test: str
    level: str
    seeds: str
    score: float
    status: str
    harness: int = HARNESS
    standard_error: float | None = None
    ticks: int = 0
    wall_s: float = 0.0


@dataclass(frozen=True)
class Batch:
    """What is stored at once: all of it, or nothing.

    Attributes:
        rules: new or not.
        evaluations: of rules that are stored, or in `rules`.
        parents: triples of child, parent and mutation.
    """

    rules: Sequence[StoredRule] = ()
    evaluations: Sequence[Evaluation] = ()
    parents: Sequence[tuple[str, str, str]] = ()

    def to_json(self) -> str:
        """Return it as text."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "Batch":
        """Return what `to_json` has written.

        Raises:
            ValueError: it is something else.
        """
        read = json.loads(text)
        return Batch(
            rules=[StoredRule(**each) for each in read["rules"]],
            evaluations=[Evaluation(**each) for each in read["evaluations"]],
            parents=[(child, parent, mutation) for child, parent, mutation in read["parents"]],
        )


def tables() -> "MetaData":
    """Return the tables of the database."""
    with needed_for("databases of rules"):
        import sqlalchemy as sql
    metadata = sql.MetaData()
    sql.Table(
        "rule",
        metadata,
        sql.Column("hash", sql.String(64), primary_key=True),
        sql.Column("text", sql.Text, nullable=False),
        sql.Column("size", sql.Integer, nullable=False),
        sql.Column("slots", sql.Integer, nullable=False),
        sql.Column("kinds", sql.Text, nullable=False),
        sql.Column("origin", sql.String(16), nullable=False),
        sql.Column("run", sql.String(64), nullable=False),
    )
    sql.Table(
        "parent",
        metadata,
        sql.Column("child", sql.String(64), primary_key=True),
        sql.Column("parent", sql.String(64), primary_key=True),
        sql.Column("mutation", sql.String(32), primary_key=True),
    )
    sql.Table(
        "evaluation",
        metadata,
        sql.Column("rule", sql.String(64), sql.ForeignKey("rule.hash"), primary_key=True),
        sql.Column("test", sql.String(64), primary_key=True),
        sql.Column("level", sql.String(64), primary_key=True),
        sql.Column("seeds", sql.String(64), primary_key=True),
        sql.Column("harness", sql.Integer, primary_key=True),
        sql.Column("score", sql.Float, nullable=False),
        sql.Column("standard_error", sql.Float),
        sql.Column("ticks", sql.BigInteger, nullable=False),
        sql.Column("wall_s", sql.Float, nullable=False),
        sql.Column("status", sql.String(16), nullable=False),
    )
    sql.Table(
        "run",
        metadata,
        sql.Column("id", sql.String(64), primary_key=True),
        sql.Column("parent_run", sql.String(64)),
        sql.Column("step", sql.BigInteger, nullable=False),
        sql.Column("config", sql.Text, nullable=False),
        sql.Column("git", sql.Text, nullable=False),
        sql.Column("host", sql.Text, nullable=False),
    )
    sql.Table(
        "worker",
        metadata,
        sql.Column("id", sql.String(64), primary_key=True),
        sql.Column("run", sql.String(64), nullable=False),
        sql.Column("heartbeat", sql.Float, nullable=False),
        sql.Column("counters", sql.Text, nullable=False),
    )
    return metadata


def _engine(url: str) -> "Engine":
    """Return the engine of a database.

    Raises:
        StoreError: the address is none, or of another kind of database.
        MissingExtraError: a library is missing.
    """
    with needed_for("databases of rules"):
        import sqlalchemy as sql
    try:
        address = sql.make_url(url)
    except sql.exc.ArgumentError as error:
        expected = "sqlite:///FILE or postgresql://USER@HOST/NAME"
        raise StoreError(f"database: got {url!r}, expected {expected}") from error
    kind = address.get_backend_name()
    if kind not in ("sqlite", "postgresql"):
        raise StoreError(f"database: got {kind}, expected sqlite or postgresql")
    if kind == "postgresql":
        address = address.set(drivername="postgresql+psycopg")
        with needed_for("databases on PostgreSQL"):
            return sql.create_engine(address, pool_pre_ping=True)
    engine = sql.create_engine(address, connect_args={"timeout": _BUSY_S})

    @sql.event.listens_for(engine, "connect")
    def prepare(connection: Any, record: Any) -> None:
        # Readers go on while one writes, and what was committed survives a crash of the process.
        del record
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA foreign_keys=ON")

    return engine


@dataclass
class Store:
    """A database of rules.

    Attributes:
        url: its address, `sqlite:///FILE` or `postgresql://USER@HOST/NAME`.
        spool: folder of what the database has not confirmed yet; None: what cannot be stored is an error.
        engine: of SQLAlchemy.
        metadata: the tables.
    """

    url: str
    spool: Path | None
    engine: "Engine" = field(repr=False)
    metadata: "MetaData" = field(repr=False)

    @staticmethod
    def open(url: str, spool: Path | None = None) -> "Store":
        """Open a database, make its tables where there are none, and store what the spool holds.

        With a spool, a server that is away is no error: rules wait on disk.

        Raises:
            StoreError: it cannot be opened.
            MissingExtraError: SQLAlchemy or a driver is not installed.
        """
        store = Store(url, spool, _engine(url), tables())
        if spool is not None:
            spool.mkdir(parents=True, exist_ok=True)
            store.flush()
        else:
            store._create()
        return store

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def table(self, name: str) -> "Table":
        """Return a table by its name."""
        return self.metadata.tables[name]

    def _create(self) -> None:
        import sqlalchemy as sql

        try:
            self.metadata.create_all(self.engine)
        except sql.exc.IntegrityError:
            # On PostgreSQL, another process has made the tables at the same moment.
            self.metadata.create_all(self.engine)
        except sql.exc.DatabaseError as error:
            raise StoreError(f"database: {self.address}: {error.orig}") from error

    @property
    def address(self) -> str:
        """The address without the password."""
        return self.engine.url.render_as_string(hide_password=True)

    def add(self, batch: Batch) -> bool:
        """Store a batch, in one transaction.

        Returns:
            Whether the database has it; if not, it waits in the spool.

        Raises:
            StoreError: the database does not take it, and there is no spool.
        """
        if self.spool is None:
            self._create()
            with self.engine.begin() as connection:
                self._write(connection, batch)
            return True
        # In the order of time, and never the same name.
        name = f"{time.time_ns():020d}-{uuid.uuid4().hex}.json"
        atomic_write(self.spool / name, batch.to_json())
        return self.flush() == 0

    def flush(self) -> int:
        """Store what waits in the spool; return how many batches still do.

        Raises:
            StoreError: a file of the spool is damaged.
        """
        import sqlalchemy as sql

        if self.spool is None:
            return 0
        waiting = sorted(self.spool.glob("*.json"))
        try:
            self._create()
            while waiting:
                path = waiting[0]
                batch = _read_batch(path)
                with self.engine.begin() as connection:
                    self._write(connection, batch)
                # Only now: if the process ends here, the batch is written once more, which changes nothing.
                path.unlink(missing_ok=True)
                waiting.pop(0)
        except (sql.exc.OperationalError, sql.exc.InterfaceError):
            pass  # the server is away: what waits stays
        except StoreError as error:
            if not isinstance(error.__cause__, sql.exc.OperationalError | sql.exc.InterfaceError):
                raise
        return len(waiting)

    def _write(self, connection: "Connection", batch: Batch) -> None:
        rules = [asdict(rule) for rule in batch.rules]
        evaluations = [asdict(each) for each in batch.evaluations]
        names = ("child", "parent", "mutation")
        parents = [dict(zip(names, each, strict=True)) for each in batch.parents]
        for name, rows in (("rule", rules), ("evaluation", evaluations), ("parent", parents)):
            self._insert(connection, name, rows)

    def _insert(self, connection: "Connection", name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows; those that are there already stay as they are."""
        if self.engine.dialect.name == "sqlite":
            from sqlalchemy.dialects.sqlite import insert
        else:
            from sqlalchemy.dialects.postgresql import insert  # type: ignore[assignment]
        # In one order everywhere: two writers of the same rows then wait for each other, and never in a ring.
        keys = [column.name for column in self.table(name).primary_key]
        ordered = sorted(rows, key=lambda row: [str(row[key]) for key in keys])
        for first in range(0, len(ordered), _ROWS):
            statement = insert(self.table(name)).on_conflict_do_nothing()
            connection.execute(statement, [dict(row) for row in ordered[first : first + _ROWS]])

    def beat(self, worker: str, run: str, counters: Mapping[str, int]) -> None:
        """Say that a worker is alive, and what its counters show; the last word counts.

        Does nothing while the server is away.
        """
        import sqlalchemy as sql

        table = self.table("worker")
        values = {"run": run, "heartbeat": time.time(), "counters": json.dumps(dict(counters))}
        try:
            with self.engine.begin() as connection:
                self._insert(connection, "worker", [{"id": worker, **values}])
                connection.execute(sql.update(table).where(table.c.id == worker).values(**values))
        except (sql.exc.OperationalError, sql.exc.InterfaceError):
            pass

    def known(self, hashes: Sequence[str]) -> set[str]:
        """Return which rules are stored."""
        import sqlalchemy as sql

        table = self.table("rule")
        found: set[str] = set()
        with self.engine.connect() as connection:
            for first in range(0, len(hashes), _ROWS):
                asked = sql.select(table.c.hash).where(table.c.hash.in_(hashes[first : first + _ROWS]))
                found |= set(connection.execute(asked).scalars())
        return found

    def rows(
        self,
        test: str | None = None,
        least_score: float | None = None,
        most_size: int | None = None,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """Return rules with their scores, the best first; a rule without scores has None for them.

        Args:
            test: scores of this test only.
            least_score: rules with at least this score only.
            most_size: rules of at most so many operators only.
            limit: at most so many.
        """
        import sqlalchemy as sql

        rule, evaluation = self.table("rule"), self.table("evaluation")
        scores = [column for column in evaluation.c if column.name != "rule"]
        joined = rule.outerjoin(evaluation, evaluation.c.rule == rule.c.hash)
        asked = sql.select(*rule.c, *scores).select_from(joined)
        if test is not None:
            asked = asked.where(evaluation.c.test == test)
        if least_score is not None:
            asked = asked.where(evaluation.c.score >= least_score)
        if most_size is not None:
            asked = asked.where(rule.c.size <= most_size)
        asked = asked.order_by(sql.nulls_last(evaluation.c.score.desc()), rule.c.hash).limit(limit)
        with self.engine.connect() as connection:
            return [dict(row) for row in connection.execute(asked).mappings()]

    def all_rows(self, name: str) -> Iterator[list[dict[str, Any]]]:
        """Yield all rows of a table, some at a time, in the order of its key."""
        import sqlalchemy as sql

        table = self.table(name)
        with self.engine.connect().execution_options(yield_per=_ROWS) as connection:
            asked = sql.select(table).order_by(*table.primary_key)
            for part in connection.execute(asked).mappings().partitions():
                yield [dict(row) for row in part]

    def merge(self, other: "Store") -> dict[str, int]:
        """Take over what another database has and this one has not; return new rows by table."""
        import sqlalchemy as sql

        new: dict[str, int] = {}
        # Rules before what refers to them.
        for table in self.metadata.sorted_tables:
            counted = sql.select(sql.func.count()).select_from(table)
            for part in other.all_rows(table.name):
                with self.engine.begin() as connection:
                    before = connection.execute(counted).scalar_one()
                    self._insert(connection, table.name, part)
                    added = connection.execute(counted).scalar_one() - before
                new[table.name] = new.get(table.name, 0) + added
        return new

    def export(self, folder: Path) -> list[Path]:
        """Write each table to a Parquet file in a folder, and return the files.

        Raises:
            MissingExtraError: pyarrow is not installed.
        """
        with needed_for("Parquet files"):
            import pyarrow
            import pyarrow.parquet
        folder.mkdir(parents=True, exist_ok=True)
        written: list[Path] = []
        for table in self.metadata.sorted_tables:
            rows = [row for part in self.all_rows(table.name) for row in part]
            columns = {column.name: [row[column.name] for row in rows] for column in table.c}
            path = folder / f"{table.name}.parquet"
            # Written beside, then renamed: no reader meets half a file.
            beside = path.with_suffix(".parquet.part")
            pyarrow.parquet.write_table(pyarrow.table(columns), beside)
            beside.replace(path)
            written.append(path)
        return written


def _read_batch(path: Path) -> Batch:
    try:
        return Batch.from_json(path.read_text(encoding="utf-8"))
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path}: {error}; expected a batch of rules as it was spooled") from error


def stored_rule(row: Mapping[str, Any]) -> Rule:
    """Return the rule of a row.

    Raises:
        StoreError: its text is not what its hash says.
    """
    rule = parse(row["text"])
    if rule_hash(rule) != row["hash"]:
        raise StoreError(f"rule {row['hash'][:12]}: its text has another hash, {rule_hash(rule)[:12]}")
    return rule

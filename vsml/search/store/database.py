"""A database of rules: SQLite in a file, or PostgreSQL by URL."""

import contextlib
import math
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vsml.search.store.errors import AwayError, DamagedError, MissingError, SchemaVersionError, StoreError
from vsml.search.store.tables import METADATA, SCHEMA, SCHEMA_VERSION, TABLES
from vsml.system.extras import needed_for

with needed_for("databases of rules"):
    import sqlalchemy as sa
    from sqlalchemy import exc

_BUSY_S = 30
"""Seconds for which a writer of SQLite waits for another one."""

_CONNECT_S = 5
"""Seconds after which a server that does not answer is away."""

_SILENT_MS = 15_000
"""Milliseconds after which a server that takes no more bytes is away."""

_CREATION_LOCK = 0x76736D6C
"""Number of the lock that one client of PostgreSQL holds while it makes the tables."""

_WRITES = "vsml_writes"

_EXPECTED = "a file such as rules.db, or sqlite:///FILE, or postgresql://USER@HOST:PORT/DATABASE"


class Database:
    """A database of rules; connections are made when they are needed.

        database = Database("rules.db", create=True)
        with database.writing() as connection:
            insert_rows(connection, TABLES["rule"], [row.values()])

    One object serves the threads of one process. After a fork, make another.

    Args:
        url: a file, for SQLite; or `postgresql://user@host:port/name`. The password may be in the URL, in
            `PGPASSWORD` or in `~/.pgpass`; messages never show it.
        create: whether to make the tables where there are none; else this is an error.

    Raises:
        StoreError: the URL is of another kind.
    """

    def __init__(self, url: str | os.PathLike[str], create: bool = False) -> None:
        self._url = _parsed(os.fspath(url))
        self._create = create
        self._checked = False
        self._checking = threading.Lock()
        self._engine = _engine(self._url)

    @property
    def name(self) -> str:
        """The URL without its password, or the file."""
        if self.file:
            return str(self.file)
        return self._url.set(drivername="postgresql").render_as_string(hide_password=True)

    @property
    def file(self) -> Path | None:
        """The file of SQLite; None for a server."""
        return Path(str(self._url.database)) if self._is_sqlite else None

    @property
    def _is_sqlite(self) -> bool:
        return self._url.get_backend_name() == "sqlite"

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Give a connection that sees the database as it is at its first query.

        Raises:
            AwayError: it cannot serve now.
            StoreError: it is missing, damaged or of another version.
        """
        self._check()
        options = {} if self._is_sqlite else {"isolation_level": "REPEATABLE READ"}
        with self._telling(), self._engine.connect() as connection:
            yield connection.execution_options(**options)

    @contextlib.contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Give a connection in a transaction: all that the block does is kept, or nothing.

        Raises:
            AwayError: it cannot serve now. If that was at the very end, the rows may be there all the same.
            StoreError: it is missing, damaged or of another version.
        """
        self._check()
        with self._telling(), self._begun() as connection:
            yield connection

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def __enter__(self) -> "Database":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def _begun(self) -> Iterator[sa.Connection]:
        with self._engine.connect() as plain:
            connection = plain.execution_options(**{_WRITES: True})
            with connection.begin():
                yield connection

    def _check(self) -> None:
        """Look once whether the tables are there and of this version, and make them if that is wanted."""
        with self._checking:
            if self._checked:
                return
            if self.file is not None and not self._create and not self.file.exists():
                raise MissingError(
                    f"{self.name}: got no such file; `vsml rules db init` makes a database of rules"
                )
            if self.file is not None and self.file.is_dir():
                raise StoreError(f"{self.name}: got a folder, expected a file")
            if self.file is not None and not self.file.parent.is_dir():
                raise StoreError(f"{self.name}: its folder is missing")
            with self._telling():
                found = self._version()
                if found is None and self._create:
                    found = self._made()
            if found is None:
                raise MissingError(
                    f"{self.name}: got a database without rules; `vsml rules db init` makes the tables"
                )
            if found != SCHEMA_VERSION:
                raise SchemaVersionError(
                    f"{self.name}: got tables of version {found}, expected version {SCHEMA_VERSION}; "
                    "use the version of vsml that made them, or start a new database"
                )
            self._checked = True

    def _version(self) -> int | None:
        """Return the version of the tables; None where there are none."""
        with self._engine.connect() as connection:
            return _version_in(connection)

    def _made(self) -> int:
        """Make the tables, unless another client has been faster, and return their version."""
        with self._begun() as connection:
            if not self._is_sqlite:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_CREATION_LOCK)))
            if (found := _version_in(connection)) is not None:
                return found
            taken = set(TABLES) & set(sa.inspect(connection).get_table_names())
            if taken:
                raise StoreError(
                    f"{self.name}: got tables {', '.join(sorted(taken))} of another program, expected none"
                )
            METADATA.create_all(connection, checkfirst=False)
            connection.execute(SCHEMA.insert().values(version=SCHEMA_VERSION))
        return SCHEMA_VERSION

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Say in words of this library what a driver says."""
        try:
            yield
        except (exc.OperationalError, exc.InterfaceError, exc.TimeoutError) as error:
            raise AwayError(f"{self.name}: cannot serve now: {_first_line(error)}") from error
        except exc.DatabaseError as error:
            if error.connection_invalidated:
                raise AwayError(f"{self.name}: cannot serve now: {_first_line(error)}") from error
            if isinstance(error, exc.IntegrityError):
                raise StoreError(f"{self.name}: refuses a row: {_first_line(error)}") from error
            if isinstance(error.orig, sqlite3.DatabaseError):
                raise DamagedError(f"{self.name}: damaged, or no database: {_first_line(error)}") from error
            raise StoreError(f"{self.name}: {_first_line(error)}") from error


def _version_in(connection: sa.Connection) -> int | None:
    """Return the version of the tables; None where there are none, -1 where it is not said."""
    if not sa.inspect(connection).has_table(SCHEMA.name):
        return None
    return connection.execute(sa.select(sa.func.coalesce(sa.func.max(SCHEMA.c.version), -1))).scalar_one()


def _first_line(error: Exception) -> str:
    """Return what a driver says, without the statement and its values."""
    said = str(getattr(error, "orig", None) or error).strip()
    return said.partition("\n")[0] or type(error).__name__


def _parsed(url: str) -> sa.URL:
    """Return a URL that SQLAlchemy knows.

    Raises:
        StoreError: it is of another kind.
    """
    if "://" not in url:
        if not url or ":" in url.rpartition("/")[2]:
            raise StoreError(f"url: got {url!r}, expected {_EXPECTED}")
        return sa.URL.create("sqlite", database=url)
    try:
        parsed = sa.make_url(url)
    except (exc.ArgumentError, ValueError):  # the message would show a password
        raise StoreError(f"url: got one that cannot be read, expected {_EXPECTED}") from None
    shown = parsed.render_as_string(hide_password=True)
    if parsed.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        if not parsed.database:
            raise StoreError(f"url: got {shown!r} without the name of a database, expected {_EXPECTED}")
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername == "sqlite":
        if not parsed.database or parsed.database == ":memory:":
            raise StoreError(f"url: got {shown!r} without a file, expected {_EXPECTED}")
        return parsed
    raise StoreError(f"url: got {shown!r}, expected {_EXPECTED}")


def _engine(url: sa.URL) -> sa.Engine:
    if url.get_backend_name() == "sqlite":
        engine = sa.create_engine(url, connect_args={"timeout": _BUSY_S})
        sa.event.listen(engine, "connect", _begin_sqlite)
        sa.event.listen(engine, "begin", _begin_transaction)
        return engine
    with needed_for("databases on a server"):
        import psycopg  # noqa: F401  # SQLAlchemy imports it, and says less where it is missing
    patience = {"connect_timeout": _CONNECT_S, "tcp_user_timeout": _SILENT_MS, "application_name": "vsml"}
    # A connection that a restart of the server has cut is noticed, and made anew.
    return sa.create_engine(url, connect_args=patience, pool_pre_ping=True, pool_size=2)


def _begin_sqlite(connection: Any, _: Any) -> None:
    """Set up a connection of SQLite."""
    connection.isolation_level = None  # transactions begin where `_begin_transaction` says
    # Readers and the writer do not wait for each other, and a commit survives a power failure.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
    # Not every SQLite has been built with it.
    connection.create_function("sqrt", 1, lambda x: None if x is None else math.sqrt(x), deterministic=True)


def _begin_transaction(connection: sa.Connection) -> None:
    """Begin a transaction of SQLite; a writer takes its turn at once, so it cannot be refused half-way."""
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

"""Copies of a database of rules: into another one, and as Parquet."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsml.search.store.database import Database
from vsml.search.store.errors import StoreError
from vsml.search.store.tables import TABLES, insert_rows
from vsml.system.extras import needed_for
from vsml.system.files import atomic_path

with needed_for("databases of rules"):
    import sqlalchemy as sa

if TYPE_CHECKING:
    import pyarrow

_ROWS = 5000
"""Rows that are held at a time."""


def merge(source: Database, target: Database) -> dict[str, int]:
    """Copy all rows of a database into another one, and return by table how many changed it.

    What both have stays once. A merge that was stopped is finished by another one; so is one of a source that
    has grown since.

    Args:
        source: is read, and stays as it is.
        target: gets the rows, some thousands in each transaction.

    Raises:
        StoreError: both are one, or one of them cannot be used.
    """
    if source.name == target.name or _same_file(source, target):
        raise StoreError(f"{source.name}: got the same database twice, expected two")
    with target.reading():
        pass  # raises where it cannot be used, also if there is nothing to copy
    changed = dict.fromkeys(TABLES, 0)
    with source.reading() as reader:
        for name, table in TABLES.items():
            for rows in _chunks(reader, table):
                with target.writing() as writer:
                    changed[name] += len(insert_rows(writer, table, rows))
    return changed


def export(database: Database, folder: Path) -> dict[str, int]:
    """Write each table as a Parquet file, as it was at one moment, and return by table how many rows it has.

    Args:
        database: the database.
        folder: is made if need be; each file is replaced as a whole.

    Raises:
        MissingExtraError: pyarrow is not installed.
        OSError: a file cannot be written.
        StoreError: the database cannot be used.
    """
    with needed_for("Parquet files"):
        import pyarrow
        import pyarrow.parquet

    counts = dict.fromkeys(TABLES, 0)
    folder.mkdir(parents=True, exist_ok=True)
    with database.reading() as connection:
        for name, table in TABLES.items():
            schema = _arrow_schema(table)
            with (
                atomic_path(folder / f"{name}.parquet") as temporary,
                pyarrow.parquet.ParquetWriter(temporary, schema, compression="zstd") as writer,
            ):
                for rows in _chunks(connection, table):
                    writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
                    counts[name] += len(rows)
    return counts


def _same_file(source: Database, target: Database) -> bool:
    files = (source.file, target.file)
    return all(file is not None and file.exists() for file in files) and source.file.samefile(target.file)  # type: ignore[union-attr, arg-type]


def _chunks(connection: sa.Connection, table: sa.Table) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of a table in the order of their keys, some thousands at a time."""
    query = sa.select(table).order_by(*table.primary_key).execution_options(yield_per=_ROWS)
    for rows in connection.execute(query).mappings().partitions():
        yield [dict(row) for row in rows]


def _arrow_schema(table: sa.Table) -> "pyarrow.Schema":
    """Return the columns of a table as Parquet has them."""
    import pyarrow

    fields: list[Any] = []
    for column in table.columns:
        if isinstance(column.type, sa.Double):
            kind = pyarrow.float64()
        elif isinstance(column.type, sa.Integer):
            kind = pyarrow.int64()
        else:
            kind = pyarrow.string()
        fields.append(pyarrow.field(column.name, kind, nullable=bool(column.nullable)))
    return pyarrow.schema(fields)

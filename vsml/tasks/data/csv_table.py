"""A table of numbers with a column of labels, from a CSV file as spreadsheets write them."""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from vsml.tasks.data.errors import DataError, MissingDataError

_OTHER_SEPARATORS = (";", "\t", "|")

Row = tuple[int, list[str]]
"""The line on which a row ends, from 1, and its cells."""


def read_csv(path: str | Path, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Read a CSV file: commas between cells, decimal points, names of the columns in the first line.

    A byte-order mark and spaces around cells are left out, and so are empty lines.

    Args:
        path: the file, in UTF-8.
        label: name of the column of labels. All other columns are numbers.

    Returns:
        Numbers float64 [n, d] and labels, texts [n].

    Raises:
        MissingDataError: the file cannot be read.
        DataError: it is no such table; names the line and the column.
    """
    path = Path(path)
    rows = _rows(path)
    _, names = next(rows, (1, []))
    _check_names(path, names, label)
    place = names.index(label)
    numbers: list[list[float]] = []
    labels: list[str] = []
    for line, cells in rows:
        if len(cells) != len(names):
            got = f"{len(cells)} cells"
            raise DataError(f"{path}, line {line}: got {got}, expected {len(names)}, one for each column")
        if not cells[place]:
            raise DataError(f"{path}, line {line}, column {label!r}: got an empty cell, expected a label")
        labels.append(cells[place])
        row = []
        for name, cell in zip(names, cells, strict=True):
            if name != label:
                row.append(_number(cell, f"{path}, line {line}, column {name!r}"))
        numbers.append(row)
    if not numbers:
        raise DataError(f"{path}: got no rows below the names of the columns, expected one at least")
    return np.array(numbers, np.float64), np.array(labels)


def _rows(path: Path) -> Iterator[Row]:
    """Yield the rows that are not empty, without spaces around cells."""
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: not a CSV file: {error}") from error
        if cells is None:
            return
        stripped = [cell.strip() for cell in cells]
        if any(stripped):
            yield reader.line_num, stripped


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MissingDataError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line = 1 + before.count(b"\n")
        column = 1 + before.rpartition(b"\n")[2].count(b",")
        got = f"the byte {content[error.start]:#x}"
        raise DataError(f"{path}, line {line}, column {column}: got {got}, expected text in UTF-8") from error


def _check_names(path: Path, names: Sequence[str], label: str) -> None:
    """Check the first line."""
    if not names:
        raise DataError(f"{path}: got an empty file, expected the names of columns in its first line")
    if len(names) == 1:
        for separator in _OTHER_SEPARATORS:
            if separator in names[0]:
                expected = "commas, and points in numbers"
                raise DataError(f"{path}, line 1: got {separator!r} between columns, expected {expected}")
    for place, name in enumerate(names):
        if not name:
            raise DataError(f"{path}, line 1: column {place + 1} has no name, expected one for each column")
        if name in names[:place]:
            raise DataError(f"{path}, line 1: got the column {name!r} twice, expected different names")
    if label not in names:
        shown = ", ".join(names[:20]) + ", ..." * (len(names) > 20)
        raise DataError(f"{path}, line 1: got the columns {shown[:400]}, expected one named {label!r}")
    if len(names) == 1:
        raise DataError(f"{path}, line 1: got the column {label!r} alone, expected columns of numbers too")


def _number(cell: str, where: str) -> float:
    # Python alone takes 1_000 for a number.
    try:
        number = float(cell) if "_" not in cell else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        got = repr(cell[:80]) if cell else "an empty cell"
        raise DataError(f"{where}: got {got}, expected a finite number")
    return number

"""Metrics of a run: the lines of metrics.jsonl, written as the run goes on and read back."""

import contextlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from vsml.system.files import atomic_write, jsonable, naming, open_regular, read_regular
from vsml.system.guards import prove

_SHOWN = 80
"""Characters of a broken line that a message has."""


class MetricsError(ValueError):
    """A metrics.jsonl with a broken line; the message names both."""


class MetricsLog:
    """metrics.jsonl of a run; lines wait here while the disk is full or the folder away.

    Args:
        path: the file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = Path(path)
        self._waiting: list[str] = []

    def append(self, step: int, values: Mapping[str, Any]) -> None:
        """Add one line, which waits for `flush`.

        Args:
            step: meta step, never lower than that of the line before.
            values: numbers, 0-d arrays, texts or nestings of them; NaN and infinities are written as null.
        """
        self._waiting.append(json.dumps({"step": step, **jsonable(values)}, allow_nan=False) + "\n")

    def flush(self) -> None:
        """Write what waits; it is in the file when this returns.

        Raises:
            OSError: it cannot be written, or is a link or a pipe, or is no longer the run's; the file is as
                it was, and the lines wait on.
        """
        if not self._waiting:
            return
        prove(self._path)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        with naming(self._path), os.fdopen(open_regular(self._path, flags), "ab", buffering=0) as file:
            before = os.fstat(file.fileno()).st_size
            try:
                data = "".join(self._waiting).encode()
                while data:
                    data = data[file.write(data) or 0 :]
            except OSError:
                file.truncate(before)  # no half line for the next one to be glued to
                raise
        self._waiting.clear()

    def copy_to(self, path: str | os.PathLike[str]) -> None:
        """Write another file with the lines of this one, as far as it can be read, and those that wait."""
        written = b""
        with contextlib.suppress(OSError):
            prove(self._path)
            written = read_regular(self._path)
        atomic_write(path, written + "".join(self._waiting).encode())


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Return the objects of a metrics.jsonl in order; a half-written last line is left out.

    Args:
        path: the file.

    Raises:
        MetricsError: another line is not a JSON object with a `step`.
        OSError: it cannot be read, or is no regular file.
    """
    return [values for _, values in complete_lines(Path(path))]


def complete_lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return lines with their line ends, and the objects in them; a half-written last line is left out.

    Raises:
        MetricsError: another line is not a JSON object with a `step`.
        OSError: it cannot be read, or is no regular file.
    """
    complete = []
    for number, line in numbered_lines(path):
        try:
            values = parse_line(line)
        except ValueError as error:
            raise MetricsError(f"{path}, line {number}: {error}; mend or remove that line") from error
        complete.append((line, values))
    return complete


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the numbers, from 1, and the texts of lines; a half-written last line is left out.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    descriptor = open_regular(path.resolve(), os.O_RDONLY)
    # Lines end where a line feed is, and nowhere else: JSON may hold other separators of lines.
    with os.fdopen(descriptor, encoding="utf-8", errors="replace", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if line.endswith("\n"):
                yield number, line


def parse_line(line: str) -> dict[str, Any]:
    """Return the object in a line of metrics.

    Raises:
        ValueError: it is none, or has no `step`; the message says what was got.
    """
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected a JSON object, got {_shortened(line)}") from error
    if not isinstance(values, dict):
        raise ValueError(f"expected a JSON object, got {_shortened(line)}")
    step = values.get("step")
    if not isinstance(step, int) or isinstance(step, bool):
        raise ValueError(f"expected a whole number as `step`, got {_shortened(line)}")
    return values


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value is a finite number, and no truth value."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False


def _shortened(line: str) -> str:
    return repr(line[:_SHOWN])

"""Metrics of a run: the lines of metrics.jsonl, written as the run goes on and read back."""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vsml.system.files import atomic_write, jsonable, naming, open_regular, read_regular
from vsml.system.guards import prove


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
        ValueError: another line is not a JSON object.
    """
    return [values for _, values in complete_lines(Path(path))]


def complete_lines(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return lines with their line ends, and the objects in them; a half-written last line is left out.

    Raises:
        ValueError: another line is not a JSON object.
    """
    lines = read_regular(path).decode(errors="replace").splitlines(keepends=True)
    complete = []
    for number, line in enumerate(lines, start=1):
        if number == len(lines) and not line.endswith("\n"):
            break
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number}: expected a JSON object, got {line[:80]!r}") from error
        complete.append((line, values))
    return complete

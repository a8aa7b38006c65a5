"""Metrics of a run: the lines of metrics.jsonl, written as the run goes on and read back."""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vsml.system.files import atomic_write, jsonable


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
            OSError: it cannot be written; the file is as it was, and the lines wait on.
        """
        if not self._waiting:
            return
        with open(self._path, "ab", buffering=0) as file:
            before = file.tell()
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
            written = self._path.read_bytes()
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
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    complete = []
    for number, line in enumerate(lines, start=1):
        if number == len(lines) and not line.endswith("\n"):
            break
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):  # no JSON, or brackets without end
            values = None
        if not isinstance(values, dict):
            raise ValueError(f"{path}, line {number}: expected a JSON object, got {line[:80]!r}")
        complete.append((line, values))
    return complete

"""A spool: what is written to a database, on the local disk until the database has it."""

import contextlib
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vsml.search.store.errors import DamagedError, StoreError
from vsml.system.files import naming, open_regular
from vsml.system.locks import hold

SPOOL_VERSION = 1

_HEADER = {"vsml spool": SPOOL_VERSION}


@dataclass(frozen=True)
class Place:
    """A place in a spool.

    Attributes:
        offset: bytes before it.
        number: entries before it.
    """

    offset: int
    number: int


class Spool:
    r"""An append-only file of entries, one a line, each with a checksum.

    `append` returns when the entry is on the disk. A writer that is killed may leave half a line at the end,
    of an entry whose `append` has not returned; it is cut off when the spool is opened. One process has a
    spool at a time.

    Args:
        path: the file, on a local disk; made if need be. A lock is beside it.

    Raises:
        HeldError: another process has it.
        DamagedError: a line before the last one is damaged; the message says which.
        StoreError: it is of another version.
        OSError: the file cannot be made or written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        lock = self.path.with_name(f"{self.path.name}.lock")
        with contextlib.ExitStack() as opened:
            opened.enter_context(hold(lock, f"process {os.getpid()}"))
            descriptor = open_regular(self.path, os.O_RDWR | os.O_CREAT)
            self._file = opened.enter_context(os.fdopen(descriptor, "r+b", buffering=0))
            self._begin = self._look_at_header()
            self._end = self._look_through()
            self._cut()
            self._resources = opened.pop_all()
        self._sent = Place(self._begin.offset, 0)

    def __len__(self) -> int:
        """Return how many entries the database may not have."""
        return self._end.number - self._sent.number

    def append(self, entry: Any) -> None:
        """Add an entry, made of what JSON has, and return when it is on the disk.

        Raises:
            OSError: the disk is full or broken; the spool is as before.
        """
        line = _line(entry)
        with naming(self.path):
            try:
                self._write(line, self._end.offset)
            except OSError:
                # No half a line may stand before the next one.
                self._cut()
                raise
        self._end = Place(self._end.offset + len(line), self._end.number + 1)

    def read(self, most: int) -> tuple[list[Any], Place]:
        """Return the oldest entries that were not dropped, and the place behind them, for `drop`."""
        entries: list[Any] = []
        offset = self._sent.offset
        for line in self._lines(offset):
            if len(entries) == most or offset == self._end.offset:
                break
            entries.append(self._entry(line, self._sent.number + len(entries)))
            offset += len(line)
        return entries, Place(offset, self._sent.number + len(entries))

    def drop(self, place: Place) -> None:
        """Forget what is before a place; the file becomes empty when nothing is left behind it."""
        self._sent = place
        if place == self._end:
            self._end = self._sent = self._begin
            # Not flushed: what a power failure brings back is sent again, and changes nothing.
            with naming(self.path):
                self._file.truncate(self._end.offset)

    def close(self) -> None:
        """Close the file and give the lock back; what was not dropped stays."""
        self._resources.close()

    def _look_at_header(self) -> Place:
        """Return the place behind the header, which is written if there is none."""
        expected = _line(_HEADER)
        line = next(self._lines(0), b"")
        if not line.endswith(b"\n"):
            # New, or its writer was killed before there was anything in it.
            if not expected.startswith(line):
                raise StoreError(f"{self.path}: got a file that is no spool")
            with naming(self.path):
                self._file.truncate(0)
                self._write(expected, 0)
                if os.name == "posix":  # elsewhere a folder cannot be opened
                    _flush_folder(self.path.parent)
            return Place(len(expected), 0)
        header = _read_line(line)
        if not isinstance(header, dict) or set(header) != set(_HEADER):
            raise StoreError(f"{self.path}: got a file that is no spool")
        if header != _HEADER:
            got, wanted = (next(iter(each.values())) for each in (header, _HEADER))
            raise StoreError(f"{self.path}: got a spool of version {got}, expected version {wanted}")
        return Place(len(line), 0)

    def _look_through(self) -> Place:
        """Return the place behind the last whole entry.

        Raises:
            DamagedError: a damaged line is not the last one.
        """
        offset, number = self._begin.offset, 0
        lines = self._lines(offset)
        for line in lines:
            if not line.endswith(b"\n") or _read_line(line) is None:
                if next(lines, None) is not None:
                    self._entry(line, number)  # raises
                break
            offset += len(line)
            number += 1
        return Place(offset, number)

    def _lines(self, offset: int) -> Iterator[bytes]:
        """Yield the lines from an offset on."""
        with open(self.path, "rb") as file:
            file.seek(offset)
            yield from file

    def _entry(self, line: bytes, number: int) -> Any:
        entry = _read_line(line)
        if entry is None:
            raise DamagedError(
                f"{self.path}: line {number + 2} is damaged, and lines follow it; "
                "without that line the spool can be read"
            )
        return entry

    def _write(self, line: bytes, offset: int) -> None:
        """Write a line, and return when it is on the disk."""
        self._file.seek(offset)
        rest = memoryview(line)
        while rest:
            rest = rest[self._file.write(rest) :]
        os.fsync(self._file.fileno())

    def _cut(self) -> None:
        """Cut off what is behind the last entry."""
        with naming(self.path):
            self._file.truncate(self._end.offset)
            os.fsync(self._file.fileno())


def _line(entry: Any) -> bytes:
    """Return an entry as a line: checksum and JSON, which has no line break."""
    text = json.dumps(entry, allow_nan=False).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _read_line(line: bytes) -> Any:
    """Return the entry of a line; None if it is damaged."""
    checksum, _, text = line.rstrip(b"\n").partition(b" ")
    if checksum != b"%08x" % zlib.crc32(text):
        return None
    return json.loads(text)


def _flush_folder(folder: Path) -> None:
    """Make a new name in a folder survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Output that never ends a run: not where its reader has gone, its disk is full or its encoding too small."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast


class Unfailing:
    """A text stream that writes what can be written to another one, and raises nothing.

    What the encoding lacks becomes an escape such as `\\u03c3`. Where nobody reads any more, as after
    `| head -1`, all that follows is dropped. What a full disk refuses is lost. Everything else is asked of
    the stream itself.

    Args:
        stream: where to write.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text; return its length, written or not."""
        with _dropping(self._stream):
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                self._stream.write(_encodable(text, self._stream.encoding))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flush as far as that is possible."""
        with _dropping(self._stream):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)


def unfailing(stream: TextIO | None = None) -> TextIO:
    """Return a stream that raises nothing.

    Args:
        stream: where to write, by default stdout.
    """
    stream = sys.stdout if stream is None else stream
    if isinstance(stream, Unfailing):
        return cast(TextIO, stream)
    return cast(TextIO, Unfailing(stream))


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a line; where it cannot be, as into a log on a disk that is full, the run goes on without it.

    Args:
        text: without the line's end.
        stream: where to, by default stdout.
    """
    print(text, file=unfailing(stream), flush=True)


@contextlib.contextmanager
def unfailing_output() -> Iterator[None]:
    """Let nothing that this process prints end it, nor change its exit code when the interpreter ends."""
    former = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(unfailing, former)
    try:
        yield
    finally:
        for stream in former:
            if not _flushed(stream):
                _silence(stream)
        sys.stdout, sys.stderr = former


def _encodable(text: str, encoding: str | None) -> str:
    """Return a text with escapes for the characters that an encoding lacks."""
    encoding = encoding or "ascii"
    return text.encode(encoding, errors="backslashreplace").decode(encoding)


@contextlib.contextmanager
def _dropping(stream: TextIO) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        _silence(stream)
    except (OSError, ValueError):  # a full disk; a stream that is closed
        pass


def _flushed(stream: TextIO) -> bool:
    """Flush a stream, and return whether that worked."""
    try:
        stream.flush()
    except (OSError, ValueError):
        return False
    return True


def _silence(stream: TextIO) -> None:
    """Send nowhere what is still to come, and what waits in the buffer until the interpreter ends."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)

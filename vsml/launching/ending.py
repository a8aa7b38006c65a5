"""The ending of a command line: messages for people, and the exit status."""

import os
import sys
from collections.abc import Callable, Iterable

from vsml.system.extras import MissingExtraError

USAGE = 2
"""Exit status after a mistake in what was typed or read."""

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


def error_lines(error: Exception) -> list[str]:
    """Return the line that tells an error."""
    return [f"error: {error}"]


def ended(
    do: Callable[[], int],
    lines: Callable[[Exception], Iterable[str]] = error_lines,
    stopped: str = "stopped",
) -> int:
    """Do what a command says, and return the exit status.

    What the user can change is told on stderr, without a traceback. Where nobody reads the output any more,
    as in `vsml rules show backprop | head`, the command has done its work.

    Args:
        do: what the command says; returns the exit status.
        lines: the lines that tell an error.
        stopped: what is said after Ctrl-C.
    """
    try:
        status = do()
        # A short output waits in a buffer: without this, the pipe would break as the interpreter ends.
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (MissingExtraError, OSError, ValueError) as error:
        print(*lines(error), sep="\n", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print(f"\n{stopped}", file=sys.stderr)
        return INTERRUPTED

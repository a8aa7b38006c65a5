"""Progress of a run on the terminal: how far it is, its rate, and the time left."""

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

from vsml.system.extras import needed_for

if TYPE_CHECKING:
    pass

from vsml.system.devices import launcher_size
from vsml.system.terminal import say, unfailing

_RATE_WINDOW = 50  # updates that the rate is taken over: steady, and soon free of the first compilation


def plain_where_no_terminal() -> None:
    """Let rich write no escape codes, in this process, where stdout is no terminal.

    Not where the environment has FORCE_COLOR either; and not under an MPI launcher, whose pipes look like
    terminals also where they end in a file. TTY_COMPATIBLE, which tells rich so, is left as a user has it.
    """
    if launcher_size() is not None or not sys.stdout.isatty():
        os.environ.setdefault("TTY_COMPATIBLE", "0")


class Progress:
    """Context manager that shows how far a loop is; silent on ranks other than 0.

    A bar on a terminal, else a plain line every `interval_s` seconds and at the end. Under an MPI launcher
    every stdout looks like a terminal even when it goes into a file, so pass `terminal=False` there.

        with Progress(total=100) as progress:
            progress.update(1, loss=2.3, accuracy=0.1)

    Args:
        total: steps when done.
        start: steps done before, when resuming.
        rank: number of this process.
        terminal: whether to draw a bar; None asks the stream.
        interval_s: least time between two plain lines, in seconds.
        stream: where to write, by default stdout.
        clock: returns seconds.
    """

    def __init__(
        self,
        total: int,
        *,
        start: int = 0,
        rank: int = 0,
        terminal: bool | None = None,
        interval_s: float = 10.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        with needed_for("progress lines"):
            import rich.progress
            from rich.console import Console

        self._total = total
        self._silent = rank != 0
        self._interval_s = interval_s
        self._clock = clock
        self._stream = stream
        self._times = deque([(clock(), start)], maxlen=_RATE_WINDOW + 1)
        self._printed_at: float | None = None
        self._last_line: str | None = None
        self._bar: rich.progress.Progress | None = None
        console = Console(file=unfailing(stream))
        # Not as rich has it, to which FORCE_COLOR makes a terminal of every file.
        is_terminal = console.file.isatty() and not console.is_dumb_terminal
        drawn = is_terminal if terminal is None else terminal
        if drawn and not self._silent:
            self._bar = rich.progress.Progress(
                rich.progress.BarColumn(bar_width=20),
                rich.progress.TextColumn("{task.description}", markup=False),
                console=console,
            )
            self._task = self._bar.add_task(f"step {start}/{total}", total=total, completed=start)

    def __enter__(self) -> "Progress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        elif self._last_line is not None:
            self._print(self._last_line)

    def update(self, step: int, **values: float) -> None:
        """Show a step.

        Args:
            step: steps done.
            values: what to show with it, such as loss and accuracy.
        """
        if self._silent:
            return
        now = self._clock()
        self._times.append((now, step))
        line = self._line(step, values)
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=line)
        elif self._printed_at is None or now - self._printed_at >= self._interval_s:
            self._printed_at = now
            self._last_line = None
            self._print(line)
        else:
            self._last_line = line  # printed on exit, if it stays the last

    def note(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        if self._bar is not None:
            from rich.text import Text

            self._bar.console.print(Text(text))
        elif not self._silent:
            self._print(text)

    def _print(self, text: str) -> None:
        say(text, self._stream)

    def _line(self, step: int, values: Mapping[str, float]) -> str:
        (first_time, first_step), (last_time, last_step) = self._times[0], self._times[-1]
        parts = [f"step {step}/{self._total}", *(f"{name} {value:.4g}" for name, value in values.items())]
        if last_time > first_time and last_step > first_step:
            rate = (last_step - first_step) / (last_time - first_time)
            parts += [f"{rate:.3g} steps/s", f"{format_duration((self._total - step) / rate)} left"]
        return " | ".join(parts)


def format_duration(seconds: float) -> str:
    """Return a time as hours, minutes and seconds: 1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"

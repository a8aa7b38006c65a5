"""What a user sees of a run: progress with rate and time left, and a table of results at the end."""

import contextlib
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, TextIO

import rich.progress
from rich.console import Console
from rich.table import Table
from rich.text import Text

_RATE_WINDOW = 50  # updates that the rate is taken over: steady, and soon free of the first compilation
_COLUMNS = {
    "accuracy_at_10": "at 10",
    "accuracy_at_100": "at 100",
    "accuracy_at_1000": "at 1,000",
    "accuracy_at_10000": "at 10,000",
    "accuracy_last": "last",
}


def say(text: str, stream: TextIO | None = None) -> None:
    """Print a line; where it cannot be, as into a log on a disk that is full, the run goes on without it.

    Args:
        text: without the line's end.
        stream: where to, by default stdout.
    """
    with contextlib.suppress(OSError):
        print(text, file=stream or sys.stdout, flush=True)


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
        self._total = total
        self._silent = rank != 0
        self._interval_s = interval_s
        self._clock = clock
        self._stream = stream
        self._times = deque([(clock(), start)], maxlen=_RATE_WINDOW + 1)
        self._printed_at: float | None = None
        self._last_line: str | None = None
        self._bar: rich.progress.Progress | None = None
        console = Console(file=stream)
        drawn = console.is_terminal and not console.is_dumb_terminal if terminal is None else terminal
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
            parts += [f"{rate:.3g} steps/s", f"{_duration((self._total - step) / rate)} left"]
        return " | ".join(parts)


def results_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Return a table of evaluation results.

    Args:
        rows: each with `learner`, `dataset`, `recent_share` (the same in all), and of `accuracy_at_10`, ...
            and `accuracy_last` (shares of 1) what there is; one that is missing or None is shown as a dash,
            and a column of which all are is left out.
    """
    rows = list(rows)
    columns = _columns(rows)
    table = Table(title="accuracy")
    for heading in ("learner", "data set"):
        table.add_column(heading)
    for heading in columns.values():
        table.add_column(heading, justify="right")
    for row in rows:
        accuracies = (row.get(name) for name in columns)
        table.add_row(
            Text(str(row["learner"])),  # Text, since a path may look like markup
            Text(str(row["dataset"])),
            *("-" if value is None else f"{value:.3f}" for value in accuracies),
        )
    return table


def markdown_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return evaluation results as a Markdown table, by data set in order of first appearance.

    Of several learners there is a small table before it: what each reached on each data set at the end.

    Args:
        rows: as in `results_table`, with `interval_95` and `tried` besides.
    """
    rows = list(rows)
    columns = _columns(rows)
    lines = [
        "| data set | learner | " + " | ".join(columns.values()) + " | settings tried |",
        "|---|---|" + "---|" * (len(columns) + 1),
    ]
    order = list(dict.fromkeys(row["dataset"] for row in rows))
    for row in sorted(rows, key=lambda row: order.index(row["dataset"])):
        cells = [_with_interval(row.get(name), row["interval_95"].get(name)) for name in columns]
        tried = ", ".join(f"{name.rpartition('.')[2]} {value}" for name, value in row["tried"].items())
        lines.append(" | ".join((f"| {row['dataset']}", str(row["learner"]), *cells, tried)) + " |")
    caption = (
        f"Accuracy: share of right answers on {_recent(rows)}, mean over episodes and half width of its "
        "95 % interval."
    )
    several = len({row["learner"] for row in rows}) > 1
    return "\n".join([*(_matrix(rows) if several else ()), *lines, "", caption, ""])


def _matrix(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines of a table of learners and data sets: `accuracy_last` in percent."""
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    reached = {
        (row["learner"], row["dataset"]): _with_interval(
            row.get("accuracy_last"), row["interval_95"].get("accuracy_last"), percent=True
        )
        for row in rows
    }
    lines = [f"| {' | '.join(('learner', *datasets))} |", "|---|" + "---|" * len(datasets)]
    for learner in dict.fromkeys(row["learner"] for row in rows):
        cells = (reached.get((learner, dataset), "-") for dataset in datasets)
        lines.append(f"| {' | '.join((learner, *cells))} |")
    where = "the last example" if _shows_single_examples(rows) else "the last examples"
    return [*lines, "", f"Accuracy on {where} in percent. In full:", ""]


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the headings of the accuracies that any row has, by their names in it."""
    return {
        name: heading.replace("at ", "example ") if _shows_single_examples(rows) else heading
        for name, heading in _COLUMNS.items()
        if any(row.get(name) is not None for row in rows)
    }


def _shows_single_examples(rows: Sequence[Mapping[str, Any]]) -> bool:
    return all(row["recent_share"] == 0 for row in rows)


def _recent(rows: Sequence[Mapping[str, Any]]) -> str:
    if _shows_single_examples(rows):
        return "that example alone"
    return f"the last {100 * rows[0]['recent_share']:.3g} % of the examples up to there"


def _with_interval(value: float | None, width: float | None, percent: bool = False) -> str:
    if value is None:
        return "-"
    scale, digits = (100, 1) if percent else (1, 3)
    return " ± ".join(f"{scale * each:.{digits}f}" for each in (value, width) if each is not None)


def print_results(rows: Iterable[Mapping[str, Any]], stream: TextIO | None = None) -> None:
    """Print `results_table(rows)`.

    Args:
        rows: as there.
        stream: where to, by default stdout.
    """
    with contextlib.suppress(OSError):  # as in `say`
        Console(file=stream).print(results_table(rows))


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"

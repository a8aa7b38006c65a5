"""Learning curves as text, for terminals and log files: no colours, no control characters."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vsml.reporting.plots import Curve

_PANEL_WIDTH = 38
"""Columns that a panel needs to be read easily: two fit into 80."""

_WIDEST_PANEL = 60
_NARROWEST_PANEL = 16
_HEIGHT = 9  # lines of a panel, without title and axis
_GAP = "  "
_LABELS = {
    0: "100% ",
    _HEIGHT // 2: " 50% ",
    _HEIGHT - 1: "  0% ",
}
_BRAILLE = 0x2800
_DOTS = (
    (0x01, 0x08),
    (0x02, 0x10),
    (0x04, 0x20),
    (0x40, 0x80),
)
"""Dots of a braille character, by row and column."""


@dataclass(frozen=True)
class _Marks:
    """Characters to draw with; the first learner is a line of braille dots where `braille` is set."""

    learners: str
    braille: bool
    chance: str
    side: str
    corner: str
    floor: str


_UNICODE = _Marks("⠒o+x", True, "┄", "┤", "└", "─")
_ASCII = _Marks("*o+x", False, "-", "|", "+", "-")


def encodable(encoding: str | None) -> bool:
    """Tell whether a stream of this encoding can hold what `learning_curves` draws with by default.

    Args:
        encoding: of the stream; None is taken for ASCII.
    """
    drawn = _UNICODE.learners + _UNICODE.chance + chr(_BRAILLE)
    try:
        drawn.encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


@dataclass(frozen=True)
class _Axis:
    """The axis of examples seen.

    Attributes:
        last: examples at its right end.
        log: whether it is logarithmic.
    """

    last: int
    log: bool

    def seen(self, columns: int) -> np.ndarray:
        """Return how many examples have been seen at each of so many columns."""
        if columns == 1:
            return np.array([self.last])
        space = np.geomspace if self.log else np.linspace
        spaced = space(1, self.last, columns)
        return np.round(spaced).astype(int)


def learning_curves(
    curves: Sequence[Curve],
    *,
    width: int = 80,
    window: int = 50,
    log_x: bool = True,
    unicode: bool = True,
) -> str:
    """Draw accuracy against examples seen as text, one panel per data set.

    A line is the mean over episodes of `plots.Curve.trailing`. Where learners meet, the first is seen.

    Args:
        curves: panels in order of first appearance, at most four learners.
        width: columns that may be used; what is below 16 counts as 16.
        window: examples to average over.
        log_x: whether examples seen are on a logarithmic axis.
        unicode: draw with braille dots; else with ASCII alone.

    Returns:
        Lines of at most `width` columns, without trailing blanks; the last line has no line end.

    Raises:
        ValueError: there are no curves, or more learners than marks.
    """
    marks = _UNICODE if unicode else _ASCII
    names = list(dict.fromkeys(curve.name for curve in curves))
    most = len(marks.learners)
    if not 0 < len(names) <= most:
        expected = f"expected from 1 to {most}"
        raise ValueError(f"learning_curves: got {len(names)} learners, {expected}")
    datasets = list(dict.fromkeys(curve.dataset for curve in curves))
    width = max(_NARROWEST_PANEL, width)
    # A gap for each panel, as if there were one more behind the last.
    with_gap = width + len(_GAP)
    fitting = with_gap // (_PANEL_WIDTH + len(_GAP))
    columns = max(1, min(len(datasets), fitting))
    room = with_gap // columns - len(_GAP)
    panels = []
    for dataset in datasets:
        shown = [curve for curve in curves if curve.dataset == dataset]
        panel = _panel(
            shown,
            names,
            min(_WIDEST_PANEL, room),
            window,
            log_x,
            marks,
        )
        panels.append(panel)
    legend = []
    for mark, name in zip(marks.learners, names, strict=False):
        legend.append(f"{mark}{mark} {name}")
    if any(curve.chance is not None for curve in curves):
        legend.append(f"{marks.chance}{marks.chance} chance")
    lines = _wrap(legend, width)
    for first in range(0, len(panels), columns):
        lines.append("")
        beside = panels[first : first + columns]
        for row in zip(*beside, strict=True):
            lines.append(_GAP.join(row).rstrip())
    return "\n".join(lines)


def _wrap(
    entries: Sequence[str],
    width: int,
) -> list[str]:
    """Put entries into lines of at most `width` columns; longer ones are cut."""
    lines = [entries[0][:width]]
    for entry in entries[1:]:
        joined = f"{lines[-1]}   {entry}"
        if len(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(entry[:width])
    return lines


def _panel(
    curves: Sequence[Curve],
    names: Sequence[str],
    width: int,
    window: int,
    log_x: bool,
    marks: _Marks,
) -> list[str]:
    """Return the lines of a panel, all `width` columns wide."""
    left = len(_LABELS[0]) + 1
    columns = width - left
    ends = []
    for curve in curves:
        length = np.shape(curve.correct)[1]
        ends.append(curve.support + length)
    axis = _Axis(max(ends), log_x)
    cells = [[" "] * columns for _ in range(_HEIGHT)]
    for curve in curves:
        if curve.chance is not None:
            row = _row(curve.chance, _HEIGHT)
            cells[row] = [marks.chance] * columns
    # The first learner last, over what is there.
    numbered = [(names.index(curve.name), curve) for curve in curves]
    numbered.sort(key=lambda pair: -pair[0])
    for number, curve in numbered:
        if number == 0 and marks.braille:
            accuracies = _accuracies(
                curve,
                2 * columns,
                axis,
                window,
            )
            _draw_dots(cells, accuracies)
        else:
            accuracies = _accuracies(
                curve,
                columns,
                axis,
                window,
            )
            mark = marks.learners[number]
            _draw_marks(cells, accuracies, mark)
    title = curves[0].dataset[:columns]
    blank = " " * len(_LABELS[0])
    lines = [(" " * left + title).ljust(width)]
    for row, line in enumerate(cells):
        number_text = _LABELS.get(row, blank)
        lines.append(number_text + marks.side + "".join(line))
    lines.append(blank + marks.corner + marks.floor * columns)
    lines.append(" " * left + _ticks(columns, axis))
    return lines


def _row(value: float, rows: int) -> int:
    """Return the row of an accuracy, 0 at the top."""
    bounded = min(1.0, max(0.0, value))
    return round((1 - bounded) * (rows - 1))


def _accuracies(
    curve: Curve,
    columns: int,
    axis: _Axis,
    window: int,
) -> np.ndarray:
    """Return the accuracy at each column, NaN where there is none."""
    accuracy = curve.trailing(window).mean(0)
    index = axis.seen(columns) - 1 - curve.support
    inside = (index >= 0) & (index < len(accuracy))
    nearest = np.clip(index, 0, len(accuracy) - 1)
    return np.where(inside, accuracy[nearest], np.nan)


def _draw_marks(
    cells: list[list[str]],
    values: np.ndarray,
    mark: str,
) -> None:
    """Draw a mark for each column."""
    for column, value in enumerate(values):
        if np.isfinite(value):
            row = _row(value, _HEIGHT)
            cells[row][column] = mark


def _draw_dots(
    cells: list[list[str]],
    values: np.ndarray,
) -> None:
    """Draw a connected line of braille dots, two values a column, over what is in the cells."""
    dots = np.zeros((_HEIGHT, len(cells[0])), int)
    before: int | None = None
    for place, value in enumerate(values):
        if not np.isfinite(value):
            before = None
            continue
        row = _row(value, 4 * _HEIGHT)
        start = row
        if before is not None:
            # From the row next to the one before, so that the line has no gap.
            direction = int(np.sign(row - before))
            start = before + direction
        column, side = divmod(place, 2)
        lowest, highest = sorted((start, row))
        for each in range(lowest, highest + 1):
            line, dot_row = divmod(each, 4)
            dots[line, column] |= _DOTS[dot_row][side]
        before = row
    for line, column in np.argwhere(dots):
        dot = int(dots[line, column])
        cells[line][column] = chr(_BRAILLE + dot)


def _ticks(
    columns: int,
    axis: _Axis,
) -> str:
    """Return the numbers below the axis, each ending or beginning at its place, without overlaps."""
    last = axis.last
    seen = axis.seen(columns)
    numbers = [1, last // 2]
    if axis.log:
        powers = math.ceil(math.log10(last + 1))
        numbers = [10**power for power in range(powers)]
    line = [" "] * columns
    final = f"{last:,}"[-columns:]
    free = columns - len(final) - 1
    line[columns - len(final) :] = final
    end = 0
    for number in numbers:
        text = f"{number:,}"
        nearest = int(np.argmin(np.abs(seen - number)))
        place = max(0, nearest - len(text) // 2)
        fits = place >= end and place + len(text) <= free
        if 0 < number < last and fits:
            line[place : place + len(text)] = text
            end = place + len(text) + 1
    return "".join(line)

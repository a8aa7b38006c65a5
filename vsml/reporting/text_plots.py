"""Learning curves as text, for terminals and log files: no colours, no control characters."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vsml.reporting.plots import Curve, trailing_accuracy

_PANEL_WIDTH = 38
"""Columns that a panel needs to be read easily: two fit into 80."""

_WIDEST_PANEL = 60
_NARROWEST_PANEL = 16
_HEIGHT = 9  # lines of a panel, without title and axis
_GAP = "  "
_LABELS = {0: "100% ", _HEIGHT // 2: " 50% ", _HEIGHT - 1: "  0% "}
_BRAILLE = 0x2800
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # of a braille character, by row and column


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
    try:
        (_UNICODE.learners + _UNICODE.chance + chr(_BRAILLE)).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def learning_curves(
    curves: Sequence[Curve],
    *,
    width: int = 80,
    window: int = 50,
    log_x: bool = True,
    unicode: bool = True,
) -> str:
    """Draw accuracy against examples seen as text, one panel per data set.

    A line is the mean over episodes of `plots.trailing_accuracy`. Where learners meet, the first is seen.

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
    if not 0 < len(names) <= len(marks.learners):
        raise ValueError(
            f"learning_curves: got {len(names)} learners, expected from 1 to {len(marks.learners)}"
        )
    datasets = list(dict.fromkeys(curve.dataset for curve in curves))
    width = max(_NARROWEST_PANEL, width)
    columns = max(1, min(len(datasets), (width + len(_GAP)) // (_PANEL_WIDTH + len(_GAP))))
    room = min(_WIDEST_PANEL, (width + len(_GAP)) // columns - len(_GAP))
    panels = [
        _panel([c for c in curves if c.dataset == name], names, room, window, log_x, marks)
        for name in datasets
    ]
    legend = [f"{mark * 2} {name}" for mark, name in zip(marks.learners, names, strict=False)]
    if any(curve.chance is not None for curve in curves):
        legend.append(f"{marks.chance * 2} chance")
    lines = _wrap(legend, width)
    for first in range(0, len(panels), columns):
        lines.append("")
        beside = panels[first : first + columns]
        lines += [_GAP.join(row).rstrip() for row in zip(*beside, strict=True)]
    return "\n".join(lines)


def _wrap(entries: Sequence[str], width: int) -> list[str]:
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
    curves: Sequence[Curve], names: Sequence[str], width: int, window: int, log_x: bool, marks: _Marks
) -> list[str]:
    """Return the lines of a panel, all `width` columns wide."""
    left = len(_LABELS[0]) + 1
    columns = width - left
    last = max(curve.support + np.shape(curve.correct)[1] for curve in curves)
    cells = [[" "] * columns for _ in range(_HEIGHT)]
    for curve in curves:
        if curve.chance is not None:
            cells[_row(curve.chance, _HEIGHT)] = [marks.chance] * columns
    for curve in sorted(curves, key=lambda curve: -names.index(curve.name)):
        number = names.index(curve.name)
        if number == 0 and marks.braille:
            _draw_dots(cells, _places(curve, 2 * columns, last, window, log_x))
        else:
            for column, value in enumerate(_places(curve, columns, last, window, log_x)):
                if np.isfinite(value):
                    cells[_row(value, _HEIGHT)][column] = marks.learners[number]
    lines = [curves[0].dataset[:columns].rjust(left + min(len(curves[0].dataset), columns)).ljust(width)]
    blank = " " * len(_LABELS[0])
    lines += [_LABELS.get(row, blank) + marks.side + "".join(line) for row, line in enumerate(cells)]
    lines.append(blank + marks.corner + marks.floor * columns)
    lines.append(" " * left + _axis(columns, last, log_x))
    return lines


def _row(value: float, rows: int) -> int:
    """Return the row of an accuracy, 0 at the top."""
    return round((1 - min(1.0, max(0.0, value))) * (rows - 1))


def _seen(columns: int, last: int, log_x: bool) -> np.ndarray:
    """Return how many examples have been seen at each column."""
    if columns == 1:
        return np.array([last])
    spaced = np.geomspace(1, last, columns) if log_x else np.linspace(1, last, columns)
    return np.round(spaced).astype(int)


def _places(curve: Curve, columns: int, last: int, window: int, log_x: bool) -> np.ndarray:
    """Return the accuracy at each column, NaN where there is none."""
    accuracy = trailing_accuracy(curve.correct, window).mean(0)
    index = _seen(columns, last, log_x) - 1 - curve.support
    inside = (index >= 0) & (index < len(accuracy))
    return np.where(inside, accuracy[np.clip(index, 0, len(accuracy) - 1)], np.nan)


def _draw_dots(cells: list[list[str]], values: np.ndarray) -> None:
    """Draw a connected line of braille dots, two values a column, over what is in the cells."""
    dots = np.zeros((_HEIGHT, len(cells[0])), int)
    before: int | None = None
    for place, value in enumerate(values):
        if not np.isfinite(value):
            before = None
            continue
        row = _row(value, 4 * _HEIGHT)
        start = row if before is None else before + int(np.sign(row - before))
        for each in range(min(start, row), max(start, row) + 1):
            dots[each // 4, place // 2] |= _DOTS[each % 4][place % 2]
        before = row
    for row, line in enumerate(dots):
        for column, dot in enumerate(line):
            if dot:
                cells[row][column] = chr(_BRAILLE + int(dot))


def _axis(columns: int, last: int, log_x: bool) -> str:
    """Return the numbers below the axis, each ending or beginning at its place, without overlaps."""
    seen = _seen(columns, last, log_x)
    ticks = [10**power for power in range(math.ceil(math.log10(last + 1)))] if log_x else [1, last // 2]
    line = [" "] * columns
    final = f"{last:,}"[-columns:]
    free = columns - len(final) - 1
    line[columns - len(final) :] = final
    end = 0
    for tick in ticks:
        text = f"{tick:,}"
        place = max(0, int(np.argmin(np.abs(seen - tick))) - len(text) // 2)
        if 0 < tick < last and place >= end and place + len(text) <= free:
            line[place : place + len(text)] = text
            end = place + len(text) + 1
    return "".join(line)

"""Panels of curves on the page about runs: what `page.js` draws, as JSON."""

import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vsml.reporting import plots

_DASHES = ("solid", "dash", "dot")
_DIGITS = 6  # of numbers in curves; more are not seen, and make the page large


@dataclass(frozen=True)
class Line:
    """A curve in a panel.

    Attributes:
        name: in the legend; the curves of one name have one colour, and are hidden together.
        x: by the names of the axes, the places of its points.
        y: its points; None where there is none.
        half: half width of the band around each; None: it has no band.
    """

    name: str
    x: Mapping[str, Sequence[Any]]
    y: Sequence[Any]
    half: Sequence[Any] | None = None


@dataclass(frozen=True)
class Panel:
    """A panel.

    Attributes:
        title: above it.
        lines: its curves.
        y: what they are of.
        log: whether the axis of x is logarithmic.
        range: of y; None: what the curves need.
        most: bands end there.
        percent: whether y is a share.
        level: of the dashed line, such as chance; None: there is none.
        repeats: examples after which images come again.
    """

    title: str
    lines: Sequence[Line]
    y: str = ""
    log: bool = False
    range: tuple[float, float] | None = None
    most: float = 1e300
    percent: bool = False
    level: float | None = None
    repeats: Sequence[int] = ()


def panels_html(
    name: str,
    panels: Sequence[Panel],
    axes: Mapping[str, str],
    level_name: str = "",
) -> str:
    """Return the place of panels on the page, and their data.

    Args:
        name: of the element of the page.
        panels: in order.
        axes: names of the axes that x may be, and what is written there; the first is drawn at first.
        level_name: what the dashed lines are.
    """
    names = list(dict.fromkeys(line.name for panel in panels for line in panel.lines))
    data = {
        "axes": axes,
        "legend": [_legend_entry(entry, number) for number, entry in enumerate(names)],
        "levelName": level_name,
        "panels": [_panel_data(panel, names) for panel in panels],
    }
    # Nothing in a script may look like its end: a browser knows no escapes there, but JSON does.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    place = html.escape(name)
    return (
        f'<div id="{place}" data-curves="{place}-data"></div>\n'
        f'<script type="application/json" id="{place}-data">{text}</script>\n'
    )


def _legend_entry(name: str, number: int) -> dict[str, str]:
    cycle, colour = divmod(number, len(plots.COLOURS))
    return {
        "name": name,
        "light": plots.COLOURS[colour],
        "dark": plots.COLOURS_ON_DARK[colour],
        "dash": _DASHES[cycle % len(_DASHES)],
    }


def _panel_data(
    panel: Panel,
    names: Sequence[str],
) -> dict[str, Any]:
    lines = []
    for line in panel.lines:
        data = {
            "entry": names.index(line.name),
            "x": {axis: _numbers(places) for axis, places in line.x.items()},
            "y": _numbers(line.y),
            "half": None if line.half is None else _numbers(line.half),
        }
        lines.append(data)
    return {
        "title": panel.title,
        "y": panel.y,
        "log": panel.log,
        "range": panel.range,
        "most": panel.most,
        "percent": panel.percent,
        "level": panel.level,
        "repeats": list(panel.repeats),
        "lines": lines,
    }


def _numbers(values: Iterable[Any]) -> list[Any]:
    """Return values as JSON has them: rounded, and None for what is no finite number."""
    return [_number(value) for value in values]


def _number(value: Any) -> float | int | None:
    if value is None:
        return None
    if isinstance(value, int):
        return value
    number = float(value)
    if not math.isfinite(number):
        return None
    rounded = float(f"{number:.{_DIGITS}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded

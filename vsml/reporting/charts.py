"""Line charts as SVG with axes, which follow the colours of their page."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

_WIDTH, _HEIGHT = 400.0, 230.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 10.0, 10.0, 36.0
_TICKS = 4
_BEYOND = 1.05

COLOURS = 6
"""Classes of lines, `series-0` to `series-5`, that a page's style gives a colour."""


@dataclass(frozen=True)
class Series:
    """A line that rises in steps: each value stands until the next one.

    Attributes:
        name: what it is.
        x: where it changes, ascending.
        y: to what.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]


def step_chart(series: Sequence[Series], x_name: str, y_name: str) -> str:
    """Return a chart of lines that rise in steps, all drawn to a little beyond the last x of any of them.

    Args:
        series: at least one, each with at least one point.
        x_name: what is written below.
        y_name: what the chart shows, for those who do not see it.
    """
    last_x = max(max(line.x) for line in series)
    # A little more, so that the last step is seen.
    most_x = _BEYOND * last_x if last_x > 0 else 1.0
    ticks = _tick_values(min(min(line.y) for line in series), max(max(line.y) for line in series))
    low, high = ticks[0], ticks[-1]
    parts: list[str] = []
    for tick in ticks:
        y = _place_y(tick, low, high)
        parts.append(f'<path class="grid" d="M{_LEFT:g} {y:.1f}H{_WIDTH - _RIGHT:g}"/>')
        parts.append(f'<text x="{_LEFT - 6:g}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in _tick_values(0.0, most_x):
        if tick <= most_x:
            x = _place_x(tick, most_x)
            parts.append(
                f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 16:g}" text-anchor="middle">{tick:g}</text>'
            )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(
        f'<text x="{middle:g}" y="{_HEIGHT - 4:g}" text-anchor="middle">{html.escape(x_name)}</text>'
    )
    for number, line in enumerate(series):
        path = _steps(line, most_x, low, high)
        title = html.escape(line.name)
        parts.append(f'<path class="line series-{number % COLOURS}" d="{path}"><title>{title}</title></path>')
    label = html.escape(f"{y_name} over {x_name}: {', '.join(line.name for line in series)}")
    box = f"0 0 {_WIDTH:g} {_HEIGHT:g}"
    return f'<svg class="chart" role="img" aria-label="{label}" viewBox="{box}">{"".join(parts)}</svg>'


def legend(names: Sequence[str]) -> str:
    """Return the names of lines beside their colours, as HTML."""
    entries: list[str] = []
    for number, name in enumerate(names):
        entries.append(
            f'<span><svg class="swatch" viewBox="0 0 26 8"><path class="line series-{number % COLOURS}" '
            f'd="M0 4H26"/></svg>{html.escape(name)}</span>'
        )
    return f'<p class="legend">{"".join(entries)}</p>'


def _steps(line: Series, most_x: float, low: float, high: float) -> str:
    start = _place_x(line.x[0], most_x)
    path = f"M{start:.1f} {_place_y(line.y[0], low, high):.1f}"
    for x, y in zip(line.x[1:], line.y[1:], strict=True):
        path += f"H{_place_x(x, most_x):.1f}V{_place_y(y, low, high):.1f}"
    return path + f"H{_WIDTH - _RIGHT:g}"


def _place_x(x: float, most: float) -> float:
    return _LEFT + x / most * (_WIDTH - _LEFT - _RIGHT)


def _place_y(y: float, low: float, high: float) -> float:
    return _HEIGHT - _BOTTOM - (y - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)


def _tick_values(low: float, high: float) -> list[float]:
    """Return round numbers, evenly spaced, the first at most `low` and the last at least `high`."""
    if high <= low:
        high = low + 1.0
    rough = (high - low) / _TICKS
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    # Rounded, as 3 * 0.1 is not 0.3.
    return [round(number * step, 10) for number in range(first, last + 1)]

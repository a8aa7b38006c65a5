"""Small figures in a line of a table, as SVG: a few curves, without axes."""

from collections.abc import Sequence

import numpy as np

_WIDTH = 150
_HEIGHT = 42


def spark(
    curves: Sequence[np.ndarray],
    low: float,
    high: float,
    level: float | None = None,
    label: str = "",
) -> str:
    """Return a small figure.

    Args:
        curves: values at places that are evenly spaced, [points]; NaN: nothing is drawn there.
        low: the value at the lower edge.
        high: the value at the upper edge.
        level: value of a dashed line.
        label: what it shows, for those who do not see it; no markup.
    """
    paths = []
    if level is not None:
        dashed = _path(np.array([level, level]), low, high)
        paths.append(f'<path class="chance" d="{dashed}"/>')
    for curve in curves:
        drawn = _path(curve, low, high)
        paths.append(f'<path d="{drawn}"/>')
    inside = "".join(paths)
    box = f"0 0 {_WIDTH} {_HEIGHT}"
    return (
        f'<svg class="spark" role="img" aria-label="{label}" viewBox="{box}" preserveAspectRatio="none">'
        f"{inside}</svg>"
    )


def _path(
    curve: np.ndarray,
    low: float,
    high: float,
) -> str:
    """Return the path through values; M begins a new piece after each gap."""
    margin = 2
    span = high - low if high > low else 1.0
    share = np.clip((curve - low) / span, 0, 1)
    heights = margin + (1 - share) * (_HEIGHT - 2 * margin)
    if len(curve) == 1:  # one point is no line
        heights = np.repeat(heights, 2)
    places = np.linspace(0, _WIDTH, len(heights))
    commands = []
    command = "M"
    for place, height in zip(places, heights, strict=True):
        if np.isfinite(height):
            commands.append(f"{command}{place:.1f} {height:.1f}")
            command = "L"
        else:
            command = "M"
    return "".join(commands)

"""Figures of a battery as SVG: the radar of tags, bars of tests, and learning curves."""

import html
import math
from collections.abc import Sequence

from vsml.battery.learning_test import LearningTest
from vsml.battery.report import MOST, Row, tags_of

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
"""Of learners, in their order (Okabe and Ito); they begin again where there are more."""

_RADIUS = 150.0
_SHOWN = 1.25
"""Score at the rim of the radar."""

_RINGS = (0.5, 1.0)
_CELL_WIDTH = 52.0
_CELL_HEIGHT = 28.0
_STATE_WIDTH = 160.0
_CURVE_WIDTH = 220.0
_CURVE_HEIGHT = 110.0


def colour(place: int) -> str:
    """Return the colour of the learner at a place."""
    return COLOURS[place % len(COLOURS)]


def radar(rows: Sequence[Row], tests: Sequence[LearningTest]) -> str:
    """Return a radar: an axis for each tag, and a line for each learner; the outer ring is score 1.

    Args:
        rows: of learners.
        tests: that they took.
    """
    tags = tags_of(tests)
    legend_height = 22 * len(rows)
    width, height = 2 * _RADIUS + 260, 2 * _RADIUS + 90 + legend_height
    middle_x, middle_y = width / 2, _RADIUS + 45
    parts = []
    for ring in _RINGS:
        radius = _RADIUS * ring / _SHOWN
        parts.append(f'<circle cx="{middle_x}" cy="{middle_y}" r="{radius:.1f}" class="ring"/>')
        parts.append(
            f'<text x="{middle_x + 3}" y="{middle_y - radius - 3:.1f}" class="small">{ring:g}</text>'
        )
    angles = [2 * math.pi * place / len(tags) - math.pi / 2 for place in range(len(tags))]
    for tag, angle in zip(tags, angles, strict=True):
        x, y = _at(middle_x, middle_y, angle, _RADIUS)
        parts.append(f'<line x1="{middle_x}" y1="{middle_y}" x2="{x:.1f}" y2="{y:.1f}" class="axis"/>')
        text_x, text_y = _at(middle_x, middle_y, angle, _RADIUS + 14)
        anchor = "middle" if abs(math.cos(angle)) < 0.2 else ("start" if math.cos(angle) > 0 else "end")
        parts.append(f'<text x="{text_x:.1f}" y="{text_y + 4:.1f}" text-anchor="{anchor}">{tag}</text>')
    for place, row in enumerate(rows):
        points = []
        for tag, angle in zip(tags, angles, strict=True):
            score = row.of_tag(tests, tag)
            share = 0.0 if score is None else min(score.value, _SHOWN, MOST) / _SHOWN
            x, y = _at(middle_x, middle_y, angle, _RADIUS * share)
            points.append(f"{x:.1f},{y:.1f}")
        parts.append(
            f'<polygon points="{" ".join(points)}" fill="none" stroke="{colour(place)}" stroke-width="2"/>'
        )
        y = 2 * _RADIUS + 90 + 22 * place
        parts.append(
            f'<line x1="20" y1="{y - 4}" x2="46" y2="{y - 4}" stroke="{colour(place)}" stroke-width="3"/>'
        )
        parts.append(f'<text x="54" y="{y}">{html.escape(row.learner)}</text>')
    return _svg(width, height, parts, "scores by tag")


def heat_map(rows: Sequence[Row], tests: Sequence[LearningTest]) -> str:
    """Return a picture with a row for each learner, and a column for each tag: the darker, the better.

    Behind them is how many numbers each keeps between two examples, by test.
    """
    tags = tags_of(tests)
    left = 12 + 7.2 * max((len(row.learner) for row in rows), default=0)
    right = left + _CELL_WIDTH * len(tags)
    width, height = right + _STATE_WIDTH, 90 + _CELL_HEIGHT * len(rows)
    parts = []
    for column, tag in enumerate((*tags, "state")):
        x = left + _CELL_WIDTH * (column + 0.5)
        parts.append(f'<text transform="translate({x:.1f} 78) rotate(-40)">{html.escape(tag)}</text>')
    for line, row in enumerate(rows):
        y = 86 + _CELL_HEIGHT * line
        parts.append(
            f'<text x="{left - 8:.1f}" y="{y + 18:.1f}" text-anchor="end">{html.escape(row.learner)}</text>'
            f'<text x="{right + 8:.1f}" y="{y + 18:.1f}">{html.escape(row.state)}</text>'
        )
        for column, tag in enumerate(tags):
            score = row.of_tag(tests, tag)
            x = left + _CELL_WIDTH * column
            shade = 0.0 if score is None else min(score.value, _SHOWN) / _SHOWN
            text = row.text_of_tag(tests, tag)
            ink = "#ffffff" if shade > 0.55 else "#333333"
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{_CELL_WIDTH - 2:g}" height="{_CELL_HEIGHT - 2:g}" '
                f'fill="#0072b2" fill-opacity="{shade:.2f}" stroke="#dddddd"/>'
                f'<text x="{x + _CELL_WIDTH / 2:.1f}" y="{y + 18:.1f}" text-anchor="middle" '
                f'style="fill:{ink}">{text}</text>'
            )
    return _svg(width, height, parts, "scores of learners by tag")


def curve(rows: Sequence[Row], level: str) -> str:
    """Return the learning curves of learners at a level: accuracy, or explained share, from 0 to 1."""
    parts = [f'<rect x="0" y="0" width="{_CURVE_WIDTH}" height="{_CURVE_HEIGHT}" class="frame"/>']
    for place, row in enumerate(rows):
        values = row.curves.get(level, ())
        if not values:
            continue
        last = max(len(values) - 1, 1)
        points = []
        for number, value in enumerate(values):
            x = _CURVE_WIDTH * number / last
            y = _CURVE_HEIGHT * (1 - min(max(value, 0.0), 1.0))
            points.append(f"{x:.1f},{y:.1f}")
        parts.append(
            f'<polyline points="{" ".join(points)}" fill="none" stroke="{colour(place)}" stroke-width="1.5"/>'
        )
    return _svg(_CURVE_WIDTH, _CURVE_HEIGHT, parts, f"learning curves of {level}")


def _at(x: float, y: float, angle: float, radius: float) -> tuple[float, float]:
    """Return the point at a distance in a direction."""
    return x + radius * math.cos(angle), y + radius * math.sin(angle)


def _svg(width: float, height: float, parts: Sequence[str], label: str) -> str:
    """Return a figure that stands by itself."""
    style = (
        "text{font:13px sans-serif;fill:#333}.small{font-size:10px;fill:#777}"
        ".ring,.frame{fill:none;stroke:#bbb}.axis{stroke:#ddd}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'width="{width:g}" height="{height:g}" aria-label="{html.escape(label)}">'
        f'<style>{style}</style><rect width="100%" height="100%" fill="#ffffff"/>{"".join(parts)}</svg>'
    )

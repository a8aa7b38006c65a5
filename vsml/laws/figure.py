"""Figures of laws: points, the law with its band, what was held out, and the prediction."""

import io
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vsml.laws.runs import Family
from vsml.laws.summary import Summary
from vsml.reporting.plots import COLOURS
from vsml.system.extras import needed_for
from vsml.system.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PLACES = 200
_WIDE = 5.0
_AHEAD = 10.0  # by how much lines go on beyond the largest run


def draw_laws(
    path: str | os.PathLike[str],
    summaries: Sequence[Summary],
    labels: Sequence[str],
    beside: Sequence[Family] = (),
) -> None:
    """Draw laws of one variable into a figure, one colour each, and write it in one step.

    The line is the law of all points with the 95 % band of the mean; beyond the largest run it is dashed. A
    dotted line is the same form, fitted to the small sizes alone: how far off it is at the large ones is what
    an extrapolation was worth here.

    Args:
        path: the file; its suffix is the format.
        summaries: of laws of the same variable.
        labels: of them, in the legend.
        beside: runs with another loss of theirs, drawn as rings, such as that of meta-training: how far it is
            below the others shows what was learned by heart.

    Raises:
        ValueError: a law has two variables.
        OSError: the file cannot be written.
    """
    if any(len(each.family.variables) != 1 for each in summaries):
        raise ValueError("figure: got a law of two variables, expected laws of one")
    with needed_for("figures"):
        from matplotlib.figure import Figure
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for number, (summary, label) in enumerate(zip(summaries, labels, strict=True)):
        _draw_law(axes, summary, label, COLOURS[number % len(COLOURS)])
    first = summaries[0].family
    legend: str | None = f"loss of {beside[0].loss}" if beside else None
    for family in beside:
        colour = _colour_of(family, summaries)
        sizes, losses = family.points.x[:, 0], family.points.loss
        axes.plot(sizes, losses, "o", color=colour, markersize=6, fillstyle="none", label=legend)
        legend = None
    axes.set_xscale("log")
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    # Of a wide range each power of ten, twice and five times it have numbers; of a narrow one all ticks.
    if high > _WIDE * low:
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.yaxis.set_minor_formatter(FuncFormatter(_tick))
    axes.yaxis.set_major_formatter(FuncFormatter(_tick))
    axes.set_xlabel(first.variables[0].label)
    axes.set_ylabel(f"loss on {first.loss} (nats)")
    axes.grid(which="both", color="#E3E3E3", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    content = io.BytesIO()
    suffix = os.path.splitext(path)[1].removeprefix(".") or "png"
    figure.savefig(content, format=suffix, dpi=120)
    atomic_write(path, content.getvalue())


def _colour_of(family: Family, summaries: Sequence[Summary]) -> Any:
    """Return the colour of the law of the same runs; grey where these gave none."""
    for number, summary in enumerate(summaries):
        if summary.family.training == family.training:
            return COLOURS[number % len(COLOURS)]
    return "#808080"


def _tick(value: float, place: int) -> str:
    """Return what stands at a tick: the number as one says it."""
    del place
    return f"{value:.4g}"


def _draw_law(axes: "Axes", summary: Summary, label: str, colour: Any) -> None:
    points = summary.law.points
    sizes = points.x[:, 0]
    axes.plot(sizes, points.loss, "o", color=colour, markersize=4, alpha=0.7)
    inside = np.geomspace(sizes.min(), sizes.max(), _PLACES)
    ahead = np.geomspace(sizes.max(), _AHEAD * sizes.max(), _PLACES)
    for where, style in ((inside, "solid"), (ahead, "dashed")):
        value, low, high = summary.law.band(where)
        name = f"{label}: {summary.law.form.formula}" if style == "solid" else None
        axes.plot(where, value, color=colour, linestyle=style, label=name)
        axes.fill_between(where, low, high, color=colour, alpha=0.15, linewidth=0)
    extrapolation = summary.extrapolation
    if extrapolation is not None:
        value, _, _ = extrapolation.law.band(inside)
        axes.plot(inside, value, color=colour, linestyle="dotted", label=f"{label}: fitted to small sizes")

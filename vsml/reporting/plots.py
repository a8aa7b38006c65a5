"""Figures of a run: learning curves, and what other figures are drawn with."""

import io
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vsml.system.extras import needed_for
from vsml.system.files import atomic_write

if TYPE_CHECKING:  # imported where they are used: curves without figures need no matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with every kind of colour vision, darkest first.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_STYLES = ("solid", (0, (5, 1)), "dotted")  # for more learners than colours; chance is dashed otherwise
_GREY = "#767676"
_PANELS_PER_ROW = 3
_TINY = 1e-12  # keeps quotients finite where targets do not vary
_MOST_ERROR = 1.5  # relative errors above are off the panel: learners begin with a multiple of the mean's
NORMAL_95 = 1.96  # 95 % of a normal distribution lie within so many standard deviations


@dataclass(frozen=True)
class Curve:
    """The answers of one learner on one data set.

    Attributes:
        name: the learner, as the legend has it.
        dataset: the data set, one panel each.
        correct: share of right answers, or squared errors of values, [episodes, T], averaged over the inner
            batch.
        chance: accuracy of guessing, or 1 for the relative error of the mean, if known.
        support: examples that came before the first of these.
        repeats_after: examples, `support` included, after which images come again, if they do.
        baseline: of values the squared errors of the mean of the targets so far, [episodes, T]; None: the
            answers are classes.

    Raises:
        ValueError: `correct` is not of rank 2, or empty.
    """

    name: str
    dataset: str
    correct: np.ndarray
    chance: float | None = None
    support: int = 0
    repeats_after: int | None = None
    baseline: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Check the shape."""
        shape = np.shape(self.correct)
        if len(shape) != 2 or 0 in shape:
            raise ValueError(
                f"curve of {self.name} on {self.dataset}: got shape {shape}, expected [episodes, T]"
            )

    @property
    def measure(self) -> str:
        """What the curve is of."""
        return "accuracy" if self.baseline is None else "relative error"

    def trailing(self, window: int = 50) -> np.ndarray:
        """Return the measure over the latest examples, [episodes, T]; see `trailing_accuracy`."""
        score = trailing_accuracy(self.correct, window)
        if self.baseline is None:
            return score
        return score / np.maximum(trailing_accuracy(self.baseline, window), _TINY)


def trailing_accuracy(correct: np.ndarray, window: int = 50) -> np.ndarray:
    """Average answers over the latest examples.

    The window is `window` examples, but at most a quarter (rounded up) of those seen so far: near the start
    the accuracy rises too fast to average over many, and on a logarithmic axis the resolution is even.

    Args:
        correct: [..., T].
        window: examples, at least 1.

    Returns:
        [..., T], entry t the mean over the window that ends with example t.
    """
    if window < 1:
        raise ValueError(f"window: got {window}, expected at least 1")
    seen = np.arange(1, np.shape(correct)[-1] + 1)
    width = np.minimum(window, -(-seen // 4))
    sums = np.cumsum(np.asarray(correct, np.float64), axis=-1)
    sums = np.concatenate([np.zeros_like(sums[..., :1]), sums], axis=-1)
    return (sums[..., seen] - sums[..., seen - width]) / width


def learning_curves(
    path: str | os.PathLike[str],
    curves: Sequence[Curve],
    *,
    title: str | None = None,
    window: int = 50,
    log_x: bool = True,
) -> None:
    """Draw accuracy against examples seen, one panel per data set, and write the figure in one step.

    A line is the mean over episodes of `trailing_accuracy`; its band is the 95 % interval of that mean
    (normal approximation, standard error over episodes; none for a single episode). Chance is a dashed line,
    and a thin upright one stands where images begin to come again.

    Args:
        path: the file; its suffix (png, pdf, svg) is the format.
        curves: panels in order of first appearance; a learner has one colour in all panels.
        title: above all panels.
        window: examples to average over, see `trailing_accuracy`.
        log_x: whether examples seen are on a logarithmic axis, where fast early learning can be seen.

    Raises:
        ValueError: there are no curves.
        OSError: the file cannot be written.
    """
    if not curves:
        raise ValueError("learning_curves: got no curves, expected at least one")
    datasets = list(dict.fromkeys(curve.dataset for curve in curves))
    names = list(dict.fromkeys(curve.name for curve in curves))
    columns = 2 if len(datasets) == 4 else min(_PANELS_PER_ROW, len(datasets))
    rows = math.ceil(len(datasets) / columns)
    figure = _new_figure(4.0 * columns + 1.0, 3.1 * rows + 1.4, dots_per_inch=150)
    measures = {curve.measure for curve in curves}
    shared = list(figure.subplots(rows, columns, sharey=len(measures) == 1, squeeze=False).flat)
    for dataset, axes in zip(datasets, shared, strict=False):
        shown = [curve for curve in curves if curve.dataset == dataset]
        _style(axes, dataset, log_x, shown[0].measure)
        if len(measures) > 1:
            axes.set_ylabel(shown[0].measure, fontsize=11)
        for curve in shown:
            cycle, number = divmod(names.index(curve.name), len(COLOURS))
            _draw(axes, curve, COLOURS[number], _STYLES[cycle % len(_STYLES)], window)
        for chance in {curve.chance for curve in shown if curve.chance is not None}:
            axes.axhline(chance, color="#444444", linestyle="--", linewidth=1.3, label="chance", zorder=4)
        end = max(2, *(curve.support + np.shape(curve.correct)[1] for curve in shown))
        axes.set_xlim(1, end)
        for seen in {curve.repeats_after for curve in shown if curve.repeats_after is not None}:
            if seen < end:
                _mark_repetition(axes, seen)
    for unused in shared[len(datasets) :]:
        unused.set_visible(False)
    if len(measures) == 1:
        for first_of_row in shared[::columns]:
            first_of_row.set_ylabel(*measures, fontsize=11)
    _add_legend(figure, shared, title)
    figure.supxlabel(
        f"examples seen\n(mean over the last {window}, at first the last quarter;\n95 % band over episodes)",
        fontsize=10,
    )
    save(figure, path)


def _new_figure(width: float, height: float, dots_per_inch: int) -> "Figure":
    """Return an empty figure of a size in inches."""
    with needed_for("figures"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=dots_per_inch)
    FigureCanvasAgg(figure)
    return figure


def panels(
    rows: int,
    columns: int,
    width: float = 5.0,
    height: float = 3.6,
) -> "tuple[Figure, list[Axes]]":
    """Return an empty figure and its panels, row by row; sizes of one panel in inches."""
    figure = _new_figure(width * columns, height * rows + 0.6, dots_per_inch=130)
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def label(axes: "Axes", title: str, x: str, y: str) -> None:
    """Say what a panel shows."""
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def against(axes: "Axes", target: np.ndarray, prediction: np.ndarray) -> None:
    """Draw predictions against targets, and the line on which they are the same."""
    axes.scatter(target, prediction, s=3, color=COLOURS[0], linewidth=0)
    ends = [target.min(), target.max()]
    axes.plot(ends, ends, color="#444444", linewidth=0.8)


def save(figure: "Figure", path: str | os.PathLike[str]) -> None:
    """Write a figure; the suffix of the path is the format, png if there is none."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=Path(path).suffix.removeprefix(".") or "png")
    atomic_write(path, buffer.getvalue())


def _add_legend(figure: "Figure", panels: "Sequence[Axes]", title: str | None) -> None:
    """Put one legend for all panels above them, under the title, learners in order and chance last."""
    entries: dict[str, Any] = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if "chance" in entries:
        entries["chance"] = entries.pop("chance")
    figure.legend(
        entries.values(),
        entries.keys(),
        loc="outside upper center",
        ncols=min(len(entries), 4),
        frameon=False,
        fontsize=11,
        title=title,
        title_fontsize=13,
    )


def _style(axes: "Axes", dataset: str, log_x: bool, measure: str) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter

    axes.set_title(dataset, fontsize=12)
    if measure == "accuracy":
        axes.set_ylim(0, 1)
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    else:
        axes.set_ylim(0, _MOST_ERROR)
    if log_x:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.grid(which="major", color="#E3E3E3", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=10, color=_GREY)
    axes.tick_params(which="minor", color=_GREY)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_GREY)


def _mark_repetition(axes: "Axes", seen: int) -> None:
    axes.axvline(seen, color=_GREY, linewidth=0.8, zorder=1)
    axes.annotate(
        "images repeat",
        (seen, 0.98),
        xytext=(-2, 0),
        textcoords="offset points",
        rotation=90,
        ha="right",
        va="top",
        fontsize=7,
        color=_GREY,
    )


def _draw(axes: "Axes", curve: Curve, colour: str, style: Any, window: int) -> None:
    accuracy = curve.trailing(window)
    episodes, length = accuracy.shape
    seen = curve.support + np.arange(1, length + 1)
    mean = accuracy.mean(axis=0)
    marker = "o" if length == 1 else ""  # one point is no line
    axes.plot(
        seen, mean, color=colour, linestyle=style, marker=marker, linewidth=2, label=curve.name, zorder=3
    )
    if episodes > 1:
        half = NORMAL_95 * accuracy.std(axis=0, ddof=1) / math.sqrt(episodes)
        most = 1 if curve.baseline is None else np.inf
        low, high = np.clip(mean - half, 0, most), np.clip(mean + half, 0, most)
        axes.fill_between(seen, low, high, color=colour, alpha=0.2, linewidth=0, zorder=2)

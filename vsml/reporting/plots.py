"""Figures of a run: learning curves, and what other figures are drawn with."""

import io
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from vsml.reporting.intervals import half_width, ratios
from vsml.system.extras import needed_for
from vsml.system.files import atomic_write
from vsml.system.terminal import say

if TYPE_CHECKING:  # imported where they are used: curves without figures need no matplotlib
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

T = TypeVar("T")

# Okabe and Ito's colours, told apart with every kind of colour vision, darkest first.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
COLOURS_ON_DARK = ("#3D9BE0", "#F07F2E", "#1FBF93", "#DE92BD", "#8CCBF2", "#F2B92E", "#F0F0F0")
"""The same, lighter, for pages with a dark background."""

_STYLES = ("solid", (0, (5, 1)), "dotted")  # for more learners than colours; chance is dashed otherwise
_GREY = "#767676"
_PANELS_PER_ROW = 3
MOST_ERROR = 1.5
"""Relative errors above are off the panel: learners begin with a multiple of the mean's."""

NORMAL_95 = 1.96  # of a normal distribution, for those who import it; intervals here are Student's


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
        """Return what each episode gives to the measure over the latest examples, [episodes, T].

        See `trailing_accuracy`, and `vsml.reporting.intervals.ratios` for values.
        """
        score = trailing_accuracy(self.correct, window)
        if self.baseline is None:
            return score
        of_mean = trailing_accuracy(self.baseline, window)
        return ratios(score, of_mean)


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
    length = np.shape(correct)[-1]
    seen = np.arange(1, length + 1)
    quarter = -(-seen // 4)  # rounded up
    width = np.minimum(window, quarter)
    # A mean over a window is the difference of two sums from the start.
    values = np.asarray(correct, np.float64)
    sums = np.cumsum(values, axis=-1)
    nothing = np.zeros_like(sums[..., :1])
    sums = np.concatenate([nothing, sums], axis=-1)
    first = seen - width
    return (sums[..., seen] - sums[..., first]) / width


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
    (Student's t over episodes; none for a single episode). Chance is a dashed line,
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
    measures = {curve.measure for curve in curves}
    columns = min(_PANELS_PER_ROW, len(datasets))
    if len(datasets) == 4:  # two by two
        columns = 2
    rows = math.ceil(len(datasets) / columns)
    width = 4.0 * columns + 1.0
    height = 3.1 * rows + 1.4
    figure = _new_figure(width, height, dots_per_inch=150)
    grid = figure.subplots(
        rows,
        columns,
        sharey=len(measures) == 1,
        squeeze=False,
    )
    shared = list(grid.flat)
    for dataset, axes in zip(datasets, shared, strict=False):
        shown = [curve for curve in curves if curve.dataset == dataset]
        _draw_panel(axes, shown, names, window, log_x)
        if len(measures) > 1:
            axes.set_ylabel(shown[0].measure, fontsize=11)
    for unused in shared[len(datasets) :]:
        unused.set_visible(False)
    if len(measures) == 1:
        for first_of_row in shared[::columns]:
            first_of_row.set_ylabel(*measures, fontsize=11)
    _add_legend(figure, shared, title)
    averaged = f"mean over the last {window}, at first the last quarter"
    figure.supxlabel(
        f"examples seen\n({averaged};\n95 % band over episodes)",
        fontsize=10,
    )
    save(figure, path)


def _draw_panel(
    axes: "Axes",
    curves: Sequence[Curve],
    names: Sequence[str],
    window: int,
    log_x: bool,
) -> None:
    """Draw the curves of a data set, with chance and where its images come again."""
    _style(axes, curves[0].dataset, log_x, curves[0].measure)
    for curve in curves:
        cycle, number = divmod(names.index(curve.name), len(COLOURS))
        style = _STYLES[cycle % len(_STYLES)]
        _draw(axes, curve, COLOURS[number], style, window)
    for chance in _different(curve.chance for curve in curves):
        axes.axhline(
            chance,
            color="#444444",
            linestyle="--",
            linewidth=1.3,
            label="chance",
            zorder=4,
        )
    ends = [curve.support + np.shape(curve.correct)[1] for curve in curves]
    end = max(2, *ends)
    axes.set_xlim(1, end)
    for seen in _different(curve.repeats_after for curve in curves):
        if seen < end:
            _mark_repetition(axes, seen)


def _different(values: Iterable[T | None]) -> set[T]:
    """Return the different values that are there."""
    return {value for value in values if value is not None}


def _new_figure(width: float, height: float, dots_per_inch: int) -> "Figure":
    """Return an empty figure of a size in inches."""
    with needed_for("figures"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", dpi=dots_per_inch)
    FigureCanvasAgg(figure)
    return figure


def panels(rows: int, columns: int, width: float = 5.0, height: float = 3.6) -> "tuple[Figure, list[Axes]]":
    """Return an empty figure and its panels, row by row; sizes of one panel in inches."""
    size = (width * columns, height * rows + 0.6)
    figure = _new_figure(*size, dots_per_inch=130)
    grid = figure.subplots(rows, columns, squeeze=False)
    return figure, list(grid.flat)


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
    axes.plot(
        ends,
        ends,
        color="#444444",
        linewidth=0.8,
    )


def drawn(name: str, draw: Callable[[], None]) -> bool:
    """Draw a figure, and return whether that worked; nothing rests on a figure, so what fails is told only.

    Args:
        name: of the figure.
        draw: draws and writes it.

    Raises:
        OSError: it cannot be written.
    """
    try:
        draw()
    except OSError:
        raise
    except Exception as error:  # matplotlib raises of all kinds
        say(f"{name} could not be drawn, and is left out: {error!r}")
        return False
    return True


def save(figure: "Figure", path: str | os.PathLike[str]) -> None:
    """Write a figure; the suffix of the path is the format, png if there is none.

    Texts are shown as they are: `$` and `_` in the name of a data set are no mathematics.
    """
    _take_texts_literally(figure)
    suffix = Path(path).suffix.removeprefix(".")
    buffer = io.BytesIO()
    figure.savefig(buffer, format=suffix or "png")
    atomic_write(path, buffer.getvalue())


def _take_texts_literally(figure: "Figure") -> None:
    """Let matplotlib look for mathematics in the numbers of axes only, and replace what no font can have."""
    from matplotlib.text import Text

    texts = figure.findobj(Text)
    numbers: set[Any] = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            numbers.add(axis.offsetText)
            for tick in (*axis.majorTicks, *axis.minorTicks):
                numbers |= {tick.label1, tick.label2}
    for text in texts:
        if text not in numbers:
            text.set_parse_math(False)
            text.set_text(text.get_text().encode(errors="replace").decode())


def in_legend(name: str) -> str:
    """Return a name as a legend shows it; matplotlib leaves out what begins with an underscore."""
    return f" {name}" if name.startswith("_") else name


def _add_legend(figure: "Figure", panels: "Sequence[Axes]", title: str | None) -> None:
    """Put one legend for all panels above them, under the title, learners in order and chance last."""
    entries: dict[str, Any] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        for handle, label in zip(handles, labels, strict=True):
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
        percent = PercentFormatter(xmax=1, decimals=0)
        axes.yaxis.set_major_formatter(percent)
    else:
        axes.set_ylim(0, MOST_ERROR)
    if log_x:
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
    with_commas = FuncFormatter(lambda value, _: f"{value:,.0f}")
    axes.xaxis.set_major_formatter(with_commas)
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
        seen,
        mean,
        color=colour,
        linestyle=style,
        marker=marker,
        linewidth=2,
        label=in_legend(curve.name),
        zorder=3,
    )
    if episodes > 1:
        half = half_width(accuracy)
        most = 1 if curve.baseline is None else np.inf
        axes.fill_between(
            seen,
            np.clip(mean - half, 0, most),
            np.clip(mean + half, 0, most),
            color=colour,
            alpha=0.2,
            linewidth=0,
            zorder=2,
        )

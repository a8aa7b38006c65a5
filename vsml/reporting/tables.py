"""Tables: on a terminal, as plain text, as Markdown and as HTML; and those of evaluations."""

import html
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from vsml.system.extras import needed_for
from vsml.system.terminal import unfailing

if TYPE_CHECKING:
    import rich.table

from vsml.reporting.intervals import ends

DASH = "-"
"""Stands where there is no number."""

PriceCell = Callable[[Mapping[str, Any]], str]
"""From a row of an evaluation to what stands in a cell."""

_LAST = "_last"
_LONG_TEXT = 40  # characters in a cell of a page from which it may have several lines
_MILESTONE = re.compile(r"accuracy_at_(\d+)")


class Markup(str):
    """What stands in a cell and is HTML already; only `html_table` takes it for that."""


@dataclass(frozen=True)
class Table:
    """Headings and rows, to be rendered by one of the functions below; rich prints it as it is.

    Attributes:
        headings: of the columns.
        rows: each with a cell for each heading: text, a number, a list of these, or None for nothing.
        title: above the table, where there is room for one.
        caption: below it.
        left: headings of the columns that are aligned to the left; the others have numbers.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[Any]]
    title: str = ""
    caption: str = ""
    left: frozenset[str] = frozenset()

    def __rich__(self) -> "rich.table.Table":
        """Return the table as rich draws it; a text may look like rich's markup, and is none."""
        with needed_for("tables on a terminal"):
            import rich.table
            from rich.text import Text

        drawn = rich.table.Table(
            title=Text(self.title) if self.title else None,
            caption=Text(self.caption) if self.caption else None,
        )
        for heading in self.headings:
            if heading in self.left:
                drawn.add_column(Text(heading), justify="left")
            else:
                drawn.add_column(Text(heading), justify="right")
        for texts in self.texts():
            drawn.add_row(*map(Text, texts))
        return drawn

    def texts(self) -> list[list[str]]:
        """Return the rows as text."""
        rows = []
        for row in self.rows:
            rows.append(list(map(cell_text, row)))
        return rows


def table_of(rows: Iterable[Mapping[str, Any]], title: str = "") -> Table:
    """Return a table of mappings: columns in order of first appearance, without those that are empty."""
    rows = list(rows)
    filled: dict[str, bool] = {}
    for row in rows:
        for name, value in row.items():
            is_empty = value is None or value == ""
            filled[name] = filled.get(name, False) or not is_empty
    headings = [name for name in filled if filled[name]]
    cells = []
    for row in rows:
        cells.append(list(map(row.get, headings)))
    return Table(headings, cells, title)


def cell_text(value: Any) -> str:
    """Return what stands in a cell: of a float four digits, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(map(_element_text, value))
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}"
    return str(value)


def _element_text(value: Any) -> str:
    """Return an element of a list in a cell, of a float three digits."""
    if isinstance(value, float):
        return f"{value:,.3g}"
    return str(value)


def print_table(table: Table, stream: TextIO | None = None) -> None:
    """Print a table; where it cannot be, as into a log on a disk that is full, nothing happens.

    Args:
        table: the table.
        stream: where to, by default stdout.
    """
    with needed_for("tables on a terminal"):
        from rich.console import Console

    Console(file=unfailing(stream)).print(table)


def markdown(table: Table) -> str:
    """Return a table as Markdown, without title and caption; the last line has no line end."""
    rule = "|" + "---|" * len(table.headings)
    lines = [markdown_row(table.headings), rule]
    lines += map(markdown_row, table.texts())
    return "\n".join(lines)


def markdown_row(cells: Sequence[str]) -> str:
    """Return a line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def plain(table: Table) -> str:
    """Return a table as plain text, its title in the place of the first heading; no trailing blanks."""
    first, *others = table.headings
    head = [table.title or first, *others]
    rows = [head, *table.texts()]
    columns = []
    for heading, *cells in zip(table.headings, *rows, strict=True):
        width = max(map(len, cells))
        if heading in table.left:
            aligned = [cell.ljust(width) for cell in cells]
        else:
            aligned = [cell.rjust(width) for cell in cells]
        columns.append(aligned)
    lines = []
    for line in zip(*columns, strict=True):
        lines.append("   ".join(line).rstrip())
    return "\n".join(lines)


def html_table(table: Table) -> str:
    """Return a table as HTML, numbers to the right; nothing for one without rows."""
    if not table.rows:
        return ""
    head = ""
    for heading in table.headings:
        head += f"<th>{html.escape(heading)}</th>"
    lines = [f"<tr>{head}</tr>"]
    for row in table.rows:
        cells = "".join(map(_html_cell, row))
        lines.append(f"<tr>{cells}</tr>")
    return "<table>" + "\n".join(lines) + "</table>\n"


def _html_cell(value: Any) -> str:
    if isinstance(value, Markup):
        return f"<td>{value}</td>"
    text = html.escape(cell_text(value))
    is_number = isinstance(value, int | float)
    if is_number and not isinstance(value, bool):
        return f'<td class="number">{text}</td>'
    if len(text) > _LONG_TEXT:
        return f'<td class="long">{text}</td>'
    return f"<td>{text}</td>"


# ---- tables of evaluations
#
# Rows of classes are measured by accuracy, rows of values by their relative error. Columns go by the names
# of accuracies, whatever a row is measured by.


def metric_of(row: Mapping[str, Any]) -> str:
    """Return the name of the metric that a row of an evaluation is measured by."""
    return row.get("metric", "accuracy")


def score_of(row: Mapping[str, Any], column: str) -> float | None:
    """Return what a row has in a column, such as `accuracy_last`, by its own metric; None for nothing."""
    return row.get(_own_name(row, column))


def interval_of(row: Mapping[str, Any], column: str) -> float | None:
    """Return the half width of the 95 % interval of `score_of`; None where it is not known."""
    intervals = row.get("interval_95", {})
    return intervals.get(_own_name(row, column))


def _own_name(row: Mapping[str, Any], column: str) -> str:
    return column.replace("accuracy", metric_of(row), 1)


def accuracy_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the headings of the accuracies that any row of an evaluation has, by their names in it.

    Args:
        rows: of evaluation.json: with `accuracy_at_10`, ... and `accuracy_last`, as far as they are there,
            and `recent_share`.
    """
    there = set()
    for row in rows:
        for name, value in row.items():
            if value is not None:
                there.add(name.replace(metric_of(row), "accuracy", 1))
    milestones = {}
    for name in there:
        if match := _MILESTONE.fullmatch(name):
            seen = int(match[1])
            milestones[seen] = name
    word = "example" if _shows_single_examples(rows) else "at"
    columns = {}
    for seen in sorted(milestones):
        name = milestones[seen]
        columns[name] = f"{word} {seen:,}"
    if "accuracy_last" in there:
        columns["accuracy_last"] = "last"
    return columns


def metric_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the headings of the metrics that were asked for beside the main ones, by their names in rows.

    Args:
        rows: of evaluation.json; each metric that was measured is in `interval_95`, and such as `brier_last`
            is what it was on the last examples.
    """
    main = set(map(metric_of, rows))
    columns = {}
    for row in rows:
        for name in row.get("interval_95", {}):
            metric = name.removesuffix(_LAST)
            if name.endswith(_LAST) and metric not in main:
                columns[name] = f"{metric.replace('_', ' ')}, last"
    return columns


def score_cell(
    row: Mapping[str, Any],
    column: str,
    percent: bool = False,
) -> str:
    """Return what a row has in a column as text, with its interval where that is known.

    An accuracy near 1 has the ends of its interval instead of a half width that would reach beyond 1.
    """
    is_accuracy = metric_of(row) == "accuracy"
    return accuracy_cell(score_of(row, column), interval_of(row, column), percent, bounded=is_accuracy)


def accuracy_cell(
    value: float | None,
    width: float | None = None,
    percent: bool = False,
    bounded: bool = True,
) -> str:
    """Return an accuracy as text, with its interval where that is known.

    Args:
        value: the accuracy; None is shown as a dash.
        width: half width of its interval. Where that reaches below 0 or above 1, its ends are shown, cut.
        percent: whether it is shown in percent.
        bounded: whether values are between 0 and 1; those of other metrics keep their half width.
    """
    if value is None:
        return DASH

    def text(share: float) -> str:
        if percent:
            return f"{100 * share:.1f}"
        return f"{share:.3f}"

    if width is None:
        return text(value)
    low, high = ends(value, width, most=1.0)
    if not bounded:
        return f"{text(value)} ± {text(width)}"
    if low > value - width or high < value + width:
        return f"{text(value)} ({text(low)} to {text(high)})"
    return f"{text(value)} ± {text(width)}"


def tried_text(row: Mapping[str, Any]) -> str:
    """Return the settings that were the best of those tried, by the last part of their names."""
    settings = []
    for path, value in row.get("tried", {}).items():
        name = path.rpartition(".")[2]
        settings.append(f"{name} {value}")
    return ", ".join(settings)


def results_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Return a table of evaluation results.

    Args:
        rows: each with `learner`, `dataset`, and what `accuracy_columns` and `metric_columns` look at; a
            number that is missing or None is shown as a dash, and a column of which all are is left out.
    """
    rows = list(rows)
    columns = accuracy_columns(rows) | metric_columns(rows)
    prices = price_columns(rows)
    cells = []
    for row in rows:
        line = [str(row["learner"]), str(row["dataset"])]
        for name in columns:
            line.append(accuracy_cell(score_of(row, name)))
        line += [price(row) for price in prices.values()]
        cells.append(line)
    left = ("learner", "data set")
    return Table(
        [*left, *columns.values(), *prices],
        cells,
        title=_metrics_in(rows),
        left=frozenset(left),
    )


def print_results(rows: Iterable[Mapping[str, Any]], stream: TextIO | None = None) -> None:
    """Print `results_table(rows)`; arguments as there and in `print_table`."""
    print_table(results_table(rows), stream)


def markdown_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return evaluation results as a Markdown table, by data set in order of first appearance.

    Of several learners there is a small table before it: what each reached on each data set at the end.

    Args:
        rows: as in `results_table`, with `interval_95`, `tried` and `recent_share` besides.
    """
    rows = list(rows)
    columns = accuracy_columns(rows) | metric_columns(rows)
    prices = price_columns(rows)
    cells = []
    for dataset in _different(rows, "dataset"):
        for row in rows:
            if row["dataset"] == dataset:
                cells.append(_markdown_cells(row, columns, prices.values()))
    headings = ["data set", "learner", *columns.values(), *prices, "settings tried"]
    full = markdown(Table(headings, cells))
    parts = [full, "", caption(rows), ""]
    if len(_different(rows, "learner")) > 1:
        where = "examples"
        if _shows_single_examples(rows):
            where = "example"
        explained = f"{_metrics_in(rows).capitalize()} on the last {where} in percent. In full:"
        matrix = markdown(matrix_table(rows))
        parts = [matrix, "", explained, "", *parts]
    return "\n".join(parts)


def _metrics_in(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the names of all metrics that rows are measured by, as text."""
    names = dict.fromkeys(map(metric_of, rows))
    return " and ".join(names).replace("_", " ") or "accuracy"


_EXPLAINED = {
    "accuracy": "Accuracy: share of right answers",
    "relative_error": "Relative error (1: no better than the mean of the targets so far; 0: perfect)",
}


def caption(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say what the numbers of a table of rows of evaluation.json are."""
    sentences = []
    for metric in dict.fromkeys(map(metric_of, rows)):
        sentences.append(
            f"{_EXPLAINED.get(metric, metric)} on {_recent(rows)}, mean over episodes and half width, or "
            "ends, of its 95 % interval."
        )
    others = [heading.removesuffix(", last") for heading in metric_columns(rows).values()]
    if others:
        names = ", ".join(others)
        sentences.append(f"{names.capitalize()}: likewise, at the end (see docs/metrics.md).")
    if price_columns(rows):
        sentences.append(
            "State: numbers kept between steps, in brackets those drawn once that never change. Cost: "
            "floating-point operations for each example, counted, or microseconds where they cannot be."
        )
    return " ".join(sentences)


def price_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, PriceCell]:
    """Return headings and cells of what learners keep and take; none if that is known of no row."""
    if all(row.get("state") is None for row in rows):
        return {}
    return {"state": state_cell, "cost": cost_cell}


def state_cell(row: Mapping[str, Any]) -> str:
    """Return how many numbers a learner keeps, as text, and in brackets how many never change."""
    if row.get("state") is None:
        return DASH
    fixed = f" (+ {row['fixed']:,})" if row.get("fixed") else ""
    return f"{row['state']:,}{fixed}"


def cost_cell(row: Mapping[str, Any]) -> str:
    """Return what an example takes, as text: operations that were counted, or time that was measured."""
    if row.get("flops") is not None:
        return f"{scaled(row['flops'])}FLOP"
    if row.get("microseconds") is not None:
        return f"{row['microseconds']:,.0f} µs"
    return DASH


def scaled(number: float) -> str:
    """Return a number with three digits and the prefix of a unit: "1.23 M"."""
    for power, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= power:
            return f"{number / power:.3g} {prefix}"
    return f"{number:.3g} "


def _different(rows: Iterable[Mapping[str, Any]], key: str) -> list[str]:
    """Return the different values of a key, in order of first appearance."""
    values = [row[key] for row in rows]
    return list(dict.fromkeys(values))


def _markdown_cells(
    row: Mapping[str, Any],
    columns: Iterable[str],
    prices: Iterable[PriceCell],
) -> list[str]:
    cells = [row["dataset"], str(row["learner"])]
    for name in columns:
        cells.append(score_cell(row, name))
    cells += [price(row) for price in prices]
    cells.append(tried_text(row))
    return cells


def matrix_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table of learners and data sets: `accuracy_last` in percent."""
    datasets = _different(rows, "dataset")
    prices = price_columns(rows)
    reached = {}
    for row in rows:
        place = row["learner"], row["dataset"]
        reached[place] = score_cell(row, "accuracy_last", percent=True)
    cells = []
    for learner in _different(rows, "learner"):
        line = [learner]
        for dataset in datasets:
            line.append(reached.get((learner, dataset), DASH))
        own = [row for row in rows if row["learner"] == learner]
        line += [_range(own, price) for price in prices.values()]
        cells.append(line)
    return Table(
        ["learner", *datasets, *prices],
        cells,
        left=frozenset(["learner"]),
    )


def _range(
    rows: Sequence[Mapping[str, Any]],
    price: PriceCell,
) -> str:
    """Return what stands in the cells of rows: of several different ones the least and the largest."""
    by_state = sorted(rows, key=lambda row: (row.get("state") or 0, row.get("flops") or 0))
    different = list(dict.fromkeys(map(price, by_state)))
    return " to ".join(dict.fromkeys((different[0], different[-1])))


def _shows_single_examples(rows: Sequence[Mapping[str, Any]]) -> bool:
    return all(row.get("recent_share") == 0 for row in rows)


def _recent(rows: Sequence[Mapping[str, Any]]) -> str:
    if _shows_single_examples(rows):
        return "that example alone"
    percent = 100 * rows[0]["recent_share"]
    return f"the last {percent:.3g} % of the examples up to there"

"""Tables: on a terminal, as plain text, as Markdown and as HTML; and those of evaluations."""

import contextlib
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

import rich.table
from rich.console import Console
from rich.text import Text

DASH = "-"
"""Stands where there is no number."""

_MILESTONE = re.compile(r"accuracy_at_(\d+)")


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

    def __rich__(self) -> rich.table.Table:
        """Return the table as rich draws it."""
        drawn = rich.table.Table(title=self.title or None, caption=self.caption or None)
        for heading in self.headings:
            drawn.add_column(heading, justify="left" if heading in self.left else "right")
        for row in self.rows:
            # Text, since what is in a cell, such as a path, may look like markup.
            drawn.add_row(*[Text(cell_text(cell)) for cell in row])
        return drawn


def table_of(rows: Iterable[Mapping[str, Any]], title: str = "") -> Table:
    """Return a table of mappings: columns in order of first appearance, without those that are empty."""
    rows = list(rows)
    headings: dict[str, None] = {}
    for row in rows:
        headings |= dict.fromkeys(row)
    filled = [name for name in headings if any(row.get(name) not in (None, "") for row in rows)]
    cells = [[row.get(name) for name in filled] for row in rows]
    return Table(filled, cells, title)


def cell_text(value: Any) -> str:
    """Return what stands in a cell: of a float four digits, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(f"{each:,.3g}" if isinstance(each, float) else str(each) for each in value)
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def print_table(table: Table, stream: TextIO | None = None) -> None:
    """Print a table; where it cannot be, as into a log on a disk that is full, nothing happens.

    Args:
        table: the table.
        stream: where to, by default stdout.
    """
    with contextlib.suppress(OSError):
        Console(file=stream).print(table)


def markdown(table: Table) -> str:
    """Return a table as Markdown, without title and caption; the last line has no line end."""
    lines = [markdown_row(table.headings), "|" + "---|" * len(table.headings)]
    lines += [markdown_row([cell_text(cell) for cell in row]) for row in table.rows]
    return "\n".join(lines)


def markdown_row(cells: Sequence[str]) -> str:
    """Return a line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def plain(table: Table) -> str:
    """Return a table as plain text, its title in the place of the first heading; no trailing blanks."""
    head = [table.title or table.headings[0], *table.headings[1:]]
    rows = [head, *[[cell_text(cell) for cell in row] for row in table.rows]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = []
    for row in rows:
        cells = []
        for heading, cell, width in zip(table.headings, row, widths, strict=True):
            cells.append(cell.ljust(width) if heading in table.left else cell.rjust(width))
        lines.append("   ".join(cells).rstrip())
    return "\n".join(lines)


def html_table(table: Table) -> str:
    """Return a table as HTML, numbers to the right; nothing for one without rows."""
    if not table.rows:
        return ""
    head = "".join(f"<th>{html.escape(heading)}</th>" for heading in table.headings)
    lines = [f"<tr>{head}</tr>"]
    for row in table.rows:
        cells = "".join(_html_cell(cell) for cell in row)
        lines.append(f"<tr>{cells}</tr>")
    return "<table>" + "\n".join(lines) + "</table>\n"


def _html_cell(value: Any) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    kind = ' class="number"' if is_number else ""
    return f"<td{kind}>{html.escape(cell_text(value))}</td>"


# ---- tables of evaluations


def accuracy_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the headings of the accuracies that any row of an evaluation has, by their names in it.

    Args:
        rows: of evaluation.json: with `accuracy_at_10`, ... and `accuracy_last`, as far as they are there,
            and `recent_share`.
    """
    there: dict[str, None] = {}
    for row in rows:
        there |= dict.fromkeys(name for name, value in row.items() if value is not None)
    milestones = {}
    for name in there:
        if match := _MILESTONE.fullmatch(name):
            milestones[int(match[1])] = name
    word = "example" if _shows_single_examples(rows) else "at"
    columns = {milestones[seen]: f"{word} {seen:,}" for seen in sorted(milestones)}
    if "accuracy_last" in there:
        columns["accuracy_last"] = "last"
    return columns


def accuracy_cell(value: float | None, width: float | None = None, percent: bool = False) -> str:
    """Return an accuracy as text, with the half width of its interval where that is known."""
    if value is None:
        return DASH
    scale, digits = (100, 1) if percent else (1, 3)
    numbers = [value] if width is None else [value, width]
    return " ± ".join(f"{scale * each:.{digits}f}" for each in numbers)


def tried_text(row: Mapping[str, Any]) -> str:
    """Return the settings that were the best of those tried, by the last part of their names."""
    return ", ".join(f"{name.rpartition('.')[2]} {value}" for name, value in row.get("tried", {}).items())


def results_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Return a table of evaluation results.

    Args:
        rows: each with `learner`, `dataset`, and what `accuracy_columns` looks at; an accuracy that is
            missing or None is shown as a dash, and a column of which all are is left out.
    """
    rows = list(rows)
    columns = accuracy_columns(rows)
    cells = []
    for row in rows:
        accuracies = [accuracy_cell(row.get(name)) for name in columns]
        cells.append([str(row["learner"]), str(row["dataset"]), *accuracies])
    left = ("learner", "data set")
    return Table([*left, *columns.values()], cells, title="accuracy", left=frozenset(left))


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
    columns = accuracy_columns(rows)
    order = list(dict.fromkeys(row["dataset"] for row in rows))
    cells = []
    for row in sorted(rows, key=lambda row: order.index(row["dataset"])):
        accuracies = [accuracy_cell(row.get(name), row["interval_95"].get(name)) for name in columns]
        cells.append([row["dataset"], str(row["learner"]), *accuracies, tried_text(row)])
    table = Table(["data set", "learner", *columns.values(), "settings tried"], cells)
    caption = (
        f"Accuracy: share of right answers on {_recent(rows)}, mean over episodes and half width of its "
        "95 % interval."
    )
    parts = [markdown(table), "", caption, ""]
    if len({row["learner"] for row in rows}) > 1:
        where = "the last example" if _shows_single_examples(rows) else "the last examples"
        explained = f"Accuracy on {where} in percent. In full:"
        parts = [markdown(matrix_table(rows)), "", explained, "", *parts]
    return "\n".join(parts)


def matrix_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return a table of learners and data sets: `accuracy_last` in percent."""
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    reached = {}
    for row in rows:
        width = row["interval_95"].get("accuracy_last")
        cell = accuracy_cell(row.get("accuracy_last"), width, percent=True)
        reached[row["learner"], row["dataset"]] = cell
    cells = []
    for learner in dict.fromkeys(row["learner"] for row in rows):
        cells.append([learner, *[reached.get((learner, dataset), DASH) for dataset in datasets]])
    return Table(["learner", *datasets], cells, left=frozenset(["learner"]))


def _shows_single_examples(rows: Sequence[Mapping[str, Any]]) -> bool:
    return all(row.get("recent_share") == 0 for row in rows)


def _recent(rows: Sequence[Mapping[str, Any]]) -> str:
    if _shows_single_examples(rows):
        return "that example alone"
    return f"the last {100 * rows[0]['recent_share']:.3g} % of the examples up to there"

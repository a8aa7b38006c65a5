"""Draw how cost grows along each axis, from the numbers that a benchmark wrote.

    python benchmarks/figure.py benchmarks/results/RESULT.json [--output docs/results/performance.png]

What was left out, for its time or memory, is missing.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator, StrMethodFormatter

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results"

COLUMNS = {
    "inputs": ("inputs", "inputs of one layer"),
    "depth": ("depth", "layers, 32 units between them"),
    "population": ("members", "members at once"),
    "episode": ("episode_length", "steps of an episode"),
}
"""By axis: what of a row varies, and how the axis is labelled."""

# Okabe and Ito's colours, told apart with every kind of colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""Larger for later contestants, so that equal ones can be told apart."""

LINES = {"forward": "-", "gradient": "--"}
ROOFLINE = "least time, by the machine's rates"


def points(rows: Sequence[dict[str, Any]], axis: str, what: str, contestant: str) -> list[dict[str, Any]]:
    """Return the rows of one line in the order of its axis; the base point is on every axis."""
    field, _ = COLUMNS[axis]
    chosen = [
        row
        for row in rows
        if row["axis"] in ("base", axis) and row["what"] == what and row["contestant"] == contestant
    ]
    return sorted(chosen, key=lambda row: row[field])


def draw(record: dict[str, Any]) -> Figure:
    """Return the figure: time per example above, memory of a device below, a column for each axis."""
    rows = record["results"]
    columns = [axis for axis in COLUMNS if any(row["axis"] == axis for row in rows)]
    if not columns:
        raise ValueError(f"expected a result in which one of {', '.join(COLUMNS)} varies")
    contestants = list(dict.fromkeys(row["contestant"] for row in rows))
    styles = {
        name: {"color": colour, "marker": marker, "markersize": 3 + 1.5 * number, "fillstyle": "none"}
        for number, (name, colour, marker) in enumerate(zip(contestants, COLOURS, MARKERS, strict=False))
    }
    figure = Figure(figsize=(3.2 * len(columns) + 0.6, 6.4), layout="constrained")
    panels = figure.subplots(2, len(columns), squeeze=False, sharey="row", sharex="col")
    for column, axis in enumerate(columns):
        field, label = COLUMNS[axis]
        upper, lower = panels[:, column]
        for what, line in LINES.items():
            for name in contestants:
                found = points(rows, axis, what, name)
                style = styles[name] | {"linestyle": line}
                timed = [row for row in found if row["examples_per_s"]]
                upper.plot([r[field] for r in timed], [1e6 / r["examples_per_s"] for r in timed], **style)
                compiled = [row for row in found if row["memory_bytes"]]
                sizes = [row["memory_bytes"] / 2**20 for row in compiled]
                lower.plot([row[field] for row in compiled], sizes, **style)
            least = [row for row in points(rows, axis, what, contestants[0]) if row["least_s_of_example"]]
            times = [1e6 * row["least_s_of_example"] for row in least]
            upper.plot([row[field] for row in least], times, color="0.6", linestyle=line)
        ticks = sorted({row[field] for row in rows if row["axis"] in ("base", axis)})
        for panel in (upper, lower):
            _logarithmic(panel, ticks)
        lower.set_xlabel(label)
    panels[0, 0].set_ylabel("time per example (µs)")
    panels[1, 0].set_ylabel("memory of a device (MiB)")
    handles = [Line2D([], [], **style, label=name) for name, style in styles.items()]
    handles += [Line2D([], [], color="0.2", linestyle=line, label=what) for what, line in LINES.items()]
    if any(row["least_s_of_example"] for row in rows):
        handles.append(Line2D([], [], color="0.6", label=ROOFLINE))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    base = next(row for row in rows if row["axis"] == "base")
    start = f"{base['layers'].replace('-', ' x ')}, {base['members']} members, {base['episode_length']} steps"
    title = f"{record['machine']['name']}, {record['date']}; unless it varies: {start}"
    figure.suptitle(title, fontsize="medium")
    return figure


def _logarithmic(panel: Axes, ticks: list[float]) -> None:
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.xaxis.set_major_locator(FixedLocator(ticks))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    panel.yaxis.set_major_formatter(StrMethodFormatter("{x:,.6g}"))
    panel.tick_params(labelsize="small")
    panel.grid(True, color="0.9")
    panel.set_axisbelow(True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("result", type=Path, help="JSON that benchmarks/synapses.py wrote")
    parser.add_argument("--output", type=Path, default=RESULTS / "performance.png", help="file of the figure")
    options = parser.parse_args(arguments)
    try:
        figure = draw(json.loads(options.result.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        parser.error(f"{options.result}: {error}")
    figure.savefig(options.output, dpi=150)


if __name__ == "__main__":
    main()

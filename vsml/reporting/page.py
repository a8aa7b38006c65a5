"""The page about runs: overview, curves to hover over and to zoom into, tables, figures, what differs.

One HTML file that needs no network: figures, data and the library that draws are in it.
"""

import base64
import html
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
import yaml
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from vsml.reporting import plots, tables
from vsml.reporting.intervals import half_width
from vsml.runs.reading import TABLES, Run
from vsml.settings import differences
from vsml.system.files import check_own, read_regular

POINTS = 200
"""Of a learning curve, evenly spaced on a logarithmic axis."""

_NAMES = ("learner", "quantity", "dataset")  # what says in these files whose numbers they are

_X_AXES = {"step": "meta steps", "examples": "examples", "minutes": "minutes"}
_NO_CURVES = ("step", "wall_s", "examples", "minutes")
_PANEL_HEIGHT = 300  # pixels
_LEGEND_HEIGHT = 120
_COLUMNS = 2
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1200px; margin: auto; padding: 1em }
h1 { font-size: 1.6em } h2 { font-size: 1.25em; margin-top: 2em; border-bottom: 1px solid #ccc }
table { border-collapse: collapse; font-size: 0.9em; margin: 1em 0; display: block; overflow-x: auto }
th, td { border: 1px solid #ddd; padding: 0.25em 0.6em; text-align: left; vertical-align: top }
th { background: #f3f3f3 } td.number { text-align: right; font-variant-numeric: tabular-nums }
figure { margin: 1em 0 } figure img { max-width: 100% } figcaption { color: #666; font-size: 0.9em }
pre { background: #f7f7f7; padding: 1em; overflow-x: auto; font-size: 0.85em }
"""


def report(runs: Sequence[Run]) -> str:
    """Return the page about runs, as HTML."""
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs"
    sections = [
        ("Runs", _html(_overview(run) for run in runs)),
        ("Meta-training", _meta_training(runs)),
        ("Learning curves", _learning_curves(runs)),
        ("Accuracy", _html(_accuracies(runs))),
        *((heading, _html(_noted(runs, heading))) for heading in TABLES),
        ("What differs", _html(_differences(runs)) if len(runs) > 1 else ""),
        ("Figures", "".join(_images(runs))),
        ("Configurations", "".join(map(_configuration, runs))),
    ]
    body = "\n".join(f"<h2>{name}</h2>\n{content}" for name, content in sections if content)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n<script>{get_plotlyjs()}</script>\n</head>\n<body>\n"
        f"<h1>{html.escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def _html(rows: Iterable[Mapping[str, Any]]) -> str:
    return tables.html_table(tables.table_of(rows))


def _overview(run: Run) -> dict[str, Any]:
    git = run.environment.get("git") or {}
    device = run.environment.get("device") or {}
    last = run.metrics[-1] if run.metrics else {}
    commit = str(git.get("commit") or "unknown")[:10]
    return {
        "run": run.name,
        "call": run.config.get("call"),
        "state": "complete" if run.complete else "not complete",
        "meta steps": last.get("step"),
        "examples": last.get("examples"),
        "minutes": last.get("minutes"),
        "loss": next((line["meta_loss"] for line in reversed(run.metrics) if "meta_loss" in line), None),
        "seed": run.config.get("seed"),
        "commit": commit + (" with changes" if git.get("dirty") else ""),
        "device": f"{device.get('count', '?')} x {device.get('kind', 'unknown')}",
        "ranks": run.environment.get("world_size"),
    }


def _meta_training(runs: Sequence[Run]) -> str:
    """Draw each number of the metrics over meta steps, examples or minutes, whichever is chosen."""
    names = dict.fromkeys(
        name
        for run in runs
        for line in run.metrics
        for name, value in line.items()
        if name not in _NO_CURVES and isinstance(value, int | float)
    )
    if not names:
        return ""
    figure = _panels([*names])
    positions: list[list[list[Any]]] = [[] for _ in _X_AXES]
    for number, name in enumerate(names):
        row, column = divmod(number, _COLUMNS)
        for index, run in enumerate(runs):
            lines = [line for line in run.metrics if line.get(name) is not None]
            if not lines:
                continue
            for places, axis in zip(positions, _X_AXES, strict=True):
                places.append([line.get(axis) for line in lines])
            figure.add_trace(
                _line(run.name, positions[0][-1], [line[name] for line in lines], index, first=number == 0),
                row=row + 1,
                col=column + 1,
            )
    buttons = [
        {"label": label, "method": "restyle", "args": [{"x": places}]}
        for label, places in zip(_X_AXES.values(), positions, strict=True)
    ]
    figure.update_layout(
        updatemenus=[
            {"buttons": buttons, "x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom", "pad": {"b": 30}}
        ]
    )
    return _drawn(figure, "meta-training")


def _learning_curves(runs: Sequence[Run]) -> str:
    """Draw accuracy, or the relative error of values, against examples seen, a panel for each data set."""
    curves = []
    for run in runs:
        for row in run.evaluation:
            key = f"{row['learner']}/{row['dataset']}"
            name = f"{run.name}: {row['learner']}" if len(runs) > 1 else row["learner"]
            if key in run.curves:
                curve = plots.Curve(name, row["dataset"], run.curves[key], baseline=run.baselines.get(key))
                curves.append((name, row, curve))
    datasets = list(dict.fromkeys(row["dataset"] for _, row, _ in curves))
    names = list(dict.fromkeys(name for name, _, _ in curves))
    if not curves:
        return ""
    figure = _panels(datasets)
    drawn: set[str] = set()
    for name, row, curve in curves:
        place = divmod(datasets.index(row["dataset"]), _COLUMNS)
        accuracy = curve.trailing()
        shown = np.unique(np.geomspace(1, accuracy.shape[1], POINTS).round().astype(int))
        trace = _line(name, shown, accuracy.mean(0)[shown - 1], names.index(name), first=name not in drawn)
        if len(accuracy) > 1:
            half = half_width(accuracy)
            trace.customdata = half[shown - 1]
            trace.hovertemplate = "%{y:.3f} ± %{customdata:.3f} at %{x}"
        drawn.add(name)
        figure.add_trace(trace, row=place[0] + 1, col=place[1] + 1)
    figure.update_xaxes(type="log", title_text="examples seen")
    if not any(run.baselines for run in runs):
        figure.update_yaxes(range=[0, 1], tickformat=".0%")
    return _drawn(figure, "learning-curves")


def _panels(titles: Sequence[str]) -> go.Figure:
    rows = math.ceil(len(titles) / _COLUMNS)
    columns = min(_COLUMNS, len(titles))
    figure = make_subplots(rows, columns, subplot_titles=[html.escape(title) for title in titles])
    figure.update_layout(
        template="plotly_white",
        height=_PANEL_HEIGHT * rows + _LEGEND_HEIGHT,
        margin={"t": _LEGEND_HEIGHT},
        legend={"orientation": "h", "yref": "container", "y": 1, "yanchor": "top"},
        hovermode="x unified",
        hoverdistance=-1,  # the nearest point, however far
    )
    return figure


def _line(name: str, x: Any, y: Any, number: int, first: bool) -> go.Scatter:
    """Return a curve, which all panels hide and show together and the legend has once."""
    colour = plots.COLOURS[number % len(plots.COLOURS)]
    dash = ("solid", "dash", "dot")[number // len(plots.COLOURS) % 3]
    return go.Scatter(
        x=list(map(_plain, x)),
        y=list(map(_plain, y)),
        name=html.escape(name),
        legendgroup=name,
        showlegend=first,
        mode="lines+markers" if len(x) == 1 else "lines",
        line={"color": colour, "dash": dash},
    )


def _plain(number: Any) -> Any:
    return number.item() if isinstance(number, np.generic) else number


def _drawn(figure: go.Figure, name: str) -> str:
    return figure.to_html(full_html=False, include_plotlyjs=False, div_id=name)


def _accuracies(runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    for run in runs:
        columns = tables.accuracy_columns(run.evaluation)
        for row in run.evaluation:
            cells: dict[str, Any] = {"data set": row["dataset"], "learner": row["learner"], "run": run.name}
            for name, heading in columns.items():
                cells[heading] = tables.score_cell(row, name)
            cells |= {"loss": row.get("loss"), "episodes": row.get("episodes")}
            yield {**cells, "settings": tables.tried_text(row)}


def _noted(runs: Sequence[Run], heading: str) -> Iterator[dict[str, Any]]:
    """Yield a row for each number, with a column for each learner, quantity or data set of each run."""
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        for row in run.tables[heading]:
            names = [row[key] for key in _NAMES if key in row]
            column = f"{run.name}: {', '.join(names)}"
            for key, value in row.items():
                if key not in _NAMES:
                    found.setdefault(key.replace("_", " "), {})[column] = value
    for key, values in found.items():
        yield {"number": key, **values}


def _differences(runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    """Yield the settings that are not the same in all runs."""
    first, *others = runs
    found: dict[str, dict[str, Any]] = {}
    for run in others:
        for path, one, other in differences(first.config, run.config):
            found.setdefault(path, {first.name: one})[run.name] = other
    for path, values in sorted(found.items()):
        same = values[first.name]
        yield {"setting": path} | {run.name: json.dumps(values.get(run.name, same)) for run in runs}


def _images(runs: Sequence[Run]) -> Iterator[str]:
    for run in runs:
        for image in sorted(run.path.glob("*.png")):
            caption = html.escape(f"{run.name}: {image.name}")
            try:
                check_own(image)
                data = base64.b64encode(read_regular(image)).decode()
            except OSError as error:  # a link to a file of the reader's, which is not to be passed on
                yield f"<p>{caption}: left out: {html.escape(str(error))}</p>\n"
                continue
            yield (
                f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
                f"<figcaption>{caption}</figcaption></figure>\n"
            )


def _configuration(run: Run) -> str:
    command = " ".join(map(str, run.environment.get("command_line", ())))
    text = yaml.safe_dump(run.config, sort_keys=False)
    return (
        f"<details><summary>{html.escape(run.name)}</summary><pre>{html.escape(command)}\n\n"
        f"{html.escape(text)}</pre></details>\n"
    )

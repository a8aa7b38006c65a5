"""The page about runs: what was reached, curves to hover over and to zoom into, figures, what differs.

One HTML file that needs no network: figures, data and the library that draws are in it.
"""

import base64
import html
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from plotly.offline import get_plotlyjs

from vsml.reporting import plots, sparks, tables
from vsml.reporting.intervals import half_width
from vsml.reporting.panels import Line, Panel, panels_html
from vsml.reporting.ranking import Ranking, Standing, last_loss, rank
from vsml.runs.metrics import is_number
from vsml.runs.reading import TABLES, Run, curve_key
from vsml.settings import differences

POINTS = 200
"""Of a learning curve, evenly spaced on a logarithmic axis."""

_NAMES = ("learner", "quantity", "dataset")  # what says in these files whose numbers they are

_X_AXES = {"step": "meta steps", "examples": "examples", "minutes": "minutes"}
_NO_CURVES = ("step", "wall_s", "examples", "minutes")

_MOST_RUNS_DRAWN = 10
"""Runs whose curves are drawn, the best ones; more cannot be told apart."""

_MOST_POINTS = 150_000
"""Of all curves of meta-training together: about 6 MB."""

_MOST_POINTS_OF_CURVE = 1000

_MOST_CURVES = 20_000
"""Curves of meta-training; numbers beyond are left out."""

_MOST_FIGURE_BYTES = 8_000_000
"""Of all figures together, as they are in the page."""

_MOST_DAMAGE_SHOWN = 50

_MOST_SETTINGS_SHOWN = 8
"""Settings that a ranking has a column for."""

_MOST_RUNS_BESIDE = 6
"""Runs whose accuracies and settings stand in tables that are not folded."""

_SPARK_POINTS = 60
_MOST_MINUTES_EXACT = 1000  # of more minutes the fractions are left out


def report(runs: Sequence[Run]) -> str:
    """Return the page about runs, as HTML: what was reached first, then how, then what with."""
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs"
    ranking = rank(runs)
    drawn = [each.run for each in ranking.standings[:_MOST_RUNS_DRAWN]]
    several = len(runs) > 1
    curves = _learning_curves(drawn)
    # Of many runs the ranking says what is in the large tables.
    table_section = _folded if len(runs) > _MOST_RUNS_BESIDE else _section
    sections = [
        _damage(runs),
        _section("Ranking", _ranking(ranking) if several else ""),
        table_section("Accuracy", _html(_accuracies(runs)) + _accuracy_note(runs)),
        _section("Learning curves", _drawn_note(runs, drawn, curves) + curves),
        _section("Runs", _html(_overview(run) for run in runs)),
    ]
    for heading in TABLES:
        sections.append(_section(heading, _html(_noted(runs, heading))))
    differing = _html(_differences(runs)) if several else ""
    sections.append(table_section("What differs", differing))
    training = _meta_training(drawn)
    training = _drawn_note(runs, drawn, training) + training
    sections += [
        # Where there is nothing else to see, it is seen at once.
        _folded("Meta-training", training, is_open=not curves),
        _folded("Figures", _figures(runs), is_open=not curves),
        _section("Configurations", "".join(map(_configuration, runs))),
    ]
    body = "\n".join(filter(None, sections))
    style = _beside("page.css")
    script = _beside("page.js")
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{style}</style>\n"
        f"<script>{get_plotlyjs()}</script>\n</head>\n<body>\n"
        f"<h1>{html.escape(title)}</h1>\n{body}\n<script>{script}</script>\n</body>\n</html>\n"
    )
    # Files of others may have halves of characters, which no encoding has.
    return page.encode("utf-8", "replace").decode("utf-8")


def _beside(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _section(
    heading: str,
    content: str,
) -> str:
    """Return a section of the page; nothing for one that is empty."""
    return f"<h2>{heading}</h2>\n{content}" if content else ""


def _folded(
    heading: str,
    content: str,
    is_open: bool = False,
) -> str:
    """Return a section that is opened by a click; nothing for one that is empty."""
    if not content:
        return ""
    state = " open" if is_open else ""
    return f'<details class="section"{state}><summary><h2>{heading}</h2></summary>\n{content}</details>'


def _html(rows: Iterable[Mapping[str, Any]]) -> str:
    return tables.html_table(tables.table_of(rows))


def _note(text: str) -> str:
    return f'<p class="note">{html.escape(text)}</p>\n'


def _damage(runs: Sequence[Run]) -> str:
    """Say what is damaged and therefore not on the page."""
    found = [text for run in runs for text in run.damage]
    if not found:
        return ""
    shown = found[:_MOST_DAMAGE_SHOWN]
    if len(found) > len(shown):
        shown.append(f"and {len(found) - len(shown):,} more")
    entries = "".join(f"<li>{html.escape(text)}</li>\n" for text in shown)
    return f'<div class="damage"><p>Damaged, and left out here:</p><ul>\n{entries}</ul></div>'


def _drawn_note(
    runs: Sequence[Run],
    drawn: Sequence[Run],
    content: str,
) -> str:
    """Say which runs are drawn, where these are not all."""
    if not content or len(drawn) == len(runs):
        return ""
    return _note(f"The curves are those of the best {len(drawn)} of {len(runs)} runs.")


# ---- what was reached


def _accuracies(runs: Sequence[Run]) -> Iterator[dict[str, Any]]:
    for run in runs:
        columns = tables.accuracy_columns(run.evaluation)
        columns |= tables.metric_columns(run.evaluation)
        prices = tables.price_columns(run.evaluation)
        for row in run.evaluation:
            cells: dict[str, Any] = {
                "data set": row["dataset"],
                "learner": row["learner"],
                "run": run.name if len(runs) > 1 else None,
            }
            for name, heading in columns.items():
                cells[heading] = tables.score_cell(row, name)
            for heading, price in prices.items():
                cells[heading] = price(row)
            cells["chance"] = row.get("chance")
            cells["loss"] = row.get("loss")
            cells["episodes"] = row.get("episodes")
            cells["settings"] = tables.tried_text(row)
            yield cells


def _accuracy_note(runs: Sequence[Run]) -> str:
    """Say what the numbers of the table are, where they are the same for all rows."""
    rows = [row for run in runs for row in run.evaluation]
    shares = [row.get("recent_share") for row in rows]
    if not rows or not is_number(shares[0]) or shares.count(shares[0]) < len(shares):
        return ""
    return _note(tables.caption(rows))


def _ranking(ranking: Ranking) -> str:
    """Return the table of runs, the best first, with one small figure each."""
    runs = [each.run for each in ranking.standings]
    settings = _differing_settings(runs)
    if len(settings) > _MOST_SETTINGS_SHOWN:
        settings = {}
    headings = _short_names(settings)
    draw = _spark_of_losses(runs) if not ranking.datasets else _spark_of_curves
    rows = []
    for place, each in enumerate(ranking.standings, start=1):
        row: dict[str, Any] = {"": place, "run": each.run.name}
        row["figure"] = tables.Markup(draw(each))
        row[ranking.score_name] = _score_text(each)
        row["loss"] = each.loss
        for path, values in settings.items():
            row[headings[path]] = _setting_text(values[each.run.name])
        rows.append(row)
    return _note(ranking.explain()) + _html(rows)


def _score_text(standing: Standing) -> str | None:
    if standing.score is None:
        return None
    width = None
    if len(standing.rows) == 1:
        width = tables.interval_of(standing.rows[0], "accuracy_last")
    return tables.accuracy_cell(standing.score, width)


def _spark_of_curves(standing: Standing) -> str:
    """Return a small figure of the learning curves that a run is ranked by, over a logarithmic axis."""
    curves = []
    levels = []
    for row in standing.rows:
        curve = _curve_of(standing.run, row, row["learner"])
        if curve is None:
            continue
        values = curve.trailing().mean(0)
        places = np.geomspace(1, len(values), _SPARK_POINTS).round().astype(int)
        curves.append(values[places - 1])
        levels.append(curve.chance)
    if not curves:
        return ""
    is_accuracy = tables.metric_of(standing.rows[0]) == "accuracy"
    most = 1.0 if is_accuracy else plots.MOST_ERROR
    label = f"learning curve of {html.escape(standing.run.name)}"
    return sparks.spark(curves, 0.0, most, levels[0], label)


def _spark_of_losses(runs: Sequence[Run]) -> Callable[[Standing], str]:
    """Return what draws a small figure of the losses of a run, all on the same axis."""
    losses = {}
    for run in runs:
        values = [line["meta_loss"] for line in run.metrics if is_number(line.get("meta_loss"))]
        shown = _thinned(values, _SPARK_POINTS)
        losses[run.name] = np.asarray(shown, float)
    ends = np.concatenate(list(losses.values()))

    def draw(standing: Standing) -> str:
        mine = losses[standing.run.name]
        if not mine.size:
            return ""
        label = f"loss of {html.escape(standing.run.name)}"
        return sparks.spark([mine], ends.min(), ends.max(), label=label)

    return draw


# ---- learning curves


def _learning_curves(runs: Sequence[Run]) -> str:
    """Draw accuracy, or the relative error of values, against examples seen, a panel for each data set."""
    lines: dict[str, list[Line]] = {}
    curves: dict[str, list[plots.Curve]] = {}
    for run in runs:
        for row in run.evaluation:
            name = f"{run.name}: {row['learner']}" if len(runs) > 1 else row["learner"]
            curve = _curve_of(run, row, name)
            if curve is not None:
                curves.setdefault(curve.dataset, []).append(curve)
                lines.setdefault(curve.dataset, []).append(_line_of(curve))
    if not curves:
        return ""
    panels = []
    for dataset, shown in curves.items():
        is_accuracy = shown[0].measure == "accuracy"
        levels = [curve.chance for curve in shown if curve.chance is not None]
        repeats = {curve.repeats_after for curve in shown if curve.repeats_after is not None}
        panel = Panel(
            title=dataset,
            lines=lines[dataset],
            y=shown[0].measure,
            log=True,
            range=(0.0, 1.0) if is_accuracy else (0.0, plots.MOST_ERROR),
            most=1.0 if is_accuracy else 1e300,
            percent=is_accuracy,
            level=levels[0] if levels else None,
            repeats=sorted(repeats),
        )
        panels.append(panel)
    note = _note(
        "Mean over episodes of the latest examples (50, but at most a quarter of those seen). "
        "Bands are 95\N{NO-BREAK SPACE}% intervals."
    )
    return note + panels_html(
        "learning-curves",
        panels,
        {"examples": "examples seen"},
        "dashed line: chance (of values: the mean of the targets)",
    )


def _curve_of(
    run: Run,
    row: Mapping[str, Any],
    name: str,
) -> plots.Curve | None:
    """Return the learning curve of a row of an evaluation; None: there is none."""
    key = curve_key(row)
    if key not in run.curves:
        return None
    chance = row.get("chance")
    score = run.curves[key]
    repeats_after = row.get("repeats_after")
    if repeats_after is not None and repeats_after >= score.shape[1]:
        repeats_after = None
    return plots.Curve(
        name,
        row["dataset"],
        score,
        chance=chance if is_number(chance) else None,
        repeats_after=repeats_after,
        baseline=run.baselines.get(key),
    )


def _line_of(curve: plots.Curve) -> Line:
    """Return the mean over episodes and its band, at places that are evenly spaced on a logarithmic axis."""
    accuracy = curve.trailing()
    episodes, length = accuracy.shape
    shown = np.unique(np.geomspace(1, length, POINTS).round().astype(int))
    half = None
    if episodes > 1:
        half = half_width(accuracy)[shown - 1].tolist()
    return Line(
        curve.name,
        {"examples": shown.tolist()},
        accuracy.mean(0)[shown - 1].tolist(),
        half,
    )


# ---- meta-training


def _meta_training(runs: Sequence[Run]) -> str:
    """Draw each number of the metrics over meta steps, examples or minutes, whichever is chosen."""
    points = _metric_points(runs)
    most_names = max(1, _MOST_CURVES // len(runs))
    shown = list(points)[:most_names]
    if not shown:
        return ""
    curves = sum(len(points[name]) for name in shown)
    most = min(_MOST_POINTS_OF_CURVE, max(2, _MOST_POINTS // curves))
    panels = []
    thinned = False
    for name in shown:
        lines = []
        for run_name, found in points[name].items():
            kept = _thinned(found, most)
            thinned = thinned or len(kept) < len(found)
            places = {axis: [_place(line, axis) for line in kept] for axis in _X_AXES}
            lines.append(Line(run_name, places, [line[name] for line in kept]))
        panels.append(Panel(title=name, lines=lines))
    notes = _thinning_notes(runs, most if thinned else None)
    if len(points) > len(shown):
        notes.append(f"{len(points) - len(shown):,} more numbers are in metrics.jsonl and not drawn.")
    return "".join(map(_note, notes)) + panels_html("meta-training", panels, _X_AXES)


def _metric_points(runs: Sequence[Run]) -> dict[str, dict[str, list[Mapping[str, Any]]]]:
    """Return the lines that have a number, by its name and the name of the run."""
    points: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for run in runs:
        for line in run.metrics:
            for name, value in line.items():
                if name not in _NO_CURVES and is_number(value):
                    points.setdefault(name, {}).setdefault(run.name, []).append(line)
    return points


def _place(
    line: Mapping[str, Any],
    axis: str,
) -> Any:
    place = line.get(axis)
    return place if is_number(place) else None


def _thinning_notes(
    runs: Sequence[Run],
    most: int | None,
) -> list[str]:
    """Say which lines are not drawn."""
    notes = []
    for run in runs:
        if run.metrics_every > 1:
            notes.append(
                f"Thinned: metrics.jsonl of {run.name} has {run.metrics_total:,} lines, of which one in "
                f"{run.metrics_every:,} is drawn; the first and the last of each number are among them."
            )
    if most is not None:
        notes.append(f"Thinned: at most {most:,} evenly spaced points of a curve are drawn.")
    return notes


def _thinned(
    values: Sequence[Any],
    most: int,
) -> Sequence[Any]:
    """Return at most so many of the values, evenly spaced, the first and the last among them."""
    if len(values) <= most:
        return values
    places = np.linspace(0, len(values) - 1, most).round().astype(int)
    return [values[place] for place in places]


# ---- what was run


def _overview(run: Run) -> dict[str, Any]:
    git = run.environment.get("git") or {}
    device = run.environment.get("device") or {}
    last = run.metrics[-1] if run.metrics else {}
    commit = str(git.get("commit") or "unknown")[:10]
    if git.get("dirty"):
        commit += " with changes"
    minutes = last.get("minutes")
    if is_number(minutes) and minutes > _MOST_MINUTES_EXACT:
        minutes = round(minutes)
    return {
        "run": run.name,
        "call": run.config.get("call"),
        "state": "complete" if run.complete else "not complete",
        "meta steps": last.get("step"),
        "examples": last.get("examples"),
        "minutes": minutes,
        "loss": last_loss(run),
        "seed": run.config.get("seed"),
        "commit": commit,
        "device": f"{device.get('count', '?')} x {device.get('kind', 'unknown')}",
        "ranks": run.environment.get("world_size"),
    }


def _noted(
    runs: Sequence[Run],
    heading: str,
) -> Iterator[dict[str, Any]]:
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
    for path, values in sorted(_differing_settings(runs).items()):
        row = {"setting": path}
        for name, value in values.items():
            row[name] = _setting_text(value)
        yield row


def _differing_settings(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """Return the settings that are not the same in all runs: dotted paths, and values by names of runs."""
    first, *others = runs
    found: dict[str, dict[str, Any]] = {}
    for run in others:
        for path, one, other in differences(first.config, run.config):
            same_everywhere = {each.name: one for each in runs}
            found.setdefault(path, same_everywhere)[run.name] = other
    return found


def _short_names(paths: Iterable[str]) -> dict[str, str]:
    """Return the last parts of dotted paths, or the whole of those that share it."""
    last = {path: path.rpartition(".")[2] for path in paths}
    names = list(last.values())
    return {path: name if names.count(name) == 1 else path for path, name in last.items()}


def _setting_text(value: Any) -> str:
    return json.dumps(value, default=str)


def _figures(runs: Sequence[Run]) -> str:
    """Return the figures of runs, as far as the page has room."""
    parts = []
    room = _MOST_FIGURE_BYTES
    left_out = 0
    for run in runs:
        for name, content in run.figures.items():
            data = base64.b64encode(content).decode()
            if len(data) > room:
                left_out += 1
                continue
            room -= len(data)
            caption = html.escape(f"{run.name}: {name}")
            parts.append(
                f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
                f"<figcaption>{caption}</figcaption></figure>\n"
            )
    if left_out:
        parts.append(_note(f"{left_out:,} more figures are in the folders of the runs: they are too large."))
    return "".join(parts)


def _configuration(run: Run) -> str:
    command = " ".join(run.environment.get("command_line", ()))
    text = yaml.safe_dump(run.config, sort_keys=False)
    shown = html.escape(f"{command}\n\n{text}")
    return f"<details><summary>{html.escape(run.name)}</summary><pre>{shown}</pre></details>\n"

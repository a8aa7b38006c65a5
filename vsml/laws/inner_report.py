"""The inner law of several learners on several data sets: measured, resumed, written, and drawn."""

import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from vsml.battery.contestants import contestant
from vsml.battery.learning_test import Task
from vsml.laws.bootstrap import measure_law
from vsml.laws.forms import POWER
from vsml.laws.inner import Learned, draw_episodes, efficiency, learn
from vsml.laws.points import points_of
from vsml.laws.references import best_reference
from vsml.reporting.plots import COLOURS
from vsml.reporting.tables import Table, print_table
from vsml.runs.checkpoint import pretrained_names
from vsml.system.extras import needed_for
from vsml.system.files import atomic_write, write_json
from vsml.system.terminal import say
from vsml.tasks import TaskDistribution, build_task, load
from vsml.types import Classes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RESULTS = "inner_law.json"
FIGURE = "inner_law.png"

_TUNING_SHARE = 2
"""Episodes that are judged, by those that references are chosen on."""

_SIZE = re.compile(r"(?P<name>.+)@(?P<height>\d+)x(?P<width>\d+)")

Row = dict[str, Any]


def task_of(word: str, length: int) -> TaskDistribution:
    """Return the task of `NAME` or `NAME@14x14`: held-out examples of a data set, none of them twice.

    Raises:
        ValueError: the data set has fewer examples, or is one of values.
    """
    match = _SIZE.fullmatch(word)
    name = match["name"] if match else word
    resize = (int(match["height"]), int(match["width"])) if match else None
    source = load(name, "test")
    task = build_task(source, episode_length=length, replacement=False, name=word, resize=resize)
    if not isinstance(task.outputs, Classes):
        raise ValueError(f"{word}: got targets that are values, expected classes")
    repeats = task.repeats_after
    if repeats is not None and repeats < length:
        raise ValueError(
            f"{word}: got {repeats} held-out examples, expected {length}: the most, and the queries"
        )
    return task


def measure_and_write(
    out: Path,
    learners: Sequence[str] | None,
    datasets: Sequence[str],
    counts: Sequence[int],
    sights: int,
    episodes: int,
    queries: int,
    seed: int,
) -> list[Row]:
    """Measure learners on data sets, print what came of it, and write results and a figure.

    What `out` holds already, measured with the same settings, is not measured again.

    Args:
        out: folder for `inner_law.json` and `inner_law.png`.
        learners: as contestants of the battery (`vsml.battery.contestants`); None: all that ship.
        datasets: `NAME` or `NAME@14x14`.
        counts: numbers of examples n.
        sights: how often these are shown.
        episodes: to average over.
        queries: examples that are asked.
        seed: of episodes.

    Raises:
        ValueError: a number is out of range, a learner or a data set is unknown or too small, or `out` has
            results with other settings.
    """
    counts = sorted(set(counts))
    for name, value in (
        ("counts", counts[0]),
        ("sights", sights),
        ("episodes", episodes),
        ("queries", queries),
    ):
        if value < 1:
            raise ValueError(f"{name}: got {value}, expected numbers from 1 on")
    words = list(learners) if learners is not None else pretrained_names()
    settings = {
        "counts": counts,
        "sights": sights,
        "episodes": episodes,
        "queries": queries,
        "seed": seed,
    }
    rows = _stored(out / RESULTS, settings)
    out.mkdir(parents=True, exist_ok=True)
    for dataset in datasets:
        for row in _measure(dataset, words, settings, rows):
            rows.append(row)
            write_json(out / RESULTS, {"settings": settings, "rows": rows})
    shown = [row for row in rows if row["dataset"] in datasets]
    print_table(table(shown, settings))
    _draw(out / FIGURE, shown, settings)
    say(f"wrote {out / RESULTS} and {out / FIGURE}")
    return rows


def _stored(path: Path, settings: Mapping[str, Any]) -> list[Row]:
    """Return the rows that were measured before.

    Raises:
        ValueError: the file is damaged, or has rows that were measured with other settings.
    """
    if not path.exists():
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found, rows = content["settings"], list(content["rows"])
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(
            f"{path}: expected results of the inner law; remove it, or name another --out"
        ) from error
    if found != settings:
        raise ValueError(f"{path}: got results with {found}, expected {settings}; name another --out")
    return rows


def _measure(
    dataset: str,
    words: Sequence[str],
    settings: Mapping[str, Any],
    rows: Sequence[Row],
) -> Iterator[Row]:
    """Yield the rows of a data set that are not there yet: of the references, then of each learner."""
    counts, queries = settings["counts"], settings["queries"]
    there = {(row["dataset"], row["learner"]): row for row in rows}
    missing = [word for word in words if (dataset, word) not in there]
    if not missing and (dataset, "best") in there:
        return
    task = task_of(dataset, counts[-1] + queries)
    key = jax.random.key(settings["seed"])
    judged = draw_episodes(task, key, settings["episodes"])
    best = there.get((dataset, "best"))
    if best is None:
        tuning = draw_episodes(task, key, max(1, settings["episodes"] // _TUNING_SHARE), tuning=True)
        found = []
        for count in counts:
            say(f"{dataset}: references after {count} examples ...")
            found.append(best_reference(judged, tuning, count, queries, task.outputs.size))
        best = {
            "dataset": dataset,
            "learner": "best",
            "classes": task.outputs.size,
            "references": [each.name for each in found],
            "loss": [each.loss.tolist() for each in found],
            "accuracy": [float(each.accuracy.mean()) for each in found],
        }
        yield best
    for word in missing:
        say(f"{dataset}: {word} ...")
        yield _row_of(word, dataset, task, judged, settings, best)


def _row_of(
    word: str,
    dataset: str,
    task: TaskDistribution,
    judged: Any,
    settings: Mapping[str, Any],
    best: Row,
) -> Row:
    """Return the row of a learner; one that does not fit a data set says why."""
    row: Row = {"dataset": dataset, "learner": word}
    as_level = Task(task.input_shape, task.outputs, task.episode_length, task.sample)
    try:
        learner, params = contestant(word).build(as_level, {})
    except ValueError as error:
        return {**row, "refused": str(error)}
    counts, sights = settings["counts"], settings["sights"]
    key = jax.random.fold_in(jax.random.key(settings["seed"]), 2)
    learned = learn(learner, params, judged, counts, sights, settings["queries"], key)
    found = []
    for place in range(len(counts)):
        of_best = np.array(best["loss"][place])
        each = [efficiency(learned.loss[place, sight], of_best, best["classes"]) for sight in range(sights)]
        found.append(each)
    return {
        **row,
        "loss": learned.loss.mean(axis=-1).tolist(),
        "accuracy": learned.accuracy.mean(axis=-1).tolist(),
        "efficiency": [[each.value for each in of_count] for of_count in found],
        "half_width": [[each.half_width for each in of_count] for of_count in found],
        "law": _law(counts, learned),
    }


def _law(counts: Sequence[int], learned: Learned) -> str:
    """Return the law of the loss against examples seen once, as text; points of an episode stay together."""
    loss = learned.loss[:, 0]  # [counts, E]
    episodes = loss.shape[1]
    x = np.repeat(np.array(counts, float), episodes)
    runs = np.tile(np.arange(episodes), len(counts))
    try:
        law = measure_law(POWER, points_of(x, loss.ravel(), runs, ("examples",)))
    except ValueError as error:
        return f"no law: {error}"
    return str(law.exponents()[0])


def table(rows: Sequence[Row], settings: Mapping[str, Any]) -> Table:
    """Return extraction efficiencies after one sight and after the last, and accuracies, of all learners."""
    counts, sights = settings["counts"], settings["sights"]
    cells = []
    for row in rows:
        if row["learner"] == "best":
            losses = [f"{np.mean(each):.3f} nats" for each in row["loss"]]
            last = f"{row['accuracy'][-1]:.3f}"
            cells.append(
                [row["dataset"], f"best: {', '.join(dict.fromkeys(row['references']))}", *losses, None, last]
            )
        elif "refused" in row:
            cells.append([row["dataset"], row["learner"], *[None] * (len(counts) + 2)])
        else:
            once = [_with_half(row, place, 0) for place in range(len(counts))]
            again = _with_half(row, len(counts) - 1, sights - 1)
            cells.append([row["dataset"], row["learner"], *once, again, f"{row['accuracy'][-1][0]:.3f}"])
    headings = ["data set", "learner", *[f"n = {count}" for count in counts]]
    headings += [f"n = {counts[-1]}, {sights} sights", f"accuracy at {counts[-1]}"]
    return Table(headings, cells, left=frozenset(("data set", "learner")))


def _with_half(row: Row, place: int, sight: int) -> str:
    value, half = row["efficiency"][place][sight], row["half_width"][place][sight]
    return f"{value:.2f}" if half is None else f"{value:.2f} ± {half:.2f}"


def _draw(path: Path, rows: Sequence[Row], settings: Mapping[str, Any]) -> None:
    """Draw efficiencies against examples seen once, and against sights of the most examples."""
    with needed_for("figures"):
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

    measured = [row for row in rows if "efficiency" in row]
    if not measured:
        return
    datasets = list(dict.fromkeys(row["dataset"] for row in measured))
    names = list(dict.fromkeys(row["learner"] for row in measured))
    figure = Figure(figsize=(4.2 * len(datasets) + 1.5, 6.5), layout="constrained")
    grid = figure.subplots(2, len(datasets), sharey=True, squeeze=False)
    for column, dataset in enumerate(datasets):
        above, below = grid[0, column], grid[1, column]
        for row in measured:
            if row["dataset"] == dataset:
                number = names.index(row["learner"])
                colour, style = COLOURS[number % len(COLOURS)], "-" if number < len(COLOURS) else "--"
                values, halves = np.array(row["efficiency"]), np.array(row["half_width"], float)
                name = row["learner"]
                above.errorbar(
                    settings["counts"],
                    values[:, 0],
                    halves[:, 0],
                    color=colour,
                    ls=style,
                    marker="o",
                    ms=3,
                    label=name,
                )
                sights = np.arange(1, settings["sights"] + 1)
                below.errorbar(sights, values[-1], halves[-1], color=colour, ls=style, marker="o", ms=3)
        above.set_xscale("log")
        below.xaxis.set_major_locator(MaxNLocator(integer=True))
        above.set_title(dataset)
        above.set_xlabel("examples, each seen once")
        below.set_xlabel(f"sights of {settings['counts'][-1]} examples")
        _style(above)
        _style(below)
    grid[0, 0].set_ylabel("extraction efficiency")
    grid[1, 0].set_ylabel("extraction efficiency")
    figure.legend(
        *grid[0, 0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize=9
    )
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    atomic_write(path, content.getvalue())


def _style(axes: "Axes") -> None:
    axes.axhline(1.0, color="#767676", linewidth=0.8, linestyle=":")
    axes.set_ylim(-0.2, 1.2)
    axes.grid(color="#E3E3E3", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)

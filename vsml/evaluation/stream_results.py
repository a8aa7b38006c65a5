"""Results of streams: their files, table and figure."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vsml.evaluation.stream_scores import StreamScore, scores_table
from vsml.reporting import plots
from vsml.reporting.tables import markdown, print_table
from vsml.runs.directory import RunDirectory
from vsml.system.files import atomic_write, write_arrays, write_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIGURE = "streams.png"

_COLOURS = 10


def write_stream_results(
    run: RunDirectory,
    scores: Sequence[StreamScore],
    published: Sequence[dict[str, Any]],
) -> None:
    """Write stream.json, stream.md, stream.npz and streams.png; print the table.

    Args:
        run: the folder.
        scores: of each learner on each stream.
        published: numbers of others; see `scores_table`.
    """
    rows = [score.summary() for score in scores]
    write_json(run.path / "stream.json", {"measured": rows, "published": list(published)})
    table = scores_table(rows, published)
    atomic_write(run.path / "stream.md", f"{markdown(table)}\n\n{table.caption}\n")
    write_arrays(run.path / "stream.npz", _arrays(scores))
    plots.drawn(FIGURE, lambda: draw_streams(run, scores, published))
    print_table(table)


def _arrays(scores: Sequence[StreamScore]) -> dict[str, np.ndarray]:
    """Return scores by task [seeds, tasks] and by place within a task [seeds, places]."""
    arrays = {}
    for score in scores:
        prefix = f"{score.learner}/{score.stream}"
        arrays[f"{prefix}/by_task"] = score.by_task()
        arrays[f"{prefix}/within_task"] = score.within_task()
    return arrays


def draw_streams(
    run: RunDirectory,
    scores: Sequence[StreamScore],
    published: Sequence[dict[str, Any]],
) -> None:
    """Draw for each stream the score of each task, and the mean learning curve within tasks."""
    streams = list(dict.fromkeys(score.stream for score in scores))
    figure, panels = plots.panels(len(streams), 2, width=5.6)
    for row, stream in enumerate(streams):
        here = [score for score in scores if score.stream == stream]
        over_tasks, within = panels[2 * row], panels[2 * row + 1]
        measure = here[0].metric.replace("_", " ")
        plots.label(over_tasks, stream, "task", f"{measure} over the task")
        plots.label(within, "mean of all tasks", "example of a task", f"online {measure}")
        for number, score in enumerate(here):
            _draw_life(over_tasks, within, score, number)
        best = here[0].best()
        if best is not None:
            over_tasks.axhline(best, color="black", linewidth=1.2, label="best possible")
            within.axhline(best, color="black", linewidth=1.2)
        for number, entry in enumerate(published):
            if entry.get("stream") in (None, stream):
                style = (0, (1 + number, 2))
                name = f"{entry['name']} ({entry['mark']})"
                over_tasks.axhline(entry["value"], color="#777777", linewidth=1, linestyle=style, label=name)
        over_tasks.legend(fontsize=6, frameon=False, ncols=2)
    plots.save(figure, run.path / FIGURE)


def _draw_life(over_tasks: "Axes", within: "Axes", score: StreamScore, number: int) -> None:
    """Draw one learner, mean over seeds."""
    colour = f"C{number % _COLOURS}"
    by_task = score.by_task().mean(0)
    marker = "o" if len(by_task) == 1 else ""
    tasks = np.arange(1, len(by_task) + 1)
    over_tasks.plot(
        tasks, by_task, color=colour, linewidth=1, marker=marker, label=plots.in_legend(score.learner)
    )
    curve = score.within_task().mean(0)
    examples = (np.arange(len(curve)) + 1) * score.task_length / len(curve)
    within.plot(examples, curve, color=colour, linewidth=1)

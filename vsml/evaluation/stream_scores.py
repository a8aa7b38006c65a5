"""Scores of streams: what lives of one learner on one stream come to, beside published numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from vsml.evaluation.streaming import Sums
from vsml.learners.memory import StateFloats
from vsml.reporting.intervals import half_width
from vsml.reporting.tables import Table
from vsml.types import Outputs, Values

EDGE = 0.1
"""Share of the tasks, the first and the last, over which the beginning and the end are reported."""

MARKS = {
    "R": "read in the source",
    "P": "a third party's run",
    "M": "measured for this project",
}
"""Where a published number is from."""

Mark = Literal["R", "P", "M"]


@dataclass(frozen=True, eq=False)
class StreamScore:
    """One learner on one stream, over all its seeds.

    Attributes:
        learner: its name.
        stream: name of the stream.
        outputs: what is answered.
        task_length: examples of a task.
        state: numbers that the learner keeps.
        sums: what was measured, of S seeds.
        us_per_example: time of an example in microseconds, mean over seeds.
    """

    learner: str
    stream: str
    outputs: Outputs
    task_length: int
    state: StateFloats
    sums: Sums
    us_per_example: float

    @property
    def metric(self) -> str:
        """Name of the measure: accuracy, or squared_error of values, which is better if lower."""
        return "squared_error" if isinstance(self.outputs, Values) else "accuracy"

    def over(self, first: int, end: int) -> np.ndarray:
        """Return the score of each seed over the tasks from `first` to before `end`, [seeds]."""
        scores = self.sums["score"][first:end].sum((0, 2))
        return scores / self.sums["weight"][first:end].sum((0, 2))

    def by_task(self) -> np.ndarray:
        """Return the score of each task, [seeds, tasks]."""
        by_task = self.sums["score"].sum(2) / self.sums["weight"].sum(2)
        return by_task.T

    def within_task(self) -> np.ndarray:
        """Return the score at each place of a task, over all tasks, [seeds, places]."""
        return self.sums["score"].sum(0) / self.sums["weight"].sum(0)

    def best(self) -> float | None:
        """Return the score that nobody can exceed; None: unknown."""
        mean = float(self.sums["best"].mean())
        return mean if math.isfinite(mean) else None

    def summary(self) -> dict[str, Any]:
        """Return what stands in a table and in JSON."""
        tasks, seeds, places = self.sums["score"].shape
        edge = max(1, round(EDGE * tasks))
        columns = {
            "score": self.over(0, tasks),
            "first_tasks": self.over(0, edge),
            "last_tasks": self.over(tasks - edge, tasks),
            "end_of_task": self.within_task()[:, -max(1, round(EDGE * places)) :].mean(1),
        }
        return {
            "learner": self.learner,
            "stream": self.stream,
            "metric": self.metric,
            "tasks": tasks,
            "examples": tasks * self.task_length,
            "seeds": seeds,
            **{name: float(values.mean()) for name, values in columns.items()},
            "interval_95": {
                name: float(half_width(values)) if seeds > 1 else None for name, values in columns.items()
            },
            "best_possible": self.best(),
            "nonfinite": int(self.sums["nonfinite"].sum()),
            "state": self.state.kept,
            "fixed": dict(self.state.fixed),
            "us_per_example": self.us_per_example,
        }


def scores_table(rows: Sequence[dict[str, Any]], published: Sequence[dict[str, Any]]) -> Table:
    """Return the table: what was measured here, best first, then what is published.

    Args:
        rows: what `StreamScore.summary` returns.
        published: with "name", "value", "mark" and "note"; "stream" may name one of the streams.
    """
    headings = (
        "stream",
        "learner",
        "score",
        "first tasks",
        "last tasks",
        "end of a task",
        "state",
        "us per example",
        "source",
    )
    cells: list[list[Any]] = []
    streams = list(dict.fromkeys(row["stream"] for row in rows))
    for stream in streams:
        here = [row for row in rows if row["stream"] == stream]
        lower_is_better = here[0]["metric"] == "squared_error"
        here.sort(key=lambda row: row["score"] if lower_is_better else -row["score"])
        for row in here:
            shown = [
                _with_interval(row, name) for name in ("score", "first_tasks", "last_tasks", "end_of_task")
            ]
            seeds = f"{row['seeds']} seed{'s' if row['seeds'] > 1 else ''}"
            source = f"here, {row['tasks']} tasks, {seeds}"
            cells.append([stream, row["learner"], *shown, row["state"], row["us_per_example"], source])
        best = here[0]["best_possible"]
        if best is not None and not lower_is_better:
            cells.append([stream, "Bayes", f"{best:.3f}", *[None] * 5, "exact, of the examples drawn"])
        for entry in published:
            if entry.get("stream") in (None, stream):
                source = f"{entry['mark']}: {entry['note'] or MARKS[entry['mark']]}"
                cells.append([stream, entry["name"], f"{entry['value']:.3f}", *[None] * 5, source])
    metric = " and ".join(sorted({row["metric"].replace("_", " ") for row in rows}))
    edge = f"first and last: {EDGE:.0%} of the tasks; end of a task: its last {EDGE:.0%} of examples"
    marks = "; ".join(f"{mark}: {words}" for mark, words in MARKS.items())
    caption = f"score: online {metric} over all examples, answered before they are learned; {edge}. {marks}."
    return Table(headings, cells, caption=caption, left=frozenset({"stream", "learner", "source"}))


def _with_interval(row: dict[str, Any], name: str) -> str:
    half = row["interval_95"][name]
    return f"{row[name]:.3f}" if half is None else f"{row[name]:.3f} ± {half:.3f}"

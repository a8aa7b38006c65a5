"""Results of evaluations: their files, table, figure, and copy in wandb."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vsml.evaluation.scores import Evaluation
from vsml.reporting import plots
from vsml.reporting.tables import markdown_table, print_results
from vsml.runs.directory import RunDirectory
from vsml.runs.wandb import WandbTracker
from vsml.system.files import atomic_write, write_arrays, write_json

FIGURE = "learning_curves.png"

_POINTS_IN_WANDB = 30


def write_results(
    run: RunDirectory,
    evaluations: Sequence[Evaluation],
    trials: Sequence[Evaluation] = (),
    title: str | None = None,
) -> None:
    """Write evaluation.json, .md, .npz, learning_curves.png and, of trials, tuning.json; print the table."""
    rows = [evaluation.summary() for evaluation in evaluations]
    write_arrays(run.path / "evaluation.npz", _arrays(evaluations))
    write_json(run.path / "evaluation.json", rows)
    atomic_write(run.path / "evaluation.md", markdown_table(rows))
    if trials:
        write_json(run.path / "tuning.json", [trial.summary() for trial in trials])
    curves = curves_of(evaluations)
    plots.drawn(FIGURE, lambda: plots.learning_curves(run.path / FIGURE, curves, title=title))
    print_results(rows)


def curves_of(evaluations: Sequence[Evaluation]) -> list[plots.Curve]:
    """Return learning curves as figures draw them."""
    return [
        plots.Curve(
            each.learner,
            each.dataset,
            each.score,
            each.chance,
            each.support,
            each.repeats_after,
            each.baseline,
        )
        for each in evaluations
    ]


def track_results(run: RunDirectory, tracker: WandbTracker, evaluations: Sequence[Evaluation]) -> None:
    """Copy what `write_results` wrote into wandb: table, figure, and curves over examples seen.

    A point of a curve is the mean over episodes of `plots.Curve.trailing`, at up to 30 places that are
    evenly spaced on a logarithmic axis.
    """
    if not evaluations:
        return
    rows = [each.summary() for each in evaluations]
    tracker.log_table("evaluation", [{k: v for k, v in row.items() if k != "interval_95"} for row in rows])
    if (run.path / FIGURE).exists():
        tracker.log_image("learning_curves", run.path / FIGURE)
    points: dict[int, dict[str, float]] = {}
    for each in evaluations:
        (curve,) = curves_of([each])
        accuracy = curve.trailing().mean(0)
        evenly_spaced = np.geomspace(1, len(accuracy), _POINTS_IN_WANDB)
        for place in np.unique(evenly_spaced.round().astype(int)):
            seen = int(each.support + place)
            point = points.setdefault(seen, {"examples": seen})
            point[f"{each.dataset}/{each.learner}"] = float(accuracy[place - 1])
    tracker.log_curves("curves", "examples", [points[seen] for seen in sorted(points)])


def evaluation_metrics(summaries: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the numbers of evaluations as a line of metrics has them, `eval/DATASET/NAME`."""
    metrics = {}
    for summary in summaries:
        for name in ("loss", *summary["interval_95"]):
            metrics[f"eval/{summary['dataset']}/{name}"] = summary[name]
    return metrics


def mean_quality(evaluations: Sequence[Evaluation]) -> float:
    """Return one number for several evaluations, higher is better: mean accuracy, or 1 - relative error."""
    qualities = []
    for each in evaluations:
        score = each.summary()[each.metric] if each.metric != "accuracy" else each.score.mean()
        qualities.append(score if each.metric == "accuracy" else 1 - score)
    return float(np.mean(qualities))


def _arrays(evaluations: Sequence[Evaluation]) -> dict[str, np.ndarray]:
    """Return what evaluation.npz holds: per answer, [episodes, examples]."""
    arrays = {}
    for each in evaluations:
        prefix = f"{each.learner}/{each.dataset}"
        if each.metric == "accuracy":
            arrays[f"{prefix}/correct"] = each.score
        else:
            arrays[f"{prefix}/squared_error"] = each.score
            arrays[f"{prefix}/squared_error_of_mean"] = np.asarray(each.baseline)
        arrays[f"{prefix}/loss"] = each.loss
        for name, measured in each.others.items():
            arrays[f"{prefix}/{name}"] = measured.values
    return arrays

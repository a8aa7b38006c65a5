"""A ranking of runs: what each reached, the best first."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vsml.reporting import tables
from vsml.runs.metrics import is_number
from vsml.runs.reading import Run, is_meta_trained

LAST = "accuracy_last"


@dataclass(frozen=True)
class Standing:
    """What a run reached.

    Attributes:
        run: the run.
        rows: rows of its evaluation that it is ranked by, of one learner, a data set each; empty: none.
        score: mean accuracy, or 1 - relative error, of these; None: there are none.
        loss: last loss of meta-training; None: there is none.
    """

    run: Run
    rows: Sequence[Mapping[str, Any]]
    score: float | None
    loss: float | None


@dataclass(frozen=True)
class Ranking:
    """Runs, the best first.

    Attributes:
        standings: a run each.
        datasets: data sets that are counted, which all runs with an evaluation have.
    """

    standings: Sequence[Standing]
    datasets: Sequence[str]

    @property
    def score_name(self) -> str:
        """What the score is called."""
        metrics = {tables.metric_of(row) for each in self.standings for row in each.rows}
        if metrics == {"accuracy"}:
            return "accuracy, last"
        if metrics == {"relative_error"}:
            return "1 - relative error, last"
        return "score, last"

    def explain(self) -> str:
        """Say what the order is."""
        if not self.datasets:
            return "Ranked by the last loss of meta-training, the lowest first."
        datasets = ", ".join(self.datasets)
        return (
            f"Ranked by {self.score_name}, of the meta-trained learner or else of the best one, mean over "
            f"the data sets that all have: {datasets}. Runs without an evaluation come last, by their loss."
        )


def rank(runs: Sequence[Run]) -> Ranking:
    """Rank runs by what they reached on the data sets that all of them have, then by their losses."""
    datasets = _common_datasets(runs)
    standings = []
    for run in runs:
        rows = _best_rows(run, datasets)
        score = _score(rows) if rows else None
        standings.append(Standing(run, rows, score, last_loss(run)))
    standings.sort(key=_order)
    return Ranking(standings, datasets)


def last_loss(run: Run) -> float | None:
    """Return the last loss of meta-training."""
    for line in reversed(run.metrics):
        loss = line.get("meta_loss")
        if is_number(loss):
            return loss
    return None


def _order(standing: Standing) -> tuple[float, float]:
    """Return what is the lower the better: the score, then the loss."""
    score = -math.inf if standing.score is None else standing.score
    loss = math.inf if standing.loss is None else standing.loss
    return -score, loss


def _candidates(run: Run) -> list[Mapping[str, Any]]:
    """Return the rows that a run may be ranked by: those of what it found, or else all."""
    known = [row for row in run.evaluation if is_number(tables.score_of(row, LAST))]
    found = [row for row in known if is_meta_trained(row)]
    return found or known


def _common_datasets(runs: Sequence[Run]) -> list[str]:
    """Return the data sets that all runs with an evaluation have, in the order of the first of them."""
    common: list[str] | None = None
    for run in runs:
        present = [row["dataset"] for row in _candidates(run)]
        if not present:
            continue
        if common is None:
            common = list(dict.fromkeys(present))
        common = [name for name in common if name in present]
    return common or []


def _best_rows(
    run: Run,
    datasets: Sequence[str],
) -> list[Mapping[str, Any]]:
    """Return the rows of the learner that is best on the data sets; empty where none has all of them."""
    by_learner: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in _candidates(run):
        by_learner.setdefault(row["learner"], {})[row["dataset"]] = row
    best: list[Mapping[str, Any]] = []
    for found in by_learner.values():
        if not datasets or not set(datasets) <= set(found):
            continue
        rows = [found[name] for name in datasets]
        if not best or _score(rows) > _score(best):
            best = rows
    return best


def _score(rows: Sequence[Mapping[str, Any]]) -> float:
    """Return the mean of accuracies, or 1 - relative errors."""
    total = 0.0
    for row in rows:
        score = tables.score_of(row, LAST)
        assert score is not None  # of candidates it is known
        total += score if tables.metric_of(row) == "accuracy" else 1 - score
    return total / len(rows)

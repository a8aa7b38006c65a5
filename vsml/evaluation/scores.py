"""Scores: how well a learner did on a data set."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from vsml.reporting.intervals import half_width, ratios

RECENT_SHARE = 0.2
"""Share of the examples up to some point, the latest, that the score there is taken over."""

MILESTONES = (10, 100, 1000, 10_000)
"""After how many examples a score is reported, besides at the end."""

OWN_NAMES = (
    "learner",
    "dataset",
    "episodes",
    "examples",
    "repeats_after",
    "recent_share",
    "chance",
    "metric",
    "tried",
    "state",
    "fixed",
    "flops",
    "microseconds",
    "loss",
    "nonfinite",
    "interval_95",
    "score",
    "weight",
    "baseline",
)
"""Names in scores and summaries that no metric may have."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What a metric came to: any mean of it is the sum of values by the sum of weights.

    Attributes:
        values: float32 [episodes, examples].
        weights: likewise; None: all 1.
    """

    values: np.ndarray
    weights: np.ndarray | None = None

    def over(self, start: int, end: int) -> np.ndarray:
        """Return what each episode gives to the metric of answers from `start` to before `end`, [episodes].

        The metric is the mean over episodes; see `vsml.reporting.intervals.ratios` for one with weights.
        """
        values = self.values[:, start:end]
        if self.weights is None:
            return values.mean(1)
        return ratios(values.sum(1), self.weights[:, start:end].sum(1))


@dataclass(frozen=True)
class Price:
    """What a learner keeps, and what an example takes.

    Attributes:
        state: numbers that are kept between steps; of one that keeps all examples, at the end of an episode.
        fixed: numbers beside them that are drawn once and never change, such as random features.
        flops: floating-point operations for each example, counted; None where they cannot be.
        microseconds: for each example, measured on this machine; None where operations are counted.
    """

    state: int
    fixed: int = 0
    flops: float | None = None
    microseconds: float | None = None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How a learner did on a data set, over all answers that count.

    All answers count, or in few-shot episodes those to the queries. The examples of an inner batch all have
    the mean over it.

    Attributes:
        learner: its name.
        dataset: name of the evaluation task.
        chance: main metric of an answer without a look at the input: accuracy of guessing, or 1 for the
            relative error of the mean.
        score: main metric, float32 [episodes, examples]: whether the answer was right, or its squared error.
        loss: in nats for classes, half the squared error for values, likewise.
        support: examples that came before the first that counts.
        repeats_after: examples of an episode, `support` included, after which images come again, if they do.
        recent_share: the score after n examples is that on this share of them, the latest.
        tried: settings of the learner that were chosen or are to be chosen from, by dotted path.
        metric: name of the main metric.
        baseline: weights of the main metric, likewise; None: all 1.
        others: what other metrics came to, by name.
        price: what the learner keeps, and what an example takes; None: not known.
    """

    learner: str
    dataset: str
    chance: float
    score: np.ndarray
    loss: np.ndarray
    support: int = 0
    repeats_after: int | None = None
    recent_share: float = RECENT_SHARE
    tried: dict[str, Any] = field(default_factory=dict)
    metric: str = "accuracy"
    baseline: np.ndarray | None = None
    others: Mapping[str, Measured] = field(default_factory=dict)
    price: Price | None = None

    @property
    def correct(self) -> np.ndarray:
        """Share of right answers, float32 [episodes, examples].

        Raises:
            ValueError: the answers are values, of which none is right or wrong.
        """
        if self.metric != "accuracy":
            raise ValueError(f"correct: got answers measured by {self.metric}, expected classes")
        return self.score

    def summary(self) -> dict[str, Any]:
        """Return loss, the main metric over the whole episode, and `accuracy_at_10` ... `accuracy_last`.

        The metric after n examples is that over the latest `recent_share` of the examples, at least one, mean
        over episodes; `interval_95` has the half widths of 95 % intervals over episodes (Student's t;
        None for one episode). Other metrics are there over the whole episode and at its end.
        """
        episodes, length = self.score.shape
        columns = self._columns(self.metric, Measured(self.score, self.baseline))
        for name, measured in self.others.items():
            columns[name] = measured.over(0, length)
            columns[f"{name}_last"] = measured.over(self._recent_start(length), length)
        return {
            "learner": self.learner,
            "dataset": self.dataset,
            "episodes": episodes,
            "examples": length,
            "repeats_after": self.repeats_after,
            "recent_share": self.recent_share,
            "chance": self.chance,
            "metric": self.metric,
            "tried": self.tried,
            **({} if self.price is None else asdict(self.price)),
            "loss": float(self.loss.mean()),
            "nonfinite": int((~np.isfinite(self.loss)).sum()),
            **{name: float(values.mean()) for name, values in columns.items()},
            "interval_95": {name: _half_width(values) for name, values in columns.items()},
        }

    def _columns(self, name: str, measured: Measured) -> dict[str, np.ndarray]:
        """Return the main metric of each episode, [episodes], at milestones, at the end, and over all."""
        length = self.score.shape[1]
        ends = {f"{name}_at_{count}": count for count in MILESTONES if count <= length}
        ends[f"{name}_last"] = length
        columns = {column: measured.over(self._recent_start(end), end) for column, end in ends.items()}
        columns[name] = measured.over(0, length)
        return columns

    def _recent_start(self, end: int) -> int:
        """Return the first of the latest examples before `end`."""
        return end - max(1, math.ceil(self.recent_share * end))


def _half_width(values: np.ndarray) -> float | None:
    """Return the half width of a 95 % interval of the mean over episodes; None for one episode."""
    episodes = len(values)
    if episodes == 1:
        return None
    return float(half_width(values))

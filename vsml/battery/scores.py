"""Scores of the battery: raw scores, set between the floor and the best of the reference panel."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vsml.battery.learning_test import LearningTest, Level

PASSED = 0.5
"""Score with which a level of a span counts as passed."""

LEAST_GAP = 0.02
"""Raw scores that the best is above the floor, at least, for a level to be measured against it."""

STANDARD_ERRORS = 2.0
"""How clearly the panel's best has to be above the floor, to be what a level is measured against."""


@dataclass(frozen=True)
class Score:
    """A score with its standard error.

    Attributes:
        value: 0 for no learning, 1 for the best of the reference panel.
        error: standard error over seeds.
    """

    value: float
    error: float


@dataclass(frozen=True)
class Best:
    """What has score 1 at a level.

    Attributes:
        raw: its raw score.
        by: who has it; "oracle" where nobody of the panel is better than the floor.
    """

    raw: float
    by: str


@dataclass(frozen=True, eq=False)
class Measured:
    """Raw scores of a learner at a level.

    Attributes:
        raw: of each episode [S].
        floor: of what does not learn from inputs, in the same episodes [S].
        oracle: mean raw score of the right answers.
    """

    raw: np.ndarray
    floor: np.ndarray
    oracle: float

    def left_out(self, seed: int) -> "Measured":
        """Return them without one of the episodes."""
        return Measured(np.delete(self.raw, seed), np.delete(self.floor, seed), self.oracle)


def best_of(entry: Mapping[str, Any] | None, oracle: float) -> Best:
    """Return what has score 1 at a level.

    Args:
        entry: of the panel for this level, with best, best_error, by and floor; None if it has none.
        oracle: raw score of the right answers.
    """
    if entry is None or not solved(entry):
        return Best(oracle, "oracle")
    return Best(entry["best"], entry["by"])


def solved(entry: Mapping[str, Any]) -> bool:
    """Return whether the best of the panel is clearly above the floor."""
    gap = entry["best"] - entry["floor"]
    return gap > max(LEAST_GAP, STANDARD_ERRORS * entry["best_error"])


def level_score(measured: Measured, best: Best) -> Score | None:
    """Return `(raw - floor) / (best - floor)`; None where the best is no better than the floor."""
    above = measured.raw - measured.floor
    gap = best.raw - measured.floor.mean()
    if gap < LEAST_GAP:
        return None
    error = above.std(ddof=1) / len(above) ** 0.5 if len(above) > 1 else float("nan")
    return Score(float(above.mean() / gap), float(error / gap))


def mean_score(scores: Sequence[Score]) -> Score:
    """Return the mean of the scores of several levels, whose episodes are independent."""
    values = [score.value for score in scores]
    errors = np.array([score.error for score in scores])
    return Score(float(np.mean(values)), float(np.sqrt(np.square(errors).sum()) / len(errors)))


def levels_in_reach(test: LearningTest, entries: Mapping[Level, Mapping[str, Any]]) -> tuple[Level, ...]:
    """Return the levels of a span up to the last one, in order, that the panel solves; all if it solves none.

    Args:
        test: a span.
        entries: of the panel by level.
    """
    reached = []
    for level in test.levels:
        if level not in entries or not solved(entries[level]):
            break
        reached.append(level)
    return tuple(reached) or test.levels


def span_score(
    levels: Sequence[Level],
    measured: Mapping[Level, Measured],
    bests: Mapping[Level, Best],
) -> Score | None:
    """Return how far a learner gets, relative to the last of the levels, with a jackknife standard error.

    Args:
        levels: those in reach, in their order.
        measured: by level, as far as the learner got.
        bests: by level.
    """
    value = _span(levels, measured, bests)
    if value is None:
        return None
    seeds = min(len(each.raw) for each in measured.values())
    if seeds < 2:
        return Score(value, float("nan"))
    without = []
    for seed in range(seeds):
        rest = {level: each.left_out(seed) for level, each in measured.items()}
        without.append(_span(levels, rest, bests))
    known = np.array([each for each in without if each is not None])
    spread = np.square(known - known.mean()).sum() * (len(known) - 1) / len(known)
    return Score(value, float(np.sqrt(spread)))


def _span(
    levels: Sequence[Level],
    measured: Mapping[Level, Measured],
    bests: Mapping[Level, Best],
) -> float | None:
    """Return the sum of the steps between levels, each times the shares of all levels up to it.

    A level that is passed has share 1. So this is the last level that was passed, plus parts of the steps
    behind it, and it does not jump where a level is just passed or just not.
    """
    reached, before = 0.0, 0.0
    share = 1.0
    known = False
    for level in levels:
        if level not in measured:
            break
        score = level_score(measured[level], bests[level])
        if score is None:
            continue
        known = True
        share *= min(max(score.value, 0.0) / PASSED, 1.0)
        reached += share * (float(level) - before)
        before = float(level)
    return reached / float(levels[-1]) if known else None

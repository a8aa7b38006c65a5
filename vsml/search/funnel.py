"""Counters of where rules end, and hurdles that remember the scores of those before."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from vsml.search.stages import ALIVE, REASONS

_WINDOW = 512
"""Scores of a hurdle that are remembered."""

_FIRST_SCORES = 32
"""Scores that a hurdle needs before it is more than the fixed one."""


@dataclass
class Funnel:
    """Counters of where rules end and why.

    Attributes:
        proposed: rules that were given to be judged.
        ended: rules by stage and reason.
        passed: rules by stage.
    """

    proposed: int = 0
    ended: dict[tuple[str, str], int] = field(default_factory=dict)
    passed: dict[str, int] = field(default_factory=dict)

    def count(self, stage: str, reasons: np.ndarray) -> None:
        """Count the reasons of a stage, `ALIVE` being those that pass it."""
        for number, count in zip(*np.unique(reasons, return_counts=True), strict=True):
            if number == ALIVE:
                self.passed[stage] = self.passed.get(stage, 0) + int(count)
            else:
                place = (stage, REASONS[number])
                self.ended[place] = self.ended.get(place, 0) + int(count)

    def entered(self, stage: str) -> int:
        """Return how many rules came to a stage."""
        ended = sum(count for (name, _), count in self.ended.items() if name == stage)
        return ended + self.passed.get(stage, 0)

    def rows(self) -> list[tuple[str, str, int]]:
        """Return stage, reason and count, stage by stage, the most frequent first; who passes is last."""
        found: list[tuple[str, str, int]] = []
        for stage in sorted({name for name, _ in self.ended} | set(self.passed)):
            ends = [(stage, why, count) for (name, why), count in self.ended.items() if name == stage]
            found += sorted(ends, key=lambda row: -row[2])
            found.append((stage, "passed", self.passed.get(stage, 0)))
        return found

    def counters(self) -> dict[str, dict[str, int]]:
        """Return all of it by stage, then by reason, as the database has it."""
        found: dict[str, dict[str, int]] = {"proposed": {"all": self.proposed}}
        for stage, why, count in self.rows():
            found.setdefault(stage, {})[why] = count
        return found


@dataclass
class Hurdle:
    """The progress that a rule needs at one place: a fixed one, or that of the best of those before.

    Attributes:
        fixed: the least.
        percentile: of the last scores; 0: the fixed one alone.
        scores: the last ones.
    """

    fixed: float
    percentile: float
    scores: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))

    @property
    def height(self) -> float:
        """The progress that is needed now."""
        if self.percentile == 0 or len(self.scores) < _FIRST_SCORES:
            return self.fixed
        return max(self.fixed, float(np.quantile(self.scores, self.percentile)))

    def passes(self, scores: Sequence[float]) -> np.ndarray:
        """Return which scores are high enough, bool [n]; they count for the next ones only."""
        passed = np.asarray(scores) >= self.height
        self.scores.extend(scores)
        return passed

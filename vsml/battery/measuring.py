"""Measuring: contestants take tests, level by level, and a ledger keeps what came of it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vsml.battery.contestants import Contestant
from vsml.battery.floors import FLOORS, oracle
from vsml.battery.learning_test import LearningTest, Level, NotApplicableError, TooSlowError
from vsml.battery.ledger import Entry, Ledger
from vsml.battery.measures import mean_so_far, right
from vsml.battery.panel import Panel, panel_of
from vsml.battery.running import HOUR_S, TUNING, Drawn, draw, take
from vsml.battery.scores import PASSED, Measured, best_of, level_score, levels_in_reach, solved
from vsml.types import Values

TUNING_SEEDS = 8
"""Episodes that settings are chosen on."""

CURVE_POINTS = 40
"""Points of a learning curve, at most."""

_DIGITS = 5

Say = Callable[[str], None]
"""Takes a line about progress."""


@dataclass(frozen=True, eq=False)
class Measuring:
    """How contestants are measured.

    Attributes:
        ledger: what is known, and gets what comes to be known.
        panel: of references; of a span, a learner stops where it falls below half of the panel's best.
        say: told of each level.
        limit_s: time that a learner may take for a level.
        quick: the first level of each test only.
    """

    ledger: Ledger
    panel: Panel
    say: Say
    limit_s: float = HOUR_S
    quick: bool = False

    def measure(self, contestants: Sequence[Contestant], tests: Sequence[LearningTest]) -> None:
        """Let contestants take tests; what the ledger has is not done again.

        What was refused is tried again, as there may be data now, or more time.
        """
        for test in tests:
            for level in self._levels(test):
                going_on = [each for each in contestants if self._goes_on(each, test, level)]
                for each in going_on:
                    if self._is_open(self.ledger.entry(each.name, test, level)):
                        self._measure(each, test, level)

    def measure_panel(self, members: Sequence[Contestant], tests: Sequence[LearningTest]) -> None:
        """Let the members of a panel take tests; a span ends where the best no longer beats the floor."""
        names = [member.name for member in members]
        for test in tests:
            for level in test.levels:
                for member in members:
                    if self._is_open(self.ledger.entry(member.name, test, level)):
                        self._measure(member, test, level)
                entry = panel_of(self.ledger, [test], names).entry(test, level)
                if test.span and (entry is None or not solved(entry)):
                    break

    def _is_open(self, entry: Entry | None) -> bool:
        """Return whether something is still to be measured, given what the ledger has of it."""
        if entry is None:
            return True
        was_too_slow = "limit_s" in entry
        has_more_time = was_too_slow and self.limit_s > entry["limit_s"]
        return "refused" in entry and (has_more_time or not was_too_slow)

    def _levels(self, test: LearningTest) -> tuple[Level, ...]:
        """Return the levels that are measured."""
        levels = test.levels
        if test.span:
            levels = levels_in_reach(test, self.panel.entries(test))
        return levels[:1] if self.quick else levels

    def _goes_on(self, contestant: Contestant, test: LearningTest, level: Level) -> bool:
        """Return whether a contestant has passed the level before, if the test is a span."""
        place = test.levels.index(level)
        if not test.span or place == 0:
            return True
        before = test.levels[place - 1]
        entry = self.ledger.entry(contestant.name, test, before)
        if entry is None or "refused" in entry:
            return False
        measured = measured_of(entry)
        best = best_of(self.panel.entry(test, before), measured.oracle)
        score = level_score(measured, best)
        return score is None or score.value >= PASSED

    def _measure(self, contestant: Contestant, test: LearningTest, level: Level) -> None:
        try:
            entry = self._entry(contestant, test, level)
        except TooSlowError as error:
            entry = {"refused": str(error), "limit_s": self.limit_s}
        except NotApplicableError as error:
            entry = {"refused": str(error)}
        self.ledger.add(contestant.name, test, level, entry)
        self.say(f"{contestant.name}: {test.name} {level}: {_in_words(entry)}")

    def _entry(self, contestant: Contestant, test: LearningTest, level: Level) -> Entry:
        """Return what comes of a contestant at a level.

        Raises:
            NotApplicableError: it cannot take it.
        """
        drawn = draw(test, level, self.ledger.seeds, self.ledger.seed)
        settings = self._settings(contestant, test)
        learner, params = contestant.built(drawn.task, settings)
        taken = take(learner, params, drawn, self.limit_s)
        outcome = drawn.outcome(taken.answers)
        raw = np.asarray(test.score(outcome), float)
        return {
            "raw": _rounded(raw),
            "floor": _rounded(floor_of(drawn)),
            "oracle": float(drawn.score_of(oracle).mean()),
            "cpu_s": round(taken.cpu_s, _DIGITS),
            "steps": self.ledger.seeds * drawn.task.steps,
            "state": taken.state,
            "settings": dict(settings),
            "curve": _rounded(_curve(drawn, taken.answers)),
        }

    def _settings(self, contestant: Contestant, test: LearningTest) -> Mapping[str, Any]:
        """Return the settings of a contestant for a test, chosen on other episodes if there is a choice."""
        if not contestant.choices:
            return {}
        for known in (self.ledger.tuned, self.panel.tuned):
            if test.name in known.get(contestant.name, {}):
                return known[contestant.name][test.name]
        chosen = self._choose(contestant, test)
        self.ledger.choose(contestant.name, test, chosen)
        return chosen

    def _choose(self, contestant: Contestant, test: LearningTest) -> Mapping[str, Any]:
        """Return the settings with the best raw score: at the last level, or in the middle of a span."""
        level = test.levels[len(test.levels) // 2 if test.span else -1]
        drawn = draw(test, level, TUNING_SEEDS, self.ledger.seed, TUNING)
        scores = []
        for settings in contestant.choices:
            learner, params = contestant.built(drawn.task, settings)
            taken = take(learner, params, drawn, self.limit_s)
            scores.append(float(np.mean(test.score(drawn.outcome(taken.answers)))))
        return contestant.choices[int(np.argmax(scores))]


def measured_of(entry: Entry) -> Measured:
    """Return the raw scores of an entry that was not refused."""
    return Measured(np.array(entry["raw"]), np.array(entry["floor"]), entry["oracle"])


def floor_of(drawn: Drawn) -> np.ndarray:
    """Return the raw scores [S] of the better of what answers without learning from inputs."""
    scores = [drawn.score_of(FLOORS[name]) for name in drawn.test.floors]
    means = [float(each.mean()) for each in scores]
    return scores[int(np.argmax(means))]


def _curve(drawn: Drawn, answers: np.ndarray) -> np.ndarray:
    """Return how right answers were on the way, over all episodes, in at most `CURVE_POINTS` pieces.

    For classes the accuracy; for values the share of squared error that the mean so far leaves and they do
    not, at least 0.
    """
    outcome = drawn.outcome(answers)
    pieces = min(CURVE_POINTS, drawn.task.steps)
    if not isinstance(outcome.outputs, Values):
        hits = right(outcome).mean(0)
        return np.array([piece.mean() for piece in np.array_split(hits, pieces)])
    with np.errstate(all="ignore"):  # answers may have run away
        errors = np.square(outcome.answers.astype(float) - outcome.targets).sum((0, 2))
    of_mean = np.square(mean_so_far(outcome) - outcome.targets).sum((0, 2))
    shares = []
    for mine, other in _pairs(errors, of_mean, pieces):
        left = float(mine.sum()) / max(float(other.sum()), 1e-9)
        shares.append(max(1 - left, 0.0) if np.isfinite(left) else 0.0)
    return np.array(shares)


def _pairs(a: np.ndarray, b: np.ndarray, pieces: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield pieces of two arrays of the same length."""
    yield from zip(np.array_split(a, pieces), np.array_split(b, pieces), strict=True)


def _rounded(values: np.ndarray) -> list[float]:
    """Return numbers as files have them."""
    return [round(float(value), _DIGITS) for value in values]


def _in_words(entry: Entry) -> str:
    """Say what came of a level."""
    if "refused" in entry:
        return f"n/a: {entry['refused']}"
    raw, floor = np.mean(entry["raw"]), np.mean(entry["floor"])
    return f"{raw:.3f} (floor {floor:.3f}, {entry['cpu_s']:.1f} s)"

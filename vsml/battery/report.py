"""The report of a battery: scores of learners by test and by tag, with state and cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vsml.battery.learning_test import LearningTest, Level
from vsml.battery.ledger import Entry, Ledger
from vsml.battery.measuring import measured_of
from vsml.battery.panel import Panel
from vsml.battery.scores import Best, Score, best_of, level_score, levels_in_reach, mean_score, span_score
from vsml.reporting.tables import DASH, Table

MOST = 2.0
"""A score counts no more than this in the mean over a tag, so that one test cannot outweigh the others."""

NOT_APPLICABLE = "n/a"

PARTLY = "*"
"""Behind a score of some levels of a test, where others were refused."""


@dataclass(frozen=True, eq=False)
class Row:
    """What a learner came to.

    Attributes:
        learner: its name.
        scores: by test that was measured; None: n/a, or a test in which nobody beats the floor.
        reasons: why tests are n/a.
        raw: mean raw score by level, `place`.
        state: numbers of state, by the task with the most and the least.
        cost_us: processor time of an example of one episode in microseconds, the median over levels.
        curves: by level.
    """

    learner: str
    scores: Mapping[str, Score | None]
    reasons: Mapping[str, str] = field(default_factory=dict)
    raw: Mapping[str, float] = field(default_factory=dict)
    state: str = ""
    cost_us: float | None = None
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def of_tag(self, tests: Sequence[LearningTest], tag: str) -> Score | None:
        """Return the mean score of the tests whose first tag it is, each at least 0 and at most `MOST`.

        None where a test was not measured, or all are n/a: means over different tests are not to be compared.
        """
        found = []
        for test in tests:
            if test.tags[0] != tag:
                continue
            if test.name not in self.scores:
                return None
            score = self.scores[test.name]
            if score is not None:
                found.append(Score(min(max(score.value, 0.0), MOST), score.error))
        return mean_score(found) if found else None

    def is_partial(self, test: LearningTest) -> bool:
        """Return whether a test has a score of some of its levels, while others were refused."""
        return self.scores.get(test.name) is not None and test.name in self.reasons

    def text_of_tag(self, tests: Sequence[LearningTest], tag: str) -> str:
        """Return the mean score as text; n/a, or a dash where a test was not measured."""
        score = self.of_tag(tests, tag)
        of_tag = [test for test in tests if test.tags[0] == tag]
        if score is not None:
            return f"{score.value:.2f}{PARTLY if any(map(self.is_partial, of_tag)) else ''}"
        return NOT_APPLICABLE if all(test.name in self.scores for test in of_tag) else DASH


def row_of(ledger: Ledger, panel: Panel, learner: str, tests: Sequence[LearningTest]) -> Row:
    """Return what a learner in a ledger came to."""
    entries = ledger.learners.get(learner, {})
    scores: dict[str, Score | None] = {}
    reasons: dict[str, str] = {}
    raw: dict[str, float] = {}
    curves: dict[str, Sequence[float]] = {}
    for test in tests:
        by_level: dict[Level, Entry] = {}
        for level in test.levels:
            name = f"{test.name}/{level}"
            entry = entries.get(name)
            if entry is None:
                continue
            if "refused" in entry:
                reasons.setdefault(test.name, entry["refused"])
                continue
            by_level[level] = entry
            raw[name] = float(np.mean(entry["raw"]))
            curves[name] = entry["curve"]
        if by_level or test.name in reasons:
            scores[test.name] = score_of_test(test, by_level, panel)
    known = [entry for entry in entries.values() if "raw" in entry]
    return Row(learner, scores, reasons, raw, _states(known), _cost_us(known), curves)


def score_of_test(test: LearningTest, entries: Mapping[Level, Entry], panel: Panel) -> Score | None:
    """Return the score of a learner on a test; None where no level could be taken.

    Args:
        test: the test.
        entries: of the learner, by level.
        panel: of references.
    """
    measured = {level: measured_of(entry) for level, entry in entries.items()}
    bests: dict[Level, Best] = {}
    for level, each in measured.items():
        bests[level] = best_of(panel.entry(test, level), each.oracle)
    if test.span:
        levels = levels_in_reach(test, panel.entries(test))
        return span_score(levels, measured, bests) if measured else None
    scores = []
    for level, each in measured.items():
        score = level_score(each, bests[level])
        if score is not None:
            scores.append(score)
    return mean_score(scores) if scores else None


def tags_of(tests: Sequence[LearningTest]) -> tuple[str, ...]:
    """Return the first tags of tests, in their order."""
    return tuple(dict.fromkeys(test.tags[0] for test in tests))


def score_text(row: Row, test: LearningTest) -> str:
    """Return a score with its error, as in "0.83 ± 0.02"; n/a, or a dash for what was not measured.

    A star stands behind a score of some levels.
    """
    score = row.scores.get(test.name)
    if score is None:
        return NOT_APPLICABLE if test.name in row.reasons else DASH
    return f"{score.value:.2f} ± {score.error:.2f}{PARTLY if row.is_partial(test) else ''}"


def table_of_tags(rows: Sequence[Row], tests: Sequence[LearningTest]) -> Table:
    """Return a table with a row for each learner: its mean score by tag, its state and its cost."""
    tags = tags_of(tests)
    headings = ("learner", *tags, "state", "CPU µs an example")
    cells = []
    for row in rows:
        texts = [row.text_of_tag(tests, tag) for tag in tags]
        cost = None if row.cost_us is None else float(row.cost_us)
        cells.append([row.learner, *texts, row.state, cost])
    return Table(headings, cells, left=frozenset(["learner"]))


def table_of_abilities(rows: Sequence[Row], tests: Sequence[LearningTest]) -> Table:
    """Return the table of `table_of_tags` turned around: a column for each learner, for narrow terminals."""
    across = table_of_tags(rows, tests)
    headings = ("ability", *(row.learner for row in rows))
    cells: list[Sequence[Any]] = []
    for place, name in enumerate(across.headings[1:], 1):
        cells.append([name, *(row[place] for row in across.rows)])
    return Table(headings, cells, left=frozenset(["ability"]))


def table_of_tests(rows: Sequence[Row], tests: Sequence[LearningTest]) -> Table:
    """Return a table with a row for each test, and a column for each learner."""
    headings = ("tag", "test", *(row.learner for row in rows))
    cells = []
    for test in tests:
        scores = [score_text(row, test) for row in rows]
        cells.append([test.tags[0], test.name, *scores])
    return Table(headings, cells, left=frozenset(["tag", "test"]))


def row_json(row: Row, tests: Sequence[LearningTest]) -> dict[str, Any]:
    """Return what a leaderboard keeps of a learner."""
    scores: dict[str, list[float] | None] = {}
    for test in tests:
        if test.name not in row.scores:
            continue
        score = row.scores[test.name]
        scores[test.name] = None if score is None else [round(score.value, 4), round(score.error, 4)]
    raw = {name: round(value, 4) for name, value in row.raw.items()}
    return {
        "scores": scores,
        "not_applicable": dict(row.reasons),
        "raw": raw,
        "state": row.state,
        "cost_us": row.cost_us,
    }


def row_from_json(learner: str, content: Mapping[str, Any]) -> Row:
    """Return a learner of a leaderboard."""
    scores = {}
    for name, pair in content["scores"].items():
        scores[name] = None if pair is None else Score(*pair)
    return Row(
        learner,
        scores,
        content["not_applicable"],
        content["raw"],
        content["state"],
        content["cost_us"],
    )


def _states(entries: Sequence[Entry]) -> str:
    """Return the least and the most numbers of state."""
    counts = sorted(entry["state"] for entry in entries)
    if not counts:
        return ""
    return f"{counts[0]:,}" if counts[0] == counts[-1] else f"{counts[0]:,} to {counts[-1]:,}"


def _cost_us(entries: Sequence[Entry]) -> float | None:
    """Return the median processor time of an example, in microseconds."""
    costs = [1e6 * entry["cpu_s"] / entry["steps"] for entry in entries if "cpu_s" in entry]
    return round(float(np.median(costs)), 2) if costs else None

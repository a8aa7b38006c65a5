"""Simplification: what a rule does not need is knocked out, until nothing is left that can go."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from vsml.rules.canonical import canonical, rule_hash
from vsml.rules.mistakes import RuleError
from vsml.rules.operators import OPERATORS
from vsml.rules.program import Capacity
from vsml.rules.rule import NO_REGISTER, Rule
from vsml.search.edits import Edit, edited, edits_of
from vsml.search.folding import folded
from vsml.search.scoring import Difference, Scoring, capacity_of, difference


@dataclass(frozen=True)
class Round:
    """One round of knocking out.

    Attributes:
        tried: single edits that were scored.
        passed: those that cost nothing by themselves.
        kept: those that cost nothing together, on fresh tasks and starts.
        rule: the rule after the round.
    """

    tried: int
    passed: int
    kept: int
    rule: Rule


@dataclass(frozen=True)
class Simplified:
    """A rule that was simplified.

    Attributes:
        original: the rule before.
        rule: the rule after.
        rounds: what was done; the last round kept nothing.
        before: progress of the original in each exercise, on tasks and starts that chose nothing.
        difference: what the simplified one has more than the original, on the same.
        scored: how often a rule was scored.
    """

    original: Rule
    rule: Rule
    rounds: tuple[Round, ...]
    before: tuple[float, ...]
    difference: Difference
    scored: int


def cost(rule: Rule) -> int:
    """Return how much there is to read in a rule: each edit of `edits_of` lowers it, or is not taken.

    Counted are operators, slots, stores, guards, filters, initialisations, and constants that may be tuned.
    """
    live = canonical(rule)
    total = live.size + len(live.initial) + len(live.tuned)
    for slot in live.slots:
        present = [register != NO_REGISTER for register in (slot.value, slot.guard, slot.initial)]
        total += 1 + sum(present)
    for instruction in live.tick:
        is_reducer = OPERATORS[instruction.operator].family == "reducer"
        total += int(is_reducer and len(instruction.operands) > 1)
    return total


@dataclass
class Simplification:
    """Knocks out what a rule does not need.

    Every comparison is with the original rule, on the same tasks and starts, so that small losses of many
    rounds do not add up. Each takes fresh ones, so that luck is not kept.

    Attributes:
        original: the rule.
        scoring: how rules are scored.
        told: is called after each round.
    """

    original: Rule
    scoring: Scoring
    told: Callable[[Round], None] = lambda _: None
    _draws: int = 0
    _scored: int = 0
    _capacity: Capacity = field(init=False)

    def __post_init__(self) -> None:
        self._capacity = capacity_of(self.original)

    def run(self) -> Simplified:
        """Return the simplified rule: a fixed point, of which no single edit can be kept."""
        rule = folded(self.original)
        rounds: list[Round] = []
        while not rounds or rounds[-1].kept:
            rounds.append(self._round(rule))
            self.told(rounds[-1])
            rule = rounds[-1].rule
        scores = self._scores([rule])
        return Simplified(
            original=self.original,
            rule=rule,
            rounds=tuple(rounds),
            before=tuple(scores[0].mean(1).tolist()),
            difference=difference(scores[1], scores[0]),
            scored=self._scored,
        )

    def _round(self, rule: Rule) -> Round:
        candidates = smaller_rules(rule)
        scores = self._scores([candidate for _, candidate in candidates])
        passed: list[Edit] = []
        for (edit, _), own in zip(candidates, scores[1:], strict=True):
            if difference(own, scores[0]).is_no_fall:
                passed.append(edit)
        kept = self._kept_together(rule, [], one_at_a_place(passed))
        with_less = folded(edited(rule, kept)) if kept else rule
        return Round(len(candidates), len(passed), len(kept), with_less)

    def _kept_together(self, rule: Rule, kept: list[Edit], edits: Sequence[Edit]) -> list[Edit]:
        """Return edits that cost nothing together: those kept already, and as many more as halving finds."""
        if not edits:
            return kept
        together = [*kept, *edits]
        if self._costs_nothing(rule, together):
            return together
        if len(edits) == 1:
            return kept
        middle = len(edits) // 2
        kept = self._kept_together(rule, kept, edits[:middle])
        return self._kept_together(rule, kept, edits[middle:])

    def _costs_nothing(self, rule: Rule, edits: Sequence[Edit]) -> bool:
        """Return whether a rule with some edits is no worse than the original, on fresh tasks and starts."""
        try:
            candidate = folded(edited(rule, edits))
        except RuleError:
            return False
        if cost(candidate) >= cost(rule):
            return False
        scores = self._scores([candidate])
        return difference(scores[1], scores[0]).is_no_fall

    def _scores(self, rules: Sequence[Rule]):  # type: ignore[no-untyped-def]  # an array
        """Return the scores of the original and of some rules, on fresh tasks and starts."""
        self._draws += 1
        self._scored += 1 + len(rules)
        return self.scoring.scores([self.original, *rules], self._capacity, self._draws)


def smaller_rules(rule: Rule) -> list[tuple[Edit, Rule]]:
    """Return all edits of a rule that the language allows, with what they lead to, the smallest first.

    What an edit leads to is smaller than the rule. Of edits that lead to equal rules there is one.
    """
    before = cost(rule)
    found: dict[str, tuple[int, Edit, Rule]] = {}
    for edit in edits_of(rule):
        try:
            candidate = folded(edited(rule, [edit]))
        except RuleError:
            continue
        after = cost(candidate)
        if after < before:
            found.setdefault(rule_hash(candidate), (after, edit, candidate))
    ordered = sorted(found.values(), key=lambda entry: entry[0])
    return [(edit, candidate) for _, edit, candidate in ordered]


def one_at_a_place(edits: Sequence[Edit]) -> list[Edit]:
    """Return the first of the edits at each place, in their order."""
    first: dict[tuple[str, int], Edit] = {}
    for edit in edits:
        first.setdefault((edit.about, edit.number), edit)
    return list(first.values())


def simplify(
    rule: Rule,
    scoring: Scoring,
    told: Callable[[Round], None] = lambda _: None,
) -> Simplified:
    """Return a rule without what it does not need; see `Simplification`.

    Exactly what computes nothing is left out first (`folded`). Then all single edits (`edits_of`) are scored,
    and those that cost nothing, no more than one standard error in any exercise, are taken together as far as
    they cost nothing together. This is repeated until no edit is kept.

    Args:
        rule: the rule.
        scoring: how rules are scored.
        told: is called after each round.
    """
    return Simplification(rule, scoring, told).run()

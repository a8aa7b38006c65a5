"""Ablation: what each line of a rule is worth."""

from dataclasses import dataclass

from vsml.rules.mistakes import RuleError
from vsml.rules.printer import show
from vsml.rules.rule import FIRST_INSTRUCTION, NO_REGISTER, Definition, Rule, with_constants
from vsml.search.edits import GUARD, OPERATOR, START, STORE, Edit, edited, with_number
from vsml.search.scoring import Difference, Scoring, capacity_of, difference


@dataclass(frozen=True)
class Worth:
    """What a rule has more without a part of a line: below 0 for what it needs.

    Attributes:
        line: number of the line in `show(rule)`, from 1.
        text: the line.
        change: what was done to it, in words.
        difference: score without it less score with it; None where the rule is none without it.
    """

    line: int
    text: str
    change: str
    difference: Difference | None


@dataclass(frozen=True)
class Ablation:
    """A rule, and what each of its lines is worth.

    Attributes:
        rule: the rule.
        names: of the exercises.
        scores: progress of the rule in each exercise.
        lines: line by line.
    """

    rule: Rule
    names: tuple[str, ...]
    scores: tuple[float, ...]
    lines: tuple[Worth, ...]


def ablate(rule: Rule, scoring: Scoring, draw: int = 0) -> Ablation:
    """Return what each line of a rule is worth; all variants meet the same tasks and starts.

    A constant, an initialisation and a definition become 0. A store is removed, and so is a guard: then the
    store happens everywhere, in every tick. What only a removed part needed goes with it.

    Args:
        rule: the rule.
        scoring: how rules are scored.
        draw: of tasks and starts.
    """
    variants = list(_variants(rule))
    rules = [variant for *_, variant in variants if variant is not None]
    scores = scoring.scores([rule, *rules], capacity_of(rule), draw)
    own, others = scores[0], iter(scores[1:])
    texts = show(rule).splitlines()
    lines: list[Worth] = []
    for line, change, variant in variants:
        found = None if variant is None else difference(next(others), own)
        lines.append(Worth(line + 1, texts[line], change, found))
    return Ablation(rule, tuple(scoring.names), tuple(own.mean(1).tolist()), tuple(lines))


def _variants(rule: Rule) -> list[tuple[int, str, Rule | None]]:
    """Return the line, what is done to it, and the rule that this leads to, for each part of a line."""
    found: list[tuple[int, str, Rule | None]] = []
    for line, name in enumerate(rule.tuned):
        found.append((line, f"{name} is 0", with_constants(rule, {name: 0.0})))
    first_slot = len(rule.tuned)
    for number, slot in enumerate(rule.slots):
        if slot.initial != NO_REGISTER:
            found.append((first_slot + number, "it starts as 0", _edited(rule, Edit(START, number))))
    first_statement = first_slot + len(rule.slots)
    for place, statement in enumerate(rule.body):
        line = first_statement + place
        if isinstance(statement, Definition):
            found.append((line, f"{statement.name} is 0", _without_definition(rule, statement)))
            continue
        slot = rule.slots[statement.slot]
        found.append((line, "no store", _edited(rule, Edit(STORE, statement.slot))))
        if slot.guard != NO_REGISTER:
            found.append((line, "no guard", _edited(rule, Edit(GUARD, statement.slot))))
    return found


def _without_definition(rule: Rule, definition: Definition) -> Rule | None:
    """Return a rule in which a defined value is 0; None where the definition is a name for a leaf."""
    number = definition.register - FIRST_INSTRUCTION
    if number < 0:
        return None
    with_zero, zero = with_number(rule, 0.0)
    return _edited(with_zero, Edit(OPERATOR, number, zero))


def _edited(rule: Rule, edit: Edit) -> Rule | None:
    try:
        return edited(rule, [edit])
    except RuleError:
        return None

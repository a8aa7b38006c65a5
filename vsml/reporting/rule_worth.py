"""What lines of a rule are worth, and what is left of a rule that was simplified: tables, text and JSON."""

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from vsml.reporting.tables import DASH, Table
from vsml.rules.canonical import rule_hash
from vsml.rules.printer import show
from vsml.rules.rule import Rule
from vsml.search.ablation import Ablation
from vsml.search.scoring import Difference, Scoring
from vsml.search.simplifying import Round, Simplified, cost

NO_RULE = "no rule without it"
"""Stands where a rule that lacks a line cannot be run."""

_WIDTH = 100


def ablation_table(ablation: Ablation) -> Table:
    """Return the table of an ablation: of each part of a line how much the score changes without it."""
    headings = ["line", "text", "without it", "all", *ablation.names]
    rows: list[list[str]] = []
    for worth in ablation.lines:
        cells = [NO_RULE] + [DASH] * len(ablation.names)
        if worth.difference is not None:
            cells = _differences(worth.difference)
        rows.append([str(worth.line), worth.text, worth.change, *cells])
    return Table(headings, rows, left=frozenset(["text", "without it"]))


def _differences(found: Difference) -> list[str]:
    """Return a difference over everything and in each exercise, with standard errors."""
    means = (found.mean, *found.by_exercise)
    errors = (found.error, *found.errors)
    return [with_error(mean, error) for mean, error in zip(means, errors, strict=True)]


def with_error(mean: float, error: float) -> str:
    """Return a difference with its standard error."""
    return f"{mean:+.3f} ± {error:.3f}"


def ablation_json(ablation: Ablation, scoring: Scoring) -> dict[str, Any]:
    """Return an ablation, ready for JSON."""
    lines: list[dict[str, Any]] = []
    for worth in ablation.lines:
        lines.append(
            {
                "line": worth.line,
                "text": worth.text,
                "change": worth.change,
                "difference": None
                if worth.difference is None
                else difference_json(worth.difference, ablation.names),
            }
        )
    return {
        "hash": rule_hash(ablation.rule),
        "rule": show(ablation.rule),
        "scores": dict(zip(ablation.names, ablation.scores, strict=True)),
        "lines": lines,
        **scoring_json(scoring),
    }


def difference_json(found: Difference, names: Sequence[str]) -> dict[str, Any]:
    """Return a difference, ready for JSON: mean and standard error, of all and of each exercise."""
    by_exercise: dict[str, dict[str, float]] = {}
    for name, mean, error in zip(names, found.by_exercise, found.errors, strict=True):
        by_exercise[name] = {"mean": mean, "standard_error": error}
    return {"mean": found.mean, "standard_error": found.error, "by_task": by_exercise}


def scoring_json(scoring: Scoring) -> dict[str, Any]:
    """Return how rules were scored, ready for JSON."""
    graphs: list[dict[str, Any]] = []
    for exercise in scoring.exercises:
        graph = exercise.graph
        graphs.append(
            {"task": exercise.name, "graph": graph.kind, "nodes": graph.num_nodes, "edges": graph.num_edges}
        )
    return {
        "exercises": graphs,
        "examples": scoring.examples,
        "seeds": scoring.seeds,
        "seed": scoring.seed,
    }


def scoring_text(scoring: Scoring) -> str:
    """Return how rules are scored, as a sentence or two."""
    parts: list[str] = []
    for exercise in scoring.exercises:
        graph = exercise.graph
        parts.append(f"{exercise.name} ({graph.kind}, {graph.num_nodes} nodes, {graph.num_edges} edges)")
    streams = f"{scoring.examples} examples, {scoring.seeds} starts each"
    return textwrap.fill(f"Progress in {', '.join(parts)}; {streams}.", _WIDTH)


def scores_text(names: Sequence[str], scores: Sequence[float]) -> str:
    """Return the progress in each exercise."""
    return ", ".join(f"{name} {score:.3f}" for name, score in zip(names, scores, strict=True))


def unlearned(names: Sequence[str], scores: Sequence[float]) -> list[str]:
    """Return the exercises in which a rule is no better than a constant answer."""
    return [name for name, score in zip(names, scores, strict=True) if score <= 0]


def round_text(done: Round) -> str:
    """Return what a round of simplification did, as a line."""
    return f"{done.tried} edits, {done.passed} cost nothing, {done.kept} kept: {done.rule.size} operators"


def simplified_text(found: Simplified, scoring: Scoring) -> Iterator[str]:
    """Yield what was left out of a rule and what that costs, block by block; the rule is last."""
    names = scoring.names
    yield f"before: {scores_text(names, found.before)}"
    change = found.difference
    by_exercise = [
        f"{name} {with_error(mean, error)}"
        for name, mean, error in zip(names, change.by_exercise, change.errors, strict=True)
    ]
    yield f"change: {', '.join(by_exercise)}, on starts that chose nothing"
    sizes = f"{found.original.size} to {found.rule.size}"
    parts = f"{cost(found.original)} to {cost(found.rule)}"
    yield f"operators: {sizes}; parts in all: {parts}; rules scored: {found.scored:,}"
    yield f"\n{show(found.rule).rstrip()}"


def simplified_json(found: Simplified, scoring: Scoring) -> dict[str, Any]:
    """Return a simplification, ready for JSON."""
    names = scoring.names
    rounds = [{"tried": done.tried, "passed": done.passed, "kept": done.kept} for done in found.rounds]
    return {
        "original": {
            "hash": rule_hash(found.original),
            "size": found.original.size,
            "rule": show(found.original),
        },
        "simplified": {"hash": rule_hash(found.rule), "size": found.rule.size, "rule": show(found.rule)},
        "scores": dict(zip(names, found.before, strict=True)),
        "difference": difference_json(found.difference, names),
        "rounds": rounds,
        "scored": found.scored,
        **scoring_json(scoring),
    }


def _rule_json(rule: Rule) -> dict[str, Any]:
    return {"hash": rule_hash(rule), "size": rule.size, "rule": show(rule)}

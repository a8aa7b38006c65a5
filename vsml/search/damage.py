"""Damage: lines of a rule's text that are removed or changed, for a search to repair."""

import re

import jax
import numpy as np

from vsml.rules.canonical import rule_hash
from vsml.rules.mistakes import RuleError
from vsml.rules.parser import parse

_TRIES = 200
"""How often other lines are taken before a rule is said to be undamageable."""

_OPERATORS = ("+", "-", "*", "/")

_TOKEN = re.compile(r"[A-Za-z_]\w*|[-+*/]")


def damaged(text: str, lines: int, seed: int) -> str:
    """Return the text of a rule with some of its lines broken, half of them removed and half of them changed.

    Lines are definitions and stores. A removed store leaves its slot as it began; in place of a removed
    definition stands a constant of its name, which is 0.
    In a changed line one name or one of + - * / is another one. Each broken line changes what the rule
    computes, by its hash. What a rule is and declares, and what it reads out, stays.

    Args:
        text: of the rule.
        lines: how many are broken.
        seed: of the choice.

    Raises:
        ValueError: the rule has fewer lines, or no choice of them leaves a rule of the language.
    """
    rows = text.splitlines()
    places = [place for place, row in enumerate(rows) if _parts(row) is not None]
    if not 0 <= lines <= len(places):
        raise ValueError(f"lines: got {lines}, expected 0 to {len(places)}, the lines of the rule")
    key = jax.random.key(seed)
    chosen: set[int] = set()
    current = rows
    hashes = {rule_hash(parse(text))}
    for attempt in range(_TRIES):
        if len(chosen) == lines:
            return "\n".join(current) + "\n"
        draws = np.asarray(jax.random.uniform(jax.random.fold_in(key, attempt), (4,))).tolist()
        place = places[int(draws[0] * len(places))]
        if place in chosen:
            continue
        broken = _removed(current[place]) if draws[1] < 0.5 else _changed(current, place, draws[2:])
        proposal = [*current[:place], *broken, *current[place + 1 :]]
        if len(proposal) != len(current):
            # An empty line keeps the numbers of the others.
            proposal = [*current[:place], "", *current[place + 1 :]]
        try:
            found = rule_hash(parse("\n".join(proposal) + "\n"))
        except RuleError:
            continue
        if found in hashes:
            continue
        hashes.add(found)
        chosen.add(place)
        current = proposal
    raise ValueError(f"lines: got {lines}, but no choice of so many lines leaves a rule of the language")


def _parts(row: str) -> tuple[str, str, str] | None:
    """Return the left side, `<-` or `=`, and the right side of a store or definition; None of other lines."""
    code = row.partition("#")[0].strip()
    if not code or code.startswith("@") or ":" in code or code.replace(" ", "").startswith("out="):
        return None
    for arrow in ("<-", "="):
        left, found, right = code.partition(arrow)
        if found:
            return left.strip(), arrow, right.strip()
    return None


def _removed(row: str) -> list[str]:
    """Return what is left of a line that is removed."""
    left, arrow, _ = _parts(row)  # type: ignore[misc]  # the caller has looked
    return [] if arrow == "<-" else [f"@{left} = 0"]


def _changed(rows: list[str], place: int, draws: list[float]) -> list[str]:
    """Return a line with another name or operator at one place."""
    left, arrow, right = _parts(rows[place])  # type: ignore[misc]  # the caller has looked
    tokens = [match for match in _TOKEN.finditer(right) if match[0] != "if"]
    if not tokens:
        return [rows[place]]
    token = tokens[int(draws[0] * len(tokens))]
    if token[0] in _OPERATORS:
        others = [each for each in _OPERATORS if each != token[0]]
    else:
        # Names of the whole rule: which of them fit, the parser says.
        names = [match[0] for row in rows for match in _TOKEN.finditer(row.partition("#")[0])]
        others = sorted({name for name in names if name not in (*_OPERATORS, "if", token[0])})
    other = others[int(draws[1] * len(others))]
    return [f"{left} {arrow} {right[: token.start()]}{other}{right[token.end() :]}"]

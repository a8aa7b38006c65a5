"""The page about a search for rules: what was proposed, where rules ended, the best, and who searched.

One HTML file that needs no network. All of it is from the database; what is not there is said to be missing.
"""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vsml.reporting import search_runs
from vsml.reporting.charts import Series, legend, step_chart
from vsml.reporting.rule_worth import NO_RULE, with_error
from vsml.reporting.search_parts import HOUR_S, code_of, method_of, note, table, when
from vsml.search.store.commands import commands_of
from vsml.search.store.database import Database
from vsml.search.store.lives import SILENT_S
from vsml.search.store.overview import (
    PASSED,
    PROPOSED,
    BestCell,
    Overview,
    Progress,
    overview,
    proposals,
)
from vsml.search.store.queries import Family, Query, ancestors, find_rules, origins_of
from vsml.search.store.rows import EventRow, RuleRow, RunRow
from vsml.system.hashes import SHOWN_DIGITS

CONTROLS = {
    "random": "rules drawn at random",
    "best_of": "mutations of the start",
    "constants": "constants alone tuned",
}
"""Methods that a search has to beat at the same budget, and what each does."""

_SHOWN_RULES = 3
_SHOWN_CELLS = 50
_GENERATIONS = 8
_MINUTE_S = 60.0
_MILLION = 1e6

_KNOWN = ("known", "twin")
"""How reasons begin that say that a rule's score was there already."""


@dataclass(frozen=True)
class BestRule:
    """One of the best rules.

    Attributes:
        row: the rule.
        reached: what it reached, in words.
        family: what it was made from.
        origins: of rules of the family, by hash.
        ablation: the event that says what its lines are worth; None: there is none.
    """

    row: RuleRow
    reached: str
    family: Family
    origins: Mapping[str, str]
    ablation: EventRow | None


def search_page(database: Database, price_per_hour: float | None = None) -> str:
    """Return the page about a search, as HTML.

    Args:
        database: the database that the search writes.
        price_per_hour: of one worker, in any currency; None leaves costs out.

    Raises:
        StoreError: the database cannot be used.
        ValueError: the price is below 0.
    """
    seen = overview(database)
    body = [
        f"<h1>Search for rules: {html.escape(Path(seen.name).name)}</h1>",
        note(f"{seen.name}, read {when(seen.read_s)}"),
    ]
    for heading, content in search_sections(database, seen, price_per_hour).items():
        body.append(_section(heading, content) if heading else content)
    lines = "\n".join(body)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Search for rules</title>\n<style>{page_style()}</style>\n</head>\n"
        f"<body>\n{lines}\n</body>\n</html>\n"
    )


def page_style() -> str:
    """Return the style sheet of the page."""
    return _beside("page.css") + _beside("search_page.css")


def search_sections(
    database: Database,
    seen: Overview,
    price_per_hour: float | None = None,
) -> dict[str, str]:
    """Return the content of each section of the page as HTML, by its heading; the first has none.

    Args:
        database: the database that the search writes.
        seen: from `overview`.
        price_per_hour: as `search_page` takes it.

    Raises:
        StoreError: the database cannot be used.
        ValueError: the price is below 0.
    """
    if price_per_hour is not None and not 0 <= price_per_hour < math.inf:
        raise ValueError(f"price_per_hour: got {price_per_hour}, expected a number from 0 on")
    best = _best_rules(database, seen)
    return {
        "": _numbers(seen, price_per_hour),
        "Where rules end": _funnel(seen),
        "Best scores over time": _curves(seen),
        "Best rule of each cell": _cells(seen.cells),
        "Tests": _tests(seen),
        "The best rules": "".join(rule_section(each) for each in best) or _no_rules(),
        "Workers": search_runs.workers(seen),
        "Runs": search_runs.runs(seen),
        "Commands": search_runs.commands(commands_of(database)),
        "Events": search_runs.events(seen),
    }


def _beside(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _section(heading: str, content: str) -> str:
    return f"<section>\n<h2>{heading}</h2>\n{content}</section>"


# ---- numbers


def _numbers(seen: Overview, price_per_hour: float | None) -> str:
    """Return the numbers that are asked for first, as tiles."""
    proposed = proposals(seen.counters)
    told = {"rules kept": f"{seen.sizes['rule']:,}", "evaluations": f"{seen.sizes['evaluation']:,}"}
    notes: list[str] = []
    if proposed:
        told["rules proposed"] = f"{proposed:,}"
        if seen.worker_s > 0:
            told["proposed a second and worker"] = f"{proposed / seen.worker_s:,.0f}"
        told["known already"] = f"{_known(seen.counters) / proposed:.1%}"
    else:
        notes.append("No worker has counted proposals here, so there are no rates and no funnel.")
    if seen.workers:
        alive = [worker for worker in seen.workers if seen.read_s - worker.heartbeat_s < SILENT_S]
        told["workers alive"] = f"{len(alive):,} of {len(seen.workers):,}"
        told["hours of workers"] = f"{seen.worker_s / HOUR_S:,.2f}"
    if price_per_hour is None:
        notes.append("Costs need the price of an hour of a worker: --price_per_hour.")
    elif proposed:
        cost = price_per_hour * seen.worker_s / HOUR_S
        told["cost so far"] = f"{cost:,.2f}"
        told["cost of a million proposals"] = f"{cost / proposed * _MILLION:,.3g}"
    tiles = "".join(
        f"<div><b>{html.escape(value)}</b><span>{html.escape(name)}</span></div>\n"
        for name, value in told.items()
    )
    return f'<div class="numbers">\n{tiles}</div>\n' + "".join(map(note, notes))


def _known(counters: Mapping[str, Mapping[str, int]]) -> int:
    """Return how many proposals ended because their score was there already."""
    total = 0
    for reasons in counters.values():
        for why, count in reasons.items():
            if why.startswith(_KNOWN):
                total += count
    return total


# ---- funnel


def _funnel(seen: Overview) -> str:
    """Return how many rules came to each stage, and why others ended there, as bars."""
    counters = seen.counters
    stages = sorted(set(counters) - {PROPOSED})
    if not stages:
        return note("No worker has counted where rules end.")
    most = max(1, proposals(counters))
    lines: list[str] = []
    for stage in stages:
        reasons = counters[stage]
        came = sum(reasons.values())
        passed = reasons.get(PASSED, 0)
        share = f"{passed / came:.2%} passed" if came else "none came"
        lines.append(_bar(f"<b>{html.escape(stage)}</b>", came, most, f"{came:,} came, {share}"))
        others = sorted(reasons.items(), key=lambda entry: -entry[1])
        for why, count in others:
            if why != PASSED:
                name = f'<span class="why">{html.escape(why)}</span>'
                lines.append(_bar(name, count, most, f"{count:,}"))
    remark = note("Bars are shares of all proposals. A stage gets the rules that passed the one before.")
    return f'{remark}<div class="funnel">\n{"".join(lines)}</div>\n'


def _bar(name: str, count: int, most: int, told: str) -> str:
    width = 100 * min(count / most, 1.0)
    return (
        f'<div class="stage"><span class="name">{name}</span>'
        f'<div class="track"><div class="fill" style="width:{width:.3f}%"></div></div>'
        f'<span class="count">{html.escape(told)}</span></div>\n'
    )


# ---- curves


def _curves(seen: Overview) -> str:
    """Return how the best scores of runs rose, a chart for each test."""
    if not seen.progress:
        return note("No evaluation with a score belongs to a run, so there is no curve.")
    runs = {run.id: run for run in seen.runs}
    by_test: dict[str, list[Progress]] = {}
    for progress in seen.progress:
        by_test.setdefault(progress.test, []).append(progress)
    names = list(dict.fromkeys(progress.run for progress in seen.progress))
    labels = [_label(runs.get(name), name) for name in names]
    figures: list[str] = []
    for test, found in by_test.items():
        lines: list[Series] = []
        for name, label in zip(names, labels, strict=True):
            lines += [_series(progress, runs.get(name), label) for progress in found if progress.run == name]
        chart = step_chart(lines, "minutes since the run began", f"best score in {test}")
        figures.append(f"<figure>{chart}<figcaption>{html.escape(test)}</figcaption></figure>\n")
    remark = note("The best score of a single evaluation so far; a lucky one counts, too.")
    return f'{_controls_note(seen)}{remark}{legend(labels)}<div class="charts">\n{"".join(figures)}</div>\n'


def _label(run: RunRow | None, name: str) -> str:
    method = None if run is None else method_of(run)
    return name if method is None else f"{name}: {method}"


def _series(progress: Progress, run: RunRow | None, label: str) -> Series:
    begin = progress.times_s[0] if run is None else min(run.started_s, progress.times_s[0])
    minutes = [(time_s - begin) / _MINUTE_S for time_s in progress.times_s]
    return Series(label, minutes, progress.scores)


def _controls_note(seen: Overview) -> str:
    """Say which of the controls are not in this database: without them a search proves little."""
    there = {method_of(run) for run in seen.runs}
    missing = [f"{name} ({does})" for name, does in CONTROLS.items() if name not in there]
    if not missing:
        return ""
    return note(f"Controls that are not in this database: {', '.join(missing)}.")


# ---- the best


def _cells(cells: Sequence[BestCell]) -> str:
    if not cells:
        return note("No cell of an archive is in this database.")
    rows: list[dict[str, Any]] = []
    for cell in cells[:_SHOWN_CELLS]:
        rows.append(
            {
                "cell": cell.name,
                "score": cell.score,
                "standard error": cell.standard_error,
                "operators": cell.rule.size,
                "rule": code_of(cell.rule.hash),
                "origin": cell.rule.origin,
                "run": cell.run,
                "island": cell.island,
            }
        )
    more = len(cells) - len(rows)
    return table(rows) + (note(f"{more:,} more cells are in the database.") if more else "")


def _tests(seen: Overview) -> str:
    if not seen.tests:
        return note("No test was taken.")
    return table(
        {
            "test": test.test,
            "level": test.level,
            "evaluations": test.evaluations,
            "passed": test.passed,
            "best score": test.best,
        }
        for test in seen.tests
    )


def _no_rules() -> str:
    return note("No rule of this database has a score.")


def _best_rules(database: Database, seen: Overview) -> list[BestRule]:
    """Return the best rules: of the cells, or where there are none, of the last test."""
    found: dict[str, tuple[RuleRow, str]] = {}
    for cell in seen.cells:
        found.setdefault(cell.rule.hash, (cell.rule, f"{cell.name}: score {cell.score:.4g}"))
    scored = [test for test in seen.tests if test.best is not None]
    if not found and scored:
        test = scored[-1]
        query = Query(test=test.test, level=test.level, limit=_SHOWN_RULES)
        for each in find_rules(database, query):
            if each.score is not None:
                words = f"{test.test} {test.level}".strip()
                found[each.row.hash] = (each.row, f"{words}: score {each.score:.4g}")
    return [best_rule(database, seen, row, told) for row, told in list(found.values())[:_SHOWN_RULES]]


def best_rule(
    database: Database,
    seen: Overview,
    row: RuleRow,
    reached: str,
) -> BestRule:
    """Return a rule with what it was made from and what its lines are worth.

    Args:
        database: the database.
        seen: from `overview`.
        row: the rule.
        reached: what it reached, in words.

    Raises:
        StoreError: the database cannot be used.
    """
    family = ancestors(database, row.hash, _GENERATIONS)
    origins = origins_of(database, {rule for _, rule, _, _ in family.walk()})
    return BestRule(row, reached, family, origins, seen.ablations.get(row.hash))


def rule_section(best: BestRule) -> str:
    """Return all about a rule as HTML: text, family tree, and what its lines are worth."""
    row = best.row
    return (
        f"<h3>{code_of(row.hash)} {html.escape(best.reached)}</h3>\n"
        + note(f"{row.size} operators, {row.origin}, found {when(row.found_s)}")
        + f"<pre>{html.escape(row.text)}</pre>\n"
        + _tree(best)
        + _ablation(best)
    )


def _tree(best: BestRule) -> str:
    """Return what a rule was made from, each generation a step to the right."""
    if not best.family.links:
        return note("What it was made from is not in this database.")
    text = ""
    depth = -1
    for generation, rule, mutation, is_repeated in best.family.walk():
        if generation > depth:
            text += "<ul>" * (generation - depth)
        else:
            text += "</li>" + "</ul></li>" * (depth - generation)
        depth = generation
        words = [f"by {mutation}"] if mutation else []
        words.append(f"({best.origins.get(rule, 'not in this database')})")
        if is_repeated:
            words.append("as above")
        text += f"<li>{code_of(rule)} <span class='note'>{html.escape(' '.join(words))}</span>"
    text += "</li></ul>" * (depth + 1)
    shown = text.replace("<ul>", '<ul class="tree">', 1)
    return f"<details open><summary>Made from</summary>{shown}</details>\n"


def _ablation(best: BestRule) -> str:
    """Return what the lines of a rule are worth, as far as somebody has stored it."""
    if best.ablation is None:
        command = f"vsml rules ablate {best.row.hash[:SHOWN_DIGITS]}.rule --database DATABASE"
        return note(f"What its lines are worth is not in this database; {command} stores it.")
    detail = best.ablation.detail
    rows: list[dict[str, Any]] = []
    for line in detail["lines"]:
        found = line["difference"]
        told = NO_RULE
        if found is not None:
            told = with_error(found["mean"], found["standard_error"])
        rows.append({"line": line["text"], "without it": line["change"], "change of the score": told})
    scores = ", ".join(f"{name} {score:.3f}" for name, score in detail["scores"].items())
    remark = note(f"Score without a part less score with it, ± one standard error. With all: {scores}.")
    return f"<details open><summary>What its lines are worth</summary>{remark}{table(rows)}</details>\n"

"""What runs say about a law: the best form, its numbers, its rivals, and what was held out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vsml.laws.bootstrap import RESAMPLES, MeasuredLaw, measure_law
from vsml.laws.extrapolation import Extrapolation, Rival, best_rival, extrapolate, rivals
from vsml.laws.forms import FORMS, POWER, TWO_POWERS, Form
from vsml.laws.runs import Family
from vsml.reporting.tables import Table


@dataclass(frozen=True, eq=False)
class Summary:
    """A law of runs, and how far to trust it.

    Attributes:
        family: the runs.
        law: of the form that was asked for, or that tells them best.
        rivals: that form and those that it is held against.
        extrapolation: the form, fitted to small sizes and held against large ones; None: too few sizes.
        why_not: why there is no extrapolation; empty where there is one.
    """

    family: Family
    law: MeasuredLaw
    rivals: Sequence[Rival]
    extrapolation: Extrapolation | None
    why_not: str


def plain_form(family: Family) -> Form:
    """Return the usual form for so many variables."""
    return POWER if len(family.variables) == 1 else TWO_POWERS


def best_law(family: Family, resamples: int = RESAMPLES) -> MeasuredLaw:
    """Return the law of the form that tells runs best, without what is held against it."""
    found = rivals(plain_form(family), family.points, len(family.variables) - 1)
    return measure_law(_chosen(family, found), family.points, resamples)


def summarise(family: Family, form: str | None = None, resamples: int = RESAMPLES) -> Summary:
    """Fit a law to runs.

    Args:
        family: the runs.
        form: its name; None: the usual one, or the rival that tells the runs better.
        resamples: draws of runs, for intervals.

    Raises:
        ValueError: there is no such form, or the runs are too few for it.
    """
    if form is not None and form not in FORMS:
        raise ValueError(f"form: got {form}, expected one of {', '.join(FORMS)}")
    points = family.points
    last = len(family.variables) - 1  # what runs are made long by, where there are two
    found = rivals(plain_form(family), points, last)
    chosen = FORMS[form] if form is not None else _chosen(family, found)
    law = measure_law(chosen, points, resamples)
    extrapolation, why_not = None, ""
    try:
        extrapolation = extrapolate(chosen, points, last, resamples=resamples)
    except ValueError as error:
        why_not = str(error)
    return Summary(family, law, found, extrapolation, why_not)


def _chosen(family: Family, found: Sequence[Rival]) -> Form:
    """Return the rival that tells the runs best and can have intervals; else the usual form."""
    runs = len(family.points.run_names)
    enough = [rival for rival in found if len(rival.form.parameters) < runs]
    if not enough:
        return plain_form(family)
    return best_rival(enough).form


def lines(summary: Summary) -> list[str]:
    """Return a law in words, a line each."""
    law, family = summary.law, summary.family
    points = family.points
    spans = []
    for number, variable in enumerate(family.variables):
        sizes = points.x[:, number]
        spans.append(f"{variable.label} {_number(sizes.min())} to {_number(sizes.max())}")
    found = [
        f"{len(points)} points of {len(points.run_names)} runs: {', '.join(spans)}; loss: {family.loss}",
        f"law: {law.form.formula}, converged in {law.converged:.0%} of the resamples",
    ]
    for name in law.form.parameters:
        is_exponent = name in [exponent for exponent, _ in law.form.exponents]
        if not is_exponent:
            interval = law.interval(name)
            found.append(f"  {name} = {interval.value:.4g} [{interval.low:.4g}, {interval.high:.4g}]")
    found += [f"  {exponent}" for exponent in law.exponents()]
    return [*found, *_extrapolation_lines(summary)]


def _number(size: float) -> str:
    """Return a size in words: whole numbers in full."""
    return f"{size:,.0f}" if float(size).is_integer() and size < 1e9 else f"{size:.4g}"


def _extrapolation_lines(summary: Summary) -> list[str]:
    extrapolation = summary.extrapolation
    if extrapolation is None:
        return [f"no extrapolation was checked: {summary.why_not}"]
    count = len(extrapolation.held_out)
    off = float(np.abs(extrapolation.errors).mean())
    return [
        f"held out at {extrapolation.factor:.3g} times what was fitted: {off:.1%} off on average; "
        f"{extrapolation.covered} of {count} in the 95 % interval of a single run"
    ]


def rival_table(summary: Summary) -> Table:
    """Return the forms beside each other."""
    rows = []
    for rival in summary.rivals:
        held_out = None if rival.held_out_error is None else f"{rival.held_out_error:.1%}"
        converged = "yes" if rival.fit.converged else "no"
        chosen = "this" if rival.form is summary.law.form else ""
        name, formula = rival.form.name, rival.form.formula
        rows.append([name, formula, f"{rival.information:.1f}", held_out, converged, chosen])
    headings = ("form", "law", "AICc", "off where held out", "converged", "taken")
    return Table(headings, rows, left=frozenset(("form", "law", "converged", "taken")))

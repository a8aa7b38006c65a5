"""Extrapolations that were checked: laws of small sizes, held against runs at least eight times as large."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vsml.laws.bootstrap import RESAMPLES, MeasuredLaw, measure_law
from vsml.laws.fit import Fit, fit_law
from vsml.laws.forms import ALTERNATIVES, Form
from vsml.laws.points import Points

FACTOR = 8.0
"""How many times as large as any fitted size the held-out ones are, at least."""


@dataclass(frozen=True, eq=False)
class Extrapolation:
    """A law of small sizes, and the large ones that it did not see.

    Attributes:
        law: fitted to the small sizes.
        held_out: points at the large ones.
        variable: number of the size by which they are large.
        factor: smallest held-out size by largest fitted one.
    """

    law: MeasuredLaw
    held_out: Points
    variable: int
    factor: float

    @property
    def errors(self) -> np.ndarray:
        """Logarithms of measured less predicted losses, [n]: 0.01 is 1 % more than predicted."""
        return np.log(self.held_out.loss) - np.log(self.law.law(self.held_out.x))

    @property
    def covered(self) -> int:
        """How many of the held-out points are in the interval for a single run."""
        pairs = zip(self.held_out.x, self.held_out.loss, strict=True)
        return sum(loss in self.law.predict(x).run for x, loss in pairs)


def split(points: Points, variable: int = 0, factor: float = FACTOR) -> tuple[Points, Points]:
    """Return the points to fit and the ones to hold out, at sizes `factor` times as large as any fitted one.

    The largest sizes are held out that leave the most to be fitted: fitted are all up to `largest / factor`.
    Sizes in between are in neither part.
    """
    sizes = points.x[:, variable]
    limit = sizes.max() / factor * (1 + 1e-9)
    fitted = points.where(sizes <= limit)
    if not len(fitted):
        return fitted, points.where(sizes == sizes.max())
    return fitted, points.where(sizes >= factor * fitted.x[:, variable].max() * (1 - 1e-9))


def extrapolate(
    form: Form,
    points: Points,
    variable: int = 0,
    factor: float = FACTOR,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Extrapolation:
    """Fit a law to small sizes, and hold it against large ones.

    Raises:
        ValueError: too few sizes or runs are that much smaller than the largest.
    """
    fitted, held_out = split(points, variable, factor)
    try:
        law = measure_law(form, fitted, resamples, seed)
    except ValueError as error:
        name = points.names[variable]
        raise ValueError(f"held out at {factor:g} times the {name} of what is fitted: {error}") from error
    reached = held_out.x[:, variable].min() / fitted.x[:, variable].max()
    return Extrapolation(law, held_out, variable, float(reached))


@dataclass(frozen=True, eq=False)
class Rival:
    """A form beside others on the same points.

    Attributes:
        fit: to all points.
        information: AICc under Laplace's distribution of errors, `2 n log(mean |error|) + 2 P + ...`; lower
            is better, and 2 less is hardly any difference. Infinite where there are too few points for it.
        held_out_error: mean absolute logarithm of measured by predicted losses at held-out sizes; None where
            the fitted sizes are too few for this form.
    """

    fit: Fit
    information: float
    held_out_error: float | None

    @property
    def form(self) -> Form:
        """What it looks like."""
        return self.fit.law.form


def rivals(form: Form, points: Points, variable: int = 0, factor: float = FACTOR) -> list[Rival]:
    """Return a form, then those that it is held against, as far as points are enough for them."""
    found = []
    for each in (form, *ALTERNATIVES.get(form.name, ())):
        rival = _rival(each, points, variable, factor)
        if rival is not None:
            found.append(rival)
    return found


def best_rival(found: Sequence[Rival]) -> Rival:
    """Return the form that did best at held-out sizes; by information where some could not be tried there.

    Fits that have not converged come last.
    """
    errors = [rival.held_out_error for rival in found]
    if None in errors:
        return min(found, key=lambda rival: (not rival.fit.converged, rival.information))
    return min(found, key=lambda rival: (not rival.fit.converged, rival.held_out_error or 0.0))


def _rival(form: Form, points: Points, variable: int, factor: float) -> Rival | None:
    try:
        fit = fit_law(form, points)
    except ValueError:  # too few points for so many numbers
        return None
    fitted, held_out = split(points, variable, factor)
    error: float | None
    try:
        law = fit_law(form, fitted).law
        error = float(np.abs(np.log(held_out.loss) - np.log(law(held_out.x))).mean())
    except ValueError:
        error = None
    return Rival(fit, _information(fit, points), error)


def _information(fit: Fit, points: Points) -> float:
    n, P = len(points), len(fit.law.form.parameters)
    if n - P - 1 <= 0:
        return np.inf
    mean_error = np.abs(np.log(points.loss) - np.log(fit.law(points.x))).mean()
    correction = 2 * P * (P + 1) / (n - P - 1)
    return float(2 * n * np.log(max(mean_error, 1e-12)) + 2 * P + correction)

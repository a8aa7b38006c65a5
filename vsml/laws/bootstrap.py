"""Laws with their intervals: what else they could have been, had other runs been made.

Runs are drawn with replacement, as many as there are, and the law is fitted to each draw: 1,000 of them.
Points of a run stay together, because they share its luck. Percentiles of few runs are too narrow, so they
are taken further out, as far as Student's t with n - P degrees of freedom is wider than the normal
distribution, and by sqrt(n / (n - P)), of n runs and P numbers (Hesterberg, 2015, "What teachers should know
about the bootstrap", section 5.3, where P is 1).
"""

import math
from dataclasses import dataclass
from functools import cached_property

import jax
import numpy as np
from scipy import stats

from vsml.laws.fit import Fit, Law, check_enough, fit_law, fit_weighted
from vsml.laws.forms import Form
from vsml.laws.points import Points

RESAMPLES = 1000
"""Draws of runs."""

CONFIDENCE = 0.95

LEAST_DECADES = 1.5
"""Powers of ten that sizes must span before an exponent is reported."""

_TRIES = 100  # draws of a resample until it has enough different sizes


@dataclass(frozen=True)
class Interval:
    """A number, and between which it is with a confidence of 95 %."""

    value: float
    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Exponent:
    """An exponent, and whether it may be reported.

    Attributes:
        name: in the form.
        variable: name of the size.
        interval: its value and interval.
        decades: powers of ten that the size spans, held-out points included.
        refusal: why it is not reported; empty: it is.
    """

    name: str
    variable: str
    interval: Interval
    decades: float
    refusal: str

    def __str__(self) -> str:
        if self.refusal:
            return f"{self.name} ({self.variable}): not reported, {self.refusal}"
        found = self.interval
        return f"{self.name} ({self.variable}) = {found.value:.3g} [{found.low:.3g}, {found.high:.3g}]"


@dataclass(frozen=True)
class Prediction:
    """A loss that a law predicts at sizes.

    Attributes:
        law: of the mean of many runs (median for Huber's loss), with its interval.
        run: of a single run, whose luck is added.
    """

    law: Interval
    run: Interval


@dataclass(frozen=True, eq=False)
class MeasuredLaw:
    """A law with those of resampled runs.

    Attributes:
        points: what it was fitted to.
        fit: to all points.
        resampled: fits to draws of runs, [R].
        seed: of the draws.
    """

    points: Points
    fit: Fit
    resampled: Fit
    seed: int = 0

    @property
    def law(self) -> Law:
        """The law of all points."""
        return self.fit.law

    @property
    def form(self) -> Form:
        """What it looks like."""
        return self.law.form

    @property
    def converged(self) -> float:
        """Share of the resamples whose descent came to an end; 0 where that of all points did not."""
        return float(self.resampled.converged.mean()) if self.fit.converged else 0.0

    def interval(self, name: str) -> Interval:
        """Return a number of the law with its interval.

        Raises:
            KeyError: it has no number of that name.
        """
        return self._interval(float(self.law.parameters[name]), self.resampled.law.parameters[name])

    def predict(self, x: np.ndarray) -> Prediction:
        """Return the loss at sizes [V], with the intervals of the law and of a single run."""
        x = np.asarray(x, float).reshape(1, -1)
        value = float(self.law(x)[0])
        others = self.resampled.law(x)[:, 0]
        luck = self._residuals[self._picks(len(others))]
        return Prediction(self._interval(value, others), self._interval(value, others * np.exp(luck)))

    def band(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the law, and the ends of its interval, at sizes [n, V]; [n] each."""
        low, high = np.quantile(self.resampled.law(x), self._tails, axis=0)
        return self.law(x), low, high

    def exponents(self, seen: Points | None = None) -> list[Exponent]:
        """Return the exponents; one that points do not speak for says why it is not reported.

        Args:
            seen: all points, held-out ones included; None: those of the fit.
        """
        seen = self.points if seen is None else seen
        found = []
        for name, variable in self.form.exponents:
            interval = self.interval(name)
            decades = seen.decades(variable)
            refusal = _refusal(interval, decades, bool(self.fit.converged))
            found.append(Exponent(name, seen.names[variable], interval, decades, refusal))
        return found

    @cached_property
    def _residuals(self) -> np.ndarray:
        """Logarithms of measured less fitted losses, [n], as wide as of runs that were not fitted to."""
        residuals = np.log(self.points.loss) - np.log(self.law(self.points.x))
        return residuals * _widening(len(self.points.run_names), len(self.form.parameters))

    def _picks(self, count: int) -> np.ndarray:
        key = jax.random.fold_in(jax.random.key(self.seed), 1)
        return np.asarray(jax.random.randint(key, (count,), 0, len(self.points)))

    @cached_property
    def _tails(self) -> tuple[float, float]:
        return tails(len(self.points.run_names), len(self.form.parameters))

    def _interval(self, value: float, others: np.ndarray) -> Interval:
        low, high = np.quantile(others, self._tails)
        # The law of all points is in its own interval, even where few resamples are that far out.
        return Interval(value, min(value, float(low)), max(value, float(high)))


def measure_law(form: Form, points: Points, resamples: int = RESAMPLES, seed: int = 0) -> MeasuredLaw:
    """Return the law of a form that fits points best, with intervals by a bootstrap over runs.

    Raises:
        ValueError: there are too few points, or too few runs for an interval: their count must be above that
            of the numbers.
    """
    check_enough(form, points)
    runs, needed = len(points.run_names), len(form.parameters)
    if runs <= needed:
        raise ValueError(
            f"{form.name}: got {runs} run(s), expected more than the {needed} numbers of the form: "
            "intervals are over runs"
        )
    fit = fit_law(form, points)
    weights = resampled_weights(form, points, resamples, seed)
    return MeasuredLaw(points, fit, fit_weighted(form, points, weights, fit), seed)


def resampled_weights(form: Form, points: Points, resamples: int, seed: int) -> np.ndarray:
    """Return how often each point counts in each draw of runs, [R, n].

    A draw with fewer different sizes than the form has numbers says nothing about it, and is drawn again.

    Raises:
        ValueError: there is hardly any draw with enough sizes.
    """
    names, of_point = np.unique(points.runs, return_inverse=True)
    _, size_of_point = np.unique(points.x, axis=0, return_inverse=True)
    size_of_point = size_of_point.ravel()
    sizes = size_of_point.max() + 1
    is_at_SxN = size_of_point == np.arange(sizes)[:, None]
    needed = len(form.parameters)
    kept: list[np.ndarray] = []
    count = 0
    for number in range(_TRIES):
        key = jax.random.fold_in(jax.random.key(seed), 1000 + number)
        drawn = np.asarray(jax.random.randint(key, (resamples, len(names)), 0, len(names)))
        offsets = np.arange(resamples)[:, None] * len(names)
        counts = np.bincount((drawn + offsets).ravel(), minlength=resamples * len(names))
        weights = counts.reshape(resamples, len(names))[:, of_point].astype(float)
        different = ((weights @ is_at_SxN.T) > 0).sum(axis=1)
        enough = weights[different >= needed]
        kept.append(enough)
        count += len(enough)
        if count >= resamples:
            return np.concatenate(kept)[:resamples]
    raise ValueError(
        f"{form.name}: got runs of which {count} of {_TRIES * resamples} draws had {needed} different sizes, "
        "expected more runs or more sizes"
    )


def tails(runs: int, numbers: int) -> tuple[float, float]:
    """Return which quantiles of resamples are the ends of a 95 % interval; see the top of this file."""
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, runs - numbers)
    tail = float(stats.norm.cdf(-quantile * _widening(runs, numbers)))
    return tail, 1 - tail


def _widening(runs: int, numbers: int) -> float:
    """Return by what factor residuals of a fit are smaller than the errors behind them."""
    return math.sqrt(runs / (runs - numbers))


def _refusal(interval: Interval, decades: float, converged: bool) -> str:
    """Return why an exponent is not reported; empty where it is."""
    if not converged:
        return "because the fit has not converged"
    if decades < LEAST_DECADES:
        return f"because its sizes span {decades:.2g} powers of ten, and {LEAST_DECADES} are needed"
    if 0.0 in interval:
        return f"because its interval [{interval.low:.2g}, {interval.high:.2g}] includes 0"
    return ""

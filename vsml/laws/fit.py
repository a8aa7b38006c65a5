"""Fits of laws: the numbers of a form that points speak for.

What is minimised is the sum of Huber's loss (1e-3) of differences between logarithms of predicted and
measured losses (Hoffmann et al., 2022, appendix D.3): nearly the sum of absolute relative errors, which an
outlier moves little. It is done in two steps, for many resamples of the points at a time:

1. *Variable projection* (Golub & Pereyra, 1973). Shapes are searched on a grid. For each of them the
   coefficients are linear, and follow from least squares of relative errors, none of them negative. The best
   shape of each part of the grid is a start, so starts are far from each other.
2. *Descent* in all numbers from each start: damped Newton steps, taken where the sum falls. Coefficients are
   logarithms here. It ends where steps gain nothing more; a fit says whether that came in time.

Epoch AI's replication of Chinchilla (Besiroglu et al., 2024, arXiv 2404.10102) shows why both matter: the
published fit had ended early, and a mean in place of the sum had made it end so.
"""

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vsml.laws.descent import GAIN, HUBER, LEAST_SHARE, Problem
from vsml.laws.forms import Form
from vsml.laws.points import Points

STARTS = 5
"""Parts of the grid of shapes, of each of which the best shape is a start."""

SMOOTH = (0.1, 0.03, 0.01, 0.003)
"""What HUBER is replaced by at first: a sum without sharp edges is walked along quickly."""

SMOOTH_STEPS = 40
"""Steps of a descent in each of these sums, at most."""

MOST_STEPS = 600
"""Steps of a descent, after which it counts as not converged."""

RESAMPLED_GAIN = 1e-6
"""Likewise, of resamples: far below the differences between them."""

EARLY_STEPS = 12
"""Steps after which only the most promising start of a resample goes on."""

NEAR_STARTS = 2
"""Starts of a resample by variable projection, beside the law of all points."""

BLOCK = 2**18
"""Numbers in the largest array of a descent: resamples are fitted in blocks of such a size."""


@dataclass(frozen=True, eq=False)
class Law:
    """A form with its numbers.

    Attributes:
        form: what it looks like.
        coefficients: at sizes as they are, all at least 0, float64 [..., K].
        shape: float64 [..., Q].
    """

    form: Form
    coefficients: np.ndarray
    shape: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the loss [..., n] at sizes [n, V] (or [n] of one variable)."""
        x = np.asarray(x, float)
        if x.ndim == 1:
            x = x[:, None]
        terms, _ = self.form.terms(self.shape, np.log(x))
        return np.einsum("...k,...kn->...n", self.coefficients, np.exp(terms))

    @cached_property
    def parameters(self) -> dict[str, np.ndarray]:
        """All numbers by name, [...] each."""
        values = np.concatenate([self.coefficients, self.shape], axis=-1)
        return {name: values[..., number] for number, name in enumerate(self.form.parameters)}


@dataclass(frozen=True, eq=False)
class Fit:
    """A law that was fitted to points, or one for each of several resamples.

    Attributes:
        law: the best of all starts.
        objective: the sum of Huber's losses, [...].
        converged: whether the descent to it ended, [...].
    """

    law: Law
    objective: np.ndarray
    converged: np.ndarray


def fit_law(form: Form, points: Points) -> Fit:
    """Return the law of a form that fits points best.

    Raises:
        ValueError: there are fewer points than numbers to be found, or of other variables.
    """
    fitted = fit_weighted(form, points, np.ones((1, len(points))))
    law = Law(form, fitted.law.coefficients[0], fitted.law.shape[0])
    return Fit(law, fitted.objective[0], fitted.converged[0])


def fit_weighted(form: Form, points: Points, weights: np.ndarray, near: Fit | None = None) -> Fit:
    """Return the best law for each of several weightings of the same points.

    Args:
        form: of the laws.
        points: n of them.
        weights: how often each point counts, [R, n].
        near: the fit to all points, from which descents start, too.

    Raises:
        ValueError: see `fit_law`.
    """
    check_enough(form, points)
    log_x, centre = _centred(points)
    log_loss = np.log(points.loss)
    start = None if near is None else _numbers_of(near.law, centre)
    rows = max(1, BLOCK // (STARTS * len(form.parameters) * len(points)))
    found = []
    for first in range(0, len(weights), rows):
        block = weights[first : first + rows]
        found.append(_fit_block(form, log_x, log_loss, block, start))
    numbers, objective, converged = (np.concatenate(each) for each in zip(*found, strict=True))
    coefficients, shape = _uncentred(form, numbers, centre)
    return Fit(Law(form, coefficients, shape), objective, converged)


def check_enough(form: Form, points: Points) -> None:
    """Raise ValueError where points are too few for a form, or are of other variables."""
    if points.x.shape[1] != form.variables:
        raise ValueError(
            f"{form.name}: got points of {', '.join(points.names)}, expected {form.variables} variable(s)"
        )
    needed = len(form.parameters)
    sizes = len(np.unique(points.x, axis=0))
    if sizes < needed:
        raise ValueError(
            f"{form.name}: got {len(points)} points at {sizes} different sizes, expected at least {needed} "
            f"sizes for the numbers {', '.join(form.parameters)}"
        )


def _centred(points: Points) -> tuple[np.ndarray, np.ndarray]:
    """Return logarithms of sizes around 0, [n, V], and what was subtracted, [V].

    Coefficients are then losses at a typical size, whatever the exponent is.
    """
    log_x = np.log(points.x)
    centre = log_x.mean(axis=0)
    return log_x - centre, centre


def _uncentred(form: Form, numbers: np.ndarray, centre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return coefficients [R, K] and shapes [R, Q] at sizes as they are."""
    K = len(form.coefficients)
    shape = _moved_shape(form, numbers[:, K:], centre)
    log_coefficients = numbers[:, :K] + _log_factor(form, numbers[:, K:], shape, centre)
    with np.errstate(over="ignore"):
        return np.exp(log_coefficients), shape


def _numbers_of(law: Law, centre: np.ndarray) -> np.ndarray:
    """Return the numbers [P] of a law at centred sizes: the inverse of `_uncentred`."""
    form = law.form
    shape = _moved_shape(form, law.shape, -centre)
    log_coefficients = np.log(np.maximum(law.coefficients, 1e-300))
    return np.concatenate([log_coefficients - _log_factor(form, shape, law.shape, centre), shape])


def _moved_shape(form: Form, shape: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Return shapes with those of their numbers that are sizes moved, as logarithms."""
    moved = shape.copy()
    for number, name in enumerate(form.shape):
        if name.startswith("log x"):
            moved[..., number] += by[0]
    return moved


def _log_factor(form: Form, centred: np.ndarray, shape: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Return by what factors terms at centred sizes differ from those at sizes as they are, [..., K]."""
    origin = np.zeros((1, len(centre)))
    before, _ = form.terms(centred, origin)
    after, _ = form.terms(shape, origin + centre)
    return (before - after)[..., 0]


def _fit_block(
    form: Form,
    log_x: np.ndarray,
    log_loss: np.ndarray,
    weights: np.ndarray,
    near: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return numbers [R, P] (logarithms of coefficients, shape), objectives [R], whether they converged."""
    starts_RxSxP = _starts(form, log_x, log_loss, weights, STARTS if near is None else NEAR_STARTS)
    if near is not None:
        beside = np.broadcast_to(near, (len(weights), 1, len(near)))
        starts_RxSxP = np.concatenate([starts_RxSxP, beside], axis=1)
    R, S, P = starts_RxSxP.shape
    # All starts take a few steps, of which the best one goes on; of all points every one does.
    problem = Problem(form, log_x, log_loss, np.repeat(weights, S, axis=0), SMOOTH[0])
    early = problem.descend(starts_RxSxP.reshape(R * S, P), EARLY_STEPS)
    kept = S if near is None else 1
    order = np.argsort(early.objective.reshape(R, S), axis=1)[:, :kept]
    chosen = (np.arange(R)[:, None] * S + order).ravel()
    numbers = early.numbers[chosen]
    least_gain = GAIN if near is None else RESAMPLED_GAIN
    weights = np.repeat(weights, kept, axis=0)
    for huber in SMOOTH:
        smooth = Problem(form, log_x, log_loss, weights, huber)
        numbers = smooth.descend(numbers, SMOOTH_STEPS, least_gain).numbers
    late = Problem(form, log_x, log_loss, weights, HUBER).descend(numbers, MOST_STEPS, least_gain)
    best = np.arange(R) * kept + late.objective.reshape(R, kept).argmin(axis=1)
    return late.numbers[best], late.objective[best], late.converged[best]


def _starts(
    form: Form,
    log_x: np.ndarray,
    log_loss: np.ndarray,
    weights: np.ndarray,
    count: int,
) -> np.ndarray:
    """Return the best starts [R, S, P] by variable projection, `count` at most."""
    shapes_GxQ = form.starts(log_x)
    terms_GxKxn, _ = form.terms(shapes_GxQ, log_x)
    relative_GxKxn = np.exp(terms_GxKxn - log_loss)
    parts = np.array_split(np.arange(len(shapes_GxQ)), min(STARTS, len(shapes_GxQ)))
    best, errors = [], []
    for part in parts:
        coefficients_RxgxK, error_Rxg = _least_squares(relative_GxKxn[part], weights)
        # The best shape of this part, for each weighting.
        winner_R = error_Rxg.argmin(axis=1)
        errors.append(error_Rxg.min(axis=1))
        coefficients_RxK = np.take_along_axis(coefficients_RxgxK, winner_R[:, None, None], axis=1)[:, 0]
        typical = np.exp(np.median(log_loss))
        log_coefficients = np.log(np.maximum(coefficients_RxK, LEAST_SHARE * typical))
        best.append(np.concatenate([log_coefficients, shapes_GxQ[part][winner_R]], axis=1))
    order_RxS = np.argsort(np.stack(errors, axis=1), axis=1)[:, :count]
    return np.take_along_axis(np.stack(best, axis=1), order_RxS[..., None], axis=1)


def _least_squares(terms_gxKxn: np.ndarray, weights_Rxn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return coefficients [R, g, K] of terms that shall add up to 1, and the sums of squares [R, g].

    None is negative. With at most three coefficients each set of those that are above 0 is tried: the best
    one without a negative number is the answer.
    """
    g, K, n = terms_gxKxn.shape
    # Normal equations of all weightings and all shapes, in two matrix products.
    products = np.einsum("gkn,gln->ngkl", terms_gxKxn, terms_gxKxn).reshape(n, g * K * K)
    gram = (weights_Rxn @ products).reshape(-1, g, K, K)
    linear = (weights_Rxn @ terms_gxKxn.transpose(2, 0, 1).reshape(n, g * K)).reshape(-1, g, K)
    total = weights_Rxn.sum(axis=1)[:, None]
    best = np.zeros_like(linear)
    best_error = np.broadcast_to(total, linear.shape[:2]).copy()
    subsets = [each for size in range(1, K + 1) for each in itertools.combinations(range(K), size)]
    for subset in subsets:
        chosen = list(subset)
        matrix = gram[..., chosen, :][..., chosen]
        ridge = 1e-12 * np.trace(matrix, axis1=-2, axis2=-1)[..., None, None]
        right = linear[..., chosen]
        # Where two terms are nearly the same, any share of either is right.
        steadied = matrix + ridge * np.eye(len(chosen)) + 1e-300
        solved = np.linalg.solve(steadied, right[..., None])[..., 0]
        error = total - (solved * right).sum(axis=-1)
        better = (solved >= 0).all(axis=-1) & (error < best_error)
        filled = np.zeros_like(linear)
        filled[..., chosen] = solved
        best[better] = filled[better]
        best_error[better] = error[better]
    return best, best_error

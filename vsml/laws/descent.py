"""Descents to the least sum of Huber's losses, many at a time: damped Newton steps along bent valleys."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vsml.laws.forms import Form

HUBER = 1e-3
"""Differences of logarithms up to which Huber's loss is a square."""

GAIN = 1e-8
"""Share of the sum that steps must gain, or the descent ends."""

PATIENCE = 3
"""Steps in a row that gain less before a descent ends."""

LEAST_SHARE = 1e-7
"""Least coefficient at a typical size, as a share of the typical loss: it can grow again."""

_MOST_LOG = 60.0  # of a coefficient at a typical size, by a typical loss
_EXPONENT_RANGE = (-2.0, 4.0)
_PROBE = 0.1  # how far of a step ahead it is looked for a bend
_MOST_BEND = 0.75  # of a correction, by the step: larger ones are not to be trusted
_MOST_SHAPE = 30.0
_MOST_STEP = 3.0
_NOTHING = 1e-25  # a sum below it is one of rounding errors
_LEAST_DAMPING = 1e-5
_MOST_DAMPING = 1e12
_HOPELESS = 1e6  # damping from which on steps are too short to gain anything


@dataclass(frozen=True, eq=False)
class Descended:
    """Where descents have ended: numbers [R, P], sums [R], and whether they were at an end [R]."""

    numbers: np.ndarray
    objective: np.ndarray
    converged: np.ndarray


@dataclass(frozen=True, eq=False)
class State:
    """What a step needs to know of where it starts.

    Attributes:
        residual: logarithms of predicted less measured losses, [R, n].
        jacobian: their derivatives by the numbers, [R, P, n].
    """

    residual: np.ndarray
    jacobian: np.ndarray

    def rows(self, rows: np.ndarray) -> "State":
        """Return what belongs to some of the descents."""
        if len(rows) == len(self.residual):
            return self
        return State(self.residual[rows], self.jacobian[rows])

    def put(self, rows: np.ndarray, other: "State", chosen: np.ndarray) -> None:
        """Replace some of the descents by some of others."""
        self.residual[rows] = other.residual[chosen]
        self.jacobian[rows] = other.jacobian[chosen]


@dataclass(frozen=True, eq=False)
class Problem:
    """Points and how much each counts, for many descents at a time."""

    form: Form
    log_x: np.ndarray
    log_loss: np.ndarray
    weights: np.ndarray
    huber: float

    def descend(self, numbers: np.ndarray, most_steps: int, least_gain: float = GAIN) -> Descended:
        """Take steps from numbers [R, P] until they gain nothing more."""
        numbers = numbers.copy()
        rows = np.arange(len(numbers))
        state = self._at(numbers)
        objective = _total(state.residual, self.weights, self.huber)
        damping = np.ones(len(numbers))
        idle = np.zeros(len(numbers), int)
        for _ in range(most_steps):
            if not len(rows):
                break
            weights = self.weights[rows]
            step = self._step(numbers[rows], state.rows(rows), weights, damping[rows])
            tried = np.clip(numbers[rows] + step, *self._range)
            there = self._at(tried)
            value = _total(there.residual, weights, self.huber)
            before = objective[rows]
            better = value < before
            gained = np.where(better, (before - value) / np.maximum(before, _NOTHING), 0.0)
            # Where the sum has not fallen, the next step is shorter, from the same place.
            moved = rows[better]
            numbers[moved] = tried[better]
            objective[moved] = value[better]
            state.put(moved, there, better)
            changed = damping[rows] * np.where(better, 0.25, 5.0)
            damping[rows] = np.clip(changed, _LEAST_DAMPING, _MOST_DAMPING)
            is_idle = (better & (gained < least_gain)) | (damping[rows] >= _HOPELESS)
            idle[rows] = np.where(is_idle, idle[rows] + 1, np.where(better, 0, idle[rows]))
            rows = rows[(idle[rows] < PATIENCE) & (objective[rows] > _NOTHING)]
        converged = np.ones(len(numbers), bool)
        converged[rows] = False
        return Descended(numbers, objective, converged)

    def _at(self, numbers: np.ndarray) -> "State":
        """Return what a step needs to know at numbers [R, P]."""
        K = len(self.form.coefficients)
        terms, slopes = self.form.terms(numbers[:, K:], self.log_x)
        logs = numbers[:, :K, None] + terms
        top = logs.max(axis=1, keepdims=True)
        sizes = np.exp(logs - top)
        total = sizes.sum(axis=1, keepdims=True)
        residual = (top + np.log(total))[:, 0] - self.log_loss
        share_RxKxn = sizes / total
        by_shape = [(share_RxKxn * slopes[:, :, number]).sum(axis=1) for number in range(slopes.shape[2])]
        jacobian_RxPxn = np.concatenate([share_RxKxn, *[each[:, None] for each in by_shape]], axis=1)
        return State(residual, jacobian_RxPxn)

    def _residual(self, numbers: np.ndarray) -> np.ndarray:
        """Return logarithms of predicted less measured losses, [R, n]."""
        K = len(self.form.coefficients)
        terms, _ = self.form.terms(numbers[:, K:], self.log_x)
        logs = numbers[:, :K, None] + terms
        top = logs.max(axis=1)
        return top + np.log(np.exp(logs - top[:, None]).sum(axis=1)) - self.log_loss

    def _step(
        self,
        numbers: np.ndarray,
        state: "State",
        weights: np.ndarray,
        damping: np.ndarray,
    ) -> np.ndarray:
        """Return steps [R, P]: between Newton's, for small damping, and short ones, for large damping.

        Beyond `huber` the loss is a line, whose curvature is 0: Newton's steps are long there, and often too
        long. With damping 1 it is taken to be `huber` / |r|, of the square that touches the line from above.
        Valleys are bent, and as narrow as `huber`: a second-order correction follows them (geodesic
        acceleration: Transtrum & Sethna, 2012, arXiv 1201.5885).
        """
        size = np.abs(state.residual)
        is_inside = size <= self.huber
        slope = np.where(is_inside, state.residual, self.huber * np.sign(state.residual))
        # Curvatures: 1 in the square part, and up to that of the touching square beyond.
        bowl = self.huber / np.maximum(size, self.huber)
        softened = np.minimum(damping, 1.0)[:, None]
        curvature = weights * np.where(is_inside, 1.0, softened * bowl)
        gradient = (state.jacobian @ (weights * slope)[..., None])[..., 0]
        # What is at the end of its range, and would go on, stays there.
        low, high = self._range
        is_stuck = ((numbers <= low) & (gradient > 0)) | ((numbers >= high) & (gradient < 0))
        gradient = np.where(is_stuck, 0.0, gradient)
        jacobian = np.where(is_stuck[..., None], 0.0, state.jacobian)
        matrix = (jacobian * curvature[:, None]) @ jacobian.transpose(0, 2, 1)
        # Levenberg-Marquardt: each number is held back in its own unit.
        diagonal = np.einsum("rpp->rp", matrix)
        scale = diagonal + 1e-9 * diagonal.max(axis=1, keepdims=True) + 1e-300
        shortened = 1e-9 + 1e-2 * np.maximum(damping - 1.0, 0.0)
        matrix = matrix + (shortened[:, None] * scale)[..., None] * np.eye(matrix.shape[-1])
        inverse = np.linalg.inv(matrix)
        step = -(inverse @ gradient[..., None])[..., 0]
        step = np.clip(step, -_MOST_STEP, _MOST_STEP)
        # What a straight line misses a little way ahead is how residuals bend along the step.
        along = (step[:, None] @ jacobian)[:, 0]
        ahead = self._residual(numbers + _PROBE * step)
        bend = 2 / _PROBE * ((ahead - state.residual) / _PROBE - along)
        correction = -0.5 * (inverse @ (jacobian @ (curvature * bend)[..., None]))[..., 0]
        is_small = np.abs(correction).max(axis=1) <= _MOST_BEND * np.abs(step).max(axis=1)
        return np.where(is_small[:, None], step + correction, step)

    @cached_property
    def _range(self) -> tuple[np.ndarray, np.ndarray]:
        """Between which ends numbers stay, [P] each: there exponentials are finite."""
        K = len(self.form.coefficients)
        typical = float(np.median(self.log_loss))
        low = np.full(len(self.form.parameters), -_MOST_SHAPE)
        high = np.full(len(self.form.parameters), _MOST_SHAPE)
        low[:K], high[:K] = typical + np.log(LEAST_SHARE), typical + _MOST_LOG
        for number, name in enumerate(self.form.shape):
            if not name.startswith("log"):
                low[K + number], high[K + number] = _EXPONENT_RANGE
        return low, high


def huber_loss(residual: np.ndarray, huber: float = HUBER) -> np.ndarray:
    """Return Huber's loss: `r^2 / 2` up to `huber`, `huber (|r| - huber / 2)` beyond."""
    size = np.abs(residual)
    return np.where(size <= huber, 0.5 * size**2, huber * (size - 0.5 * huber))


def _total(residual: np.ndarray, weights: np.ndarray, huber: float) -> np.ndarray:
    """Return the weighted sums of Huber's losses, [R]."""
    return (weights * huber_loss(residual, huber)).sum(axis=-1)

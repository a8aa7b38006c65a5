"""Standardisation of a stream: inputs of mean 0 and variance 1 by what has been seen up to each example.

Outliers do not take the statistics over: what is far from the rest is put at a bound before it is counted.
A missing value, NaN, is not counted, and is 0 once standardised: at the mean.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np

_AT_ONCE = 1_000_000
"""Numbers that are worked on at once, about."""

CLIP = 5.0
"""Standard deviations that an input may be away from the mean; what is farther is put there."""

EARLY = 32
"""Examples that are kept as they are. While there are no more, the bound is taken from all of them."""

_SPARED = 10
"""Of the early examples one in so many, at least one, may be an outlier: the bound does not depend on it."""

_LEAST = 4
"""Examples without a bound: of fewer there is no saying which is the outlier."""

_EARLY_BOUND = 5.0
"""Early values are counted up to so many times the farthest distance from the median of those not spared."""

_LATE_BOUND = 4.0
"""Later values are counted up to so many standard deviations away from the mean.

An outlier at this bound adds at most 16 times the variance. So a share of 1 in 16 of them is borne:
2 % make the deviation a fifth larger. Yet a stream whose unit changes is followed, as each such value widens
the bound.
"""

_LATE_LEAST = 8
"""Values without a bound of a feature that comes after the early examples: fewer say little about it."""

Floats = np.ndarray
"""Float64, or float32 where it says so."""


@dataclass(frozen=True, eq=False)
class RunningStatistics:
    """Count, and sums about a shift, of the values of a stream. Float64; a value, never changed in place.

    Values beyond a bound are put at the bound before they are summed (winsorised), so that outliers change
    mean and deviation little. Of the first `EARLY` examples the bound is taken anew from all of them, by
    their median; afterwards it is some standard deviations around the mean. A feature that has not changed
    has no bound.

    Sums about the first example lose no digits where features have a mean far from 0. Examples are taken in
    one by one, so the bits are the same however the stream is cut into calls.

    A feature that comes later than the first `EARLY` examples has no early ones. Its first values have no
    bound, then it is bounded as others are late.

    Attributes:
        count: values seen, missing ones not counted, [groups]; [] in older files.
        shift: first example, or its mean where all features share their statistics, [groups].
        total: sum of values minus shift, [groups].
        squares: sum of their squares, [groups].
        early: the examples so far minus shift, [examples, groups, values of a group], up to `EARLY` of them;
            then none. NaN where a value was missing.
    """

    count: Floats
    shift: Floats
    total: Floats
    squares: Floats
    early: Floats

    @classmethod
    def nothing(cls, groups: int, features: int | None = None) -> Self:
        """Return the statistics of no example.

        Args:
            groups: of features that share their statistics: d, or 1 for all alike.
            features: d; None: as many as groups.
        """
        empty = np.zeros(groups)
        of_one = (features or groups) // groups
        return cls(empty, empty, empty, empty, np.zeros((0, groups, of_one)))

    def widened(self, groups: int) -> Self:
        """Return the same statistics with more groups of one feature each, of which nothing has been seen."""
        more = groups - len(self.shift)

        def filled(sums: Floats) -> Floats:
            return np.pad(np.broadcast_to(sums, self.shift.shape), (0, more))

        return replace(
            self,
            count=filled(self.count),
            shift=filled(self.shift),
            total=filled(self.total),
            squares=filled(self.squares),
            early=np.pad(self.early, ((0, 0), (0, more), (0, 0)), constant_values=np.nan),
        )

    def learn(
        self,
        x: Floats,
        name: str = "X",
        counted: np.ndarray | None = None,
    ) -> tuple[Self, Floats]:
        """Take in examples x [n, d] one after the other; errors call them by `name`.

        Args:
            x: the examples; NaN where a value is missing.
            name: of the examples, in errors.
            counted: which of them are taken in, bool [n]; the others are only standardised. None: all.

        Returns:
            The new statistics, and the inputs float32 [n, d], each standardised by all up to and with itself.

        Raises:
            ValueError: values are so large that their squares overflow.
        """
        statistics = self
        standard = np.empty(x.shape, np.float32)
        # An overflow is told of below.
        with np.errstate(over="ignore", invalid="ignore"):
            for t in range(len(x)):
                if counted is not None and not counted[t]:
                    standard[t] = statistics.apply(x[t : t + 1])[0]
                    continue
                statistics = statistics._after(x[t])
                values = x[t].reshape(len(self.shift), -1) - statistics.shift[:, None]
                moments = _moments(statistics.count, statistics.total, statistics.squares)
                standard[t] = _standardise(values, *moments).reshape(-1)
        if not np.isfinite(statistics.squares).all():
            raise ValueError(
                f"{name}: got values up to {np.nanmax(np.abs(x)):g}, expected ones whose squares are finite"
            )
        return statistics, standard

    def apply(self, x: Floats) -> Floats:
        """Return x [n, d] as `learn` would return each of them if it came next; nothing is taken in."""
        standard = np.empty(x.shape, np.float32)
        # With early examples in reach each row of x is a stream of its own: so many at once as fit.
        size = max(1, self.early.size + x.shape[1])
        rows = max(1, _AT_ONCE // size)
        with np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, len(x), rows):
                part = slice(start, start + rows)
                standard[part] = self._apply(x[part])
        return standard

    def known(self, x: Floats) -> Floats:
        """Return x [n, d], which have been taken in already, standardised by all so far, float32 [n, d]."""
        values = x.reshape(len(x), len(self.shift), -1) - self.shift[:, None]
        moments = _moments(self.count, self.total, self.squares)
        return _standardise(values, *moments).reshape(x.shape).astype(np.float32)

    def moments(self) -> tuple[Floats, Floats]:
        """Return mean and deviation of what has been seen, [groups]; 0 where nothing has."""
        mean, deviation = _moments(self.count, self.total, self.squares)
        return self.shift + mean, deviation

    def moments_before(
        self,
        x: Floats,
        counted: np.ndarray | None = None,
    ) -> tuple[Floats, Floats]:
        """Return mean and deviation [n, groups] as they were before each example of x [n, d]; see `learn`."""
        statistics = self
        means, deviations = [], []
        for t, example in enumerate(x):
            mean, deviation = statistics.moments()
            means.append(mean)
            deviations.append(deviation)
            if counted is None or counted[t]:
                statistics = statistics._after(example)
        return np.array(means), np.array(deviations)

    def _after(self, example: Floats) -> Self:
        """Return the statistics after one more example [d]."""
        values = example.reshape(len(self.shift), -1)
        start = replace(self, shift=self._shift_of(values))
        values = values - start.shift[:, None]
        count = start.count + (~np.isnan(values)).sum(1)
        if start._is_early:
            return start._after_early(values, count)
        total, squares = start._late_sums(values)
        return replace(start, count=count, total=total, squares=squares)

    def _shift_of(self, values: Floats) -> Floats:
        """Return the shift [..., groups] with which values [..., groups, of a group] come next.

        The first values of a group are the shift of all.
        """
        if np.all(self.count):
            return self.shift
        present = ~np.isnan(values)
        number = np.maximum(present.sum(-1), 1)
        first = np.where(present, values, 0.0).sum(-1) / number
        return np.where(self.count > 0, self.shift, first)

    @property
    def _is_early(self) -> bool:
        """Whether all examples so far are kept."""
        return len(self.early) > 0 or not self.count.any()

    def _apply(self, x: Floats) -> Floats:
        """Return what `apply` does, of a few examples at once."""
        values = x.reshape(len(x), len(self.shift), -1)
        values = values - self._shift_of(values)[..., None]
        if self._is_early:
            before = np.broadcast_to(self.early, (len(x), *self.early.shape))
            total, squares = _early_sums(np.concatenate([before, values[:, None]], axis=1))
        else:
            total, squares = self._late_sums(values)
        moments = _moments(self.count + (~np.isnan(values)).sum(2), total, squares)
        return _standardise(values, *moments).reshape(x.shape)

    def _after_early(
        self,
        values: Floats,
        count: Floats,
    ) -> Self:
        """Return the statistics after values [groups, of a group], with all that came before in reach."""
        early = np.concatenate([self.early, values[None]])
        total, squares = _early_sums(early[None])
        return replace(
            self,
            count=count,
            total=total[0],
            squares=squares[0],
            early=early if len(early) < EARLY else early[:0],
        )

    def _late_sums(self, values: Floats) -> tuple[Floats, Floats]:
        """Return sums and sums of squares [..., groups] with values [..., groups, of a group] taken in."""
        mean, deviation = _moments(self.count, self.total, self.squares)
        is_known = (deviation > 0) & (self.count >= _LATE_LEAST)
        bound = np.where(is_known, _LATE_BOUND * deviation, np.inf)
        bounded = _present(np.clip(values, (mean - bound)[:, None], (mean + bound)[:, None]))
        return self.total + bounded.sum(-1), self.squares + np.square(bounded).sum(-1)


def _present(values: Floats) -> Floats:
    """Return values with 0 for those that are missing, so that they add nothing to a sum."""
    return np.where(np.isnan(values), 0.0, values)


def _moments(
    count: Floats,
    total: Floats,
    squares: Floats,
) -> tuple[Floats, Floats]:
    """Return mean, about the shift, and deviation of sums; 0 where nothing has been counted."""
    count = np.maximum(count, 1)
    mean = total / count
    variance = squares / count - np.square(mean)
    # Rounding may leave less than 0.
    return mean, np.sqrt(np.maximum(variance, 0))


def _standardise(
    values: Floats,
    mean: Floats,
    deviation: Floats,
) -> Floats:
    """Return values [..., groups, of a group], about the shift, standardised and clipped."""
    centred = values - mean[..., None]
    # A feature that has not changed yet is at its mean.
    zeros = np.zeros_like(centred)
    divisor = deviation[..., None]
    # A missing value, too.
    ratio = np.divide(centred, divisor, out=zeros, where=(divisor > 0) & ~np.isnan(values))
    return np.clip(ratio, -CLIP, CLIP)


def _early_sums(values: Floats) -> tuple[Floats, Floats]:
    """Return sums and sums of squares [streams, groups] of values [streams, examples, groups, of a group]."""
    bounded = _present(_bounded_together(values))
    total = bounded.sum(3)
    squares = np.square(bounded).sum(3)
    # Added up in order, so that the bits do not depend on how many streams there are.
    return np.add.accumulate(total, axis=1)[:, -1], np.add.accumulate(squares, axis=1)[:, -1]


def _bounded_together(values: Floats) -> Floats:
    """Return values [streams, examples, groups, of a group], none farther from the median than a bound.

    How far an example is counts by the farthest of its values in a group.
    """
    if np.isnan(values).any():
        return _bounded_with_missing(values)
    number = values.shape[1]
    if number < _LEAST:
        return values
    median = np.median(values, axis=(1, 3), keepdims=True)
    distances = np.abs(values - median).max(3)
    spared = max(1, number // _SPARED)
    last = number - spared - 1
    farthest = np.partition(distances, last, axis=1)[:, last]
    bound = np.where(farthest > 0, _EARLY_BOUND * farthest, np.inf)[:, None, :, None]
    return np.clip(values, median - bound, median + bound)


def _bounded_with_missing(values: Floats) -> Floats:
    """Return what `_bounded_together` does of the values that are there, and NaN for the others.

    Groups have seen different numbers of examples: ranks are looked up in sorted values, where NaN is last.
    """
    streams, _, groups, _ = values.shape
    by_group = np.sort(values.transpose(0, 2, 1, 3).reshape(streams, groups, -1), axis=2)
    number = (~np.isnan(by_group)).sum(2, keepdims=True)
    lower = np.take_along_axis(by_group, np.maximum(number - 1, 0) // 2, axis=2)
    upper = np.take_along_axis(by_group, number // 2, axis=2)
    median = ((lower + upper) / 2).transpose(0, 2, 1)[..., None]
    gaps = np.abs(values - median)
    distances = np.where(np.isnan(gaps), -1.0, gaps).max(3)
    # Examples that lack all of a group are put behind those that have some of it.
    distances = np.sort(np.where(distances < 0, np.inf, distances), axis=1)
    examples = np.isfinite(distances).sum(1, keepdims=True)
    last = np.maximum(examples - np.maximum(1, examples // _SPARED) - 1, 0)
    farthest = np.take_along_axis(distances, last, axis=1)[..., None]
    has_bound = (examples[..., None] >= _LEAST) & (farthest > 0)
    bound = np.where(has_bound, _EARLY_BOUND * farthest, np.inf)
    return np.clip(values, median - bound, median + bound)

"""Standardisation of a stream: inputs of mean 0 and variance 1 by what has been seen up to each example."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

CLIP = 5.0
"""Standard deviations that an input may be away from the mean; what is farther is put there."""


Floats = np.ndarray
"""Float64, or float32 where it says so."""

Sums = tuple[Floats, Floats, Floats]
"""Count [n, 1], sums and sums of squares [n, groups], each after an example."""


@dataclass(frozen=True, eq=False)
class RunningStatistics:
    """Count, and sums about a shift, of the values of a stream. Float64; a value, never changed in place.

    Sums about the first example lose no digits where features have a mean far from 0, and, unlike a
    recursion, they give the same bits however the stream is cut into calls.

    Attributes:
        count: values seen, [].
        shift: first example, or its mean where all features share their statistics, [groups].
        total: sum of values minus shift, [groups].
        squares: sum of their squares, [groups].
    """

    count: Floats
    shift: Floats
    total: Floats
    squares: Floats

    @classmethod
    def nothing(cls, groups: int) -> Self:
        """Return the statistics of no example, for that many groups of features: d, or 1 for all alike."""
        empty = np.zeros(groups)
        return cls(np.zeros(()), empty, empty, empty)

    def learn(
        self,
        x: Floats,
        name: str = "X",
    ) -> tuple[Self, Floats]:
        """Take in examples x [n, d] one after the other; errors call them by `name`.

        Returns:
            The new statistics, and the inputs float32 [n, d], each standardised by all up to and with itself.

        Raises:
            ValueError: values are so large that their squares overflow.
        """
        start = self._shifted(x)
        # An overflow is told of below.
        with np.errstate(over="ignore"):
            counts, totals, squares = start._after(x, np.add.accumulate)
        if not np.isfinite(squares).all():
            raise ValueError(
                f"{name}: got values up to {np.abs(x).max():g}, expected ones whose squares are finite"
            )
        new = replace(
            start,
            count=counts[-1, 0],
            total=totals[-1],
            squares=squares[-1],
        )
        return new, start._standardise(x, counts, totals, squares)

    def apply(self, x: Floats) -> Floats:
        """Return x [n, d] as `learn` would return each of them if it came next; nothing is taken in."""

        def alone(sums: Floats, axis: int) -> Floats:
            return sums[:1] + sums

        after = self._after(x, alone)
        return self._standardise(x, *after)

    def moments(self) -> tuple[Floats, Floats]:
        """Return mean and deviation of what has been seen, [groups]; 0 where nothing has."""
        if not self.count:
            zeros = np.zeros_like(self.shift)
            return zeros, zeros
        mean, deviation = _moments(self.count, self.total, self.squares)
        return self.shift + mean, deviation

    def moments_before(self, x: Floats) -> tuple[Floats, Floats]:
        """Return mean and deviation [n, groups] as they were before each example of x [n, d]."""
        first_mean, first_deviation = self.moments()
        start = self._shifted(x)
        after = start._after(x, np.add.accumulate)
        means, deviations = _moments(*after)
        # What was known before an example is what was known after the one before it.
        means = np.concatenate([first_mean[None], start.shift + means[:-1]])
        return means, np.concatenate([first_deviation[None], deviations[:-1]])

    def _shifted(self, x: Floats) -> Self:
        """Return the statistics, with the first example of x as their shift if they have none."""
        if self.count:
            return self
        first = self._grouped(x[:1])
        return replace(self, shift=first.mean(2)[0])

    def _grouped(self, x: Floats) -> Floats:
        """Return x as [n, groups, values of a group]."""
        return x.reshape(len(x), len(self.shift), -1)

    def _after(
        self,
        x: Floats,
        gather: Any,
    ) -> Sums:
        """Return count [n, 1], totals and squares [n, groups] after each example."""
        values = self._grouped(x) - self.shift[:, None]
        of_one = float(values.shape[2])
        counts = np.full((len(x), 1), of_one)

        def after(
            before: Floats,
            each: Floats,
        ) -> Floats:
            # The sum so far is the first row, so that the bits do not depend on how a stream is cut.
            return gather(np.vstack([before, each]), axis=0)[1:]

        return (
            after(self.count.reshape(1), counts),
            after(self.total, values.sum(2)),
            after(self.squares, np.square(values).sum(2)),
        )

    def _standardise(
        self,
        x: Floats,
        counts: Floats,
        totals: Floats,
        squares: Floats,
    ) -> Floats:
        mean, deviation = _moments(counts, totals, squares)
        shifted = self._grouped(x) - self.shift[:, None]
        centred = shifted - mean[..., None]
        # A feature that has not changed yet is at its mean.
        zeros = np.zeros_like(centred)
        divisor = deviation[..., None]
        ratio = np.divide(centred, divisor, out=zeros, where=divisor > 0)
        clipped = np.clip(ratio, -CLIP, CLIP)
        return clipped.reshape(x.shape).astype(np.float32)


def _moments(
    counts: Floats,
    totals: Floats,
    squares: Floats,
) -> tuple[Floats, Floats]:
    """Return mean, about the shift, and deviation of sums."""
    mean = totals / counts
    variance = squares / counts - np.square(mean)
    # Rounding may leave less than 0.
    return mean, np.sqrt(np.maximum(variance, 0))

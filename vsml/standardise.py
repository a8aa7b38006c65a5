"""Standardisation of a stream: inputs of mean 0 and variance 1 by what has been seen up to each example."""

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

CLIP = 5.0
"""Standard deviations that an input may be away from the mean; what is farther is put there."""


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

    count: np.ndarray
    shift: np.ndarray
    total: np.ndarray
    squares: np.ndarray

    @classmethod
    def nothing(cls, groups: int) -> Self:
        """Return the statistics of no example, for that many groups of features: d, or 1 for all alike."""
        empty = np.zeros(groups)
        return cls(np.zeros(()), empty, empty, empty)

    def learn(self, x: np.ndarray) -> tuple[Self, np.ndarray]:
        """Take in examples x [n, d] one after the other.

        Returns:
            The new statistics, and the inputs float32 [n, d], each standardised by all up to and with itself.

        Raises:
            ValueError: values are so large that their squares overflow.
        """
        start = self if self.count else replace(self, shift=self._grouped(x[:1]).mean(2)[0])
        with np.errstate(over="ignore"):  # told below
            counts, totals, squares = start._after(x, np.add.accumulate)
        if not np.isfinite(squares).all():
            raise ValueError(
                f"X: got values up to {np.abs(x).max():g}, expected ones whose squares are finite"
            )
        new = replace(start, count=counts[-1, 0], total=totals[-1], squares=squares[-1])
        return new, start._standardise(x, counts, totals, squares)

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Return x [n, d] as `learn` would return each of them if it came next; nothing is taken in."""
        return self._standardise(x, *self._after(x, lambda sums, axis: sums[:1] + sums))

    def _grouped(self, x: np.ndarray) -> np.ndarray:
        """Return x as [n, groups, values of a group]."""
        return x.reshape(len(x), len(self.shift), -1)

    def _after(self, x: np.ndarray, gather: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return count [n, 1], totals and squares [n, groups] after each example."""
        values = self._grouped(x) - self.shift[:, None]
        counts = np.full((len(x), 1), float(values.shape[2]))
        pairs = (
            (self.count.reshape(1), counts),
            (self.total, values.sum(2)),
            (self.squares, np.square(values).sum(2)),
        )
        counts, totals, squares = (gather(np.vstack([before, each]), axis=0)[1:] for before, each in pairs)
        return counts, totals, squares

    def _standardise(
        self, x: np.ndarray, counts: np.ndarray, totals: np.ndarray, squares: np.ndarray
    ) -> np.ndarray:
        mean = totals / counts
        deviation = np.sqrt(np.maximum(squares / counts - np.square(mean), 0))[..., None]
        centred = self._grouped(x) - self.shift[:, None] - mean[..., None]
        ratio = np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 0)
        return np.clip(ratio, -CLIP, CLIP).reshape(x.shape).astype(np.float32)

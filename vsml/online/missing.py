"""Missing values: an indicator beside each feature, from the first missing value on."""

from dataclasses import dataclass
from typing import Self

import numpy as np


@dataclass(frozen=True, eq=False)
class Indicators:
    """How often each feature has been missing. A value, never changed in place.

    The indicator of a feature is `m - share`: m is 1 where it is missing and else 0, and share is how often
    it has been missing up to and with this example. So it is 0 for features that are always there, and for
    those that never are, and its mean is about 0 for the others.

    Attributes:
        examples: seen from the first missing value on, [].
        absent: how many of them lacked each feature, [d].
    """

    examples: np.ndarray
    absent: np.ndarray

    @classmethod
    def nothing(cls, features: int) -> Self:
        """Return the indicators of no example."""
        return cls(np.zeros(()), np.zeros(features))

    def learn(
        self,
        x: np.ndarray,
        counted: np.ndarray | None = None,
    ) -> tuple[Self, np.ndarray]:
        """Take in examples x [n, d] one after the other: what is known now, and indicators float32 [n, d].

        Args:
            x: NaN where a value is missing.
            counted: which of them are taken in, bool [n]; None: all.
        """
        missing = np.isnan(x)
        takes = np.ones(len(x), bool) if counted is None else counted
        examples = self.examples + np.cumsum(takes)
        absent = self.absent + np.cumsum(missing & takes[:, None], axis=0)
        # An example that is not taken in is judged as if it came next.
        with_own = examples + ~takes
        share = (absent + (missing & ~takes[:, None])) / with_own[:, None]
        indicators = (missing - share).astype(np.float32)
        return type(self)(np.array(examples[-1]), absent[-1]), indicators

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Return indicators float32 [n, d] of examples x [n, d], as `learn` would if each came next."""
        missing = np.isnan(x)
        share = (self.absent + missing) / (self.examples + 1)
        return (missing - share).astype(np.float32)

    def known(self, x: np.ndarray) -> np.ndarray:
        """Return indicators float32 [n, d] of examples x [n, d] that were taken in, by all so far."""
        share = self.absent / np.maximum(self.examples, 1)
        return (np.isnan(x) - share).astype(np.float32)

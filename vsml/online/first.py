"""The first examples of a stream, which are learned anew when more is known of means and deviations.

Two examples say little about the deviation of a feature. So what was learned from the first ones was of
inputs, and of values, that were standardised badly, and differently from those that come later. Nor is it
known which features are relevant. When 2, 4, 8, ... and 256 examples have been seen, a fresh learner takes
the place of the old one, and learns them all again, in their order, by the statistics and the weights of
now. After 256 they are forgotten.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from vsml.types import Outputs, Values

MARKS = (2, 4, 8, 16, 32, 64, 128, 256)
"""Numbers of examples after which all of them are learned anew; after the last one they are not kept."""


@dataclass(frozen=True, eq=False)
class FirstExamples:
    """The examples so far, as they were given. A value, never changed in place.

    Attributes:
        x: inputs float64 [t, d]; NaN where one is missing.
        targets: numbers of classes, int32 [t], or values as they were given, float64 [t, D].
        taught: factor on the feedback to each, above 0, float32 [t].
    """

    x: np.ndarray
    targets: np.ndarray
    taught: np.ndarray

    @classmethod
    def none(cls, features: int, outputs: Outputs, count: int = 0) -> Self:
        """Return none of them; or zeros in the place of some."""
        is_values = isinstance(outputs, Values)
        targets = np.zeros((count, outputs.size)) if is_values else np.zeros(count, np.int32)
        return cls(np.zeros((count, features)), targets, np.zeros(count, np.float32))

    @property
    def is_due(self) -> bool:
        """Whether they are to be learned anew now."""
        return len(self.x) in MARKS

    @property
    def is_over(self) -> bool:
        """Whether no more are kept."""
        return len(self.x) >= MARKS[-1]

    def until_due(self, counted: np.ndarray) -> int:
        """Return how many of the next examples are learned before it is time again.

        Args:
            counted: which of the next examples leave a trace, bool [n].
        """
        missing = next(mark for mark in MARKS if mark > len(self.x)) - len(self.x)
        reached = np.cumsum(counted) >= missing
        return int(reached.argmax()) + 1 if reached.any() else len(counted)

    def with_more(
        self,
        x: np.ndarray,
        targets: np.ndarray,
        taught: np.ndarray,
    ) -> Self:
        """Return them with the next examples, less those that leave no trace."""
        counted = taught > 0
        return type(self)(
            np.concatenate([self.x, x[counted]]),
            np.concatenate([self.targets, targets[counted]]),
            np.concatenate([self.taught, taught[counted]]),
        )

    def factors(self) -> np.ndarray | None:
        """Return `taught`, or None where all are taught in full."""
        return None if (self.taught == 1).all() else self.taught

"""Points that laws are fitted to: sizes, a loss, and the run that each is from."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class Points:
    """Losses at sizes.

    Attributes:
        names: of the sizes, V of them.
        x: sizes, all above 0, float64 [n, V].
        loss: above 0, in nats, float64 [n].
        runs: which run each point is from, [n]: a bootstrap takes runs, never points.
    """

    names: tuple[str, ...]
    x: np.ndarray
    loss: np.ndarray
    runs: np.ndarray

    def __post_init__(self) -> None:
        count = len(self.loss)
        expected = (count, len(self.names))
        if self.x.shape != expected or len(self.runs) != count:
            raise ValueError(
                f"points: got sizes {self.x.shape} and {len(self.runs)} runs for {count} losses of "
                f"{', '.join(self.names)}, expected {expected} and {count}"
            )
        for name, values in (("sizes", self.x), ("losses", self.loss)):
            if not (np.isfinite(values).all() and (values > 0).all()):
                raise ValueError(f"points: got {name} that are not finite and above 0: laws have logarithms")

    def __len__(self) -> int:
        return len(self.loss)

    @cached_property
    def run_names(self) -> np.ndarray:
        """The different runs, sorted."""
        return np.unique(self.runs)

    def where(self, chosen: np.ndarray) -> "Points":
        """Return some of the points."""
        return Points(self.names, self.x[chosen], self.loss[chosen], self.runs[chosen])

    def decades(self, variable: int) -> float:
        """Return how many powers of ten a size spans."""
        sizes = self.x[:, variable]
        return float(np.log10(sizes.max() / sizes.min()))


def points_of(
    x: np.ndarray,
    loss: np.ndarray,
    runs: np.ndarray | None = None,
    names: tuple[str, ...] | None = None,
) -> Points:
    """Return points from arrays: sizes [n] or [n, V], losses [n]; without runs each point is its own run.

    Raises:
        ValueError: shapes do not fit, or a size or a loss is not above 0.
    """
    x = np.asarray(x, float)
    if x.ndim == 1:
        x = x[:, None]
    loss = np.asarray(loss, float)
    if names is None:
        names = ("x",) if x.shape[1] == 1 else tuple(f"x{number + 1}" for number in range(x.shape[1]))
    runs = np.arange(len(loss)) if runs is None else np.asarray(runs)
    return Points(names, x, loss, runs)

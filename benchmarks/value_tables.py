"""Tables whose targets are values, from packages that one can install, and which of them are for choices.

The split was written down before anything was chosen or tuned on the tables for final numbers. Tables of ISLP
(James et al., An Introduction to Statistical Learning, 2023) are read from the package's files; diabetes and
Friedman's functions (1,000 rows, noise as below) are scikit-learn's, TrumpApproval is river's.
"""

import csv
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn import datasets

from benchmarks.keel import numbers

ISLP = {
    "Auto": ("mpg", ("name",)),
    "Bikeshare": ("bikers", ("casual", "registered")),
    "Boston": ("medv", ()),
    "Carseats": ("Sales", ()),
    "College": ("Outstate", ("",)),
    "Credit": ("Balance", ("ID",)),
    "Hitters": ("Salary", ()),
    "Wage": ("wage", ("logwage", "region")),
}
"""By table: the column that is predicted, and those left out: they tell it, name the row or never change."""

MADE: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]] = {
    "diabetes": lambda: datasets.load_diabetes(return_X_y=True),
    "friedman1": lambda: datasets.make_friedman1(1000, noise=1.0, random_state=0),
    "friedman2": lambda: datasets.make_friedman2(1000, noise=125.0, random_state=0),
    "friedman3": lambda: datasets.make_friedman3(1000, noise=0.1, random_state=0),
    "TrumpApproval": lambda: _of_river(),
}
"""Tables of scikit-learn and river."""

CHOICES = ["diabetes", "friedman1", "Auto", "Carseats", "Wage"]
"""Tables by which learning algorithms and settings are chosen."""

FINAL = ["Boston", "Bikeshare", "College", "Credit", "Hitters", "friedman2", "friedman3", "TrumpApproval"]
"""Tables that nothing is chosen by."""


@dataclass(frozen=True, eq=False)
class ValueTable:
    """A table for regression.

    Attributes:
        name: of the table.
        x: inputs, float64 [n, d]; NaN where one is missing. Names are columns of 0 and 1.
        y: targets, float64 [n].
    """

    name: str
    x: np.ndarray
    y: np.ndarray


def read(name: str) -> ValueTable:
    """Read a table.

    Raises:
        FileNotFoundError: ISLP is not installed.
        KeyError: there is no such table.
    """
    if name in MADE:
        x, y = MADE[name]()
        return ValueTable(name, x, y)
    target, left_out = ISLP[name]
    with (_folder() / f"{name}.csv").open(newline="") as file:
        headings, *rows = list(csv.reader(file))
    columns = {}
    for heading, values in zip(headings, zip(*rows, strict=True), strict=True):
        columns[heading] = numbers([value.strip() for value in values])
    y = columns.pop(target)[:, 0]
    x = np.concatenate([column for heading, column in columns.items() if heading not in left_out], axis=1)
    is_known = ~np.isnan(y)
    return ValueTable(name, x[is_known], y[is_known])


def _folder() -> Path:
    """Return the folder of ISLP's tables."""
    found = importlib.util.find_spec("ISLP")
    if found is None or found.origin is None:
        raise FileNotFoundError(
            "ISLP: not installed; pip install --no-deps ISLP (its tables need nothing that it asks for)"
        )
    return Path(found.origin).parent / "data"


def _of_river() -> tuple[np.ndarray, np.ndarray]:
    """Return river's TrumpApproval, inputs and targets."""
    from river.datasets import TrumpApproval

    examples = list(TrumpApproval())
    x = [list(features.values()) for features, _ in examples]
    return np.array(x, np.float64), np.array([target for _, target in examples], np.float64)

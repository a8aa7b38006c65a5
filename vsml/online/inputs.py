"""Checks of what online estimators are given: inputs and labels."""

from numbers import Number
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.utils.validation import column_or_1d


def check_dense(X: Any) -> None:
    """Raise a ValueError for inputs that are a sparse matrix."""
    if issparse(X):
        raise ValueError(
            f"X: got a sparse matrix of shape {X.shape}, expected a dense array [n, d], as X.toarray() makes"
        )


def check_labels(y: Any) -> np.ndarray:
    """Return labels as an array [n].

    Raises:
        ValueError: they are no column, one is missing (None, NaN, NA), or text and numbers are mixed.
    """
    labels = column_or_1d(np.asarray(y), warn=True)
    for place, label in enumerate(labels.tolist() if labels.dtype.kind in "fO" else ()):
        if _is_missing(label):
            raise ValueError(
                f"y: got the missing label {label} at example {place} (counted from 0), expected a label for "
                "each example; leave out those without"
            )
    if labels.dtype.kind == "O":
        kinds = sorted({_kind_of_label(label) for label in labels.tolist()})
        if len(kinds) > 1:
            raise ValueError(f"y: got labels of mixed kinds, {' and '.join(kinds)}, expected one kind")
        if kinds == ["number"]:
            # Of a nullable column, whose numbers come as objects.
            labels = np.array(labels.tolist())
    return labels


def _is_missing(label: Any) -> bool:
    """Return whether a label is None, or not equal to itself as NaN, NaT and NA are."""
    same = label == label
    return label is None or not (isinstance(same, bool | np.bool_) and bool(same))


def _kind_of_label(label: Any) -> str:
    if isinstance(label, Number):
        return "number"
    return type(label).__name__

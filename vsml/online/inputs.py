"""Checks of what online estimators are given: inputs, labels and weights."""

from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Number
from typing import Any

import numpy as np
from scipy.sparse import issparse
from sklearn.utils.validation import column_or_1d

MAX_WEIGHT = 1000
"""The largest weight of an example, as an example is learned about so many times."""

_ROUNDING = 1e-6
"""A weight that is so near to an integer is meant to be one."""

_AT_ONCE = 256
"""Weighted examples that are repeated at once."""


@dataclass(frozen=True, eq=False)
class Visits:
    """How often, and how much, each of some weighted examples is learned.

    An example of weight w is visited `ceil(w)` times in a row: each time it is told in full, but at the last
    time its feedback is times the rest, `w - floor(w)`, if that is not 0. So an integer weight is as many
    repeats. An example of weight 0 is visited once, to be answered, and nothing is learned.

    Attributes:
        examples: numbers of the examples visited, in order, [visits].
        taught: how much each visit teaches, 0 to 1, float32 [visits].
        first: the first visit of each example, [n].
    """

    examples: np.ndarray
    taught: np.ndarray
    first: np.ndarray


def visits_of(weights: np.ndarray) -> Iterator[Visits]:
    """Yield the visits of examples with these weights [n], some hundred examples at a time."""
    for start in range(0, len(weights), _AT_ONCE):
        some = weights[start : start + _AT_ONCE]
        near = np.round(some)
        some = np.where(np.abs(some - near) < _ROUNDING, near, some)
        times = np.maximum(np.ceil(some), 1).astype(int)
        ends = np.cumsum(times)
        taught = np.ones(ends[-1], np.float32)
        taught[ends - 1] = some - times + 1
        yield Visits(np.repeat(np.arange(start, start + len(some)), times), taught, ends - times)


def check_weights(sample_weight: Any, count: int) -> np.ndarray | None:
    """Return weights of examples, float64 [count]; None for None.

    Args:
        sample_weight: one number for each example, one for all, or None.
        count: examples.

    Raises:
        ValueError: another shape, or a weight that is negative, not finite or above `MAX_WEIGHT`.
    """
    if sample_weight is None:
        return None
    weights = np.asarray(sample_weight, np.float64)
    if weights.ndim == 0:
        weights = np.full(count, float(weights))
    if weights.shape != (count,):
        raise ValueError(
            f"sample_weight: got shape {weights.shape}, expected ({count},), one for each example"
        )
    wrong = ~((weights >= 0) & (weights <= MAX_WEIGHT))
    if wrong.any():
        place = int(np.argmax(wrong))
        raise ValueError(
            f"sample_weight: got {weights[place]} at example {place} (counted from 0), expected 0 to "
            f"{MAX_WEIGHT}, as an example is learned about so many times; divide weights by their mean"
        )
    return weights


def check_any_weight(weights: np.ndarray | None) -> None:
    """Raise a ValueError where nothing would be learned, as all weights are 0."""
    if weights is not None and not weights.any():
        raise ValueError(
            "sample_weight: got 0 for all examples, expected at least one non-zero number: weights say how "
            "often each example is learned"
        )


def is_checked(
    X: Any,
    features: int,
) -> bool:
    """Return whether scikit-learn's checks would return inputs as they are: quick, for one row at a time.

    Args:
        X: inputs; only plain arrays float64 [n, features] without infinities count.
        features: d of the estimator, which knows no names of features.
    """
    return (
        type(X) is np.ndarray
        and X.dtype == np.float64
        and X.ndim == 2
        and len(X) > 0
        and X.shape[1] == features
        and X.flags.c_contiguous
        and not np.isinf(X).any()
    )


def plain_labels(y: Any, count: int) -> np.ndarray | None:
    """Return labels [count] that need no further check, integers or text in one row; None for others."""
    if type(y) not in (np.ndarray, list):
        return None
    labels = np.asarray(y)
    is_plain = labels.dtype.kind in "iuU" and labels.shape == (count,)
    return labels if is_plain else None


def plain_values(y: Any, count: int) -> np.ndarray | None:
    """Return values, float64 [count], that need no check: finite numbers in one row; None for others."""
    if type(y) not in (np.ndarray, list):
        return None
    values = np.asarray(y)
    if values.dtype.kind not in "iuf" or values.shape != (count,) or not np.isfinite(values).all():
        return None
    return values.astype(np.float64)


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

"""A user's own data set: an npz file of x_train, y_train, x_test and y_test."""

import warnings
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from vsml.system.cache import expand_home
from vsml.tasks.data.arrays import names_of, read_arrays
from vsml.tasks.data.dataset import SUBSETS, Dataset, check_number
from vsml.tasks.data.errors import DataError, MissingDataError
from vsml.types import Classes, Outputs, Values

OUTPUTS_KEY = "outputs"
"""The array of a file, one text, that says what targets are."""

CLASSES, VALUES = "classes", "values"
"""What it may be."""

STANDARDISE_KEY = "standardise"
"""The array of a file, one text, that says what has a mean and a deviation of its own."""

COLUMNS, ALL = "columns", "all"
"""What it may be: each column of a table, or all inputs together."""

LARGEST_LABEL = 1_000_000
"""Larger ones stand for no label at all, or are numbers of something else than classes."""

_OTHER_UNIT = 10.0
"""A deviation of one half so many times that of the other one is told."""

_LEAST_DEVIATION = float(np.finfo(np.float32).tiny)
"""What is below is 0 for a device, and nothing can be divided by it."""

_X_DIMENSIONS = (2, 3, 4)
_Y_DIMENSIONS = (1, 2)
_NUMBERS = frozenset("iuf")

_TEXTS = {OUTPUTS_KEY: (CLASSES, VALUES), STANDARDISE_KEY: (COLUMNS, ALL)}
"""What the texts of a file may be."""

Halves = dict[str, np.ndarray]
"""Arrays by subset."""


def load_npz(name: str, subset: str) -> Dataset:
    """Load one half of a user's data set onto the default device.

    Classes are the labels that occur in either half, in their order: labels 3, 10 and 17 are the classes 0,
    1 and 2. `Dataset.class_labels` keeps which is which. A table [n, features] is standardised by column,
    images by one mean and deviation, unless the text `standardise`, "columns" or "all", in the file says so.

    Targets y are classes or values. What they are is told by the text `outputs`, "classes" or "values", in
    the file. Without it, whole numbers [n] of an integer type are classes; floats [n] some of which are no
    whole numbers, and anything [n, D], are values; floats [n] that are all whole numbers are refused, as they
    may be either, and so are whole numbers [n, 1].

    Args:
        name: path of the file, in which the asked half must be: x [n, H, W, Ch], [n, H, W] or [n, features]
            (which becomes [n, 1, features, 1]), whole numbers 0..255 or floats; y: classes [n], or values
            [n] or [n, D].
        subset: "train" or "test".

    Returns:
        The half, with mean and std of inputs, and of values, of the train half (of the test half where that
        is all there is).

    Raises:
        MissingDataError: there is no such file.
        DataError: it is no npz file, or its arrays are not of this kind.
    """
    try:
        path = expand_home(name)
    except OSError as error:
        raise MissingDataError(f"dataset: {error}") from error
    if not path.is_file():
        raise MissingDataError(f"dataset: no file {path.absolute()}")
    xs, ys, texts = _read_halves(path, subset)
    inputs: Halves = {}
    for half, x in xs.items():
        _check_arrays(x, ys[half], f"{path} {half}")
        inputs[half] = _as_images(x, f"{path} {half}")
    _check_alike(path, inputs)
    kind = texts.get(OUTPUTS_KEY) or _kind_of_targets(path, ys)
    targets: Halves = {}
    for half, y in ys.items():
        targets[half] = _as_targets(y, kind, f"{path} {half}")
    reference = "train" if "train" in xs else subset
    scale, mean, std = _statistics_of_inputs(path, inputs[reference])
    column_mean, column_std = None, None
    if _has_columns(path, xs[reference], texts):
        column_mean, column_std = _statistics_of_columns(path, inputs[reference], scale)
        mean, std = 0.0, 1.0
    if subset != reference:
        _tell_other_unit(path, inputs[reference], inputs[subset], per_column=column_std is not None)
    outputs: Outputs
    class_labels = None
    y_mean: tuple[float, ...] = (0.0,)
    y_std: tuple[float, ...] = (1.0,)
    if kind == CLASSES:
        class_labels = _classes_that_occur(path, targets)
        outputs = Classes(len(class_labels))
        targets = {half: _as_numbers(y, class_labels) for half, y in targets.items()}
    else:
        outputs = Values(_width(path, targets))
        y_mean, y_std = _statistics_of_values(path, targets[reference])
    return Dataset(
        images=jnp.asarray(inputs[subset]),
        labels=jnp.asarray(targets[subset]),
        name=name,
        outputs=outputs,
        scale=scale,
        mean=mean,
        std=std,
        y_mean=y_mean,
        y_std=y_std,
        column_mean=column_mean,
        column_std=column_std,
        class_labels=class_labels,
    )


def _read_halves(path: Path, subset: str) -> tuple[Halves, Halves, dict[str, str]]:
    """Read x and y of the asked half, and of the other one where it is there, and the texts of the file."""
    there = names_of(path)
    # The asked half first: where it is not there, the error names it.
    halves = []
    for half in dict.fromkeys((subset, *SUBSETS)):
        is_there = {f"x_{half}", f"y_{half}"} <= set(there)
        if half == subset or is_there:
            halves.append(half)
    wanted = [f"{axis}_{half}" for half in halves for axis in "xy"]
    if not set(wanted) <= set(there):
        told = ", ".join(map(repr, there[:20]))
        raise DataError(f"{path}: got the arrays [{told}], expected x_{subset} and y_{subset}")
    given = [name for name in _TEXTS if name in there]
    arrays = read_arrays(path, [*wanted, *given])
    texts = {}
    for name in given:
        text = str(arrays[name])[:80]
        if text not in _TEXTS[name]:
            one, other = _TEXTS[name]
            raise DataError(f"{path}: got {name} {text!r}, expected {one!r} or {other!r}")
        texts[name] = text
    xs = {half: arrays[f"x_{half}"] for half in halves}
    ys = {half: arrays[f"y_{half}"] for half in halves}
    return xs, ys, texts


def _kind_of_targets(path: Path, ys: Halves) -> str:
    """Return what targets are, by the rule of `load_npz`."""
    kinds = {_kind_of(y) for y in ys.values()}
    if VALUES in kinds:
        return VALUES
    if kinds == {CLASSES}:
        return CLASSES
    shapes = " and ".join(f"{y.dtype} of shape {y.shape}" for y in ys.values())
    raise DataError(
        f"{path}: got y {shapes}, all of them whole numbers, which may be classes or values; expected the "
        f"array {OUTPUTS_KEY} beside it, numpy.savez(..., {OUTPUTS_KEY}={CLASSES!r}) or {VALUES!r}, or "
        "classes as integers [n]"
    )


def _kind_of(y: np.ndarray) -> str:
    """Return what the targets of one half are; nothing where they may be either."""
    if y.ndim == 2:
        # Whole numbers in one column are more often labels than values.
        return "" if y.shape[1] == 1 and _all_whole(y) else VALUES
    if y.dtype.kind in "iu":
        return CLASSES
    return "" if _all_whole(y) else VALUES


def _all_whole(y: np.ndarray) -> bool:
    """Return whether floats are all whole numbers; those that are not finite are none."""
    is_whole = np.isfinite(y) & (y == np.round(y))
    return bool(is_whole.all())


def _check_arrays(
    x: np.ndarray,
    y: np.ndarray,
    where: str,
) -> None:
    """Raise a DataError where a user's arrays have other shapes or types than expected."""
    if x.ndim not in _X_DIMENSIONS or y.ndim not in _Y_DIMENSIONS:
        expected = "x [n, H, W, Ch], [n, H, W] or [n, features] and y [n] or [n, D]"
        raise DataError(f"{where}: got x of shape {x.shape} and y of shape {y.shape}, expected {expected}")
    kinds = {x.dtype.kind, y.dtype.kind}
    if not kinds <= _NUMBERS:
        expected = "whole or floating numbers"
        raise DataError(f"{where}: got x of type {x.dtype} and y of type {y.dtype}, expected {expected}")
    check_number(x, y, where)
    if _looks_channels_first(x.shape):
        raise DataError(
            f"{where}: got x of shape {x.shape}, which looks as if channels came first; expected them last, "
            "[n, H, W, Ch], as numpy.moveaxis(x, 1, -1) makes"
        )
    if not x.size or not y.size:
        raise DataError(f"{where}: got x of shape {x.shape} and y of {y.shape}, expected no empty axis")


def _looks_channels_first(shape: tuple[int, ...]) -> bool:
    """Return whether a shape is far more likely [n, Ch, H, W] than [n, H, W, Ch]."""
    if len(shape) != 4:
        return False
    _, first, second, last = shape
    most_channels = 4
    if last <= most_channels or second <= most_channels:
        return False
    # A row of values with many channels is a series; with as many channels as values, it is a square image.
    return first == 3 or (first == 1 and second == last)


def _as_images(x: np.ndarray, where: str) -> np.ndarray:
    """Return a user's inputs as images [n, H, W, Ch], uint8 or float32."""
    if x.dtype.kind == "f":
        x = _as_float32(x, "x", where)
    else:
        least, most = x.min(), x.max()
        if least < 0 or most > 255:
            raise DataError(f"{where}: got whole numbers {least}..{most} in x, expected 0..255 or floats")
        x = x.astype(np.uint8)
    if x.ndim == 2:
        x = x[:, None, :]
    if x.ndim == 3:
        x = x[..., None]
    return x


def _as_targets(
    y: np.ndarray,
    kind: str,
    where: str,
) -> np.ndarray:
    """Return targets as classes int32 [n] or values float32 [n, D]."""
    if kind == VALUES:
        values = _as_float32(y, "y", where)
        return values.reshape(len(values), -1)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or not _all_whole(y):
        raise DataError(f"{where}: got y {y.dtype} of shape {y.shape}, expected whole numbers [n] as classes")
    least, most = y.min(), y.max()
    if least < 0 or most > LARGEST_LABEL:
        raise DataError(
            f"{where}: got labels {least}..{most}, expected 0..{LARGEST_LABEL}: what stands for no label is "
            "to be left out, and numpy.unique(y, return_inverse=True) makes other numbers labels"
        )
    return y.astype(np.int32)


def _classes_that_occur(path: Path, targets: Halves) -> tuple[int, ...]:
    """Return the labels of all halves, sorted; raise a DataError where there is but one."""
    labels = np.unique(np.concatenate(list(targets.values())))
    if len(labels) == 1:
        raise DataError(f"{path}: all labels are {labels[0]}, expected 2 classes or more")
    return tuple(labels.tolist())


def _as_numbers(labels: np.ndarray, class_labels: tuple[int, ...]) -> np.ndarray:
    """Return the numbers of the classes that labels [n] stand for, int32 [n]."""
    return np.searchsorted(np.array(class_labels), labels).astype(np.int32)


def _as_float32(
    array: np.ndarray,
    name: str,
    where: str,
) -> np.ndarray:
    """Return an array of numbers as float32, all of them finite."""
    with np.errstate(over="ignore"):  # refused on the next line
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise DataError(f"{where}: {name} has values that are not finite in float32")
    return array


def _check_alike(path: Path, inputs: Halves) -> None:
    """Raise a DataError where the halves have inputs of different shapes or types."""
    kinds = [f"{x.dtype} {x.shape[1:]}" for x in inputs.values()]
    if len(set(kinds)) > 1:
        told = " and ".join(kinds)
        raise DataError(f"{path}: got train and test images of {told}, expected the same")


def _width(path: Path, targets: Halves) -> int:
    """Return how many values a target has; raise a DataError where that differs between the halves."""
    widths = [y.shape[1] for y in targets.values()]
    if len(set(widths)) > 1:
        told = " and ".join(map(str, sorted(widths)))
        raise DataError(f"{path}: got train and test targets of {told} values, expected the same")
    return widths[0]


def _statistics_of_inputs(path: Path, x: np.ndarray) -> tuple[float, float, float]:
    """Return the scale, and mean and standard deviation of all inputs after scaling."""
    scale = 255.0 if x.dtype == np.uint8 else 1.0
    mean = float(x.mean(dtype=np.float64)) / scale
    std = float(x.std(dtype=np.float64)) / scale
    if std == 0:
        raise DataError(f"{path}: all values of x are the same, {mean * scale}")
    if std < _LEAST_DEVIATION:
        raise DataError(
            f"{path}: got values of x with a deviation of {std:.3g}, expected at least {_LEAST_DEVIATION:.3g}"
            ": multiply x by a constant"
        )
    farthest = np.abs(x.astype(np.float64) / scale - mean).max()
    if farthest > np.finfo(np.float32).max:
        raise DataError(
            f"{path}: got values of x {farthest:.3g} away from their mean, which is not finite in float32"
        )
    return scale, mean, std


def _has_columns(
    path: Path,
    x: np.ndarray,
    texts: dict[str, str],
) -> bool:
    """Return whether each column of x, as it is in the file, has a mean and a deviation of its own."""
    is_table = x.ndim == 2
    told = texts.get(STANDARDISE_KEY, COLUMNS if is_table else ALL)
    if told == COLUMNS and not is_table:
        raise DataError(f"{path}: got {STANDARDISE_KEY} {told!r} and x of shape {x.shape}, expected a table")
    return told == COLUMNS


def _statistics_of_columns(
    path: Path,
    x: np.ndarray,
    scale: float,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return means and deviations of the columns of x [n, 1, features, 1] after scaling.

    A column that is the same throughout, or nearly 0, has deviation 1: it says nothing.
    """
    columns = x.reshape(len(x), -1).astype(np.float64) / scale
    means = columns.mean(axis=0)
    deviations = columns.std(axis=0)
    says_something = deviations >= _LEAST_DEVIATION
    if not says_something.any():
        raise DataError(f"{path}: no column of x has a deviation of at least {_LEAST_DEVIATION:.3g}")
    deviations = np.where(says_something, deviations, 1.0)
    return tuple(means.tolist()), tuple(deviations.tolist())


def _tell_other_unit(
    path: Path,
    reference: np.ndarray,
    x: np.ndarray,
    per_column: bool,
) -> None:
    """Warn where x is spread far wider or narrower than the half that it is standardised by."""
    axes = 0 if per_column else None
    of_reference = reference.std(axis=axes, dtype=np.float64)
    own = x.std(axis=axes, dtype=np.float64)
    far = (own > _OTHER_UNIT * of_reference) | (own * _OTHER_UNIT < of_reference)
    # A column of one half may well be the same throughout.
    far = far & (own > 0) & (of_reference > 0)
    if not np.any(far):
        return
    what = "x" if not per_column else f"columns {np.flatnonzero(far)[:10].tolist()} of x"
    ratio = np.max(np.where(far, own / np.where(far, of_reference, 1.0), 0.0))
    warnings.warn(
        f"{path}: {what} of the test half have a deviation up to {ratio:.3g} times that of the train half, "
        "which both are standardised by; are they in the same units?",
        stacklevel=4,
    )


def _statistics_of_values(path: Path, y: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return means and standard deviations of targets [n, D]."""
    precise = y.astype(np.float64)
    means = precise.mean(axis=0)
    deviations = precise.std(axis=0)
    (constant,) = np.nonzero(deviations == 0)
    if len(constant):
        first = constant[0]
        raise DataError(f"{path}: all values of column {first} of y are the same, {means[first]}")
    (tiny,) = np.nonzero(deviations < _LEAST_DEVIATION)
    if len(tiny):
        raise DataError(
            f"{path}: got column {tiny[0]} of y with a deviation of {deviations[tiny[0]]:.3g}, expected at "
            f"least {_LEAST_DEVIATION:.3g}: multiply y by a constant"
        )
    return tuple(means.tolist()), tuple(deviations.tolist())

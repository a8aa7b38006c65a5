"""A user's own data set: an npz file of x_train, y_train, x_test and y_test."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np

from vsml.system.cache import expand_home
from vsml.tasks.data.arrays import names_of, read_arrays
from vsml.tasks.data.dataset import SUBSETS, Dataset, check_examples, check_number
from vsml.tasks.data.errors import DataError, MissingDataError
from vsml.types import Classes, Outputs, Values

OUTPUTS_KEY = "outputs"
"""The array of a file, one text, that says what targets are."""

CLASSES, VALUES = "classes", "values"
"""What it may be."""

_X_DIMENSIONS = (2, 3, 4)
_Y_DIMENSIONS = (1, 2)
_NUMBERS = frozenset("iuf")

Halves = dict[str, np.ndarray]
"""Arrays by subset."""


def load_npz(name: str, subset: str) -> Dataset:
    """Load one half of a user's data set onto the default device.

    Targets y are classes or values. What they are is told by the text `outputs`, "classes" or "values", in
    the file. Without it, whole numbers [n] of an integer type are classes; floats [n] some of which are no
    whole numbers, and anything [n, D], are values; floats [n] that are all whole numbers are refused, as they
    may be either.

    Args:
        name: path of the file, in which the asked half must be: x [n, H, W, Ch], [n, H, W] or [n, features]
            (which becomes [n, 1, features, 1]), whole numbers 0..255 or floats; y: classes [n] from 0, or
            values [n] or [n, D].
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
    xs, ys, declared = _read_halves(path, subset)
    inputs: Halves = {}
    for half, x in xs.items():
        _check_arrays(x, ys[half], f"{path} {half}")
        inputs[half] = _as_images(x, f"{path} {half}")
    _check_alike(path, inputs)
    kind = declared or _kind_of_targets(path, ys)
    targets: Halves = {}
    for half, y in ys.items():
        targets[half] = _as_targets(y, kind, f"{path} {half}")
    reference = "train" if "train" in xs else subset
    scale, mean, std = _statistics_of_inputs(path, inputs[reference])
    outputs: Outputs
    y_mean: tuple[float, ...] = (0.0,)
    y_std: tuple[float, ...] = (1.0,)
    if kind == CLASSES:
        largest = max(y.max() for y in targets.values())
        outputs = Classes(1 + int(largest))
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
    )


def _read_halves(path: Path, subset: str) -> tuple[Halves, Halves, str | None]:
    """Read x and y of the asked half, and of the other one where it is there, and what targets are."""
    there = names_of(path)
    # The asked half first: where it is not there, the error names it.
    halves = [
        half
        for half in dict.fromkeys((subset, *SUBSETS))
        if half == subset or {f"x_{half}", f"y_{half}"} <= set(there)
    ]
    wanted = [f"{axis}_{half}" for half in halves for axis in "xy"]
    if not set(wanted) <= set(there):
        told = ", ".join(map(repr, there[:20]))
        raise DataError(f"{path}: got the arrays [{told}], expected x_{subset} and y_{subset}")
    optional = [OUTPUTS_KEY] if OUTPUTS_KEY in there else []
    arrays = read_arrays(path, [*wanted, *optional])
    xs = {half: arrays[f"x_{half}"] for half in halves}
    ys = {half: arrays[f"y_{half}"] for half in halves}
    declared = str(arrays[OUTPUTS_KEY])[:80] if optional else None
    if declared not in (None, CLASSES, VALUES):
        raise DataError(f"{path}: got {OUTPUTS_KEY} {declared!r}, expected {CLASSES!r} or {VALUES!r}")
    return xs, ys, declared


def _kind_of_targets(path: Path, ys: Halves) -> str:
    """Return what targets are, by the rule of `load_npz`."""
    kinds = {_kind_of(y) for y in ys.values()}
    if VALUES in kinds:
        return VALUES
    if kinds == {CLASSES}:
        return CLASSES
    raise DataError(
        f"{path}: got y of floats that are all whole numbers, which may be classes or values; expected the "
        f"array {OUTPUTS_KEY} beside it, numpy.savez(..., {OUTPUTS_KEY}={CLASSES!r}) or {VALUES!r}, or "
        "another type of y"
    )


def _kind_of(y: np.ndarray) -> str:
    """Return what the targets of one half are; nothing where they may be either."""
    if y.ndim == 2:
        return VALUES
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
    if not x.size or not y.size:
        raise DataError(f"{where}: got x of shape {x.shape} and y of {y.shape}, expected no empty axis")


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
    if y.ndim != 1 or not _all_whole(y):
        raise DataError(f"{where}: got y {y.dtype} of shape {y.shape}, expected whole numbers [n] as classes")
    limit = np.iinfo(np.int32).max
    check_examples(y, y, limit, where)
    return y.astype(np.int32)


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
    return scale, mean, std


def _statistics_of_values(path: Path, y: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return means and standard deviations of targets [n, D]."""
    precise = y.astype(np.float64)
    means = precise.mean(axis=0)
    deviations = precise.std(axis=0)
    (constant,) = np.nonzero(deviations == 0)
    if len(constant):
        first = constant[0]
        raise DataError(f"{path}: all values of column {first} of y are the same, {means[first]}")
    return tuple(means.tolist()), tuple(deviations.tolist())

"""A user's own data set: an npz file of x_train, y_train, x_test and y_test."""

import zipfile
import zlib
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from vsml.tasks.data.dataset import SUBSETS, Dataset, check_examples
from vsml.tasks.data.errors import DataError, MissingDataError


def load_npz(name: str, subset: str) -> Dataset:
    """Load one half of a user's data set onto the default device.

    Args:
        name: path of the file, in which the asked half must be: x [n, H, W, Ch], [n, H, W] or [n, features]
            (which becomes [n, 1, features, 1]), whole numbers 0..255 or floats; y [n] whole numbers from 0.
        subset: "train" or "test".

    Returns:
        The half, with the mean and std of the train half (of the test half where that is all there is).

    Raises:
        MissingDataError: there is no such file.
        DataError: it is no npz file, or its arrays are not of this kind.
    """
    path = Path(name).expanduser()
    if not path.is_file():
        raise MissingDataError(f"dataset: no file {path.absolute()}")
    halves = _read_halves(path, subset)
    decoded = {half: _as_examples(x, y, f"{path} {half}") for half, (x, y) in halves.items()}
    if len({(x.shape[1:], x.dtype) for x, _ in decoded.values()}) > 1:
        kinds = " and ".join(f"{x.dtype} {x.shape[1:]}" for x, _ in decoded.values())
        raise DataError(f"{path}: got train and test images of {kinds}, expected the same")
    num_classes = 1 + max(int(y.max()) for _, y in decoded.values())
    statistics = decoded.get("train", decoded[subset])[0]
    scale = 255.0 if statistics.dtype == np.uint8 else 1.0
    mean, std = (float(f(dtype=np.float64)) / scale for f in (statistics.mean, statistics.std))
    if std == 0:
        raise DataError(f"{path}: all values of x are the same, {mean * scale}")
    images, labels = decoded[subset]
    return Dataset(
        images=jnp.asarray(images),
        labels=jnp.asarray(labels, jnp.int32),
        name=name,
        num_classes=num_classes,
        scale=scale,
        mean=mean,
        std=std,
    )


def _read_halves(path: Path, subset: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read x and y of the asked half, and of the other one where it is there."""
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: not an npz file (a zip archive of arrays, as numpy.savez writes)")
    halves = {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for half in dict.fromkeys((subset, *SUBSETS)):
                x, y = f"x_{half}", f"y_{half}"
                if half == subset or (x in arrays and y in arrays):
                    halves[half] = arrays[x], arrays[y]
    except KeyError as error:
        expected = f"x_{subset} and y_{subset}"
        raise DataError(f"{path}: got the arrays {arrays.files}, expected {expected}") from error
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        hint = "pickled objects, which images of different sizes become, never are"
        raise DataError(f"{path}: an array could not be read ({hint}): {error}") from error
    return halves


def _as_examples(x: np.ndarray, y: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Check a user's arrays and return them as images [n, H, W, Ch], uint8 or float32, and labels [n]."""
    if x.ndim not in (2, 3, 4) or y.ndim != 1:
        expected = "x [n, H, W, Ch], [n, H, W] or [n, features] and y [n]"
        raise DataError(f"{where}: got x of shape {x.shape} and y of shape {y.shape}, expected {expected}")
    if y.dtype.kind not in "iu" or x.dtype.kind not in "iuf":
        expected = "whole or floating numbers and whole numbers"
        raise DataError(f"{where}: got x of type {x.dtype} and y of type {y.dtype}, expected {expected}")
    check_examples(x, y, np.iinfo(np.int32).max, where)
    if not x.size:
        raise DataError(f"{where}: got x of shape {x.shape}, expected no empty axis")
    if x.dtype.kind == "f":
        with np.errstate(over="ignore"):  # refused on the next line
            x = x.astype(np.float32)
        if not np.isfinite(x).all():
            raise DataError(f"{where}: x has values that are not finite in float32")
    elif x.min() < 0 or x.max() > 255:
        raise DataError(f"{where}: got whole numbers {x.min()}..{x.max()} in x, expected 0..255 or floats")
    else:
        x = x.astype(np.uint8)
    if x.ndim == 2:
        x = x[:, None, :]
    return (x if x.ndim == 4 else x[..., None]), y

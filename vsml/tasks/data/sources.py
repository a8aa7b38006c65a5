"""Sources of examples: published data sets, a user's own, and generators that need no file.

Files lie under a data root as torchvision lays them out, and each half (train or test) needs only its own
files.
"""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import platformdirs

from vsml.registry import UnknownNameError
from vsml.system.cache import expand_home
from vsml.tasks.data.converted import conversion_of
from vsml.tasks.data.dataset import SUBSETS, Dataset, check_dataset, check_examples
from vsml.tasks.data.dataset import describe as describe_dataset
from vsml.tasks.data.entry import Entry, Examples, content_checksum
from vsml.tasks.data.errors import DataError, UnknownDataSetError
from vsml.tasks.data.files import Copy, check_checksums, find, is_published, wrong_checksum
from vsml.tasks.data.generator import Generator
from vsml.tasks.data.npz import load_npz
from vsml.tasks.data.sets import DATASETS, Origin
from vsml.types import Classes, Outputs


def load(
    name: str, subset: str, root: str | Path | None = None, verify: bool = True, download: bool = True
) -> Dataset | Generator:
    """Load one half of a data set onto the default device.

    An existing file is used as it is and never overwritten; a missing one is downloaded (with its published
    checksum only, see `download.download`). What is slow to decode is kept in a fast form (see
    `converted.Conversion`). A user's `.npz` is described at `npz.load_npz`.

    Args:
        name: one of `available()`, a path that ends in .npz, or `package.module:Name` of a `Generator`, an
            `Entry` or a function from "train" or "test" to a `Dataset`.
        subset: "train" or "test"; generators ignore it.
        root: data root; None is the environment's VSML_DATA_DIR, and without that the user's cache folder.
        verify: whether a user's own copy of a published file must have the published checksum.
        download: whether missing files may be downloaded.

    Raises:
        ValueError: unknown name or subset.
        MissingDataError: a file is not there and was not downloaded.
        DataError: a file has the wrong checksum or content.
    """
    if is_npz(name, subset):
        return load_npz(name, subset)
    origin = look_up(name)
    if isinstance(origin, Generator):
        return origin
    if not isinstance(origin, Entry):
        return _call(origin, name, subset)
    folder = data_folder(root)
    files = origin.files[subset]
    copies = tuple(find(file, folder, download) for file in files)
    examples = _read(origin, name, subset, copies, verify)
    return Dataset(
        images=jnp.asarray(examples.images),
        labels=jnp.asarray(examples.labels, jnp.int32),
        name=name,
        outputs=Classes(origin.num_classes[subset]),
        scale=origin.scale,
        mean=origin.mean,
        std=origin.std,
    )


def data_folder(root: str | Path | None = None) -> Path:
    """Return the data root: as given, else VSML_DATA_DIR of the environment, else the user's cache folder.

    Raises:
        DataError: there is none that could be used, as this user has no home folder.
    """
    chosen = root or os.environ.get("VSML_DATA_DIR")
    try:
        return expand_home(chosen or platformdirs.user_cache_dir("vsml"))
    except (OSError, RuntimeError) as error:
        expected = "data.root or VSML_DATA_DIR to name a folder without ~"
        raise DataError(f"no folder for data sets: {error}; expected {expected}") from error


def available() -> tuple[str, ...]:
    """Return the names that `load` knows besides paths: of this library, then of installed packages."""
    return DATASETS.names()


def shape_and_outputs(name: str, subset: str) -> tuple[tuple[int, ...], Outputs]:
    """Return the shape of a data set's images and its outputs; of published data sets nothing is read.

    Args:
        name: as for `load`.
        subset: "train" or "test".

    Returns:
        (H, W, Ch), and the outputs of that half.

    Raises:
        ValueError: unknown name or subset, or a user's own data set cannot be loaded.
    """
    if is_npz(name, subset):
        own = load_npz(name, subset)
        return own.image_shape, own.outputs
    origin = look_up(name)
    if isinstance(origin, Entry):
        return origin.image_shape, Classes(origin.num_classes[subset])
    if isinstance(origin, Generator):
        return origin.image_shape, origin.outputs
    made = _call(origin, name, subset)
    return made.image_shape, made.outputs


def describe_source(name: str) -> list[str]:
    """Return in words what was decided about a user's npz file on reading it; of other data sets nothing."""
    if not name.endswith(".npz"):
        return []
    try:
        own = load_npz(name, "train")
    except DataError:
        # The train half may be missing where it is evaluated only.
        own = load_npz(name, "test")
    return describe_dataset(own)


def shapes_of(name: str, subset: str) -> tuple[tuple[int, ...], int]:
    """Return the same as `shape_and_outputs`, of the outputs their number alone."""
    shape, outputs = shape_and_outputs(name, subset)
    return shape, outputs.size


def is_npz(name: str, subset: str) -> bool:
    """Return whether a name is the path of a user's npz file; check the subset.

    Raises:
        ValueError: the subset is none.
    """
    if subset not in SUBSETS:
        raise ValueError(f"subset: got {subset!r}, expected one of {', '.join(SUBSETS)}")
    return name.endswith(".npz")


def look_up(name: str) -> Origin:
    """Return what a data set is made from, by its name, which is no path.

    Raises:
        UnknownDataSetError: there is none of that name; the message says what there is.
    """
    try:
        origin = DATASETS.resolve(name)
    except UnknownNameError as error:
        expected = f"a path that ends in .npz, or {error.expected}"
        raise UnknownDataSetError(name, expected) from error
    if isinstance(origin, Entry | Generator) or callable(origin):
        return origin
    raise UnknownDataSetError(
        name,
        "a Generator, an Entry or a function from 'train' or 'test' to a Dataset, which "
        f"a {type(origin).__name__} is not",
    )


def _call(
    make: Callable[[str], Dataset],
    name: str,
    subset: str,
) -> Dataset:
    """Return what a user's function makes, checked, under the name that it was asked for by."""
    made = make(subset)
    where = f"{name} {subset}"
    if not isinstance(made, Dataset):
        raise DataError(f"{where}: got a {type(made).__name__}, expected a vsml.tasks.Dataset")
    check_dataset(made, where)
    return dataclasses.replace(made, name=name)


def _read(
    entry: Entry,
    name: str,
    subset: str,
    copies: tuple[Copy, ...],
    verify: bool,
) -> Examples:
    """Return the examples of one half of a published data set, from its fast form where it has one."""
    files = ", ".join(map(str, copies)) or "built in"
    where = f"{name} {subset} ({files})"
    in_archive = any(copy.form.member for copy in copies)
    if not (entry.slow or in_archive):
        return _decode(entry, subset, copies, verify, where)
    conversion = conversion_of(copies)
    examples = conversion.load(verify)
    if examples is not None:
        return examples
    with conversion.turn():
        # Another process may have converted them meanwhile.
        examples = conversion.load(verify)
        if examples is None:
            examples = _decode(entry, subset, copies, verify, where)
            conversion.save(examples, verified=verify)
    return examples


def _decode(
    entry: Entry,
    subset: str,
    copies: tuple[Copy, ...],
    verify: bool,
    where: str,
) -> Examples:
    """Decode and check one half of a published data set."""
    content = entry.content.get(subset)
    if verify and content is None:
        check_checksums(copies)
    examples = entry.decode(subset, copies)
    images, labels = examples.images, examples.labels
    check_examples(images, labels, entry.num_classes[subset], where)
    shape = images.shape[1:]
    if shape != entry.image_shape:
        raise DataError(f"{where}: got images of shape {shape}, expected {entry.image_shape}")
    if verify and content is not None and not all(map(is_published, copies)):
        got = content_checksum(examples)
        if got != content:
            raise wrong_checksum(f"{where}, decoded", "sha256", got, content)
    return examples

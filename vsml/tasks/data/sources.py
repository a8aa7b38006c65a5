"""Sources of examples: published data sets, a user's npz file, and generators that need no file.

What is published is an `Entry` in `registry.py`. Files lie under a data root as torchvision lays them out,
and each half (train or test) needs only its own files.
"""

import difflib
import os
from pathlib import Path

import jax.numpy as jnp
import pooch

from vsml.tasks.data.converted import conversion_of
from vsml.tasks.data.dataset import SUBSETS, Dataset, check_examples
from vsml.tasks.data.decoders import Examples, content_checksum
from vsml.tasks.data.errors import DataError
from vsml.tasks.data.files import Copy, check_checksums, find, is_published, wrong_checksum
from vsml.tasks.data.generators import GENERATORS, Generator
from vsml.tasks.data.npz import load_npz
from vsml.tasks.data.registry import REGISTRY, Entry


def load(
    name: str, subset: str, root: str | Path | None = None, verify: bool = True, download: bool = True
) -> Dataset | Generator:
    """Load one half of a data set onto the default device.

    An existing file is used as it is and never overwritten; a missing one is downloaded (with its published
    checksum only, see `download.download`). What is slow to decode is kept in a fast form (see
    `converted.Conversion`). A user's `.npz` is described at `npz.load_npz`.

    Args:
        name: one of `available()`, or a path that ends in .npz.
        subset: "train" or "test"; generators ignore it.
        root: data root; None is the environment's VSML_DATA_DIR, and without that the user's cache folder.
        verify: whether a user's own copy of a published file must have the published checksum.
        download: whether missing files may be downloaded.

    Raises:
        ValueError: unknown name or subset.
        MissingDataError: a file is not there and was not downloaded.
        DataError: a file has the wrong checksum or content.
    """
    known = _look_up(name, subset)
    if known is None:
        return load_npz(name, subset)
    if isinstance(known, Generator):
        return known
    folder = Path(root or os.environ.get("VSML_DATA_DIR") or pooch.os_cache("vsml")).expanduser()
    copies = tuple(find(file, folder, download) for file in known.files[subset])
    where = f"{name} {subset} ({', '.join(map(str, copies)) or 'built in'})"
    if known.slow or any(copy.form.member for copy in copies):
        conversion = conversion_of(copies)
        examples = conversion.load(verify)
        if examples is None:
            examples = _decode(known, subset, copies, verify, where)
            conversion.save(examples, verified=verify)
    else:
        examples = _decode(known, subset, copies, verify, where)
    return Dataset(
        images=jnp.asarray(examples.images),
        labels=jnp.asarray(examples.labels, jnp.int32),
        name=name,
        num_classes=known.num_classes[subset],
        scale=known.scale,
        mean=known.mean,
        std=known.std,
    )


def available() -> tuple[str, ...]:
    """Return the names that `load` knows besides paths."""
    return (*REGISTRY, *GENERATORS)


def shapes_of(name: str, subset: str) -> tuple[tuple[int, ...], int]:
    """Return the shape of a data set's images and its number of classes; reads nothing but a user's npz.

    Args:
        name: as for `load`.
        subset: "train" or "test".

    Returns:
        (H, W, Ch), and how many classes that half has.

    Raises:
        ValueError: unknown name or subset, or the npz cannot be loaded.
    """
    known = _look_up(name, subset)
    if isinstance(known, Entry):
        return known.image_shape, known.num_classes[subset]
    source = load_npz(name, subset) if known is None else known
    return source.image_shape, source.num_classes


def _look_up(name: str, subset: str) -> Entry | Generator | None:
    """Return what is known of a data set by its name, None for a user's npz."""
    if subset not in SUBSETS:
        raise ValueError(f"subset: got {subset!r}, expected one of {', '.join(SUBSETS)}")
    if name.endswith(".npz"):
        return None
    known = REGISTRY.get(name) or GENERATORS.get(name)
    if known is None:
        close = difflib.get_close_matches(name, available(), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        expected = f"one of {', '.join(available())}, or a path that ends in .npz"
        raise DataError(f"dataset: got {name!r}, expected {expected}{hint}")
    return known


def _decode(entry: Entry, subset: str, copies: tuple[Copy, ...], verify: bool, where: str) -> Examples:
    """Decode and check one half of a published data set."""
    content = entry.content.get(subset)
    if verify and content is None:
        check_checksums(copies)
    examples = entry.decode(subset, copies)
    check_examples(examples.images, examples.labels, entry.num_classes[subset], where)
    if examples.images.shape[1:] != entry.image_shape:
        shape = examples.images.shape[1:]
        raise DataError(f"{where}: got images of shape {shape}, expected {entry.image_shape}")
    if verify and content is not None and not all(map(is_published, copies)):
        got = content_checksum(examples)
        if got != content:
            raise wrong_checksum(f"{where}, decoded", "sha256", got, content)
    return examples

"""Sources of examples: published data sets, a user's npz file, and generators that need no file.

A published data set is one `Entry` in `REGISTRY`, with a decoder from its files to arrays. Files lie under a
data root as torchvision lays them out, and each half (train or test) needs only its own files.
"""

import bz2
import difflib
import gzip
import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pooch
from flax import struct

from vsml.types import Array

SUBSETS = ("train", "test")


class DataError(ValueError):
    """A data set's files are not what they should be."""


class MissingDataError(DataError, FileNotFoundError):
    """A data set's file is not there and could not be downloaded."""


@struct.dataclass
class Dataset:
    """One half of a data set, as it is stored; `(images / scale - mean) / std` is standardised.

    Attributes:
        images: uint8 (float32 for a float npz) [n, H, W, Ch].
        labels: int32 [n], in 0..num_classes-1.
        name: what it was loaded as.
        num_classes: how many classes there are, whether or not each has an example here.
        scale: what brings images to [0, 1]: 255 for bytes, 16 for digits, 1 for floats.
        mean: mean over all pixels after scaling.
        std: standard deviation over all pixels after scaling.
    """

    images: Array
    labels: Array
    name: str = struct.field(pytree_node=False)
    num_classes: int = struct.field(pytree_node=False)
    scale: float = struct.field(pytree_node=False, default=255.0)
    mean: float = struct.field(pytree_node=False, default=0.0)
    std: float = struct.field(pytree_node=False, default=1.0)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(H, W, Ch)."""
        return tuple(self.images.shape[1:])


@struct.dataclass
class Generator:
    """A source without a file: every episode draws its own small data set.

    Attributes:
        draw: (key, n, num_classes) -> images float32 [n, H, W, Ch] and labels int32 [n].
        name: what it was loaded as.
        num_classes: how many classes it has by default.
        image_shape: (H, W, Ch).
        pool_size: images drawn per episode, which then repeat; None draws a new one for every example.
        classes_alike: whether some of the classes can be left out (their labels mean nothing).
    """

    draw: Callable[[Array, int, int], tuple[Array, Array]] = struct.field(pytree_node=False)
    name: str = struct.field(pytree_node=False)
    num_classes: int = struct.field(pytree_node=False)
    image_shape: tuple[int, ...] = struct.field(pytree_node=False, default=(28, 28, 1))
    pool_size: int | None = struct.field(pytree_node=False, default=None)
    classes_alike: bool = struct.field(pytree_node=False, default=False)
    scale: float = struct.field(pytree_node=False, default=1.0)
    mean: float = struct.field(pytree_node=False, default=0.0)
    std: float = struct.field(pytree_node=False, default=1.0)


@dataclass(frozen=True)
class File:
    """A published file.

    Attributes:
        path: where it lies below the data root.
        checksum: "md5:..." or "sha256:...", as published.
        addresses: URLs, tried in order.
        unpacked_checksum: of the file without its last suffix, which is used where only that one is there;
            empty if unknown, then the unpacked file is checked by its structure alone.
    """

    path: str
    checksum: str
    addresses: tuple[str, ...]
    unpacked_checksum: str = ""


Decoder = Callable[[str, tuple[Path, ...]], tuple[np.ndarray, np.ndarray]]
"""(subset, the subset's files) -> images [n, H, W, Ch] and labels [n]."""


@dataclass(frozen=True)
class Entry:
    """A published data set: its files by subset, how to decode them, and what must come out."""

    files: Mapping[str, tuple[File, ...]]
    decode: Decoder
    image_shape: tuple[int, ...]
    num_classes: int
    mean: float
    std: float
    scale: float = 255.0


def load(
    name: str, subset: str, root: str | Path | None = None, verify: bool = True, download: bool = True
) -> Dataset | Generator:
    """Load one half of a data set onto the default device.

    An existing file is used as it is and never overwritten; a missing one is downloaded (atomically, and only
    with its published checksum). A user's `.npz` holds x_train, y_train, x_test, y_test, of which the asked
    half must be there: x [n, H, W, Ch], [n, H, W] or [n, features] (which becomes [n, 1, features, 1]), whole
    numbers 0..255 or floats; y [n] whole numbers from 0. Its mean and std are those of its train half (of the
    test half where that is all there is).

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
    if subset not in SUBSETS:
        raise ValueError(f"subset: got {subset!r}, expected one of {', '.join(SUBSETS)}")
    if name.endswith(".npz"):
        return _load_npz(name, subset)
    if name in GENERATORS:
        return GENERATORS[name]
    if name not in REGISTRY:
        close = difflib.get_close_matches(name, available(), n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        expected = f"one of {', '.join(available())}, or a path that ends in .npz"
        raise DataError(f"dataset: got {name!r}, expected {expected}{hint}")
    entry = REGISTRY[name]
    folder = Path(root or os.environ.get("VSML_DATA_DIR") or pooch.os_cache("vsml")).expanduser()
    paths = tuple(_locate(file, folder, verify, download) for file in entry.files[subset])
    where = f"{name} {subset} ({', '.join(map(str, paths)) or 'built in'})"
    images, labels = entry.decode(subset, paths)
    _check_examples(images, labels, entry.num_classes, where)
    if images.shape[1:] != entry.image_shape:
        raise DataError(f"{where}: got images of shape {images.shape[1:]}, expected {entry.image_shape}")
    return Dataset(
        images=jnp.asarray(images),
        labels=jnp.asarray(labels, jnp.int32),
        name=name,
        num_classes=entry.num_classes,
        scale=entry.scale,
        mean=entry.mean,
        std=entry.std,
    )


def available() -> tuple[str, ...]:
    """Return the names that `load` knows besides paths."""
    return (*REGISTRY, *GENERATORS)


def _locate(file: File, root: Path, verify: bool, download: bool) -> Path:
    """Return the path of a published file or of its unpacked form, downloading it where neither exists."""
    path = root / file.path
    for found, checksum in ((path, file.checksum), (path.with_suffix(""), file.unpacked_checksum)):
        if found.is_file():
            if verify and checksum:
                _check_checksum(found, checksum)
            return found
    failures = []
    for address in file.addresses if download else ():
        try:
            pooch.retrieve(address, known_hash=file.checksum, fname=path.name, path=path.parent)
            return path
        except (OSError, ValueError) as error:  # no connection or space; wrong checksum
            failures.append(f"  {address}: {error}")
    reason = "the download failed" if download else "nothing was downloaded"
    raise MissingDataError(
        f"{path} is missing and {reason}. Get {path.name} from {' or '.join(file.addresses)} into the folder "
        f"{path.parent}, or set data.root or VSML_DATA_DIR to a folder that has {file.path}."
        + "".join(f"\n{failure}" for failure in failures)
    )


def _check_checksum(path: Path, checksum: str) -> None:
    algorithm, _, expected = checksum.partition(":")
    got = pooch.file_hash(str(path), alg=algorithm)
    if got != expected:
        raise DataError(
            f"{path}: wrong checksum, got {algorithm} {got}, expected {expected}. Delete the file to have it "
            "downloaded again; if it is meant to differ, set data.verify: false."
        )


def _check_examples(images: np.ndarray, labels: np.ndarray, num_classes: int, where: str) -> None:
    if len(images) != len(labels) or not len(labels):
        raise DataError(f"{where}: got {len(images)} images and {len(labels)} labels, expected one for one")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise DataError(f"{where}: got labels {labels.min()}..{labels.max()}, expected 0..{num_classes - 1}")


def _read(path: Path) -> bytes:
    """Return a file's bytes, unpacked where it is compressed."""
    unpack: Callable[[bytes], bytes] = {".gz": gzip.decompress, ".bz2": bz2.decompress}.get(
        path.suffix, bytes
    )
    try:
        return unpack(path.read_bytes())
    except (EOFError, OSError, ValueError, zlib.error) as error:
        raise DataError(f"{path}: truncated or not a {path.suffix} file: {error}") from error


def _read_idx(path: Path, ndim: int) -> np.ndarray:
    """Read unsigned bytes in idx format: 0, 0, type 8, ndim, then ndim big-endian sizes, then the data."""
    content = _read(path)
    magic = bytes((0, 0, 8, ndim))
    header = 4 + 4 * ndim
    if content[:4] != magic or len(content) < header:
        raise DataError(
            f"{path}: got the first bytes {content[:4].hex()}, expected {magic.hex()} (idx format)"
        )
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", count=ndim, offset=4))
    size = int(np.prod(shape, dtype=np.int64))
    if len(content) - header != size:
        raise DataError(f"{path}: got {len(content) - header} bytes, expected {size} for shape {shape}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _decode_idx(subset: str, paths: tuple[Path, ...]) -> tuple[np.ndarray, np.ndarray]:
    del subset
    images, labels = paths
    return _read_idx(images, 3)[..., None], _read_idx(labels, 1)


def _decode_usps(subset: str, paths: tuple[Path, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Read libsvm text: labels 1..10 are the digits 0..9, and values -1..1 become bytes 0..255."""
    from sklearn.datasets import load_svmlight_file  # slow to import, and not needed for the others

    del subset
    try:
        values, labels = load_svmlight_file(BytesIO(_read(paths[0])), n_features=256)
    except ValueError as error:
        raise DataError(f"{paths[0]}: not libsvm text of 256 features: {error}") from error
    pixels = np.clip(np.rint((values.toarray() + 1) * 127.5), 0, 255).astype(np.uint8)
    return pixels.reshape(-1, 16, 16, 1), labels.astype(np.int32) - 1


def _decode_digits(subset: str, paths: tuple[Path, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Split scikit-learn's 1,797 digits into 1,300 for meta-training and 497 held out.

    Digits are ordered by the SHA-256 of their decimal position, which is the same on every platform and in
    every version, and the first 1,300 are the train half.
    """
    from sklearn.datasets import load_digits  # slow to import, and not needed for the others

    del paths
    images, labels = load_digits(return_X_y=True)
    order = sorted(range(len(labels)), key=lambda i: hashlib.sha256(str(i).encode()).digest())
    half = order[:1300] if subset == "train" else order[1300:]
    return images[half].astype(np.uint8).reshape(-1, 8, 8, 1), labels[half]


def _load_npz(name: str, subset: str) -> Dataset:
    path = Path(name).expanduser()
    if not path.is_file():
        raise MissingDataError(f"dataset: no file {path.absolute()}")
    halves = {}
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: not an npz file (a zip archive of arrays, as numpy.savez writes)")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for half in dict.fromkeys((subset, *SUBSETS)):
                keys = f"x_{half}", f"y_{half}"
                if half == subset or all(key in arrays for key in keys):
                    halves[half] = tuple(arrays[key] for key in keys)
    except KeyError as error:
        expected = f"x_{subset} and y_{subset}"
        raise DataError(f"{path}: got the arrays {arrays.files}, expected {expected}") from error
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: an array could not be read (pickled objects never are): {error}") from error
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


def _as_examples(x: np.ndarray, y: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Check a user's arrays and return them as images [n, H, W, Ch], uint8 or float32, and labels [n]."""
    if x.ndim not in (2, 3, 4) or y.ndim != 1:
        expected = "x [n, H, W, Ch], [n, H, W] or [n, features] and y [n]"
        raise DataError(f"{where}: got x of shape {x.shape} and y of shape {y.shape}, expected {expected}")
    if y.dtype.kind not in "iu" or x.dtype.kind not in "iuf":
        expected = "whole or floating numbers and whole numbers"
        raise DataError(f"{where}: got x of type {x.dtype} and y of type {y.dtype}, expected {expected}")
    _check_examples(x, y, np.iinfo(np.int32).max, where)
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


def _draw_random(key: Array, n: int, num_classes: int) -> tuple[Array, Array]:
    """Draw N(0, 1) images with labels that have nothing to do with them."""
    images = jax.random.normal(jax.random.fold_in(key, 0), (n, 28, 28, 1))
    return images, jax.random.randint(jax.random.fold_in(key, 1), (n,), 0, num_classes)


def _draw_sum(key: Array, n: int, num_classes: int) -> tuple[Array, Array]:
    """Draw normal images, cut at +-2, around a mean ~ U(-1, 1); the class is whether they sum to above 0."""
    del num_classes
    mean = jax.random.uniform(jax.random.fold_in(key, 0), (n, 1, 1, 1), minval=-1.0, maxval=1.0)
    images = mean + jax.random.truncated_normal(jax.random.fold_in(key, 1), -2.0, 2.0, (n, 28, 28, 1))
    return images, (images.sum(axis=(1, 2, 3)) > 0).astype(jnp.int32)


GENERATORS: dict[str, Generator] = {
    "random": Generator(draw=_draw_random, name="random", num_classes=10, pool_size=20, classes_alike=True),
    "sum": Generator(draw=_draw_sum, name="sum", num_classes=2),
}


def _idx_entry(
    folder: str, mirrors: tuple[str, ...], md5: str, unpacked_md5: str, mean: float, std: float
) -> Entry:
    """Describe four idx files; checksums are of train images and labels, then test images and labels."""
    names = [
        f"{half}-{kind}-ubyte.gz" for half in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")
    ]
    files = tuple(
        File(
            path=f"{folder}/raw/{name}",
            checksum=f"md5:{packed}",
            addresses=tuple(mirror + name for mirror in mirrors),
            unpacked_checksum="" if unpacked == "unknown" else f"md5:{unpacked}",
        )
        for name, packed, unpacked in zip(names, md5.split(), unpacked_md5.split(), strict=True)
    )
    return Entry({"train": files[:2], "test": files[2:]}, _decode_idx, (28, 28, 1), 10, mean, std)


def _usps_file(name: str, md5: str, unpacked: str = "") -> tuple[File]:
    address = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass/" + name
    return (File(f"USPS/{name}", f"md5:{md5}", (address,), unpacked),)


# Checksums are the publishers'; those of unpacked files were taken from files that have them. Mean and std of
# the first three are those of the 2021 runs, the same for both halves.
REGISTRY: dict[str, Entry] = {
    "mnist": _idx_entry(
        "MNIST",
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        "f68b3c2dcbeaaa9fbdd348bbdeb94873 d53e105ee54ea40749a09fcbcd1e9432 "
        "9fb629c4189551a2d022fa330f9573f3 ec29112dd5afa0611ce80d1b7f02629c",
        "6bbc9ace898e44ae57da46a324031adb a25bea736e30d166cdddb491f175f624 "
        "2646ac647ad5339dbf082846283269ea 27ae3e4e09519cfbb04c329615203637",
        mean=0.1307,
        std=0.3081,
    ),
    "fashion_mnist": _idx_entry(
        "FashionMNIST",
        ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d 25c81989df183df01b3e8a0aad5dffbe "
        "bef4ecab320f06d8554ea6380940ec79 bb300cfdad3c16e7a12a480ee83cd310",
        "f4a8712d7a061bf5bd6d2ca38dc4d50a 9018921c3c673c538a1fc5bad174d6f9 "
        "8181f5470baa50b63fa0f6fddb340f0a 15d484375f8d13e6eb1aabb0c3f46965",
        mean=0.1307,
        std=0.3081,
    ),
    "kmnist": _idx_entry(
        "KMNIST",
        ("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
        "bdb82020997e1d708af4cf47b453dcf7 e144d726b3acfaa3e44228e80efcd344 "
        "5c965bf0a639b31b8f53240b1b52f4d7 7320c461ea6c1c855c0b718fb2a4b134",
        "unknown 949e75301f8813e0dc5800dcc320fc52 "
        "bf305b8cd328700fbc17f5acbc2856d2 9f55f451c0988b028eccdf7d5cc265ab",
        mean=0.1918,
        std=0.3483,
    ),
    "usps": Entry(
        files={
            "train": _usps_file("usps.bz2", "ec16c51db3855ca6c91edd34d0e9b197"),
            "test": _usps_file(
                "usps.t.bz2", "8ea070ee2aca1ac39742fdd1ef5ed118", "md5:74ff1967c8db4cc0e927683b811dfc4e"
            ),
        },
        decode=_decode_usps,
        image_shape=(16, 16, 1),
        num_classes=10,
        # Over all pixels of the 2,007 test digits, after they became bytes and were divided by 255.
        mean=0.2613,
        std=0.3087,
    ),
    "digits": Entry(
        files={"train": (), "test": ()},
        decode=_decode_digits,
        image_shape=(8, 8, 1),
        num_classes=10,
        # Over all pixels of the 1,300 digits for meta-training, divided by 16.
        mean=0.3054,
        std=0.3758,
        scale=16.0,
    ),
}

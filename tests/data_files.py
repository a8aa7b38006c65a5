"""Small files in the formats of published data sets, and a data root of them."""

import gzip
import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat


def noise(*shape, seed=0):
    """Return random bytes, uint8 [*shape], the same at each call."""
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def zipped(contents):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return packed.getvalue()


def tarred(contents):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def idx(array):
    header = bytes((0, 0, 8, array.ndim)) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_mnist(root, folder, half, images, labels):
    """Write images and labels of half ("train" or "t10k") a data set in MNIST's format."""
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
        write(root / folder / "raw" / f"{half}-{kind}-ubyte.gz", gzip.compress(idx(array), mtime=0))


def emnist_files(split, half, images, labels):
    """Return the idx files of half a split, by their published names; images are upright."""
    contents = {"images-idx3": idx(images.swapaxes(1, 2)), "labels-idx1": idx(np.array(labels))}
    return {f"emnist-{split}-{half}-{kind}-ubyte": content for kind, content in contents.items()}


def write_emnist(root, files, form="plain"):
    packed = {f"{name}.gz": gzip.compress(content) for name, content in files.items()}
    if form == "zip":
        packed = {"gzip.zip": zipped({f"gzip/{name}": content for name, content in packed.items()})}
    for name, content in (files if form == "plain" else packed).items():
        write(root / "EMNIST/raw" / name, content)


def cifar(images, labels):
    """Return records of the label and the image, channel by channel."""
    return b"".join(
        bytes([label]) + image.transpose(2, 0, 1).tobytes()
        for image, label in zip(images, labels, strict=True)
    )


def cifar_files(images, test):
    """Return five train batches of two of the ten images each, and a test batch of the image `test`."""
    batches = {
        f"data_batch_{n + 1}.bin": cifar(images[2 * n : 2 * n + 2], [2 * n, 2 * n + 1]) for n in range(5)
    }
    return batches | {"test_batch.bin": cifar(images[test : test + 1], [test])}


def write_cifar(root, files, form):
    files = {f"cifar-10-batches-bin/{name}": content for name, content in files.items()}
    if form == "tar":
        order = sorted(files, reverse=True)  # batches are in the order of their numbers all the same
        files = {"cifar-10-binary.tar.gz": tarred({name: files[name] for name in order})}
    for name, content in files.items():
        write(root / name, content)


def mat(**arrays):
    packed = io.BytesIO()
    savemat(packed, arrays, do_compression=True)
    return packed.getvalue()


def ink(seed, size=(105, 105)):
    return (np.random.default_rng(seed).random(size) < 0.9) * 255


def drawing(seed, size=(105, 105)):
    """Return a PNG file of one bit per pixel, as Omniglot's are."""
    packed = io.BytesIO()
    Image.fromarray(ink(seed, size) > 0).save(packed, "PNG")
    return packed.getvalue()


def write_omniglot(root, drawings, form, half="images_evaluation"):
    """Write drawings, and beside them what some archives have besides."""
    files = {f"{half}/{name}": content for name, content in drawings.items()}
    files |= {f"__MACOSX/{half}/._x/y/z.png": b"no image", f"{half}/readme.txt": b"text"}
    if form == "zip":
        files = {f"{half}.zip": zipped(files)}
    for name, content in files.items():
        write(root / "omniglot-py" / name, content)


def write_data_root(root):
    """Write the data sets that configs/ names, each with an example or two of every class.

    Of Omniglot there are six characters in each half, two drawings of each.
    """
    twice = np.tile(np.arange(10), 2)
    for folder in ("MNIST", "FashionMNIST", "KMNIST"):
        for half in ("train", "t10k"):
            write_mnist(root, folder, half, noise(20, 28, 28), twice)
    halves = (emnist_files("byclass", half, noise(62, 28, 28), np.arange(62)) for half in ("train", "test"))
    write_emnist(root, {name: content for files in halves for name, content in files.items()}, "zip")
    write_cifar(root, cifar_files(noise(10, 32, 32, 3), test=0), "loose")
    for half, alphabets in (("images_background", "AB"), ("images_evaluation", "CD")):
        drawings = {
            f"{alphabet}/character{character:02}/{copy:04}.png": drawing(10 * character + copy)
            for alphabet in alphabets
            for character in (1, 2, 3)
            for copy in (1, 2)
        }
        write_omniglot(root, drawings, "zip", half)


def real_root(needed):
    """Return the folder of real data sets, or skip where it lacks a file."""
    root = os.environ.get("VSML_DATA_DIR")
    if not root:
        pytest.skip("VSML_DATA_DIR is not set")
    if not (Path(root) / needed).is_file():
        pytest.skip(f"VSML_DATA_DIR has no {needed}")
    return root

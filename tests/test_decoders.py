"""Decoders: the formats of published data sets, on small files of the same format and on the real ones."""

import dataclasses
import gzip
import hashlib

import numpy as np
import pytest
from data_files import (
    cifar,
    cifar_files,
    drawing,
    emnist_files,
    idx,
    ink,
    mat,
    noise,
    real_root,
    write,
    write_cifar,
    write_emnist,
    write_omniglot,
    zipped,
)

from vsml.tasks import DataError, MissingDataError, load
from vsml.tasks.data.entry import Examples, content_checksum
from vsml.tasks.data.sets import DATASETS
from vsml.tasks.data.sources import shapes_of


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """Keep what is converted out of the user's cache."""
    monkeypatch.setenv("VSML_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    return tmp_path / "root"


def read(name, subset, root, verify=True):
    return load(name, subset, root, verify=verify, download=False)


# EMNIST


LETTERS = noise(5, 28, 28)


@pytest.mark.parametrize("form", ["plain", "gz", "zip"])
def test_emnist_is_read_upright_from_each_form_that_users_have(root, form):
    write_emnist(root, emnist_files("balanced", "test", LETTERS, [0, 46, 3, 3, 9]), form)
    data = read("emnist_balanced", "test", root, verify=form != "zip")
    np.testing.assert_array_equal(data.images[..., 0], LETTERS)
    assert data.labels.tolist() == [0, 46, 3, 3, 9]
    assert (data.num_classes, data.mean, data.std, data.scale) == (47, 0.1739, 0.3319, 255.0)
    absent = (
        r"EMNIST/raw/gzip\.zip(: got an archive without| is missing.*) .*emnist-balanced-train-images-idx3"
    )
    with pytest.raises(DataError, match=absent):
        read("emnist_balanced", "train", root, verify=False)


@pytest.mark.parametrize(
    ("name", "split", "stored", "labels"),
    [
        ("emnist", "byclass", [0, 61], [0, 61]),
        ("emnist_byclass", "byclass", [0, 61], [0, 61]),
        ("emnist_bymerge", "bymerge", [0, 46], [0, 46]),
        ("emnist_letters", "letters", [1, 26], [0, 25]),
        ("emnist_digits", "digits", [0, 9], [0, 9]),
        ("emnist_mnist", "mnist", [0, 9], [0, 9]),
    ],
)
def test_each_split_of_emnist_has_its_classes_from_0(root, name, split, stored, labels):
    write_emnist(root, emnist_files(split, "train", LETTERS[:2], stored))
    data = read(name, "train", root)
    assert data.labels.tolist() == labels
    assert (data.name, data.num_classes) == (name, labels[1] + 1)
    write_emnist(root, emnist_files(split, "train", LETTERS[:2], [stored[0], stored[1] + 1]))
    with pytest.raises(DataError, match=rf"got labels 0\.\.{labels[1] + 1}, expected 0\.\.{labels[1]}"):
        read(name, "train", root)


def test_letters_of_emnist_have_no_label_0(root):
    write_emnist(root, emnist_files("letters", "test", LETTERS, [0, 1, 2, 3, 4]))
    with pytest.raises(DataError, match=r"got labels -1\.\.3"):
        read("emnist_letters", "test", root)


def test_an_archive_must_be_the_published_one_and_hold_what_is_asked_for(root):
    files = emnist_files("digits", "test", LETTERS, [1, 2, 3, 4, 5])
    write_emnist(root, files, "zip")
    with pytest.raises(
        DataError, match=r"gzip\.zip: wrong checksum, got md5 .*58c8d27c78d21e728a6bc7b3cc06412e"
    ):
        read("emnist_digits", "test", root)
    del files["emnist-digits-test-labels-idx1-ubyte"]
    write_emnist(root, files, "zip")
    missing = r"gzip\.zip: got an archive without gzip/emnist-digits-test-labels-idx1-ubyte\.gz"
    with pytest.raises(DataError, match=missing):
        read("emnist_digits", "test", root, verify=False)


def test_truncated_and_strange_archives_are_clear_errors(root):
    archive = root / "EMNIST/raw/gzip.zip"
    write_emnist(root, emnist_files("mnist", "test", LETTERS, [1, 2, 3, 4, 5]), "zip")
    for content in (archive.read_bytes()[:-30], b"<html>", b""):
        archive.write_bytes(content)
        with pytest.raises(DataError, match=r"gzip\.zip: truncated or damaged, or not a \.zip archive"):
            read("emnist_mnist", "test", root, verify=False)
    name = "gzip/emnist-mnist-test-images-idx3-ubyte.gz"
    labels = gzip.compress(idx(np.arange(5)))
    content = gzip.compress(idx(LETTERS))[:-100]
    archive.write_bytes(zipped({name: content, name.replace("images-idx3", "labels-idx1"): labels}))
    with pytest.raises(DataError, match=rf"gzip\.zip, {name}: truncated or not a \.gz"):
        read("emnist_mnist", "test", root, verify=False)


# CIFAR-10

COLOURS = noise(10, 32, 32, 3)


@pytest.mark.parametrize("form", ["loose", "tar"])
def test_cifar_batches_are_read_in_order_as_height_width_channel(root, form):
    write_cifar(root, cifar_files(COLOURS, test=7), form)
    data = read("cifar10", "train", root, verify=form == "loose")
    np.testing.assert_array_equal(data.images, COLOURS)
    assert data.labels.tolist() == list(range(10))
    assert (data.mean, data.std) == (0.4734, 0.2516)
    test = read("cifar10", "test", root, verify=form == "loose")
    np.testing.assert_array_equal(test.images, COLOURS[7:8])


def test_each_half_of_cifar_works_without_the_other(root):
    files = cifar_files(COLOURS, test=7)
    write_cifar(root, {"test_batch.bin": files["test_batch.bin"]}, "loose")
    assert read("cifar10", "test", root).labels.tolist() == [7]
    with pytest.raises(MissingDataError) as error:
        read("cifar10", "train", root)
    for part in (
        root / "cifar-10-binary.tar.gz",
        "cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        "data_batch_1.bin",
    ):
        assert str(part) in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (cifar(COLOURS[:2], [1, 2])[:-1], "got 6145 bytes, expected a multiple of 3073"),
        (b"", "got 0 bytes"),
        (cifar(COLOURS[:2], [1, 10]), r"got labels 1\.\.10, expected 0\.\.9"),
    ],
)
def test_a_cifar_batch_of_another_kind_is_a_clear_error(root, content, message):
    write_cifar(root, {"test_batch.bin": content}, "loose")
    with pytest.raises(DataError, match=rf"test_batch\.bin.*{message}"):
        read("cifar10", "test", root)


def test_a_cifar_archive_must_be_the_published_one_and_whole(root):
    files = cifar_files(COLOURS, test=7)
    write_cifar(root, files, "tar")
    with pytest.raises(DataError, match=r"tar\.gz: wrong checksum, got sha256 .* expected c4a38c50a1bc5f3a"):
        read("cifar10", "test", root)
    archive = root / "cifar-10-binary.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"tar\.gz: truncated or damaged, or not a \.gz archive"):
        read("cifar10", "train", root, verify=False)
    del files["data_batch_3.bin"]
    write_cifar(root, files, "tar")
    with pytest.raises(DataError, match=r"without cifar-10-batches-bin/data_batch_3\.bin"):
        read("cifar10", "train", root, verify=False)


# SVHN


def write_svhn(root, **arrays):
    content = mat(**arrays)
    write(root / "test_32x32.mat", content)
    return content


def test_svhn_has_its_images_first_and_calls_zero_0(root):
    content = write_svhn(root, X=COLOURS[:3].transpose(1, 2, 3, 0), y=np.array([[1], [10], [9]], np.uint8))
    data = read("svhn", "test", root, verify=False)
    np.testing.assert_array_equal(data.images, COLOURS[:3])
    assert data.labels.tolist() == [1, 0, 9]
    assert (data.mean, data.std) == (0.4514, 0.1993)
    with pytest.raises(DataError, match=rf"got md5 {hashlib.md5(content).hexdigest()}, expected eb5a983be6"):
        read("svhn", "test", root)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": COLOURS.transpose(1, 2, 3, 0)}, r"got the arrays \['X'\], expected X and y"),
        ({"other": np.arange(3)}, r"got the arrays \[\], expected X and y"),
        ({"X": COLOURS[..., 0], "y": np.ones((10, 1), int)}, r"got X uint8 \(10, 32, 32\) and y"),
        ({"X": COLOURS / 255, "y": np.ones((10, 1), int)}, "got X float64"),
        ({"X": COLOURS, "y": np.ones((10, 1), int)}, "got 3 images and 10 labels"),
        ({"X": COLOURS.transpose(1, 2, 3, 0), "y": np.ones((9, 1), int)}, "got 10 images and 9 labels"),
        (
            {"X": COLOURS.transpose(1, 2, 3, 0), "y": np.zeros((10, 1), int)},
            r"labels 0\.\.0, expected 1\.\.10",
        ),
        (
            {"X": COLOURS.transpose(1, 2, 3, 0), "y": np.full((10, 1), 11)},
            r"labels 11\.\.11, expected 1\.\.10",
        ),
        (
            {"X": COLOURS[:, :9].transpose(1, 2, 3, 0), "y": np.ones((10, 1), int)},
            r"shape \(9, 32, 3\), expected \(32, 32, 3\)",
        ),
    ],
)
def test_each_kind_of_wrong_svhn_is_a_clear_error(root, arrays, message):
    write_svhn(root, **arrays)
    with pytest.raises(DataError, match=rf"test_32x32\.mat.*{message}"):
        read("svhn", "test", root, verify=False)


def test_a_broken_mat_file_is_a_clear_error(root):
    whole = write_svhn(root, X=COLOURS.transpose(1, 2, 3, 0), y=np.ones((10, 1), int))
    seven = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(400)  # an HDF5 file in truth
    for content in (
        b"",
        b"<html>" * 99,
        whole[:100],
        whole[:150],
        whole[: len(whole) // 2],
        whole[:-9],
        seven,
    ):
        write(root / "test_32x32.mat", content)
        with pytest.raises(DataError, match=r"test_32x32\.mat: not a MATLAB file of version 5, or damaged"):
            read("svhn", "test", root, verify=False)


# Omniglot


# Not in the order of their classes: archives are not.
DRAWINGS = {
    "Beta/character01/0003_02.png": drawing(5),
    "Alpha/character02/0002_01.png": drawing(2),
    "Alpha/character01/0001_02.png": drawing(1),
    "Alpha/character01/0001_01.png": drawing(0),
    "Beta/character01/0003_01.png": drawing(4),
}


@pytest.mark.parametrize("form", ["zip", "folder"])
def test_characters_of_omniglot_are_classes_in_the_order_of_their_names(root, form):
    write_omniglot(root, DRAWINGS, form)
    data = read("omniglot", "test", root, verify=False)
    assert (data.images.shape, data.num_classes) == ((5, 105, 105, 1), 659)
    assert data.labels.tolist() == [0, 0, 1, 2, 2]
    np.testing.assert_array_equal(data.images[..., 0], [ink(seed) for seed in (0, 1, 2, 4, 5)])
    with pytest.raises(MissingDataError, match=r"images_background\.zip is missing"):
        read("omniglot", "train", root)


def known_content(monkeypatch, root, **changes):
    """Let the drawings that now lie under root be the published ones; they stay there."""
    entry = DATASETS["omniglot"]
    data = read("omniglot", "test", root, verify=False)
    names = ("Alpha/character01", "Alpha/character02", "Beta/character01")
    checksum = content_checksum(Examples(np.asarray(data.images), np.asarray(data.labels), names))
    changes = {"content": {"test": checksum}} | changes
    monkeypatch.setitem(DATASETS._members, "omniglot", dataclasses.replace(entry, **changes))


@pytest.mark.parametrize("form", ["zip", "folder"])
def test_drawings_are_known_by_their_content_however_they_are_packed(monkeypatch, root, form):
    write_omniglot(root, DRAWINGS, form)
    known_content(monkeypatch, root)
    assert read("omniglot", "test", root).labels.tolist() == [0, 0, 1, 2, 2]
    renamed = {name.replace("Beta", "Gamma"): content for name, content in DRAWINGS.items()}
    redrawn = DRAWINGS | {"Beta/character01/0003_01.png": drawing(3)}
    for number, others in enumerate((renamed, redrawn)):
        write_omniglot(root / str(number), others, form)
        read("omniglot", "test", root / str(number), verify=False)
        with pytest.raises(
            DataError, match=r"images_evaluation.*wrong checksum, got sha256 .*data\.verify: false"
        ):
            read("omniglot", "test", root / str(number))


def test_a_zip_with_the_published_checksum_needs_no_other(monkeypatch, root):
    write_omniglot(root, DRAWINGS, "zip")
    (file,) = DATASETS["omniglot"].files["test"]
    md5 = hashlib.md5((root / "omniglot-py/images_evaluation.zip").read_bytes()).hexdigest()
    published = dataclasses.replace(file.published, checksum=f"md5:{md5}")
    files = {"test": (dataclasses.replace(file, published=published),)}
    known_content(monkeypatch, root, files=files, content={"test": "0" * 64})
    assert read("omniglot", "test", root).labels.tolist() == [0, 0, 1, 2, 2]


@pytest.mark.parametrize("form", ["zip", "folder"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (drawing(9, (100, 105)), "got an image of 100x105, expected all of them 105x105"),
        (drawing(9)[:-40], "truncated or not a PNG image"),
        (drawing(9)[:20], "truncated or not a PNG image"),
        (drawing(9)[:60] + b"?" + drawing(9)[61:], "truncated or not a PNG image"),
        (b"GIF89a", "truncated or not a PNG image"),
    ],
)
def test_a_drawing_of_another_size_or_kind_is_named(root, form, content, message):
    write_omniglot(root, DRAWINGS | {"Beta/character01/0003_01.png": content}, form)
    with pytest.raises(DataError, match=rf"Beta/character01/0003_01\.png: {message}"):
        read("omniglot", "test", root, verify=False)


def test_an_omniglot_zip_without_drawings_or_with_too_many_characters_is_a_clear_error(root):
    write_omniglot(root, {}, "zip")
    with pytest.raises(DataError, match="got 0 images and 0 labels"):
        read("omniglot", "test", root, verify=False)
    write_omniglot(root, {f"A/character{n:03}/1.png": drawing(0) for n in range(660)}, "zip")
    with pytest.raises(DataError, match=r"got labels 0\.\.659, expected 0\.\.658"):
        read("omniglot", "test", root, verify=False)


# Real files


def test_the_real_test_batch_of_cifar_has_1000_images_of_each_class():
    data = read("cifar10", "test", real_root("cifar-10-batches-bin/test_batch.bin"))
    assert data.images.shape == (10_000, 32, 32, 3)
    assert np.bincount(data.labels).tolist() == [1000] * 10
    scaled = np.asarray(data.images) / 255
    np.testing.assert_allclose([scaled.mean(), scaled.std()], [data.mean, data.std], atol=0.005)
    # An airplane is mostly in the sky, a frog is not: blue (channel 2) shows that channels are the last axis.
    blue = [scaled[np.asarray(data.labels) == label].mean(axis=(0, 1, 2))[2] for label in (0, 6)]
    assert blue[0] > 0.5 > blue[1] + 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("subset", "archive", "characters", "mean"),
    [
        ("train", "images_background.zip", 964, 0.9221),
        ("test", "images_evaluation.zip", 659, 0.9157),
    ],
)
def test_real_omniglot_has_20_drawings_of_each_character(subset, archive, characters, mean):
    data = read("omniglot", subset, real_root(f"omniglot-py/{archive}"))
    assert np.bincount(data.labels).tolist() == [20] * characters
    assert shapes_of("omniglot", subset) == ((105, 105, 1), characters)
    images = np.asarray(data.images)
    assert images.shape == (20 * characters, 105, 105, 1)
    np.testing.assert_allclose(images.mean() / 255, mean, atol=1e-4)
    assert images.min() == 0 and images.max() == 255

"""The fast local form: made once, renewed when its files change, never a way around the checks."""

import dataclasses
import os

import numpy as np
import pytest
from data_files import mat, noise

from vsml.tasks import DataError, load
from vsml.tasks.data.converted import conversion_of
from vsml.tasks.data.files import find
from vsml.tasks.data.sets import DATASETS

IMAGES = noise(4, 32, 32, 3)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    folder = tmp_path / "cache" / "converted"
    monkeypatch.setenv("VSML_CACHE_DIR", str(folder.parent))
    return folder


@pytest.fixture
def svhn(monkeypatch, tmp_path):
    """Write a small test half of SVHN that no checksum is published of; returns its path."""
    (file,) = DATASETS["svhn"].files["test"]
    unpublished = dataclasses.replace(file, published=dataclasses.replace(file.published, checksum=""))
    monkeypatch.setitem(
        DATASETS._members, "svhn", dataclasses.replace(DATASETS["svhn"], files={"test": (unpublished,)})
    )
    path = tmp_path / "root" / "test_32x32.mat"
    path.parent.mkdir()
    write(path, [1, 2, 3, 10])
    return path


def write(path, labels):
    path.write_bytes(mat(X=IMAGES.transpose(1, 2, 3, 0), y=np.array(labels, np.uint8)[:, None]))


def read(path, verify=True):
    return load("svhn", "test", path.parent, verify=verify, download=False)


def forbid_decoding(monkeypatch):
    def decode(*args):
        raise AssertionError("decoded again")

    monkeypatch.setitem(DATASETS._members, "svhn", dataclasses.replace(DATASETS["svhn"], decode=decode))


def test_files_are_decoded_once(monkeypatch, svhn, cache):
    first = read(svhn)
    assert [path.suffix for path in cache.iterdir()] == [".safetensors"]
    forbid_decoding(monkeypatch)
    second = read(svhn)
    np.testing.assert_array_equal(second.images, IMAGES)
    np.testing.assert_array_equal(second.images, first.images)
    np.testing.assert_array_equal(second.labels, [1, 2, 3, 0])
    assert (second.images.dtype, second.labels.dtype) == (first.images.dtype, first.labels.dtype)


def test_a_file_that_has_changed_is_decoded_again_into_the_same_place(svhn, cache):
    read(svhn)
    write(svhn, [4, 4, 4, 4])
    assert read(svhn).labels.tolist() == [4, 4, 4, 4]
    assert len(list(cache.iterdir())) == 1
    stat = svhn.stat()
    write(svhn, [5, 5, 5, 5])  # of the same size: the time tells
    os.utime(svhn, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert read(svhn).labels.tolist() == [5, 5, 5, 5]


def test_files_of_two_data_roots_do_not_get_mixed_up(svhn, tmp_path, cache):
    other = tmp_path / "other" / svhn.name
    other.parent.mkdir()
    write(other, [7, 7, 7, 7])
    for path, labels in ((svhn, [1, 2, 3, 0]), (other, [7, 7, 7, 7])) * 2:
        assert read(path).labels.tolist() == labels
    assert len(list(cache.iterdir())) == 2


def test_what_was_converted_unchecked_is_not_taken_for_checked(monkeypatch, svhn, tmp_path):
    read(svhn, verify=False)
    (file,) = DATASETS["svhn"].files["test"]
    checked = dataclasses.replace(file, published=dataclasses.replace(file.published, checksum="md5:0"))
    entry = DATASETS["svhn"]
    monkeypatch.setitem(DATASETS._members, "svhn", dataclasses.replace(entry, files={"test": (checked,)}))
    with pytest.raises(DataError, match="wrong checksum"):
        read(svhn)
    assert read(svhn, verify=False).labels.tolist() == [1, 2, 3, 0]
    monkeypatch.setitem(DATASETS._members, "svhn", entry)
    read(svhn)  # converts anew, checked
    forbid_decoding(monkeypatch)
    read(svhn)
    read(svhn, verify=False)


@pytest.mark.parametrize("damage", ["truncated", "emptied", "flipped"])
def test_a_damaged_conversion_is_made_anew_with_a_warning(monkeypatch, svhn, cache, damage):
    read(svhn)
    (path,) = cache.iterdir()
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes({"truncated": content[:-5], "emptied": b"", "flipped": content}[damage])
    with pytest.warns(UserWarning, match=f"{path}.*converting anew"):
        assert read(svhn).labels.tolist() == [1, 2, 3, 0]
    forbid_decoding(monkeypatch)
    np.testing.assert_array_equal(read(svhn).images, IMAGES)


def test_a_folder_that_cannot_be_written_is_told_and_gone_without(svhn, cache):
    cache.parent.touch()
    for _ in range(2):
        with pytest.warns(UserWarning, match=f"cannot keep the converted {cache}.*going on without"):
            assert read(svhn).labels.tolist() == [1, 2, 3, 0]


def test_wrong_data_is_not_kept(svhn, cache):
    write(svhn, [1, 2, 3, 11])
    with pytest.raises(DataError, match="labels"):
        read(svhn)
    assert not cache.exists()


def test_without_a_setting_it_lies_in_the_users_cache(monkeypatch, svhn):
    monkeypatch.delenv("VSML_CACHE_DIR")
    (file,) = DATASETS["svhn"].files["test"]
    path = conversion_of([find(file, svhn.parent, download=False)]).path
    assert path.parent.parts[-2:] == ("vsml", "converted")


def test_a_folder_of_files_is_renewed_when_one_of_them_changes(tmp_path):
    (file,) = DATASETS["omniglot"].files["test"]
    drawing = tmp_path / "omniglot-py/images_evaluation/A/character01/1.png"
    drawing.parent.mkdir(parents=True)
    drawing.write_bytes(b"1")
    copies = [find(file, tmp_path, download=False)]
    before = conversion_of(copies)
    assert conversion_of(copies) == before
    drawing.write_bytes(b"22")
    assert conversion_of(copies) != before
    assert conversion_of(copies).path == before.path

"""The fast local form: made once, renewed when its files change, never a way around the checks."""

import concurrent.futures
import dataclasses
import os
import time

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
    monkeypatch.setenv("VSML_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "converted" / str(os.getuid())


def converted_files(folder):
    """Return what is kept; the files of locks stay beside it."""
    return [path for path in folder.iterdir() if path.suffix != ".lock"]


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
    assert [path.suffix for path in converted_files(cache)] == [".safetensors"]
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
    assert len(converted_files(cache)) == 1
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
    assert len(converted_files(cache)) == 2


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
    (path,) = converted_files(cache)
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes({"truncated": content[:-5], "emptied": b"", "flipped": content}[damage])
    with pytest.warns(UserWarning, match=f"{path}.*converting anew"):
        assert read(svhn).labels.tolist() == [1, 2, 3, 0]
    forbid_decoding(monkeypatch)
    np.testing.assert_array_equal(read(svhn).images, IMAGES)


def test_a_folder_that_cannot_be_written_is_told_and_gone_without(svhn, cache):
    cache.parents[1].touch()
    for _ in range(2):
        with pytest.warns(UserWarning, match=f"cannot keep the converted {cache}.*going on without"):
            assert read(svhn).labels.tolist() == [1, 2, 3, 0]


def test_wrong_data_is_not_kept(svhn, cache):
    write(svhn, [1, 2, 3, 11])
    with pytest.raises(DataError, match="labels"):
        read(svhn)
    assert not converted_files(cache)


def test_without_a_setting_it_lies_in_the_users_cache(monkeypatch, svhn):
    monkeypatch.delenv("VSML_CACHE_DIR")
    (file,) = DATASETS["svhn"].files["test"]
    path = conversion_of([find(file, svhn.parent, download=False)]).path
    assert path.parent.parts[-3:] == ("vsml", "converted", str(os.getuid()))


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


def test_processes_that_need_the_same_files_at_once_decode_once(monkeypatch, svhn):
    entry = DATASETS["svhn"]
    decoded = []

    def decode_slowly(*args):
        decoded.append(args)
        time.sleep(0.2)
        return entry.decode(*args)

    monkeypatch.setitem(DATASETS._members, "svhn", dataclasses.replace(entry, decode=decode_slowly))
    with concurrent.futures.ThreadPoolExecutor() as pool:
        halves = list(pool.map(lambda _: read(svhn), range(4)))
    assert [half.labels.tolist() for half in halves] == [[1, 2, 3, 0]] * 4
    assert len(decoded) == 1


@pytest.mark.skipif(os.name != "posix", reason="owners and modes are those of POSIX")
@pytest.mark.parametrize("planted", ["open to all", "of another user", "a link"])
def test_what_another_user_could_have_converted_is_not_taken(monkeypatch, svhn, cache, tmp_path, planted):
    read(svhn)
    (path,) = converted_files(cache)
    if planted == "open to all":
        path.chmod(0o666)
    elif planted == "a link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    else:
        if os.geteuid() != 0:
            pytest.skip("only root gives files away")
        os.chown(path, 12345, 12345)
    with pytest.warns(UserWarning, match=f"{path}.*converting anew"):
        assert read(svhn).labels.tolist() == [1, 2, 3, 0]
    forbid_decoding(monkeypatch)
    assert read(svhn).labels.tolist() == [1, 2, 3, 0]


@pytest.mark.skipif(os.name != "posix", reason="owners and modes are those of POSIX")
def test_folders_of_the_cache_are_private_whatever_the_umask(svhn, cache):
    before = os.umask(0)
    try:
        read(svhn)
    finally:
        os.umask(before)
    for path in (cache, cache.parent, *converted_files(cache)):
        assert not path.stat().st_mode & 0o022, path

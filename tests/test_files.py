"""Files are replaced in one step."""

import os

import pytest

from vsml.system.files import atomic_write, library_versions


def test_a_file_is_written_and_replaced(tmp_path):
    atomic_write(tmp_path / "a", "first")
    atomic_write(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"second"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, failing):
    atomic_write(tmp_path / "a", "old")

    def disk_full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, disk_full)
    with pytest.raises(OSError, match="No space left"):
        atomic_write(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_file_left_by_a_killed_run_is_reused(tmp_path):
    (tmp_path / ".a.tmp").write_text("half")
    atomic_write(tmp_path / "a", "whole")
    assert os.listdir(tmp_path) == ["a"]


def test_versions_of_what_decides_the_numbers_are_recorded():
    assert {"vsml", "jax", "flax", "optax", "evosax", "numpy"} <= set(library_versions())

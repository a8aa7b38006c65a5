"""Files are replaced in one step."""

import os
import subprocess
import sys
import time

import pytest

from vsml.system.files import LEFTOVER_AGE_S, atomic_write, library_versions


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


def test_what_a_killed_writer_left_is_removed_once_it_is_old(tmp_path):
    ours = [tmp_path / f".a.{16 * digit}.tmp" for digit in "01"]
    others = [tmp_path / name for name in ("a.tmp", f".b.{16 * '0'}.tmp", ".a.b.tmp")]
    long_ago = time.time() - LEFTOVER_AGE_S - 60
    for file in (*ours, *others):
        file.write_text("half")
    for file in (ours[0], *others):
        os.utime(file, (long_ago, long_ago))
    atomic_write(tmp_path / "a", "whole")
    assert sorted(os.listdir(tmp_path)) == sorted(["a", ours[1].name, *(file.name for file in others)])


def test_a_new_file_has_the_mode_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        atomic_write(tmp_path / "a", "text")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


def test_a_link_that_is_replaced_keeps_what_it_points_to(tmp_path):
    (tmp_path / "other").write_text("other")
    (tmp_path / "a").symlink_to(tmp_path / "other")
    atomic_write(tmp_path / "a", "new")
    assert (tmp_path / "other").read_text() == "other" and (tmp_path / "a").read_text() == "new"


def test_writers_in_processes_and_threads_leave_one_whole_file(tmp_path):
    # Each writes contents of its own letter and length; a file of two letters, or of another length, is torn.
    code = """
import sys, threading
from vsml.system.files import atomic_write
path, process = sys.argv[1], int(sys.argv[2])
def write(thread):
    letter = 4 * process + thread
    for _ in range(10):
        atomic_write(path, bytes([65 + letter]) * (20_000 + letter))
threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    path = tmp_path / "shared"
    command = [sys.executable, "-c", code, str(path)]
    writers = [subprocess.Popen([*command, str(n)], stderr=subprocess.PIPE) for n in range(4)]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            content = path.read_bytes()
            seen.add(content[0])
            assert content == content[:1] * (20_000 + content[0] - 65)
    assert [writer.communicate()[1] for writer in writers] == [b"", b"", b"", b""]
    assert len(seen) > 1
    assert os.listdir(tmp_path) == ["shared"]


def test_versions_of_what_decides_the_numbers_are_recorded():
    assert {"vsml", "jax", "flax", "optax", "evosax", "numpy"} <= set(library_versions())

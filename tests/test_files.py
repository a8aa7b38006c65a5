"""Files are replaced in one step."""

import os
import subprocess
import sys
import time

import pytest

from vsml.system.files import (
    LEFTOVER_AGE_S,
    IrregularFileError,
    atomic_write,
    check_own,
    library_versions,
    open_regular,
    read_regular,
)


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


def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path, monkeypatch):
    def disk_full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError) as caught:
        atomic_write(tmp_path / "table.npz", "new")
    assert str(caught.value) == f"[Errno 28] No space left on device: '{tmp_path / 'table.npz'}'"


def test_a_folder_that_is_away_is_told_with_the_name_of_the_file_and_not_of_a_hidden_one(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        atomic_write(tmp_path / "away" / "a", "new")
    assert caught.value.filename == str(tmp_path / "away" / "a")


def test_a_planted_link_with_the_former_name_of_temporary_files_is_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in (".a.tmp", "a.tmp"):
        (tmp_path / name).symlink_to(victim)
    atomic_write(tmp_path / "a", "new")
    assert victim.read_text() == "precious"
    assert (tmp_path / "a").read_text() == "new" and not (tmp_path / "a").is_symlink()


def test_a_text_that_no_encoding_has_is_written_with_escapes(tmp_path):
    atomic_write(tmp_path / "a", "of a file name: \udcff")
    assert (tmp_path / "a").read_text() == "of a file name: \\udcff"


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_regular_file_is_neither_opened_nor_waited_for(tmp_path, kind):
    victim, path = tmp_path / "victim", tmp_path / "file"
    victim.write_text("precious")
    make = {"link": lambda: path.symlink_to(victim), "pipe": lambda: os.mkfifo(path), "folder": path.mkdir}
    make[kind]()
    for flags in (os.O_RDONLY, os.O_WRONLY | os.O_CREAT | os.O_APPEND):
        with pytest.raises(IrregularFileError, match=f"file: got a {kind}, expected a regular file"):
            open_regular(path, flags)
    assert victim.read_text() == "precious"


def test_a_link_is_read_where_the_reader_may_name_any_file_and_refused_where_it_leads_out(tmp_path):
    (tmp_path / "run").mkdir()
    inside, outside = tmp_path / "run" / "inside", tmp_path / "outside"
    inside.write_text("mine")
    outside.write_text("another's")
    (tmp_path / "run" / "to_inside").symlink_to(inside)
    (tmp_path / "run" / "to_outside").symlink_to(outside)
    assert read_regular(tmp_path / "run" / "to_outside") == b"another's"
    check_own(tmp_path / "run" / "to_inside")
    check_own(tmp_path / "run" / "not_there")
    with pytest.raises(IrregularFileError, match="to_outside: got a link that leads out"):
        check_own(tmp_path / "run" / "to_outside")


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

"""Locks are held by one process at a time, and go with it."""

import errno
import subprocess
import sys
import threading

import pytest

from vsml.system.locks import HeldError, NoLocksError, hold, take_turns


def another_process(path):
    """Start a process that holds a lock until its stdin is closed."""
    code = "import sys; from vsml.system.locks import hold\n"
    code += "with hold(sys.argv[1], 'the other one'): print('locked', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "locked\n"
    return process


def test_a_held_lock_says_who_has_it_and_is_free_when_its_holder_is_killed(tmp_path):
    with another_process(tmp_path / "lock") as process:
        with pytest.raises(HeldError, match="held by the other one") as refused, hold(tmp_path / "lock", ""):
            pass
        assert refused.value.holder == "the other one"
        process.kill()
    with hold(tmp_path / "lock", "this one"):
        assert (tmp_path / "lock").read_text() == "this one"


def test_a_note_that_is_shorter_than_the_one_before_replaces_it(tmp_path):
    for note in ("a long note", "short"):
        with hold(tmp_path / "lock", note):
            assert (tmp_path / "lock").read_text() == note


@pytest.mark.parametrize("remove", [False, True])
def test_threads_take_turns(tmp_path, remove):
    inside, most = [], []

    def work():
        for _ in range(5):
            with take_turns(tmp_path / "lock", remove=remove):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 20
    assert (tmp_path / "lock").exists() is not remove


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_where_there_are_no_locks_turns_are_not_waited_for_and_no_lock_is_held(tmp_path, monkeypatch, number):
    def refuse(file, how):
        raise OSError(number, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with take_turns(tmp_path / "lock"):
        pass
    with pytest.raises(NoLocksError, match="No locks"), hold(tmp_path / "lock", ""):
        pass


def test_a_lock_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"), take_turns(tmp_path / "file" / "lock"):
        pass

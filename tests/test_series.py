"""Entries of an array that run one after the other, with a stand-in for launch.py."""

import sys

import pytest

from vsml.launching.schema import load_config
from vsml.launching.series import run_series

STAND_IN = """
import os, pathlib, signal, sys, time
words = sys.argv[1:]
number = words[words.index("--array_index") + 1]
pathlib.Path("ran-" + number).write_text(" ".join(words))
if number == os.environ.get("STOPPED_IN"):
    told = []
    signal.signal(signal.SIGTERM, lambda *rest: told.append(1))
    os.kill(os.getppid(), signal.SIGTERM)
    for _ in range(500):
        if not told:
            time.sleep(0.01)
    sys.exit(0 if told else 9)
sys.exit(3 if number == "2" else 0)
"""


@pytest.fixture
def series(tmp_path, monkeypatch):
    """Return a function that runs three entries in an empty folder, and returns the exit code."""
    monkeypatch.chdir(tmp_path)
    configs = [load_config(overrides=[f"name=sweep-{number}"]) for number in (1, 2, 3)]

    def run(run_dir=None):
        words = ["--array", "sweep.yaml", "--all"]
        return run_series([sys.executable, "-c", STAND_IN], words, configs, run_dir)

    return run


def test_one_that_fails_does_not_keep_the_next_from_running(series, tmp_path, capfd):
    assert series("many") == 3
    given = [(tmp_path / f"ran-{number}").read_text() for number in (1, 2, 3)]
    assert given[2] == "--array sweep.yaml --array_index 3 --run_dir many/3"
    printed = capfd.readouterr().out
    assert "entry 2 of 3: sweep-2" in printed
    assert "3 of 3 entries have run; failed: 2 (exit code 3)" in printed


def test_after_a_signal_the_present_one_is_told_and_no_other_begins(series, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("STOPPED_IN", "1")
    assert series() == 0, "the entry was not told to stop"
    assert (tmp_path / "ran-1").read_text() == "--array sweep.yaml --array_index 1"
    assert not (tmp_path / "ran-2").exists()
    assert "1 of 3 entries have run; stopped by SIGTERM" in capfd.readouterr().out

"""Progress lines."""

import io
import os
import shlex

import pytest
import rich.console

from vsml.runs.commands import resume_command
from vsml.runs.progress import Progress, plain_where_no_terminal


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def lines_of(updates, **options):
    stream, clock = io.StringIO(), Clock()
    with Progress(stream=stream, clock=clock, **options) as progress:
        for now, step in updates:
            clock.now = now
            progress.update(step, loss=2.0, accuracy=0.125)
    return stream.getvalue().splitlines()


def test_plain_lines_come_at_intervals_and_at_the_end():
    lines = lines_of([(1, 1), (2, 2), (12, 12), (13, 13)], total=100, interval_s=10.0)
    assert [line.split(" | ")[0] for line in lines] == ["step 1/100", "step 12/100", "step 13/100"]


def test_a_line_has_loss_accuracy_rate_and_time_left():
    (line,) = lines_of([(10, 20)], total=3620)
    assert line == "step 20/3620 | loss 2 | accuracy 0.125 | 2 steps/s | 0:30:00 left"


def test_the_rate_of_a_resumed_run_leaves_out_what_was_done_before():
    (line,) = lines_of([(10, 1010)], total=1020, start=1000)
    assert "1 steps/s | 0:00:10 left" in line


def test_a_first_update_at_the_start_has_no_rate():
    assert lines_of([(0, 0)], total=10) == ["step 0/10 | loss 2 | accuracy 0.125"]


def test_other_ranks_are_silent():
    assert lines_of([(1, 1), (20, 2)], total=2, rank=1) == []
    assert lines_of([(1, 1), (20, 2)], total=2, rank=1, terminal=True) == []


def test_on_a_terminal_there_is_a_bar_with_the_same_text():
    stream, clock = io.StringIO(), Clock()
    with Progress(4, stream=stream, clock=clock, terminal=True) as progress:
        clock.now = 2.0
        progress.update(4, loss=1.5)
        progress.note("saved")
    assert "saved" in stream.getvalue() and "━" in stream.getvalue()
    assert "step 4/4 | loss 1.5 | 2 steps/s" in stream.getvalue()


class Terminal(io.StringIO):
    """A file that is a terminal."""

    def isatty(self):
        return True


def test_a_file_gets_no_escape_codes_whatever_the_environment_says(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in "".join(lines_of([(1, 1)], total=2))


@pytest.mark.parametrize(
    ("stdout", "variables", "plain"),
    [
        (io.StringIO, {"FORCE_COLOR": "1"}, True),
        (Terminal, {}, False),
        (Terminal, {"OMPI_COMM_WORLD_SIZE": "2"}, True),
        (io.StringIO, {"TTY_COMPATIBLE": "1"}, False),
    ],
)
def test_rich_is_told_where_there_is_no_terminal(monkeypatch, stdout, variables, plain):
    for name in [name for name in os.environ if name.startswith(("OMPI_", "PMI_", "PMIX_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("TTY_COMPATIBLE", "")  # so that it is as it was afterwards
    monkeypatch.delenv("TTY_COMPATIBLE")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout", stdout())
    plain_where_no_terminal()
    assert rich.console.Console().is_terminal == (not plain)


@pytest.mark.parametrize("folder", ["runs/one", "runs/my run", "a'b;c", "-odd"])
def test_the_command_to_go_on_is_quoted_for_a_shell(folder):
    *command, path = shlex.split(resume_command(folder))
    assert command == ["python", "launch.py", "--resume"]
    assert os.path.normpath(path) == folder and not path.startswith("-")

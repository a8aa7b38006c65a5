"""docs/calls.md, followed to the letter in a copy of the package."""

import json
import re

import pytest
from pages import code_after, command_after, copy_package, read_page, register, run

from vsml.calls import CALLS

FILE = "vsml/calls/count.py"
REGISTRY = "vsml/calls/__init__.py"
PAGE = read_page("calls.md")


@pytest.fixture
def folder(tmp_path):
    copy_package(tmp_path)
    return tmp_path


def test_the_page_lists_all_calls():
    assert re.findall(r"^\| `(\w+)` \| `\w+\.py` \|", PAGE, re.MULTILINE) == list(CALLS)


@pytest.mark.slow
def test_a_call_is_added_as_the_page_says(folder):
    (folder / FILE).write_text(code_after(PAGE, f"`{FILE}`:"))
    register(folder / REGISTRY, code_after(PAGE, f"`{REGISTRY}`, the line"))
    command = command_after(PAGE, "That is all.")
    done = run(folder, *command, "--run_dir", "run")
    assert done.returncode == 0, done.stderr
    own, adam = json.loads((folder / "run" / "count.json").read_text())
    assert own["learner"] == "vsml" and adam["learner"] == "Adam" and "Adam" in done.stdout
    assert own["meta_parameters"] > 0 and adam["meta_parameters"] == 0
    assert adam["state"] >= (64 + 1) * 10  # the weights and biases from digits to their classes
    assert (folder / "run" / "complete").exists()

    planned = run(folder, *command, "--dry_run")
    assert "count: no learner is run" in planned.stdout and "learner Adam" in planned.stdout
    mistake = run(folder, "launch.py", "--config", "call=count", "count.batchsize=2")
    assert "count.batchsize: unknown key; did you mean count.batch_size?" in mistake.stderr
    unknown = run(folder, "launch.py", "--config", "call=cuont")
    assert "call: got 'cuont'" in unknown.stderr and "did you mean 'count'?" in unknown.stderr

    (folder / "test_count.py").write_text(code_after(PAGE, "`tests/test_count.py`"))
    tested = run(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_count.py")
    assert tested.returncode == 0, tested.stdout


@pytest.mark.slow
def test_one_from_outside_needs_no_line_in_the_registry(folder):
    (folder / "my_package").mkdir()
    (folder / "my_package" / "count.py").write_text(code_after(PAGE, f"`{FILE}`:"))
    command = command_after(PAGE, "## From outside")
    done = run(folder, *command, "--run_dir", "run")
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "run" / "count.json").read_text())[0]["learner"] == "vsml"
    mistake = run(folder, *command[:-1], "call_options.batch_size=0")
    assert "call_options.batch_size: got 0, expected greater than or equal to 1" in mistake.stderr

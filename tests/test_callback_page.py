"""docs/callbacks.md, followed to the letter in a copy of the package."""

import csv
import re

import pytest
from pages import code_after, command_after, copy_package, read_page, register, run

from vsml.runs.callbacks import CALLBACKS

FILE = "vsml/runs/callbacks/norms.py"
REGISTRY = "vsml/runs/callbacks/__init__.py"
PAGE = read_page("callbacks.md")
# A learner that compiles fast, and no evaluation.
FAST = ["model={type: meta_rnn, meta_rnn: {hidden_size: 4}}", "evaluation.datasets=[]"]


@pytest.fixture
def folder(tmp_path):
    copy_package(tmp_path)
    return tmp_path


def test_the_page_lists_all_callbacks():
    assert re.findall(r"^\| `(\w+)` \| `\w+\.py` \|", PAGE, re.MULTILINE) == list(CALLBACKS)


@pytest.mark.slow
def test_a_callback_is_added_as_the_page_says(folder):
    (folder / FILE).write_text(code_after(PAGE, f"`{FILE}`:"))
    register(folder / REGISTRY, code_after(PAGE, f"`{REGISTRY}`, the line"))
    command = command_after(PAGE, "That is all.")
    done = run(folder, *command, *FAST, "--run_dir", "run")
    assert done.returncode == 0, done.stderr
    with open(folder / "run" / "norms.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2", "3"]
    assert all(float(row[name]) >= 0 for row in rows for name in row)

    mistake = run(folder, *command[:-1], "training.callbacks=[{type: norms, options: {evry: 3}}]")
    assert "training.callbacks.0.options.evry: got 3" in mistake.stderr
    assert "did you mean 'every'?" in mistake.stderr
    unknown = run(folder, *command[:-1], "training.callbacks=[norm]")
    assert "training.callbacks.0.type: got 'norm'" in unknown.stderr
    assert "did you mean 'norms'?" in unknown.stderr

    (folder / "test_norms.py").write_text(code_after(PAGE, "`tests/test_norms.py`"))
    tested = run(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_norms.py")
    assert tested.returncode == 0, tested.stdout


@pytest.mark.slow
def test_one_from_outside_needs_no_line_in_the_registry(folder):
    (folder / "my_package").mkdir()
    (folder / "my_package" / "norms.py").write_text(code_after(PAGE, f"`{FILE}`:"))
    command = command_after(PAGE, "## From outside")
    done = run(folder, *command, *FAST, "training.iterations=1", "--run_dir", "run")
    assert done.returncode == 0, done.stderr
    assert (folder / "run" / "norms.csv").exists()

"""docs/metrics.md, followed to the letter in a copy of the package."""

import json
import re

import pytest
from pages import code_after, command_after, copy_package, read_page, register, run

from vsml.evaluation.metrics import METRICS

FILE = "vsml/evaluation/metrics/top_k.py"
REGISTRY = "vsml/evaluation/metrics/__init__.py"
PAGE = read_page("metrics.md")
# An evaluation alone, of a learner that compiles fast.
EVALUATE = ["call=evaluate", "model.type=sgd"]


@pytest.fixture
def folder(tmp_path):
    copy_package(tmp_path)
    return tmp_path


def test_the_page_lists_all_metrics():
    assert re.findall(r"^\| `(\w+)` \| `\w+\.py` \|", PAGE, re.MULTILINE) == list(METRICS)


@pytest.mark.slow
def test_a_metric_is_added_as_the_page_says(folder):
    (folder / FILE).write_text(code_after(PAGE, f"`{FILE}`:"))
    register(folder / REGISTRY, code_after(PAGE, f"`{REGISTRY}`, the line"))
    command = command_after(PAGE, "That is all.")
    done = run(folder, *command, *EVALUATE, "--run_dir", "run")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((folder / "run" / "evaluation.json").read_text())
    assert row["accuracy"] <= row["top_k"] <= 1
    assert {"top_k", "top_k_last"} <= row["interval_95"].keys()

    mistake = run(folder, *command[:-1], "evaluation.metrics=[{type: top_k, options: {kk: 3}}]")
    assert "evaluation.metrics.0.options.kk: got 3" in mistake.stderr
    assert "did you mean 'k'?" in mistake.stderr
    unknown = run(folder, *command[:-1], "evaluation.metrics=[top_q]")
    assert "evaluation.metrics.0.type: got 'top_q'" in unknown.stderr
    assert "did you mean 'top_k'?" in unknown.stderr

    (folder / "test_top_k.py").write_text(code_after(PAGE, "`tests/test_top_k.py`"))
    tested = run(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_top_k.py")
    assert tested.returncode == 0, tested.stdout


@pytest.mark.slow
def test_one_from_outside_needs_no_line_in_the_registry(folder):
    (folder / "my_package").mkdir()
    (folder / "my_package" / "top_k.py").write_text(code_after(PAGE, f"`{FILE}`:"))
    command = command_after(PAGE, "## From outside")
    done = run(folder, *command, *EVALUATE, "--run_dir", "run")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads((folder / "run" / "evaluation.json").read_text())
    assert row["accuracy"] <= row["TopK"] <= 1

    python = "from my_package.top_k import TopK\n" + code_after(PAGE, "From Python")
    printed = run(folder, "-c", python)
    assert printed.returncode == 0, printed.stderr
    assert 0 <= float(printed.stdout) <= 1

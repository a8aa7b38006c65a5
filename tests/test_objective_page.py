"""docs/objectives.md, followed to the letter in a copy of the package."""

import pytest
from pages import code_after, command_after, copy_package, read_page, register, run

pytestmark = pytest.mark.usefixtures("hasty")

FILE = "vsml/meta/objectives/late.py"
REGISTRY = "vsml/meta/objectives/__init__.py"


@pytest.fixture
def page(tmp_path):
    copy_package(tmp_path)
    return read_page("objectives.md")


@pytest.mark.slow
def test_an_objective_is_added_as_the_page_says(page, tmp_path):
    (tmp_path / FILE).write_text(code_after(page, f"`{FILE}`:"))
    register(tmp_path / REGISTRY, code_after(page, f"`{REGISTRY}`, the line"))
    command = command_after(page, "That is all.")
    done = run(tmp_path, *command, "--run_dir", "run")
    assert done.returncode == 0, done.stderr
    assert "share: 0.25" in (tmp_path / "run" / "config.yaml").read_text()
    assert (tmp_path / "run" / "learner.safetensors").exists()

    mistake = run(tmp_path, *command[:-1], "training.objective_options.shares=1")
    assert "training.objective_options.shares: got 1" in mistake.stderr
    assert "did you mean 'share'?" in mistake.stderr
    unknown = run(tmp_path, *command[:-2], "training.objective=lat")
    assert "training.objective: got 'lat'" in unknown.stderr and "did you mean 'late'?" in unknown.stderr

    (tmp_path / "test_late.py").write_text(code_after(page, "`tests/test_late.py`"))
    tested = run(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_late.py")
    assert tested.returncode == 0, tested.stdout


@pytest.mark.slow
def test_one_from_outside_needs_no_line_in_the_registry(page, tmp_path):
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "late.py").write_text(code_after(page, f"`{FILE}`:"))
    command = command_after(page, "## From outside")
    planned = run(tmp_path, *command, "--dry_run")  # everything is built, and nothing is run
    assert planned.returncode == 0, planned.stderr
    mistake = run(tmp_path, *command[:-1], "training.objective_options.share=2")
    assert "training.objective_options.share: got 2, expected less than or equal to 1" in mistake.stderr

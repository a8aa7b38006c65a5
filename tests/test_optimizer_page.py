"""docs/meta_optimizers.md, followed to the letter in a copy of the package."""

import pytest
from pages import code_after, command_after, copy_package, read_page, register, run

pytestmark = pytest.mark.usefixtures("hasty")

FILE = "vsml/meta/optimizers/votes.py"
REGISTRY = "vsml/meta/optimizers/__init__.py"


@pytest.fixture
def page(tmp_path):
    copy_package(tmp_path)
    return read_page("meta_optimizers.md")


@pytest.mark.slow
def test_a_meta_optimizer_is_added_as_the_page_says(page, tmp_path):
    (tmp_path / FILE).write_text(code_after(page, f"`{FILE}`:"))
    register(tmp_path / REGISTRY, code_after(page, f"`{REGISTRY}`, the line"))
    command = command_after(page, "That is all.")
    done = run(tmp_path, *command, "--run_dir", "run")
    assert done.returncode == 0, done.stderr
    assert "step_size: 0.01" in (tmp_path / "run" / "config.yaml").read_text()
    assert (tmp_path / "run" / "learner.safetensors").exists()

    mistake = run(tmp_path, *command[:-1], "optimizer.options.step=1")
    assert "optimizer.options.step: got 1" in mistake.stderr
    assert "did you mean 'step_size'?" in mistake.stderr
    unknown = run(tmp_path, *command[:-2], "optimizer.type=vote")
    assert "optimizer.type: got 'vote'" in unknown.stderr and "did you mean 'votes'?" in unknown.stderr

    (tmp_path / "test_votes.py").write_text(code_after(page, "`tests/test_votes.py`"))
    tested = run(tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_votes.py")
    assert tested.returncode == 0, tested.stdout


@pytest.mark.slow
def test_one_from_outside_needs_no_line_in_the_registry(page, tmp_path):
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "votes.py").write_text(code_after(page, f"`{FILE}`:"))
    command = command_after(page, "## From outside")
    planned = run(tmp_path, *command, "--dry_run")  # everything is built, and nothing is run
    assert planned.returncode == 0, planned.stderr
    mistake = run(tmp_path, *command[:-1], "optimizer.options.step_size=-1")
    assert "optimizer.options.step_size: got -1, expected greater than 0" in mistake.stderr

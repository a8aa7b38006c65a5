"""docs/datasets.md, followed to the letter in a copy of the package."""

import re

import pytest
from pages import code_after, copy_package, insert_before, read_page, run

pytestmark = pytest.mark.usefixtures("hasty")

REGISTRY = "vsml/tasks/data/sets/__init__.py"
SMALL = [
    "training.iterations=2",
    "training.population_size=2",
    "training.episode_length=5",
    "evaluation.count=2",
    "evaluation.episode_length=5",
    "tracking.wandb.mode=disabled",
]
PAGE = read_page("datasets.md")


def command_with(words):
    """Return the one command of the page that has these words, made small."""
    line = re.search(rf"^    python launch\.py (.*{words}.*)$", PAGE, re.MULTILINE)[1]
    files, _, settings = line.partition(" --config ")
    first, *rest = settings.split()
    assert first == "training.iterations=30"
    return ["launch.py", *files.split(), "--config", *SMALL, *rest, "--run_dir", "run"]


@pytest.mark.slow
def test_a_data_set_is_added_as_the_page_says(tmp_path):
    copy_package(tmp_path)
    file = "vsml/tasks/data/sets/parity.py"
    (tmp_path / file).write_text(code_after(PAGE, f"`{file}`:"))
    added_import, _, _, line, next_line, _ = code_after(PAGE, f"In `{REGISTRY}`").strip().splitlines()
    insert_before(tmp_path / REGISTRY, "from vsml.tasks.data.sets.random_labels", added_import)
    insert_before(tmp_path / REGISTRY, f"    {next_line}", f"    {line}")

    done = run(tmp_path, *command_with("dataset=parity"))
    assert done.returncode == 0, done.stderr
    assert "parity" in done.stdout
    wrong = run(tmp_path, "launch.py", "--dry_run", "--config", "training.dataset=parti")
    assert "did you mean 'parity'?" in wrong.stderr


@pytest.mark.slow
def test_a_data_set_of_another_package_is_named_as_the_page_says(tmp_path):
    copy_package(tmp_path)
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "data.py").write_text(code_after(PAGE, "`my_package/data.py`:"))
    done = run(tmp_path, *command_with("my_package"))
    assert done.returncode == 0, done.stderr
    assert "wine" in done.stdout
    wrong = run(tmp_path, "launch.py", "--dry_run", "--config", "training.dataset=my_package.data:wien")
    assert "did you mean my_package.data:wine?" in wrong.stderr

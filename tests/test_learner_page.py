"""docs/learners.md, followed to the letter in a copy of the package."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.usefixtures("hasty")

ROOT = Path(__file__).parents[1]


def code_after(page, words):
    """Return the first Python block of the page after the given words."""
    return re.search(r"```python\n(.*?)```", page[page.index(words) :], re.DOTALL)[1]


@pytest.mark.slow
def test_a_learner_is_added_as_the_page_says(tmp_path):
    page = (ROOT / "docs" / "learners.md").read_text()
    for folder in ("vsml", "configs"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "launch.py", tmp_path)

    file = re.search(r"^`(vsml/learners/\w+\.py)`:$", page, re.MULTILINE)[1]
    (tmp_path / file).write_text(code_after(page, f"`{file}`:"))
    registry = tmp_path / "vsml" / "learners" / "__init__.py"
    shown = code_after(page, "`vsml/learners/__init__.py`").strip().splitlines()
    added_import, head, line = shown[0], "\n".join(shown[-6:-3]), shown[-3]
    code = registry.read_text()
    assert code.count(head) == 1
    code = code.replace(head, f"{head}\n{line}").replace(
        "from vsml.learners.base", f"{added_import}\nfrom vsml.learners.base"
    )
    registry.write_text(code)

    command = re.search(r"^    python (launch\.py .*prototypes.*)$", page, re.MULTILINE)[1].split()
    assert "training.iterations=30" in command
    command[command.index("training.iterations=30")] = "training.iterations=3"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    arguments = [sys.executable, *command, "--run_dir", "run"]
    done = subprocess.run(
        arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "prior_count: 1.0" in (tmp_path / "run" / "config.yaml").read_text()
    assert "meta-trained" in done.stdout and "start: random" in done.stdout
    mistake = [sys.executable, "launch.py", "--config", "model.prototypes.prior=1"]
    told = subprocess.run(mistake, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "did you mean model.prototypes.prior_count" in told.stderr

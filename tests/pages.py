"""Pages of docs/, followed to the letter in a copy of the package."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def read_page(name):
    """Return the text of a page of docs/."""
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def code_after(page, words):
    """Return the first Python block of the page after the given words."""
    return re.search(r"```python\n(.*?)```", page[page.index(words) :], re.DOTALL)[1]


def copy_package(folder):
    """Copy what a user works in: the package, its configurations and launch.py."""
    for name in ("vsml", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "launch.py", folder)


def insert_before(path, line, added):
    """Insert text before the one line of a file that begins so."""
    lines = path.read_text().splitlines()
    (place,) = [number for number, each in enumerate(lines) if each.startswith(line)]
    path.write_text("\n".join([*lines[:place], *added.strip("\n").splitlines(), *lines[place:], ""]))


def run_python(folder, *arguments):
    """Run Python in a folder whose package is imported."""
    environment = os.environ | {"PYTHONPATH": str(folder)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)

"""Following a page of docs/ to the letter, in a copy of the package: what the tests of such pages share."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def read_page(name):
    """Return the text of a page of docs/."""
    return (ROOT / "docs" / name).read_text()


def code_after(page, words):
    """Return the first Python block of a page after the given words."""
    return re.search(r"```python\n(.*?)```", page[page.index(words) :], re.DOTALL)[1]


def command_after(page, words):
    """Return the arguments of the first indented `python ...` command of a page after the given words."""
    line = re.search(r"^    python (.*)$", page[page.index(words) :], re.MULTILINE)[1]
    return shlex.split(line)


def copy_package(folder):
    """Copy what a user has checked out, less documents and tests."""
    for name in ("vsml", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "launch.py", folder)


def register(file, code):
    """Put the line of a registry and its import, as a page shows them, into the file of the registry.

    Args:
        file: of the registry.
        code: the import; then, after other lines or none, the line before the new one, and the new one.
    """
    shown = code.strip().splitlines()
    added_import, before, line = shown[0], shown[-3], shown[-2]
    text = file.read_text()
    assert text.count(f"\n{before}\n") == 1, before
    text = text.replace(f"\n{before}\n", f"\n{before}\n{line}\n")
    package = added_import.split()[1].rpartition(".")[0]
    first_import = text.index(f"from {package}.")
    file.write_text(f"{text[:first_import]}{added_import}\n{text[first_import:]}")


def run(folder, *arguments):
    """Run Python with the copy of the package in a folder, there."""
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def insert_before(path, line, added):
    """Insert text before the one line of a file that begins so."""
    lines = path.read_text().splitlines()
    (place,) = [number for number, each in enumerate(lines) if each.startswith(line)]
    path.write_text("\n".join([*lines[:place], *added.strip("\n").splitlines(), *lines[place:], ""]))

"""Old import paths: the public names of version 0.1 are found, with a warning that names the new place."""

import importlib
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from vsml import moved

ROOT = Path(__file__).parents[1]


def read_old_names():
    """Return the public names of each module of version 0.1."""
    lines = (Path(__file__).parent / "old_names.txt").read_text().splitlines()
    names_of = {}
    for line in lines:
        module, _, names = line.partition(": ")
        names_of.setdefault(module, []).extend(names.split())
    return names_of


OLD_NAMES = read_old_names()


def find(module, name):
    """Return the warning of an old name, or None where it is no old one; fail where it is not found."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = importlib.import_module(module)
        try:
            getattr(found, name)
        except AttributeError:
            pytest.fail(f"{module}.{name} is gone: put it into NAMES of vsml/moved.py")
    return [str(each.message) for each in caught if each.category is DeprecationWarning]


@pytest.mark.parametrize("module", sorted(OLD_NAMES))
def test_every_public_name_of_version_0_1_is_found(module):
    for name in OLD_NAMES[module]:
        if f"{module}:{name}" in moved.GONE:
            continue
        told = find(module, name)
        if module in moved.MODULES:
            assert len(told) == 1 and told[0].startswith(f"{module}.{name} is vsml."), name


def test_a_name_that_a_module_has_lost_is_found_and_told_of():
    from vsml import pretrained

    with pytest.warns(DeprecationWarning, match=r"vsml\.pretrained\.ship is vsml\.pretrained\.export now"):
        assert pretrained.ship is pretrained.export
    with pytest.raises(AttributeError, match="no attribute 'no_such_thing'"):
        pretrained.no_such_thing  # noqa: B018


@pytest.mark.parametrize("name", sorted(moved.GONE))
def test_a_name_that_is_gone_says_why(name):
    module, _, attribute = name.partition(":")
    assert attribute in OLD_NAMES[module]
    told = f"{module}.{attribute} is gone: {moved.GONE[name]}"
    with pytest.raises(AttributeError, match=re.escape(told)):
        getattr(importlib.import_module(module), attribute)


def test_an_old_module_has_no_other_names():
    with pytest.raises(ImportError, match="cannot import name 'no_such_thing'"):
        exec("from vsml.comm import no_such_thing")
    with pytest.raises(ModuleNotFoundError, match=r"vsml\.no_such_module"):
        importlib.import_module("vsml.no_such_module")


def test_nothing_old_is_imported_before_it_is_asked_for():
    code = (
        "import sys, vsml, vsml.comm, vsml.config;"
        "assert not [name for name in sys.modules if name.startswith(('vsml.system', 'jax'))]"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_every_new_place_exists():
    for places in moved.MODULES.values():
        for place in places:
            importlib.import_module(place)
    for place in moved.NAMES.values():
        module, _, name = place.partition(":")
        assert hasattr(importlib.import_module(module), name), place


def test_the_page_about_migrating_has_every_module_and_every_name():
    page = (ROOT / "docs" / "migrating.md").read_text(encoding="utf-8")
    for old, places in moved.MODULES.items():
        (row,) = [line for line in page.splitlines() if f"| `{old}` |" in line] or [""]
        absent = [place for place in places if f"`{place}`" not in row]
        assert not absent, f"{old}: python tools/moved_tables.py prints the tables of docs/migrating.md"
    for old, new in moved.NAMES.items():
        row = f"| `{old.replace(':', '.')}` | `{new.replace(':', '.')}` |"
        assert row in page, f"{old}: python tools/moved_tables.py prints the tables of docs/migrating.md"
    assert not [old for old in moved.GONE if f"`{old.replace(':', '.')}`" not in page]

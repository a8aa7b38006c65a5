import importlib
import sys

import pytest

from vsml.registry import Registry, UnknownNameError, section_of
from vsml.settings import Section

COLOURS = Registry("colour", "vsml.tests.colours", {"red": 1, "green": 2})


def test_members_are_found_by_name_in_the_order_in_which_they_are_listed():
    assert list(COLOURS) == ["red", "green"] and len(COLOURS) == 2
    assert COLOURS["green"] == COLOURS.resolve("green") == 2


def test_an_unknown_name_is_told_what_there_is_and_what_may_have_been_meant():
    with pytest.raises(UnknownNameError, match=r"got 'gren', expected one of red, green, or .*'green'\?"):
        COLOURS.resolve("gren")
    with pytest.raises(UnknownNameError, match="got 'xyz'") as caught:
        COLOURS.resolve("xyz")
    assert "did you mean" not in caught.value.expected


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A module that can be imported, as a user's own."""
    (tmp_path / "my_colours.py").write_text("blue = 3\n")
    (tmp_path / "broken_colours.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("my_colours", None)


def test_what_is_outside_of_the_library_is_found_by_module_and_name(package):
    assert COLOURS.resolve("my_colours:blue") == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_colours:blu", "my_colours has no blu; did you mean my_colours:blue?"),
        ("no_such_module:blue", "No module named 'no_such_module'"),
        ("broken_colours:blue", "No module named 'no_such_library'"),
        (":blue", "package.module:Name of a colour"),
        ("my_colours:", "package.module:Name of a colour"),
    ],
)
def test_what_cannot_be_imported_is_told_why(package, name, message):
    with pytest.raises(UnknownNameError) as caught:
        COLOURS.resolve(name)
    assert message in str(caught.value)


def test_entry_points_of_installed_packages_are_members(package):
    information = package / "my_colours-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: my_colours\nVersion: 1\n")
    (information / "entry_points.txt").write_text("[vsml.tests.colours]\nsky = my_colours:blue\n")
    importlib.invalidate_caches()
    assert COLOURS.resolve("sky") == 3
    assert COLOURS.names() == ("red", "green", "sky")
    with pytest.raises(UnknownNameError, match=r"did you mean 'sky'\?"):
        COLOURS.resolve("skye")


def test_a_members_section_is_the_type_of_its_config():
    class Shade(Section):
        depth: int = 1

    class Dark:
        config: Shade

    def light(config: Shade) -> None:
        pass

    assert section_of(Dark) is section_of(light) is Shade
    with pytest.raises(ValueError, match=r"Plain: got config of type None, expected a subclass of vsml"):
        section_of(type("Plain", (), {}))

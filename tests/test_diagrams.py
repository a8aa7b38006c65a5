"""The diagrams of the documentation: the committed files are what tools/diagrams.py draws, and legible."""

import importlib.util
import xml.etree.ElementTree as ElementTree
from itertools import combinations
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# tools/ is no package, as it is no part of the library.
_spec = importlib.util.spec_from_file_location("diagrams", ROOT / "tools" / "diagrams.py")
diagrams = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(diagrams)

SVG = "{http://www.w3.org/2000/svg}"

# Of letters of a usual font, in parts of its size; wide fonts need more than most.
LETTER_WIDTH = 0.56
FONT_SIZE = {"": 13, "code": 12, "title": 14, "quiet": 12}


def texts_of(svg):
    """Return (words, left, top, right, bottom) of every text, estimated from its length."""
    found = []
    for element in ElementTree.fromstring(svg).iter(f"{SVG}text"):
        size = FONT_SIZE[element.get("class")]
        width = LETTER_WIDTH * size * len(element.text.strip())
        x, baseline = float(element.get("x")), float(element.get("y"))
        left = {"start": x, "middle": x - width / 2, "end": x - width}[element.get("text-anchor")]
        found.append((element.text, left, baseline - 0.75 * size, left + width, baseline + 0.2 * size))
    return found


@pytest.mark.parametrize("name", diagrams.DRAWINGS)
def test_the_committed_file_is_what_the_code_draws(name):
    committed = (ROOT / "docs" / f"{name}.svg").read_text(encoding="utf-8")
    assert committed == diagrams.DRAWINGS[name]().svg(), "run `make diagrams`"


@pytest.mark.parametrize("name", diagrams.DRAWINGS)
def test_no_text_leaves_the_picture_or_lies_on_another(name):
    drawing = diagrams.DRAWINGS[name]()
    texts = texts_of(drawing.svg())
    for words, left, top, right, bottom in texts:
        assert 0 < left < right < drawing.width, words
        assert 0 < top < bottom < drawing.height, words
    for one, other in combinations(texts, 2):
        beside = one[3] <= other[1] or other[3] <= one[1]
        above = one[4] <= other[2] or other[4] <= one[2]
        assert beside or above, f"{one[0]!r} lies on {other[0]!r}"


def test_the_house_has_a_floor_for_each_row_of_the_layout_test():
    rooms = diagrams.read_rooms()
    drawn = [words for words, *_ in texts_of(diagrams.draw_house().svg())]
    for row in rooms:
        assert "  ".join(diagrams.short_names(row)) in drawn


def test_rooms_are_read_in_the_order_of_the_layout_test(tmp_path):
    source = tmp_path / "test_layout.py"
    source.write_text('ROOMS = [{"b", "a"}, {"c"}]\n')
    assert diagrams.read_rooms(source) == [["b", "a"], ["c"]]


def test_a_layout_test_without_rooms_is_an_error(tmp_path):
    source = tmp_path / "test_layout.py"
    source.write_text("FLOORS = []\n")
    with pytest.raises(ValueError, match="got no list ROOMS"):
        diagrams.read_rooms(source)


def test_a_row_of_rooms_that_nothing_is_said_about_is_an_error():
    with pytest.raises(ValueError, match=r"ABOUT: got nothing about vsml\.attic, expected a few words"):
        diagrams.about_row(["vsml.attic"])
    assert diagrams.about_row(["vsml.attic", "vsml.meta"]) == diagrams.ABOUT["vsml.meta"]


def test_an_arrow_ends_at_its_last_point_and_points_along_its_last_part():
    drawing = diagrams.Drawing(100, 100, "an arrow")
    drawing.arrow([(10, 10), (10, 50), (60, 50)])
    head = ElementTree.fromstring(drawing.svg()).find(f"{SVG}polygon").get("points")
    tip, *base = [tuple(map(float, corner.split(","))) for corner in head.split()]
    assert tip == (60, 50)
    assert all(x == 60 - diagrams.HEAD for x, _ in base)
    assert sorted(y for _, y in base) == [50 - diagrams.HEAD / 2, 50 + diagrams.HEAD / 2]

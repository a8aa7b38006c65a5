"""The pages of documentation: their links lead somewhere, and the files that they name exist."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "tests/README.md")
]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
PROSE = runpy.run_path(str(ROOT / "tools" / "prose.py"))

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
# Files and folders of this repository, as pages name them in code.
NAMED = re.compile(
    r"`((?:vsml|tests|configs|benchmarks|examples|tools|slurm|ssh|docs)/[\w./-]*|launch\.py|assign_gpu\.py)`"
)

# On these a reader writes files of their own, or reads names that are no more.
HOW_TO = {
    "calls.md",
    "callbacks.md",
    "data.md",
    "datasets.md",
    "layers.md",
    "learners.md",
    "meta_optimizers.md",
    "metrics.md",
    "migrating.md",
    "objectives.md",
    "rules.md",
    "transforms.md",
}


def name_of(page):
    return str(page.relative_to(ROOT))


def text_of(page):
    """Return a page without its blocks of code."""
    return re.sub(r"(?ms)^```.*?^```", "", page.read_text(encoding="utf-8"))


def anchors_of(page):
    """Return the anchors of a page's headings, as GitHub makes them."""
    anchors = set()
    for heading in re.findall(r"(?m)^#+ (.*)$", text_of(page)):
        letters = re.sub(r"[^\w\- ]", "", heading.lower())
        anchors.add(letters.replace(" ", "-"))
    return anchors


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_to_a_file_and_to_a_heading_in_it(page):
    for link in LINK.findall(text_of(page)):
        if link.startswith(("https://", "http://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{link}: there is no such file"
        assert not anchor or anchor in anchors_of(target), f"{link}: {name_of(target)} has no such heading"


@pytest.mark.parametrize("page", [page for page in PAGES if page.name not in HOW_TO], ids=name_of)
def test_every_file_that_a_page_names_exists(page):
    for path in NAMED.findall(text_of(page)):
        # A name in capitals stands for any.
        if not re.search(r"NAME|RESULT", path):
            assert (ROOT / path).exists(), f"{path}: there is no such file"


def test_the_first_lines_of_python_are_the_same_everywhere():
    pages = [ROOT / "README.md", ROOT / "docs" / "start.md", ROOT / "docs" / "using.md"]
    first = {re.search(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)[1] for page in pages}
    assert len(first) == 1, first  # tests/test_pretrained.py runs them


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One two. Three four five!\n", ["One two.", "Three four five!"]),
        ("A line\nthat goes on.\n\nAnother.\n", ["A line that goes on.", "Another."]),
        ("# A heading\n\nText.\n", ["Text."]),
        ("| a | table |\n|---|---|\n\nText.\n", ["Text."]),
        ("Text.\n\n    code here\n\n```\nmore. Code.\n```\n", ["Text."]),
        ("- One item\n  that goes on.\n- Another.\n", ["One item that goes on.", "Another."]),
        ("See [a page. Really](page.md) now.\n", ["See a page.", "Really now."]),
        ("Write `a. B` here.\n", ["Write Code here."]),
        ("0.5 of 1.5 is less. Yes.\n", ["0.5 of 1.5 is less.", "Yes."]),
    ],
)
def test_prose_is_cut_into_sentences_without_code_tables_and_headings(text, sentences):
    assert PROSE["sentences_of"](text) == sentences


def test_words_of_a_sentence_are_what_has_a_letter_or_a_digit():
    assert PROSE["count_words"]("Two words - and 3.5 (more).") == 5

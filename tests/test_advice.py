"""Pages of advice hold what they quote: numbers are on the pages that are named, messages are in the code."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

LINK = re.compile(r"\]\(([\w./]+\.md)(?:#[\w-]+)?\)")
NUMBER = re.compile(r"\d+(?:,\d{3})+|\d+\.\d+|\d{2,}")


def lines_of_advice():
    """Return the list items of docs/choosing.md, each on one line."""
    page = (DOCS / "choosing.md").read_text(encoding="utf-8")
    items = re.findall(r"(?ms)^- (.*?)(?=^- |^$|\Z)", page)
    return [" ".join(item.split()) for item in items]


def numbers_of(text):
    """Return the numbers of a text, without its code and its links."""
    text = re.sub(r"`[^`]*`|\]\([^)]*\)", " ", text)
    return NUMBER.findall(text)


@pytest.mark.parametrize("advice", lines_of_advice(), ids=lambda advice: advice[:40])
def test_every_line_of_advice_names_a_page_that_has_its_numbers(advice):
    sources = [DOCS / link for link in LINK.findall(advice)]
    assert sources, "names no page"
    told = " ".join(source.read_text(encoding="utf-8") for source in sources)
    own = re.sub(r"`([^`]*)`", r" \1 ", told)
    missing = [
        number
        for number in numbers_of(advice)
        if not re.search(rf"(?<![\d.,]){re.escape(number)}(?!\d)", own)
    ]
    is_a_setting = {"0.005", "0.0002"}  # of configs/, which the line names
    assert set(missing) <= is_a_setting, f"{missing} are not on {LINK.findall(advice)}"


def quoted_messages():
    """Return the messages that docs/troubleshooting.md has as headings."""
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    return re.findall(r"(?m)^### `(.*)`$", page)


@cache
def texts_of_the_code():
    """Return every string of the code, with a NUL in place of what is put into it."""
    files = [ROOT / "launch.py", ROOT / "assign_gpu.py"]
    for folder in ("vsml", "slurm", "ssh"):
        files += sorted((ROOT / folder).rglob("*.py"))
    texts = []
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
                texts.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return texts


def is_said(message, texts):
    """Return whether one of the texts has the message; `...` in it stands for anything."""
    parts = [re.escape(part) for part in message.split("...")]
    pattern = re.compile(".*".join(parts), re.DOTALL)
    return any(pattern.search(text) for text in texts)


@pytest.mark.parametrize("message", quoted_messages())
def test_every_message_of_the_troubleshooting_page_is_one_of_the_code(message):
    assert is_said(message, texts_of_the_code())


def test_a_message_that_is_no_more_is_noticed():
    texts = ["run_dir: \0 holds a run already; resume it"]
    assert is_said("run_dir: ... holds a run already", texts)
    assert not is_said("run_dir: ... has a run already", texts)


def test_there_are_messages_and_advice_to_check():
    assert len(quoted_messages()) >= 25
    assert len(lines_of_advice()) >= 25

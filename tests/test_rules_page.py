"""The pages on rules and graphs, followed to the letter."""

import re
from pathlib import Path

import pytest

from vsml.rules.reference import reference

DOCS = Path(__file__).parents[1] / "docs"
FENCE = re.compile(r"(?ms)^```(\w*)\n(.*?)^```$")


def blocks_of(page, language):
    return [
        text for name, text in FENCE.findall((DOCS / page).read_text(encoding="utf-8")) if name == language
    ]


@pytest.mark.usefixtures("hasty")
def test_a_reader_writes_the_delta_rule_and_sees_it_learn(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rule, *_ = blocks_of("rules.md", "")
    Path("delta.rule").write_text(rule, encoding="utf-8")
    (code,) = blocks_of("rules.md", "python")
    exec(code, {})
    first, last = (float(line.rpartition(" ")[2]) for line in capsys.readouterr().out.splitlines())
    assert 0.5 < first < 2
    assert last < 0.001


def test_a_reader_makes_graphs_and_draws_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "\n".join(blocks_of("graphs.md", "python"))
    names = {}
    exec(code, names)
    assert Path("graph.svg").stat().st_size > 1000
    assert names["pool"].size == 100
    assert names["arrays"].inputs.shape == (3,)


def test_the_page_of_operators_is_generated_from_the_code():
    assert (DOCS / "operators.md").read_text(encoding="utf-8") == reference(), "run `make docs`"

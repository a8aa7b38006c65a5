"""What a battery writes: tables, JSON, and a page in one file that needs no network."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import vsml
from vsml.battery import drawing
from vsml.battery.learning_test import LearningTest
from vsml.battery.ledger import EDITION, Ledger
from vsml.battery.report import Row, row_json, table_of_tags, table_of_tests
from vsml.reporting import tables
from vsml.system.files import atomic_write, write_json

_STYLE = Path(vsml.__file__).parent / "reporting" / "page.css"

BEGIN = "<!-- scores: written by `vsml battery LEARNER ... --add` -->"
END = "<!-- end of scores -->"

_HOW_TO_READ = (
    "0 is the score of answers without learning from inputs, 1 that of the best of the reference panel "
    "(perfect answers, where nobody of it beats the floor). n/a: a learner cannot take the test. "
    "*: it took some levels only, and the score is of these."
)


def write_report(
    folder: Path, rows: Sequence[Row], tests: Sequence[LearningTest], ledger: Ledger
) -> Mapping[str, Path]:
    """Write battery.md, battery.json and battery.html.

    Args:
        folder: where to.
        rows: of learners, those of the ledger first.
        tests: that they took.
        ledger: what was measured.

    Returns:
        The files by their kind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {kind: folder / f"battery.{kind}" for kind in ("md", "json", "html")}
    atomic_write(files["md"], markdown(rows, tests, ledger))
    content = {
        "edition": EDITION,
        "vsml": vsml.__version__,
        "seeds": ledger.seeds,
        "seed": ledger.seed,
        "command": ledger.command,
        "learners": {row.learner: row_json(row, tests) for row in rows},
    }
    write_json(files["json"], content)
    atomic_write(files["html"], page(rows, tests, ledger))
    return files


def markdown(rows: Sequence[Row], tests: Sequence[LearningTest], ledger: Ledger) -> str:
    """Return the tables as Markdown."""
    parts = [
        _HOW_TO_READ,
        tables.markdown(table_of_tags(rows, tests)),
        tables.markdown(table_of_tests(rows, tests)),
    ]
    reasons = [f"- {row.learner}: {test}: {why}" for row in rows for test, why in row.reasons.items()]
    if reasons:
        parts.append("\n".join(["n/a:", "", *reasons]))
    parts.append(_origin(ledger))
    return "\n\n".join(parts) + "\n"


def written_into(document: str, rows: Sequence[Row], tests: Sequence[LearningTest]) -> str:
    """Return a document whose part between `BEGIN` and `END` is the tables of learners.

    Raises:
        ValueError: it has no such part.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"got a document without {BEGIN} and {END}, expected both")
    parts = [tables.markdown(table_of_tags(rows, tests)), tables.markdown(table_of_tests(rows, tests))]
    return before + begin + "\n\n" + "\n\n".join(parts) + "\n\n" + end + after


def page(rows: Sequence[Row], tests: Sequence[LearningTest], ledger: Ledger) -> str:
    """Return the page: radar, tables, and the curves of each level."""
    parts = [
        "<h1>Battery of learning tests</h1>",
        f"<p>{html.escape(_HOW_TO_READ)}</p>",
        drawing.radar(rows, tests),
        "<h2>By tag</h2>",
        tables.html_table(table_of_tags(rows, tests)),
        "<h2>By test</h2>",
        tables.html_table(table_of_tests(rows, tests)),
        "<h2>Learning curves</h2>",
        '<p class="note">Accuracy of classes, or share of the squared error that is explained of values, '
        "from 0 to 1, from the first to the last example.</p>",
        _legend(rows),
        '<div class="tiles">',
    ]
    for test in tests:
        for level in test.levels:
            name = f"{test.name}/{level}"
            if any(name in row.curves for row in rows):
                caption = html.escape(f"{name}: {test.about}")
                figure = drawing.curve(rows, name)
                parts.append(f"<figure>{figure}<figcaption>{caption}</figcaption></figure>")
    parts += ["</div>", _reasons(rows), f'<p class="note">{html.escape(_origin(ledger))}</p>']
    style = _STYLE.read_text(encoding="utf-8")
    head = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Battery</title><style>{style}</style>'
    )
    return head + "".join(parts) + "</html>\n"


def _legend(rows: Sequence[Row]) -> str:
    """Return the names of learners in the colours of their curves, as HTML."""
    names = []
    for place, row in enumerate(rows):
        names.append(f'<b style="color:{drawing.colour(place)}">{html.escape(row.learner)}</b>')
    return f"<p>{' &nbsp; '.join(names)}</p>"


def _reasons(rows: Sequence[Row]) -> str:
    """Return why learners could not take tests, as HTML."""
    lines = []
    for row in rows:
        for test, why in row.reasons.items():
            lines.append(f"<li>{html.escape(f'{row.learner}: {test}: {why}')}</li>")
    return f"<h2>n/a</h2><ul>{''.join(lines)}</ul>" if lines else ""


def _origin(ledger: Ledger) -> str:
    """Say where the numbers are from."""
    what = f"{ledger.seeds} episodes of each level, seed {ledger.seed}"
    command: Any = ledger.command or "-"
    return f"vsml {vsml.__version__}, edition {EDITION} of the battery, {what}; command: {command}"

"""The command line of the battery: what a learning algorithm can do and cannot do.

    python -m vsml.battery sgd general rule:backprop
    python -m vsml.battery package.module:Name --tags memory noise --compare
    python -m vsml.battery --list

Nothing that starts JAX is imported before `prepare` has been called.
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import vsml
from vsml.launching.ending import ended
from vsml.system.arguments import ArgumentParser, positive
from vsml.system.devices import prepare
from vsml.system.terminal import say

if TYPE_CHECKING:
    from vsml.battery.leaderboard import Leaderboard
    from vsml.battery.learning_test import LearningTest
    from vsml.battery.measuring import Measuring

PROGRAM = "python -m vsml.battery"

SEEDS = 32
"""Episodes of each level."""

QUICK_SEEDS = 8
"""Episodes of each level with --quick."""

PANEL = (
    "sgd",
    "neighbours:buffer=1000",
    "kernel_ridge:buffer=128",
    "least_squares:features=128",
    "nearest_mean",
    "naive_bayes",
    "linear_sgd",
    "adam",
)
"""Members of the reference panel."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit status."""
    parser = command_parser()
    words = sys.argv[1:] if arguments is None else list(arguments)
    if not words:
        parser.print_help()
        return 0
    options = parser.parse_args(words)
    if not (options.learners or options.list or options.make_panel or options.compare is not None):
        parser.error("got no LEARNER, expected some, or --list, --compare or --make_panel")
    prepare()
    command = f"{PROGRAM} {shlex.join(words)}"
    return ended(lambda: _do(options, command), stopped="stopped; the same command goes on from here")


def command_parser() -> ArgumentParser:
    """Return the parser of the command line."""
    parser = ArgumentParser(
        prog=PROGRAM,
        description="Let learning algorithms take tests of what they can do; docs/battery.md says more.",
    )
    parser.add_argument(
        "learners",
        nargs="*",
        metavar="LEARNER",
        help="sgd, adam, linear_sgd, upgd, continual_backprop; one that comes with the library; rule:NAME; "
        "a type of learner, as "
        "TYPE or TYPE:key=value,key=value; package.module:Name; a file or a run's folder",
    )
    parser.add_argument("--tags", nargs="+", default=[], help="only tests with one of these tags")
    parser.add_argument("--tests", nargs="+", default=[], help="only these tests, or package.module:Name")
    parser.add_argument(
        "--quick", action="store_true", help=f"first level of each test only, {QUICK_SEEDS} episodes"
    )
    parser.add_argument("--seeds", type=positive, help=f"episodes of each level (default: {SEEDS})")
    parser.add_argument("--seed", type=int, default=0, help="seed of all episodes (default: 0)")
    parser.add_argument(
        "--compare",
        nargs="*",
        metavar="NAME",
        help="show learners of the leaderboard beside (default: all of them)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs", "battery"),
        metavar="DIR",
        help="folder for the ledger, which a battery that was stopped goes on with, the tables and the page",
    )
    parser.add_argument(
        "--limit_s",
        type=float,
        default=3600.0,
        help="seconds that a learner may take for a level, n/a above it (default: 3600)",
    )
    parser.add_argument("--list", action="store_true", help="list the tests")
    parser.add_argument(
        "--add", action="store_true", help="put the learners into the leaderboard that comes with the library"
    )
    parser.add_argument(
        "--report",
        action="store_true",
        help="measure nothing: report, add, or make a panel of what the ledger in --out has",
    )
    parser.add_argument(
        "--make_panel",
        action="store_true",
        help="let the reference panel (or the LEARNERs, as its members) take all tests, and store its scores",
    )
    return parser


def _do(options: Any, command: str) -> int:
    """Do what was asked for, and return the exit status."""
    from vsml.battery.catalogue import learning_tests

    tests = learning_tests(options.tests, options.tags)
    if options.list:
        _list(tests)
    elif options.make_panel:
        _make_panel(options, command, tests)
    else:
        _measure(options, command, tests)
    return 0


def _list(tests: "Sequence[LearningTest]") -> None:
    """Print the tests."""
    from vsml.reporting.tables import Table, print_table

    cells = []
    for test in tests:
        levels = ", ".join(map(str, test.levels))
        cells.append([", ".join(test.tags), test.name, levels, test.about])
    headings = ("tags", "test", "levels", "about")
    print_table(Table(headings, cells, left=frozenset(headings)))


def _measuring(options: Any, command: str) -> "Measuring":
    """Return how contestants are measured."""
    from vsml.battery.ledger import Ledger
    from vsml.battery.measuring import Measuring
    from vsml.battery.panel import shipped_panel

    seeds = options.seeds or (QUICK_SEEDS if options.quick else SEEDS)
    ledger = Ledger.open(options.out / "ledger.json", seeds, options.seed, "" if options.report else command)
    return Measuring(ledger, shipped_panel(), say, options.limit_s, options.quick)


def _make_panel(options: Any, command: str, tests: "Sequence[LearningTest]") -> None:
    """Measure the panel, and store it; tests that are not measured keep what was stored of them."""
    from vsml.battery.contestants import contestant
    from vsml.battery.panel import FILE, Panel, panel_of

    names = options.learners or PANEL
    members = [contestant(name) for name in names]
    measuring = _measuring(options, command)
    before = Panel.read()
    for test in tests:
        if not options.report:
            measuring.measure_panel(members, [test])
        made = panel_of(measuring.ledger, [test], names)
        before = before.with_test(made, test)
        before.write()
    say(f"wrote {FILE}")


def _write_docs(board: "Leaderboard") -> None:
    """Write the leaderboard into the docs, where this is a checkout."""
    from vsml.battery.catalogue import learning_tests
    from vsml.battery.drawing import heat_map
    from vsml.battery.page import written_into
    from vsml.system.files import atomic_write

    docs = Path(vsml.__file__).parents[1] / "docs"
    document = docs / "battery.md"
    if not document.exists():
        return
    tests, rows = learning_tests(), board.rows()
    atomic_write(document, written_into(document.read_text(encoding="utf-8"), rows, tests))
    atomic_write(docs / "battery.svg", heat_map(rows, tests) + "\n")
    say(f"wrote {document} and battery.svg beside it")


def _measure(options: Any, command: str, tests: "Sequence[LearningTest]") -> None:
    """Measure learners, print and write what came of it."""
    from vsml.battery.contestants import contestant
    from vsml.battery.leaderboard import FILE, Leaderboard
    from vsml.battery.page import write_report
    from vsml.battery.report import row_of, table_of_abilities, table_of_tests
    from vsml.reporting.tables import print_table

    contestants = [contestant(word) for word in options.learners]
    board = Leaderboard.read()
    beside = [] if options.compare is None else board.rows(options.compare)
    measuring = _measuring(options, command)
    ledger, panel = measuring.ledger, measuring.panel
    if not options.report:
        measuring.measure(contestants, tests)
    rows = [row_of(ledger, panel, word, tests) for word in options.learners]
    rows += [row for row in beside if row.learner not in options.learners]
    print_table(table_of_tests(rows, tests))
    print_table(table_of_abilities(rows, tests))
    files = write_report(options.out, rows, tests, ledger)
    say(f"wrote {', '.join(map(str, files.values()))}")
    if options.add:
        board = board.with_learners(ledger, panel, options.learners, tests)
        board.write()
        say(f"wrote {FILE}")
        _write_docs(board)

"""The command line of databases of rules.

vsml rules db init rules.db --known
vsml rules db query rules.db --test xor --least 0.8 --write found
vsml rules db show rules.db 4157ab
vsml rules db merge laptop.db postgresql://me@server/rules
vsml rules db export rules.db tables
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vsml.system.arguments import ArgumentParser
from vsml.system.hashes import SHOWN_DIGITS

if TYPE_CHECKING:
    from vsml.reporting.tables import Table
    from vsml.search.store import Database, Family, Found

DATABASE_HELP = "a file, for SQLite; or postgresql://USER@HOST:PORT/DATABASE, the password in PGPASSWORD"


def add_commands(parser: ArgumentParser) -> None:
    """Add the commands to the parser of `vsml rules db`."""
    commands = parser.add_subparsers(
        dest="database_command", required=True, metavar="init | query | show | export | merge"
    )
    making = commands.add_parser("init", help="make the tables, where there are none")
    asking = commands.add_parser(
        "query", help="list rules: by hash, size, origin, or what they reached in a test"
    )
    showing = commands.add_parser("show", help="say all about a rule: text, evaluations, family tree")
    exporting = commands.add_parser("export", help="write each table as a Parquet file")
    merging = commands.add_parser(
        "merge", help="copy all rows of a database into another; what both have stays once"
    )
    for command in (making, asking, showing, exporting):
        command.add_argument("url", metavar="DATABASE", help=DATABASE_HELP)
    making.add_argument("--known", action="store_true", help="and put the rules that ship into it")
    _add_query(asking)
    showing.add_argument("hash", metavar="HASH", help="the first digits of its hash")
    showing.add_argument(
        "--generations", type=int, default=5, help="how far the family tree goes, both ways (default: 5)"
    )
    exporting.add_argument("folder", type=Path, metavar="FOLDER", help="is made if need be")
    merging.add_argument("source", metavar="FROM", help="is read, and stays as it is")
    merging.add_argument("url", metavar="INTO", help=f"gets the rows: {DATABASE_HELP}")


def _add_query(command: ArgumentParser) -> None:
    command.add_argument("--hash", metavar="DIGITS", help="the first digits of the hash")
    command.add_argument("--test", help="a test that was taken: the best rule comes first")
    command.add_argument("--level", help="level of the test")
    command.add_argument("--harness", help="version that the test was run with")
    command.add_argument(
        "--least", type=float, metavar="SCORE", help="mean less one standard error, at least"
    )
    command.add_argument("--passed", action="store_true", help="only rules that passed the test")
    command.add_argument("--min_size", type=int, metavar="N", help="operators in a tick, at least")
    command.add_argument("--max_size", type=int, metavar="N", help="operators in a tick, at most")
    command.add_argument("--origin", help="how the origin begins, such as known")
    command.add_argument("--kind", help='a kind of slot that it has, such as "edge shared(owner)"')
    command.add_argument("--run", help="the run that found it")
    command.add_argument("--limit", type=int, default=20, metavar="N", help="most rules (default: 20)")
    command.add_argument(
        "--write",
        type=Path,
        metavar="FOLDER",
        help="write each as HASH.rule, for `vsml rules run` and others",
    )


def run(options: argparse.Namespace) -> int:
    """Do what a command says, and return the exit status.

    Raises:
        MissingExtraError: a library is missing.
        OSError: a file cannot be written.
        ValueError: the database cannot be used, or the query cannot be meant.
    """
    commands = {"init": _init, "query": _query, "show": _show, "export": _export, "merge": _merge}
    commands[options.database_command](options)
    return 0


def _init(options: argparse.Namespace) -> None:
    from vsml.rules import known_names, known_rule
    from vsml.search.store import Database, insert_all, rule_row, sizes

    with Database(options.url, create=True) as database:
        names = known_names() if options.known else []
        rows = [rule_row(known_rule(name).rule, origin=f"known: {name}").values() for name in names]
        with database.writing() as connection:
            insert_all(connection, {"rule": rows})
        print(f"{database.name}: {_counted(sizes(database))}")


def _query(options: argparse.Namespace) -> None:
    from vsml.reporting.tables import plain
    from vsml.search.store import Database, Query, find_rules
    from vsml.system.files import atomic_write

    names = Query.__dataclass_fields__
    query = Query(**{name: getattr(options, name) for name in names})
    with Database(options.url) as database:
        found = find_rules(database, query)
    if not found:
        print("no such rule")
        return
    print(plain(_table(found, options.test)))
    if len(found) == options.limit:
        print(f"the first {len(found)}; --limit shows more")
    if options.write:
        options.write.mkdir(parents=True, exist_ok=True)
        for each in found:
            each.row.rule  # noqa: B018  # raises for a damaged one
            head = f"# {each.row.origin}\n# hash {each.row.hash}\n"
            atomic_write(options.write / f"{each.row.hash[:SHOWN_DIGITS]}.rule", head + each.row.text)
        print(f"\nwritten: {len(found)} files in {options.write}")


def _table(found: list["Found"], test: str | None) -> "Table":
    from vsml.reporting.tables import Table

    headings = ["hash", "size", "origin", "kinds"]
    rows: list[list] = []
    for each in found:
        row = each.row
        rows.append([row.hash[:SHOWN_DIGITS], row.size, row.origin, row.kinds])
        if test is not None:
            rows[-1] += [each.score, each.standard_error, each.evaluations]
    if test is not None:
        headings += [test, "standard error", "evaluations"]
    return Table(headings, rows, left=frozenset(["hash", "origin", "kinds"]))


def _show(options: argparse.Namespace) -> None:
    from vsml.reporting.tables import Table, plain
    from vsml.search.store import Database, ancestors, descendants, evaluations_of, rule_of_hash

    if options.generations < 0:
        raise ValueError(f"--generations: got {options.generations}, expected a number from 0 on")
    with Database(options.url) as database:
        row = rule_of_hash(database, options.hash)
        evaluations = evaluations_of(database, row.hash)
        before = ancestors(database, row.hash, options.generations)
        after = descendants(database, row.hash, options.generations)
        origins = _origins(database, [before, after])
    print(f"{row.origin}{f', found by run {row.run}' if row.run else ''}\n")
    print(row.text)
    print(f"{row.rule.size} operators a tick, hash {row.hash}")
    if evaluations:
        headings = [
            "test",
            "level",
            "seeds",
            "harness",
            "status",
            "score",
            "standard error",
            "ticks",
            "seconds",
        ]
        cells: list[list] = []
        for each in evaluations:
            names = [each.test, each.level, each.seeds, each.harness, each.status]
            cells.append([*names, each.score, each.standard_error, each.ticks, each.wall_s])
        print(f"\n{plain(Table(headings, cells, left=frozenset(headings[:5])))}")
    for title, family in (("made from", before), ("became", after)):
        if family.links:
            print(f"\n{title}:")
            print(_tree(family, origins))


def _origins(database: "Database", families: list["Family"]) -> Mapping[str, str]:
    """Return the origin of each rule of some families that the database has."""
    from vsml.search.store import origins_of

    hashes = {rule for family in families for _, rule, _, _ in family.walk()}
    return origins_of(database, hashes)


def _tree(family: "Family", origins: Mapping[str, str]) -> str:
    """Return a family tree, a rule a line, each generation a step to the right."""
    lines: list[str] = []
    for generation, rule, mutation, is_repeated in family.walk():
        words = [f"{'  ' * generation}{rule[:SHOWN_DIGITS]}"]
        if mutation:
            words.append(f"by {mutation}")
        words.append(f"({origins.get(rule, 'not in this database')})")
        if is_repeated and family.links.get(rule):
            words.append("as above")
        lines.append(" ".join(words))
    return "\n".join(lines)


def _export(options: argparse.Namespace) -> None:
    from vsml.search.store import Database, export

    with Database(options.url) as database:
        counts = export(database, options.folder)
    print(f"{options.folder}: {_counted(counts)}")


def _merge(options: argparse.Namespace) -> None:
    from vsml.search.store import Database, merge

    with Database(options.source) as source, Database(options.url) as target:
        changed = merge(source, target)
        print(f"new in {target.name}: {_counted(changed)}")


def _counted(counts: Mapping[str, int]) -> str:
    """Return how many rows there are of each kind."""
    said = [f"{name} {count:,}" for name, count in counts.items() if count]
    return ", ".join(said) or "nothing"

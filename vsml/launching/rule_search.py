"""The words of `vsml rules` that search: survey rules drawn at random, and look into databases of rules.

    python -m vsml.rules survey --rules 20480 --database sqlite:///rules.db
    python -m vsml.rules db sqlite:///rules.db query --test S3 --limit 5

Nothing that starts JAX is imported before a command runs.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vsml.search.store import Store

_BATCH = 2048
"""Rules that are drawn and judged at once."""


def add_commands(
    commands: Any,
    positive: Callable[[str], int],
    not_negative: Callable[[str], int],
) -> None:
    """Add the words to those of a parser.

    Args:
        commands: what `add_subparsers` returned.
        positive: reads a number from 1 on.
        not_negative: reads a number from 0 on.
    """
    surveying = commands.add_parser("survey", help="draw rules at random, and say how many pass each stage")
    surveying.add_argument(
        "--rules", type=positive, default=20 * _BATCH, help=f"rules to draw, in batches of {_BATCH}"
    )
    surveying.add_argument("--seed", type=not_negative, default=0, help="seed of all that is drawn")
    surveying.add_argument("--teach", default="error", help="what rules are told (docs/operators.md)")
    surveying.add_argument("--name", default="survey", help="what the run is called in the database")
    surveying.add_argument("--database", metavar="URL", help="where to store what passes S1: see db")
    surveying.add_argument(
        "--spool", type=Path, metavar="FOLDER", help="where it waits while the database is away"
    )
    database = commands.add_parser("db", help="look into a database of rules, export it, merge two")
    database.add_argument("database", metavar="URL", help="sqlite:///FILE or postgresql://USER@HOST/NAME")
    words = database.add_subparsers(dest="word", required=True, metavar="query | export | merge")
    querying = words.add_parser("query", help="print rules, the best first")
    querying.add_argument("--test", help="scores of this stage or test only, such as S3")
    querying.add_argument("--least", type=float, metavar="SCORE", help="rules with at least this score")
    querying.add_argument("--size", type=positive, help="rules of at most so many operators")
    querying.add_argument("--limit", type=positive, default=10, help="at most so many (default: 10)")
    querying.add_argument("--text", action="store_true", help="print their texts, too")
    exporting = words.add_parser("export", help="write each table to a Parquet file")
    exporting.add_argument("folder", type=Path, help="where to")
    merging = words.add_parser("merge", help="take over what other databases have")
    merging.add_argument("others", nargs="+", metavar="URL", help="databases, which stay as they are")


def survey(options: argparse.Namespace) -> int:
    """Draw rules, judge them, and print the funnel."""
    import jax

    from vsml.rules.settings import Teaching
    from vsml.search.judging import Judge, Judging
    from vsml.search.settings import Drawing, Room
    from vsml.search.store import Store
    from vsml.search.survey import survey as run_survey

    judge = Judge(Judging(), Teaching(teach=options.teach), Room(), options.seed)
    store = None if options.database is None else Store.open(options.database, options.spool)
    batches = -(-options.rules // _BATCH)
    key = jax.random.key(options.seed)
    for state in run_survey(judge, Drawing(), key, batches, _BATCH, store, options.name):
        rate = state.probed / state.wall_s
        print(
            f"{state.drawn:,} drawn, {state.probed:,} probed ({rate:,.0f}/s), {state.found:,} passed S1",
            flush=True,
        )
    print()
    for stage, why, count in judge.funnel.rows():
        print(f"{stage}  {count:>10,}  {why}")
    return 0


def database(options: argparse.Namespace) -> int:
    """Look into a database, export it, or merge others into it."""
    from vsml.search.store import Store

    store = Store.open(options.database)
    words = {"query": _query, "export": _export, "merge": _merge}
    words[options.word](store, options)
    store.close()
    return 0


def _query(store: "Store", options: argparse.Namespace) -> None:
    rows = store.rows(options.test, options.least, options.size, options.limit)
    print(f"{'rule':14}{'operators':>10}{'slots':>7}  {'test':10}{'score':>8}  {'status':10}{'origin':8}run")
    for row in rows:
        score = "" if row["score"] is None else f"{row['score']:.3f}"
        test, status = row["test"] or "", row["status"] or ""
        line = f"{row['hash'][:12]:14}{row['size']:>10}{row['slots']:>7}  {test:10}{score:>8}  {status:10}"
        print(f"{line}{row['origin']:8}{row['run']}")
        if options.text:
            print(row["text"])


def _export(store: "Store", options: argparse.Namespace) -> None:
    for path in store.export(options.folder):
        print(path)


def _merge(store: "Store", options: argparse.Namespace) -> None:
    from vsml.search.store import Store

    for url in options.others:
        other = Store.open(url)
        new = store.merge(other)
        other.close()
        told = ", ".join(f"{count} of {name}" for name, count in new.items() if count) or "nothing"
        print(f"{other.address}: new: {told}")

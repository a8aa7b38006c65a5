"""The word of `vsml rules` that makes a page about a search: `page`.

    vsml rules page rules.db --out page.html --price_per_hour 0.04

Nothing that starts JAX is imported before the command runs.
"""

import argparse
from pathlib import Path
from typing import Any

from vsml.launching.rule_database import DATABASE_HELP
from vsml.system.files import atomic_write


def add_command(commands: Any) -> None:
    """Add the word to those of a parser; `commands` is what `add_subparsers` returned."""
    parser = commands.add_parser("page", help="make a page about a search, from its database")
    parser.add_argument("url", metavar="DATABASE", help=DATABASE_HELP)
    parser.add_argument(
        "--out", type=Path, default=Path("search.html"), metavar="FILE", help="default: search.html"
    )
    parser.add_argument(
        "--price_per_hour", type=float, metavar="PRICE", help="of one worker, for the cost of a million rules"
    )


def page(options: argparse.Namespace) -> int:
    """Write the page."""
    from vsml.reporting.search_page import search_page
    from vsml.search.store import Database

    if not options.out.parent.is_dir():
        raise ValueError(f"--out: got {options.out}, whose folder is missing")
    with Database(options.url) as database:
        atomic_write(options.out, search_page(database, options.price_per_hour))
    print(f"page: {options.out}")
    return 0

"""The words of `vsml rules` that show a search: `page`, and `dashboard`, which is live.

    vsml rules page rules.db --out page.html --price_per_hour 0.04
    vsml rules dashboard rules.db

Nothing that starts JAX is imported before the command runs.
"""

import argparse
from pathlib import Path
from typing import Any

from vsml.launching.rule_database import DATABASE_HELP
from vsml.system.arguments import positive
from vsml.system.extras import check_extra
from vsml.system.files import atomic_write

_PRICE_HELP = "of one worker, for the cost of a million rules"

_PORT = 8321
"""Where the dashboard listens, unless another port is named."""


def add_commands(commands: Any) -> None:
    """Add the words to those of a parser; `commands` is what `add_subparsers` returned."""
    parser = commands.add_parser("page", help="make a page about a search, from its database")
    parser.add_argument("url", metavar="DATABASE", help=DATABASE_HELP)
    parser.add_argument(
        "--out", type=Path, default=Path("search.html"), metavar="FILE", help="default: search.html"
    )
    live = commands.add_parser("dashboard", help="show a search live, step through rules, and steer it")
    live.add_argument("url", metavar="DATABASE", help=DATABASE_HELP)
    live.add_argument(
        "--host",
        default="127.0.0.1",
        help="where it listens (default: 127.0.0.1, which only this machine reaches: there is no password)",
    )
    live.add_argument("--port", type=positive, default=_PORT, help=f"default: {_PORT}")
    for each in (parser, live):
        each.add_argument("--price_per_hour", type=float, metavar="PRICE", help=_PRICE_HELP)


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


def dashboard(options: argparse.Namespace) -> int:
    """Show the dashboard until it is stopped."""
    check_extra("dashboard", "dashboards")
    from vsml.dashboard.server import serve
    from vsml.search.store import Database

    with Database(options.url) as database:
        serve(database, options.host, options.port, options.price_per_hour)
    return 0

"""The words of `vsml rules` that steer a search which runs, and fork one: `steer` and `fork`.

    vsml rules steer rules.db pause
    vsml rules steer rules.db set search.breeding.elites 0.5
    vsml rules steer rules.db list
    vsml rules fork runs/mine --generation 200 --config search.breeding.elites=0.5

Nothing that starts JAX is imported before the command runs.
"""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsml.launching.rule_database import DATABASE_HELP
from vsml.system.arguments import not_negative

if TYPE_CHECKING:
    from vsml.search.store import Database
    from vsml.search.store.commands import Command

_LOOK_S = 0.2
"""Seconds between two looks at what became of a command."""


def add_commands(commands: Any) -> None:
    """Add the words to those of a parser; `commands` is what `add_subparsers` returned."""
    steering = commands.add_parser("steer", help="pause a search that runs, change it, pin or ban a rule")
    steering.add_argument("url", metavar="DATABASE", help=DATABASE_HELP)
    steering.add_argument(
        "--run",
        metavar="NAME",
        help="how the name of the run begins (default: the one that works)",
    )
    steering.add_argument(
        "--at", type=not_negative, metavar="N", help="do it after generation N (default: at once)"
    )
    steering.add_argument(
        "--wait", type=float, default=0.0, metavar="S", help="wait so many seconds for the outcome"
    )
    words = "pause | resume | set | pin | unpin | ban | unban | paste | list"
    orders = steering.add_subparsers(dest="order", required=True, metavar=words)
    orders.add_parser("pause", help="breed no further; a signal still ends the run with its checkpoint")
    orders.add_parser("resume", help="breed on")
    setting = orders.add_parser("set", help="change a setting that may change while a search runs")
    setting.add_argument("name", help="such as search.breeding.elites")
    setting.add_argument("value", help="in YAML")
    rules = {
        "pin": "keep a rule as an elite that never leaves",
        "unpin": "let it leave again",
        "ban": "remove a rule, and never let it in again",
        "unban": "let it in again",
    }
    for word, told in rules.items():
        orders.add_parser(word, help=told).add_argument("hash", help="the first digits of its hash")
    pasting = orders.add_parser("paste", help="have a rule judged in the next generation")
    pasting.add_argument("file", metavar="FILE", help="a rule that comes with the library, or a file")
    orders.add_parser("list", help="list commands, and what became of them")
    forking = commands.add_parser("fork", help="make a new run that goes on from a checkpoint of a search")
    forking.add_argument("folder", type=Path, metavar="RUN_DIR", help="folder of the search")
    forking.add_argument(
        "--generation", type=not_negative, metavar="N", help="of a checkpoint (default: the newest)"
    )
    forking.add_argument(
        "--config", nargs="+", default=[], metavar="KEY=VALUE", help="settings that are to change"
    )
    forking.add_argument("--run_dir", type=Path, metavar="DIR", help="the new folder (default: in runs/)")


def steer(options: argparse.Namespace) -> int:
    """Send a command, or list them."""
    from vsml.calls.asking import ask, parsed_value, why_it_waits
    from vsml.rules.known import rule_text
    from vsml.search.store import Database

    with Database(options.url) as database:
        if options.order == "list":
            print(_listed(database, options.run))
            return 0
        given = {name: getattr(options, name) for name in ("name", "hash") if hasattr(options, name)}
        if options.order == "set":
            given["value"] = parsed_value(options.value)
        if options.order == "paste":
            given["text"] = rule_text(options.file)
        command = ask(database, options.order, options.run, given, options.at)
        print(f"sent to {command.run}: {command.do} ({command.id[:8]})")
        if waits := why_it_waits(database, command):
            print(f"note: {waits}")
        return _waited(database, command, options.wait)


def _waited(database: "Database", command: "Command", seconds: float) -> int:
    """Wait for what becomes of a command; return 1 where it is refused, or still waits after that time."""
    from vsml.search.store.commands import commands_of

    if not seconds > 0:
        return 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for each, outcome in commands_of(database, command.run):
            if each.id == command.id and outcome is not None:
                print(f"{'done' if outcome.done else 'refused'}: {outcome.said}")
                return 0 if outcome.done else 1
        time.sleep(_LOOK_S)
    print(f"still waits after {seconds:g} s; a search looks for commands between two generations")
    return 1


def _listed(database: "Database", run: str | None) -> str:
    from vsml.reporting.search_runs import commands_table
    from vsml.reporting.tables import plain
    from vsml.search.store.commands import commands_of
    from vsml.search.store.lives import run_named

    told = commands_of(database, None if run is None else run_named(database, run).id)
    return plain(commands_table(told)) if told else "no command was sent"


def fork(options: argparse.Namespace) -> int:
    """Make a fork, and say how it is started."""
    from vsml.launching.forking import fork as made
    from vsml.runs.commands import resume_command

    new = made(options.folder, options.generation, options.config, options.run_dir)
    print(f"run directory: {new.path}")
    print(f"to start it: {resume_command(new.path)}")
    return 0

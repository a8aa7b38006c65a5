"""Commands to a search that runs, checked before they are sent."""

import contextlib
import json
import time
from collections.abc import Mapping
from typing import Any

import yaml

from vsml.calls.search_config import SearchConfig
from vsml.search.changing import RefusedError, changed
from vsml.search.genome import rule_of
from vsml.search.steering import ARGUMENTS, COMMANDS, OF_RULES, genome_in
from vsml.search.store import Database, insert_all, rule_of_hash, rule_row
from vsml.search.store.commands import Command, commands_of, send
from vsml.search.store.lives import life_of, run_named
from vsml.search.store.rows import RunRow

_NEEDED = {**ARGUMENTS, **dict.fromkeys(OF_RULES, ("hash",))}
"""What commands need to be told; the text of a rule comes from the database."""


def ask(
    database: Database,
    do: str,
    run: str | None = None,
    given: Mapping[str, Any] | None = None,
    at: int | None = None,
) -> Command:
    """Send a command to a run, and return it.

    Args:
        database: the database that the run writes.
        do: one of `vsml.search.steering.COMMANDS`.
        run: how the name of the run begins; None for the one that works, or else began last.
        given: what the command needs: `name` and `value` of a setting, the first digits of a `hash`, or the
            `text` of a rule.
        at: generation before which the command waits; None: as soon as it is read.

    Raises:
        RefusedError: the run would refuse it.
        StoreError: there is no such run or rule, or the database cannot be used.
    """
    given = dict(given or {})
    if do not in COMMANDS:
        raise RefusedError(f"command: got {do!r}, expected one of {', '.join(COMMANDS)}")
    for name in _NEEDED[do]:
        if name not in given:
            raise RefusedError(f"{do}: got no {name}, expected {' and '.join(_NEEDED[do])}")
    if at is not None and at < 0:
        raise RefusedError(f"at: got {at}, expected a generation from 0 on")
    row = run_named(database, run)
    if life_of(database, row.id).complete:
        raise RefusedError(f"run: got {row.id!r}, which is complete; resume it for more generations first")
    if do == "set":
        changed(config_of(database, row), given["name"], given["value"])
    if do in OF_RULES:
        rule = rule_of_hash(database, given["hash"])
        genome_in(rule.text, config_of(database, row).room)
        given |= {"hash": rule.hash, "text": rule.text}
    if do == "paste":
        genome = genome_in(given["text"], config_of(database, row).room)
        proposed = rule_row(rule_of(genome), "proposed", row.id)
        with database.writing() as connection:
            insert_all(connection, {"rule": [proposed.values()]})
    command = Command(row.id, do, given, at)
    send(database, command)
    return command


def why_it_waits(database: Database, command: Command) -> str | None:
    """Return why nobody may read a command soon; None if its run works.

    Raises:
        StoreError: the database cannot be used.
    """
    life = life_of(database, command.run)
    if life.works:
        return None
    if life.complete:
        return "this run is complete: the command waits until somebody resumes it for more generations"
    since = "has never been heard"
    if life.heard_s is not None:
        since = f"was last heard {_ago(time.time() - life.heard_s)} ago"
    return f"this run {since}: the command waits until it is; if the run has ended, resume it"


def _ago(seconds: float) -> str:
    minutes = seconds / 60
    return f"{minutes:.0f} minutes" if minutes < 120 else f"{minutes / 60:.0f} hours"


def config_of(database: Database, run: RunRow) -> SearchConfig:
    """Return the settings of the search of a run, with all that was set in it so far.

    Raises:
        RefusedError: the database does not have them.
        StoreError: the database cannot be used.
    """
    life = life_of(database, run.id)
    try:
        config = SearchConfig.model_validate(life.settings or json.loads(run.config)["search"])
    except (ValueError, KeyError, TypeError) as error:
        raise RefusedError(f"run: got {run.id!r} without settings of a search, expected a search") from error
    for command, outcome in commands_of(database, run.id):
        is_new = command.id not in life.commands
        if command.do != "set" or not is_new or outcome is None or not outcome.done:
            continue
        # What somebody has changed by hand since may contradict it: the run refuses it then, too.
        with contextlib.suppress(RefusedError):
            config = changed(config, command.arguments["name"], command.arguments["value"])
    return config


def parsed_value(text: str) -> Any:
    """Return a value as YAML has it.

    Raises:
        RefusedError: it cannot be read.
    """
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise RefusedError(f"value: got {text!r}, which cannot be read, expected YAML such as 0.5") from None

"""What parts of the page about a search share: small pieces of HTML, and how a run searches."""

import datetime
import html
import json
from collections.abc import Iterable, Mapping
from typing import Any

from vsml.reporting import tables
from vsml.search.store.rows import RunRow
from vsml.system.hashes import SHOWN_DIGITS

HOUR_S = 3600.0

_METHOD = ("search", "breeding", "method")
"""Where a run's settings say how it searches."""


def note(text: str) -> str:
    """Return a sentence in small print."""
    return f'<p class="note">{html.escape(text)}</p>\n'


def when(time_s: float) -> str:
    """Return a time, seconds since 1970, as a person reads it."""
    return datetime.datetime.fromtimestamp(time_s, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return rows as a table."""
    return tables.html_table(tables.table_of(rows))


def code_of(rule: str) -> tables.Markup:
    """Return the first digits of a hash."""
    return tables.Markup(f"<code>{html.escape(rule[:SHOWN_DIGITS])}</code>")


def method_of(run: RunRow) -> str | None:
    """Return how a run searches; None where its settings do not say so."""
    try:
        found: Any = json.loads(run.config)
    except ValueError:
        return None
    for name in _METHOD:
        if not isinstance(found, dict) or name not in found:
            return None
        found = found[name]
    return found if isinstance(found, str) else None

"""What all pages of the dashboard share: style, links, and how errors are shown."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from vsml.reporting.search_page import page_style
from vsml.system.extras import needed_for
from vsml.system.hashes import SHOWN_DIGITS

with needed_for("dashboards"):
    from nicegui import ui

_LINKS = {"Search": "/", "Steer": "/steer", "Step": "/step"}

_HASH = re.compile(rf"<code>([0-9a-f]{{{SHOWN_DIGITS}}})</code>")
"""How the page about a search writes hashes of rules."""


def begin_page(title: str) -> None:
    """Begin a page: style, links to the others, and its title."""
    ui.add_head_html(f"<style>{page_style()}{Path(__file__).with_name('dashboard.css').read_text()}</style>")
    ui.page_title(f"{title} - search for rules")
    with ui.row().classes("links"):
        for name, target in _LINKS.items():
            ui.link(name, target)
    ui.html(f"<h1>{title}</h1>", sanitize=False)


def markup(content: str = "") -> ui.html:
    """Show HTML that this library wrote; what is from elsewhere is escaped in it."""
    return ui.html(content, sanitize=False).classes("report")


def linked(content: str) -> str:
    """Return HTML in which hashes of rules are links to their pages."""
    return _HASH.sub(r'<a href="/rule/\1"><code>\1</code></a>', content)


@contextlib.contextmanager
def told_errors(label: ui.label) -> Iterator[None]:
    """Show what a person can change in a label, in place of a traceback."""
    label.set_text("")
    try:
        yield
    except (ValueError, OSError) as error:
        label.set_text(str(error))

"""Tables of docs/migrating.md, from vsml/moved.py: modules that moved, and names that changed.

    python tools/moved_tables.py

Prints both as Markdown, to be put into the page in place of those that are there.
"""

import sys
from itertools import groupby
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vsml.moved import MODULES, NAMES
from vsml.reporting.tables import Table, markdown


def room_of(module: str) -> str:
    """Return the folder below vsml/ that a module is in."""
    return module.split(".")[1]


def modules_table() -> str:
    """Return the table of modules, grouped by the folder of the first new place."""
    rows = []
    by_room = sorted(MODULES.items(), key=lambda entry: (room_of(entry[1][0]), entry[0]))
    for room, entries in groupby(by_room, key=lambda entry: room_of(entry[1][0])):
        for number, (old, places) in enumerate(entries):
            first = f"`{room}`" if number == 0 else ""
            rows.append([first, f"`{old}`", ", ".join(f"`{place}`" for place in places)])
    return markdown(Table(["room", "version 0.1", "now"], rows))


def names_table() -> str:
    """Return the table of names."""
    rows = [[f"`{old.replace(':', '.')}`", f"`{new.replace(':', '.')}`"] for old, new in NAMES.items()]
    return markdown(Table(["version 0.1", "now"], rows))


if __name__ == "__main__":
    print(modules_table(), names_table(), sep="\n\n")

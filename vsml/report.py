"""One page about runs: what was run, curves to hover over and to zoom into, tables, figures, what differs.

    python -m vsml.report RUN_DIR [RUN_DIR ...] [--output report.html]

The page is one HTML file that needs no network: figures, data and the library that draws are in it.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from vsml.runs.reading import TABLES, Run, read_runs
from vsml.system.arguments import ArgumentParser
from vsml.system.extras import needed_for
from vsml.system.files import atomic_write
from vsml.system.terminal import say

with needed_for("pages about runs"):
    from vsml.reporting.page import POINTS, report

__all__ = ["POINTS", "TABLES", "Run", "main", "read_runs", "report"]

_MOST_DAMAGE_TOLD = 20
"""Lines about what is damaged, at most."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page and return the exit status: 1 if something damaged is left out, 2 if there is no page.

    What is damaged is told on stderr, a line each that names the file and the place.
    """
    parser = ArgumentParser(prog="python -m vsml.report", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR", help="folder of a run")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="default: report.html in the run's folder, of several here",
    )
    options = parser.parse_args(arguments)
    alone = options.runs[0] if len(options.runs) == 1 else Path()
    output = options.output or alone / "report.html"
    try:
        runs = read_runs(options.runs)
        atomic_write(output, report(runs))
    except (ValueError, OSError) as error:
        say(f"error: {error}", sys.stderr)
        return 2
    damage = [text for run in runs for text in run.damage]
    for text in damage[:_MOST_DAMAGE_TOLD]:
        say(f"damaged, left out: {text}", sys.stderr)
    if len(damage) > _MOST_DAMAGE_TOLD:
        say(f"... and {len(damage) - _MOST_DAMAGE_TOLD:,} more", sys.stderr)
    say(str(output))
    return 1 if damage else 0


if __name__ == "__main__":
    sys.exit(main())

"""One page about runs: what was run, curves to hover over and to zoom into, tables, figures, what differs.

    python -m vsml.report RUN_DIR [RUN_DIR ...] [--output report.html]

The page is one HTML file that needs no network: figures, data and the library that draws are in it.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from vsml.runs.reading import TABLES, Run, read_runs
from vsml.system.extras import needed_for
from vsml.system.files import atomic_write

with needed_for("pages about runs"):
    from vsml.reporting.page import POINTS, report

__all__ = ["POINTS", "TABLES", "Run", "main", "read_runs", "report"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page and return the exit status: 2 for folders that are no runs."""
    parser = argparse.ArgumentParser(prog="python -m vsml.report", description=__doc__.partition("\n")[0])
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
        atomic_write(output, report(read_runs(options.runs)))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(output)
    return 0


if __name__ == "__main__":
    sys.exit(main())

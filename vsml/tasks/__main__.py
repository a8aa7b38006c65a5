"""Data sets on this machine: which are there, and how to get one.

python -m vsml.tasks list
python -m vsml.tasks get mnist kmnist
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from vsml.system.arguments import ArgumentParser
from vsml.system.program import as_typed
from vsml.tasks.data.dataset import SUBSETS
from vsml.tasks.data.errors import DataError
from vsml.tasks.data.inventory import Half, look_at_all
from vsml.tasks.data.sources import available, data_folder, load

_INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code: 1 where a data set could not be had, 2 for mistakes."""
    parser = command_parser()
    words = sys.argv[1:] if arguments is None else arguments
    if not words:
        parser.print_help()
        return 0
    options = parser.parse_args(words)
    try:
        if options.command == "list":
            halves = look_at_all(options.names or available(), options.root)
            print(f"data root: {data_folder(options.root)} (--root, VSML_DATA_DIR)")
            print(*_listed(halves), sep="\n")
            if any(half.missing for half in halves):
                print(f"to download what is missing: {as_typed('python -m vsml.tasks')} get NAME ...")
            return 0
        look_at_all(options.names, options.root)  # all names are known before the first download
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        return _get(options.names, options.subset, options.root)
    except KeyboardInterrupt:
        print("\nstopped; what has arrived stays, and the next time goes on from there", file=sys.stderr)
        return _INTERRUPTED


def command_parser() -> ArgumentParser:
    """Return the parser of the command line."""
    parser = ArgumentParser(
        prog="python -m vsml.tasks",
        description="Data sets on this machine: which are there, and how to get one.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="list | get")
    listing = commands.add_parser("list", help="say which files are there and which are missing")
    listing.add_argument("names", nargs="*", metavar="NAME", help="data sets (default: all)")
    getting = commands.add_parser("get", help="download what is missing, and check that it can be read")
    getting.add_argument("names", nargs="+", metavar="NAME", help=f"data sets: {', '.join(available())}")
    getting.add_argument("--subset", choices=SUBSETS, help="one half alone (default: both)")
    for command in (listing, getting):
        command.add_argument("--root", type=Path, metavar="DIR", help="data root (default: VSML_DATA_DIR)")
    return parser


def _listed(halves: Sequence[Half]) -> list[str]:
    """Return a line for each half."""
    width = max(len(half.name) for half in halves)
    return [f"{half.name:{width}}  {half.subset:5}  {half.describe()}" for half in halves]


def _get(names: Sequence[str], subset: str | None, root: Path | None) -> int:
    """Load each half, which downloads what is missing; return 1 where one could not be had."""
    failed = 0
    for name in names:
        for half in SUBSETS if subset is None else (subset,):
            print(f"{name} {half}: ", end="", flush=True)
            try:
                loaded = load(name, half, root)
            except (ValueError, OSError) as error:
                failed = 1
                print("failed", flush=True)
                print(f"error: {error}", file=sys.stderr)
                continue
            shape = "x".join(map(str, loaded.image_shape))
            images = getattr(loaded, "images", None)
            count = "drawn anew for every episode" if images is None else f"{len(images):,} examples"
            print(f"there, {count}, inputs {shape}, {loaded.outputs.size} outputs", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())

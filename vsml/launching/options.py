"""The options of a run. Imports little, so that a shell can complete them at once."""

from vsml.system.arguments import ArgumentParser
from vsml.system.program import run_command


def run_parser() -> ArgumentParser:
    """Return the parser of the options of launch.py and `vsml run`."""
    parser = ArgumentParser(
        prog="launch.py",
        description="Meta-train or evaluate a learning algorithm.",
        epilog=f"To start with: {run_command()} --config_files configs/quickstart.yaml --dry_run",
    )
    parser.add_argument(
        "--config_files",
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help="YAML files, later ones on top",
    )
    parser.add_argument(
        "--config",
        nargs="+",
        action="extend",
        default=[],
        metavar="KEY=VALUE",
        help="settings on top of all files",
    )
    parser.add_argument("--array", metavar="FILE", help="YAML file with the entries of a sweep")
    parser.add_argument("--array_index", type=int, metavar="I", help="which entry, from 1 (or SLURM's)")
    parser.add_argument(
        "--all", action="store_true", help="all entries of the array, one after the other on this machine"
    )
    parser.add_argument("--subset", metavar="I,J-K", help="count only these entries of the array")
    parser.add_argument(
        "--tags", nargs="+", action="extend", default=[], metavar="TAG", help="tags of the run in wandb"
    )
    parser.add_argument("--run_dir", metavar="DIR", help="folder of the run (default: runs/<time>-<name>)")
    parser.add_argument("--resume", metavar="DIR", help="go on with the run in this folder")
    parser.add_argument(
        "--continue",
        dest="go_on",
        action="store_true",
        help="with --run_dir: go on with the run in it, if there is one already",
    )
    parser.add_argument("--dry_run", action="store_true", help="print configuration and plan, and stop")
    return parser

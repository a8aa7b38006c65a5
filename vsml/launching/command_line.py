"""The command line of launch.py: its options, and the configuration that they ask for."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from vsml.config.array import array_index, load_array
from vsml.config.files import ConfigError
from vsml.config.schema import Config
from vsml.launching.schema import load_array_configs, load_config
from vsml.runs.directory import open_run
from vsml.settings import differences


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line; see `python launch.py --help`.

    Args:
        arguments: without the name of the program; by default those of this process.

    Raises:
        SystemExit: with code 2 and a message on stderr, for options that are unknown or do not go together.
    """
    parser = argparse.ArgumentParser(
        prog="launch.py", description="Meta-train or evaluate a learning algorithm.", allow_abbrev=False
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
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    if options.resume and (options.config_files or options.array or options.run_dir):
        parser.error("--resume takes the configuration of the run; only --config may change settings of it")
    if not options.array and (options.array_index is not None or options.subset):
        parser.error("--array_index and --subset need --array")
    if options.go_on and not options.run_dir:
        parser.error("--continue needs --run_dir, the folder to start or to go on with")
    return options


def read_config(options: argparse.Namespace) -> Config:
    """Return the configuration of the one run that the command line asks for.

    The name of an entry of an array ends with its number, and its group in wandb is the array's name, unless
    the user has named another.

    Raises:
        ConfigError: it has mistakes.
        ValueError: the array or the folder to resume has.
    """
    configs = read_all_configs(options)
    if not options.array:
        return configs[0]
    index = array_index(options.array_index, len(configs))
    config, array = configs[index - 1], Path(options.array).stem
    wandb = config.tracking.wandb
    group = wandb.group or os.environ.get("WANDB_RUN_GROUP", array)
    tracking = config.tracking.model_copy(update={"wandb": wandb.model_copy(update={"group": group})})
    return config.model_copy(update={"name": f"{config.name or array}-{index}", "tracking": tracking})


def read_all_configs(options: argparse.Namespace) -> tuple[Config, ...]:
    """Return the configurations of all entries of the array, or the one where there is no array.

    Raises:
        ConfigError: lists the mistakes of all.
        ValueError: the folder to resume is none.
    """
    if options.resume:
        run = open_run(options.resume)
        return (load_config([run.config], options.config, tags=options.tags, default=None),)
    if not options.array:
        return (load_config(options.config_files, options.config, tags=options.tags),)
    entries = load_array(options.array, options.subset)
    return load_array_configs(entries, options.config_files, options.config, tags=options.tags)


def continued_config(directory: str | Path, asked: Config) -> Config:
    """Return the configuration of the run in a folder, to go on with it as it was started.

    Args:
        directory: folder of a run that was started by the same command line.
        asked: what the command line asks for now.

    Raises:
        ConfigError: that is another configuration than the run was started with.
    """
    run = open_run(directory)
    started = load_config([run.config], default=None)
    expected, found = (config.model_dump(exclude={"tracking"}) for config in (asked, started))
    if asked.training.chunk_size is None:  # then the run has chosen one when it was started
        expected["training"]["chunk_size"] = started.training.chunk_size
    mistakes = [
        f"{path}: got {now!r}, expected {then!r}, as the run in {directory} was started with; "
        "--resume takes changed settings (--config), another --run_dir starts afresh"
        for path, now, then in differences(expected, found)
    ]
    if mistakes:
        raise ConfigError(mistakes)
    return started

"""The command line of launch.py: its options, and the configuration that they ask for."""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from vsml.config.array import array_index, load_array
from vsml.config.files import ConfigError
from vsml.config.schema import Config
from vsml.launching.options import run_parser
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
    options = run_parser().parse_args(sys.argv[1:] if arguments is None else arguments)
    _check_together(options)
    return options


def help_text() -> str:
    """Return what `python launch.py --help` prints."""
    return run_parser().format_help()


def _check_together(options: argparse.Namespace) -> None:
    """End with code 2 and a message where options do not go together."""
    error = run_parser().error
    if options.resume and (options.config_files or options.array or options.run_dir):
        error("--resume takes the configuration of the run; only --config may change settings of it")
    if not options.array and (options.array_index is not None or options.subset or options.all):
        error("--array_index, --subset and --all need --array")
    if options.all and options.array_index is not None:
        error("--all runs every entry of the array, --array_index one of them: expected one of the two")
    if options.go_on and not options.run_dir:
        error("--continue needs --run_dir, the folder to start or to go on with")


def folder_name(name: str | None, call: str) -> str:
    """Return what the folder of a run is called after its time: its name, else what it does.

    Of a call from outside, `package.module:Name`, that is Name. What shells and copying programs take for
    something else, such as the colon of a host, becomes a dash.
    """
    shown = name or call.rpartition(":")[2]
    return re.sub(r"[^\w.,=+@-]+", "-", shown)


def read_config(options: argparse.Namespace) -> Config:
    """Return the configuration of the one run that the command line asks for.

    Raises:
        ConfigError: it has mistakes.
        ValueError: the array or the folder to resume has.
    """
    if not options.array:
        return read_all_configs(options)[0]
    entries = read_entries(options)
    return entries[array_index(options.array_index, len(entries)) - 1]


def read_entries(options: argparse.Namespace) -> tuple[Config, ...]:
    """Return the configurations of all entries of the array, under the names that their runs have.

    The name of an entry ends with its number, and its group in wandb is the array's name, unless the user
    has named another.

    Raises:
        ConfigError: lists the mistakes of all.
    """
    array = Path(options.array).stem
    entries = []
    for number, config in enumerate(read_all_configs(options), start=1):
        wandb = config.tracking.wandb
        group = wandb.group or os.environ.get("WANDB_RUN_GROUP") or array
        tracking = config.tracking.model_copy(update={"wandb": wandb.model_copy(update={"group": group})})
        named = {"name": f"{config.name or array}-{number}", "tracking": tracking}
        entries.append(config.model_copy(update=named))
    return tuple(entries)


def read_all_configs(options: argparse.Namespace) -> tuple[Config, ...]:
    """Return the configurations of all entries of the array, or the one where there is no array.

    Raises:
        ConfigError: lists the mistakes of all.
        ValueError: the folder to resume is none.
    """
    if options.resume:
        run = open_run(options.resume)
        _check_not_empty(run.config)
        return (load_config([run.config], options.config, tags=options.tags, default=None),)
    if not options.array:
        return (load_config(options.config_files, options.config, tags=options.tags),)
    entries = load_array(options.array, options.subset)
    return load_array_configs(entries, options.config_files, options.config, tags=options.tags)


def _check_not_empty(path: Path) -> None:
    """Refuse the configuration of a run that has lost its content, which would stand for all defaults.

    Raises:
        ConfigError: the file is empty.
    """
    try:
        is_empty = not path.read_bytes().strip()
    except OSError:
        return  # said where it is read
    if is_empty:
        raise ConfigError([f"{path}: is empty, expected the configuration that the run was started with"])


def continued_config(directory: str | Path, asked: Config) -> Config:
    """Return the configuration of the run in a folder, to go on with it as it was started.

    Args:
        directory: folder of a run that was started by the same command line.
        asked: what the command line asks for now.

    Raises:
        ConfigError: that is another configuration than the run was started with.
    """
    run = open_run(directory)
    _check_not_empty(run.config)
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

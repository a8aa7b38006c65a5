"""What launch.py and `vsml run` do: read the configuration, join the other ranks, and do what `call` says."""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

from vsml.system.devices import prepare

prepare()  # before anything imports jax

from vsml.calls.ahead import look_ahead  # noqa: E402
from vsml.config.files import ConfigError, dump  # noqa: E402
from vsml.config.schema import Config  # noqa: E402
from vsml.launching.command_line import (  # noqa: E402
    continued_config,
    folder_name,
    help_text,
    parse,
    read_config,
    read_entries,
)
from vsml.launching.schema import WholeConfig, call_of  # noqa: E402
from vsml.launching.series import run_series  # noqa: E402
from vsml.runs.directory import RunDirectory, new_run, open_run  # noqa: E402
from vsml.runs.environment import describe_environment  # noqa: E402
from vsml.runs.progress import plain_where_no_terminal  # noqa: E402
from vsml.setup import Setup  # noqa: E402
from vsml.system.comm import Communicator, abort_on_error, connect  # noqa: E402
from vsml.system.extras import MissingExtraError, check_extra  # noqa: E402
from vsml.system.program import run_program  # noqa: E402
from vsml.system.terminal import say  # noqa: E402


def enter_run(
    options: argparse.Namespace, config: Config, comm: Communicator, held: contextlib.ExitStack
) -> tuple[RunDirectory | None, Config, str]:
    """Make or open the folder of the run on rank 0, lock it, and tell all ranks what is to be done there.

    Args:
        options: the command line.
        config: what it asks for.
        comm: the ranks.
        held: keeps the lock until it is closed.

    Returns:
        The folder on rank 0 (None on the others), the configuration, and one of "start", "resume" and
        "nothing", for a run that is complete.

    Raises:
        ValueError: the folder is in use, holds another run, or none to resume.
        OSError: it cannot be written.
    """
    run, todo = None, ""
    if comm.rank == 0:
        name = folder_name(config.name, config.call)
        run = open_run(options.resume) if options.resume else new_run(options.run_dir, name=name)
        held.enter_context(run.lock())
        if options.go_on and run.exists:
            config = continued_config(run.path, config)
            todo = "nothing" if run.complete.exists() else "resume"
        elif options.resume:
            todo = "nothing" if not options.config and is_complete(run) else "resume"
        else:
            run.start(dump(config), describe_environment(comm.size))
            todo = "start"
        if not run.environment.exists():  # killed just as it had started
            run.write_environment(describe_environment(comm.size))
    todo, settings = comm.bcast([todo, config.model_dump(mode="json")])
    return run, WholeConfig.model_validate(settings), todo


def print_plan(options: argparse.Namespace, config: Config, ranks: int) -> None:
    """Print what a run would do and cost, and last its configuration.

    Raises:
        ValueError, OSError: the run would be refused.
    """
    if options.run_dir and not options.all:
        run = RunDirectory(Path(options.run_dir))
        if run.exists and not options.go_on:
            raise ValueError(f"run_dir: {run.path} holds a run already; resume it, or name another folder")
        if run.exists:
            config = continued_config(run.path, config)
    setup = Setup(config)
    lines = [*look_ahead(setup, ranks), *call_of(config).plan(setup, ranks)]
    print(*lines, "", dump(config), sep="\n")


def is_complete(run: RunDirectory) -> bool:
    """Return whether a run has done all that its configuration says, which nobody has edited since."""
    if not run.complete.exists():
        return False
    return run.config.stat().st_mtime <= run.complete.stat().st_mtime


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 2 for mistakes in what the user gave."""
    plain_where_no_terminal()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words:
        print(help_text(), end="")
        return 0
    options = parse(words)
    try:
        check_extra("train", "runs")
        configs = read_entries(options) if options.all else (read_config(options),)
    except MissingExtraError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ValueError as error:  # ConfigError and the like; every rank sees the same, so none waits
        print(error, file=sys.stderr)
        return 2
    try:
        comm = connect()
    except RuntimeError as error:  # the launcher and MPI do not fit together
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.all and comm.size > 1:
        sys.exit("error: --all runs entries one after the other in processes of its own, so without mpirun")
    if options.all and not options.dry_run:
        return run_series(run_program(), words, configs, options.run_dir)
    from vsml.system.numerics import standard_numerics

    with contextlib.ExitStack() as held, abort_on_error(comm), standard_numerics():
        from vsml.runs.checkpoint import CheckpointError
        from vsml.runs.metrics import MetricsError
        from vsml.tasks import DataError

        if options.dry_run:
            try:
                if comm.rank == 0:
                    for each in configs:
                        print_plan(options, each, comm.size)
            except ConfigError as error:
                print(error, file=sys.stderr)
                sys.exit(2)
            except (ValueError, OSError, MemoryError) as error:
                sys.exit(f"error: {error}")
            return 0
        (config,) = configs
        try:
            goes_on = options.resume or (options.go_on and RunDirectory(Path(options.run_dir)).exists)
            if comm.rank == 0 and not goes_on:
                look_ahead(Setup(config), comm.size)  # what is refused leaves no folder
            run, config, todo = enter_run(options, config, comm, held)
        except ConfigError as error:
            print(error, file=sys.stderr)
            sys.exit(2)
        except (ValueError, OSError) as error:
            sys.exit(f"error: {error}")
        if run is not None:
            say(f"run directory: {run.path}")
        if todo == "nothing":
            if run is not None:
                say("was complete already, and nothing is left to do; --config changes its settings")
            return 0
        try:
            return call_of(config).run(Setup(config), run, comm, todo == "resume")
        except (
            ConfigError,
            DataError,
            CheckpointError,
            MetricsError,
            OSError,
            MemoryError,
            FloatingPointError,
        ) as error:
            sys.exit(f"error: {error}")  # says all that there is to say; the other ranks end with this one

"""The command line: read the configuration, join the other ranks, and do what `call` says.

python launch.py --config_files configs/quickstart.yaml --config training.iterations=100
"""

import argparse
import sys
from collections.abc import Sequence

from vsml.devices import prepare

prepare()  # before anything imports jax

from vsml.comm import Communicator, abort_on_error, connect  # noqa: E402
from vsml.config import Config  # noqa: E402
from vsml.config_array import array_index, load_array, load_array_configs  # noqa: E402
from vsml.config_files import ConfigError, dump, load_config  # noqa: E402
from vsml.tracking import RunDirectory, create_run, describe_environment, open_run  # noqa: E402


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; see `python launch.py --help`."""
    parser = argparse.ArgumentParser(description="Meta-train or evaluate a learning algorithm.")
    parser.add_argument(
        "--config_files", nargs="+", default=[], metavar="FILE", help="YAML files, later ones on top"
    )
    parser.add_argument(
        "--config", nargs="+", default=[], metavar="KEY=VALUE", help="settings on top of all files"
    )
    parser.add_argument("--array", metavar="FILE", help="YAML file with the entries of a sweep")
    parser.add_argument("--array_index", type=int, metavar="I", help="which entry, from 1 (or SLURM's)")
    parser.add_argument("--subset", metavar="I,J-K", help="count only these entries of the array")
    parser.add_argument("--tags", nargs="+", default=[], metavar="TAG", help="tags of the run in wandb")
    parser.add_argument("--run_dir", metavar="DIR", help="folder of the run (default: runs/<time>-<name>)")
    parser.add_argument("--resume", metavar="DIR", help="go on with the run in this folder")
    parser.add_argument("--dry_run", action="store_true", help="print configuration and plan, and stop")
    options = parser.parse_args(arguments)
    if options.resume and (options.config_files or options.array or options.run_dir):
        parser.error("--resume takes the configuration of the run; only --config may change settings of it")
    if not options.array and (options.array_index is not None or options.subset):
        parser.error("--array_index and --subset need --array")
    return options


def read_config(options: argparse.Namespace) -> Config:
    """Return the configuration that the command line asks for.

    Raises:
        ConfigError: it has mistakes.
        ValueError: the array or the folder to resume has.
    """
    if options.resume:
        run = open_run(options.resume)
        return load_config([run.config], options.config, tags=options.tags, default=None)
    if not options.array:
        return load_config(options.config_files, options.config, tags=options.tags)
    entries = load_array(options.array, options.subset)
    configs = load_array_configs(entries, options.config_files, options.config, tags=options.tags)
    return configs[array_index(options.array_index, len(configs)) - 1]


def open_directory(options: argparse.Namespace, config: Config, comm: Communicator) -> RunDirectory | None:
    """Make or open the folder of the run on rank 0; the other ranks get None."""
    if comm.rank != 0:
        return None
    if options.resume:
        return open_run(options.resume)
    run = create_run(dump(config), directory=options.run_dir, name=config.name or config.call)
    run.write_environment(describe_environment(comm.size))
    return run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 2 for mistakes in what the user gave."""
    options = parse(sys.argv[1:] if arguments is None else arguments)
    try:
        config = read_config(options)
    except ValueError as error:  # ConfigError and the like; every rank sees the same, so none waits
        print(error, file=sys.stderr)
        return 2
    comm = connect()
    with abort_on_error(comm):
        from vsml.checkpoint import CheckpointError
        from vsml.evaluate import run_evaluation
        from vsml.plan import describe
        from vsml.tasks import DataError
        from vsml.train import run_training

        if options.dry_run:
            try:
                if comm.rank == 0:
                    print(dump(config) + "\n" + describe(config, comm.size))
            except (ValueError, OSError, MemoryError) as error:
                sys.exit(f"error: {error}")
            return 0
        try:
            run = open_directory(options, config, comm)
        except (ValueError, OSError) as error:
            sys.exit(f"error: {error}")
        if run is not None:
            print(f"run directory: {run.path}", flush=True)
        try:
            if config.call == "evaluate":
                run_evaluation(config, run, comm)
            elif not run_training(config, run, comm, resume=bool(options.resume)) and run is not None:
                print(f"to go on: python launch.py --resume {run.path}", flush=True)
        except (ConfigError, DataError, CheckpointError, OSError, MemoryError, FloatingPointError) as error:
            sys.exit(f"error: {error}")  # says all that there is to say; the other ranks end with this one
    return 0


if __name__ == "__main__":
    sys.exit(main())

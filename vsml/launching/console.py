"""The command `vsml`: a word that says what to do, and the arguments of what does it.

    vsml run rand_proj backprop --config training.population_size=16
    vsml demo

Nothing that starts JAX is imported before the word is known. A new word is a line in `COMMANDS`.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import vsml
from vsml.system.arguments import ArgumentParser
from vsml.system.extras import MissingExtraError, needed_for
from vsml.system.program import COMMAND

USAGE = 2
"""Exit status after a mistake in what the user typed."""


@dataclass(frozen=True)
class Command:
    """What a word stands for.

    Attributes:
        does: in a few words, for the list of words.
        main: `module:function` of its command line. The function takes arguments and returns an exit status,
            or None for 0.
        parser: `module:function` that returns its parser, for the completion of options in a shell; its
            module imports little. None: file names alone are completed.
    """

    does: str
    main: str
    parser: str | None = None


COMMANDS = {
    "run": Command(
        "meta-train, evaluate or whatever `call` says: vsml run CONFIG ... [--config KEY=VALUE ...]",
        "vsml.launching.console:run",
        "vsml.launching.completion:run_parser",
    ),
    "demo": Command(
        "watch a learning algorithm learn",
        "vsml.demo:main",
        "vsml.demo:command_parser",
    ),
    "report": Command("make one page about runs", "vsml.report:main"),
    "figures": Command(
        "make the paper's figures",
        "vsml.figures:main",
        "vsml.figures:command_parser",
    ),
    "data": Command(
        "list data sets, and download what is missing",
        "vsml.tasks.__main__:main",
        "vsml.tasks.__main__:command_parser",
    ),
    "rules": Command(
        "look at a local rule, check it, let it learn, step through it, search for others",
        "vsml.launching.rules:main",
        "vsml.launching.rules:command_parser",
    ),
    "battery": Command(
        "let learning algorithms take tests of what they can do",
        "vsml.launching.battery:main",
        "vsml.launching.battery:command_parser",
    ),
    "laws": Command(
        "say what more compute buys, and what to run",
        "vsml.launching.laws:main",
        "vsml.launching.laws:command_parser",
    ),
    "configs": Command(
        "list the configurations that come with the library",
        "vsml.launching.console:configs",
        "vsml.launching.console:configs_parser",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 2 for mistakes in what the user gave."""
    if "_ARGCOMPLETE" in os.environ:  # set by the shell, which wants to know what may follow
        complete()
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    if not words:
        parser.print_help()
        return 0
    name, *rest = words
    parser.parse_args([name])
    try:
        with needed_for(f"{COMMAND} {name}"):
            run_command = imported(COMMANDS[name].main)
        return run_command(rest) or 0
    except MissingExtraError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    except BrokenPipeError:  # as in `vsml configs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def run(arguments: Sequence[str]) -> int:
    """Do what launch.py does, with configurations before the first option."""
    main = imported("vsml.launching.run:main")
    return main(with_config_files(arguments))


def with_config_files(arguments: Sequence[str]) -> list[str]:
    """Return the arguments of launch.py: what stands before the first option are configurations."""
    words = list(arguments)
    options = [place for place, word in enumerate(words) if word.startswith("-")]
    first_option = options[0] if options else len(words)
    named = words[:first_option]
    if not named:
        return words
    return ["--config_files", *named, *words[first_option:]]


def configs(arguments: Sequence[str]) -> None:
    """Print the configurations that come with the library, each with the first line of its file."""
    from vsml.config.folder import FOLDER, config_names

    configs_parser().parse_args(arguments)
    names = config_names()
    width = max(map(len, names))
    for name in names:
        text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
        first_line = text.partition("\n")[0].removeprefix("#").strip()
        print(f"{name:{width}}  {first_line}")


def configs_parser() -> ArgumentParser:
    """Return the parser of `vsml configs`."""
    return ArgumentParser(
        prog="python -m vsml.configs",
        description="List the configurations that come with the library, for `vsml run`.",
    )


def complete() -> None:
    """Answer a shell that completes a command line, and end; without argcomplete there is no answer."""
    try:
        from vsml.launching.completion import answer
    except ModuleNotFoundError:
        sys.exit(1)
    answer(_parser(with_names=False), {name: command.parser for name, command in COMMANDS.items()})


def _parser(with_names: bool = True) -> ArgumentParser:
    lines = [f"  {name:10}{command.does}" for name, command in COMMANDS.items()]
    parser = ArgumentParser(
        prog=COMMAND,
        description="Learning algorithms that are meta-learned: make them, compare them, look at them.",
        epilog="\n".join(["commands:", *lines, "", f"{COMMAND} COMMAND --help says more."]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{COMMAND} {vsml.__version__}")
    if with_names:
        parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of those below")
    return parser


def imported(path: str) -> Any:
    """Return what `module:function` names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


if __name__ == "__main__":
    sys.exit(main())

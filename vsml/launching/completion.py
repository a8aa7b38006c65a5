"""Completion of the command `vsml` in a shell, by argcomplete.

    eval "$(register-python-argcomplete vsml)"

The shell starts `vsml` at every press of TAB, so parsers are made without starting JAX.
"""

import importlib
import os
from collections.abc import Mapping
from typing import Any

import argcomplete
from argcomplete.completers import FilesCompleter

from vsml.config.folder import config_names
from vsml.launching import options
from vsml.system.arguments import ArgumentParser

_OF_CONFIGS = ("config_files", "array")
"""Options whose values are files, or names of configurations of the library."""


def answer(parser: ArgumentParser, parsers: Mapping[str, str | None]) -> None:
    """Tell the shell what may follow, and end.

    Args:
        parser: of the command, without its words.
        parsers: `module:function` of the parser of each word; None completes files. The parser of the word
            that was typed is made, of the others the names are enough.
    """
    typed = os.environ["COMP_LINE"].split()
    words = parser.add_subparsers(parser_class=ArgumentParser)
    for name, path in parsers.items():
        parents = [_made(path)] if name in typed[1:2] else []
        words.add_parser(name, parents=parents, add_help=not parents)
    argcomplete.autocomplete(parser)


def _made(path: str | None) -> ArgumentParser:
    if path is None:
        files = ArgumentParser()
        files.add_argument("files", nargs="*")
        return files
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)()


def run_parser() -> ArgumentParser:
    """Return the parser of `vsml run`, whose configurations stand before the options."""
    parser = options.run_parser()
    named: Any = parser.add_argument("configs", nargs="*")
    named.completer = _configs
    for action in parser._actions:
        if action.dest in _OF_CONFIGS:
            action.completer = _configs  # type: ignore[attr-defined]  # where argcomplete looks for it
    return parser


def _configs(prefix: str, **_: Any) -> list[str]:
    """Return names of configurations, and files of the user."""
    files = FilesCompleter(allowednames=("yaml", "yml"))(prefix)
    return [*config_names(), *files]

"""Options that commands of `vsml rules` share.

Nothing that starts JAX is imported before a command runs.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vsml.graphs import Graph
    from vsml.rules import Settings


def pair(text: str) -> tuple[str, Any]:
    """Return the key and the value of `key=value`, the value as YAML has it."""
    import yaml

    key, sign, value = text.partition("=")
    if not (key and sign and value):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected KEY=VALUE")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError:
        raise argparse.ArgumentTypeError(f"{key}: got {value!r}, which cannot be read") from None


def add_settings(command: argparse.ArgumentParser) -> None:
    """Add the option that says how a rule is timed and taught; `settings_of` reads it."""
    command.add_argument(
        "--settings",
        nargs="+",
        default=[],
        type=pair,
        metavar="KEY=VALUE",
        help="timing and teaching, such as ticks=30 teach=reward (docs/operators.md)",
    )


def settings_of(
    rule: str,
    given: Mapping[str, Any],
    graph: "Graph",
) -> "Settings":
    """Return timing and teaching: those given, over those of a known rule, over the defaults.

    Args:
        rule: name of a rule that ships, or a file.
        given: settings by name.
        graph: on which the rule runs; its longest path says how long an example lasts.

    Raises:
        ValueError: a setting is none, or cannot be had; the message begins with --settings.
    """
    from pydantic import ValidationError

    from vsml.learners.rule import RuleConfig

    known = set(RuleConfig.model_fields) - {"rule", "graph"}
    for name in given:
        if name not in known:
            raise ValueError(f"--settings: got {name!r}, expected one of {', '.join(sorted(known))}")
    try:
        config = RuleConfig.model_validate({"rule": rule, **given})
        return config.settings(graph.longest_path, "regression")
    except ValidationError as error:
        told = [_told(problem) for problem in error.errors()]
        raise ValueError(f"--settings: {'; '.join(told)}") from error
    except ValueError as error:
        raise ValueError(f"--settings: {str(error).removeprefix('model.rule: ')}") from error


def _told(problem: Mapping[str, Any]) -> str:
    """Return a mistake that pydantic found in a setting, as one line."""
    place = ".".join(map(str, problem["loc"]))
    return f"{place}: got {problem['input']!r}; {problem['msg']}"


def check_out(
    out: Path | None,
    force: bool,
) -> None:
    """Refuse a file for a rule that cannot be meant, before anything is computed.

    Args:
        out: what `--out` says.
        force: whether a file that is there may be written over.

    Raises:
        ValueError: it is no name of a rule, is there already, or has no folder.
    """
    if out is None:
        if force:
            raise ValueError("--force: expected --out as well")
        return
    if out.suffix != ".rule":
        raise ValueError(f"--out: got {out}, expected a name that ends in .rule")
    if out.exists() and not force:
        raise ValueError(f"--out: {out} is there already; --force writes over it")
    if not out.parent.is_dir():
        raise ValueError(f"--out: got {out}, whose folder is missing")

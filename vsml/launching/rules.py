"""The command line of rules: look at one, check it, let it learn, step through it, search for others.

    python -m vsml.rules show backprop
    python -m vsml.rules check mine.rule
    python -m vsml.rules run mine.rule --task xor
    python -m vsml.rules step mine.rule --html ticks.html
    python -m vsml.rules simplify mine.rule --out shorter.rule
    python -m vsml.rules distil digits --out found.rule
    python -m vsml.rules db query rules.db --test xor

Nothing that starts JAX is imported before `prepare` has been called.
"""

import argparse
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsml.launching import (
    rule_database,
    rule_distilling,
    rule_reading,
    rule_report,
    rule_search,
    rule_steering,
)
from vsml.launching.ending import USAGE, ended, error_lines
from vsml.launching.rule_options import add_settings, pair, settings_of
from vsml.system.arguments import ArgumentParser, not_negative, positive
from vsml.system.devices import prepare
from vsml.tasks.data.small_tasks import NUM_INPUTS, TASKS

if TYPE_CHECKING:
    from vsml.graphs import Graph
    from vsml.rules import Rule, Settings
    from vsml.types import Array

_MOST_STRETCHES = 10
"""Lines that `run` prints: each about as many examples."""

_BAR = 40
"""Columns of the longest bar."""

_MOST_NUMBERS = 2_000_000
"""Numbers that `step` may keep: about 40 MB of page."""

_WIDTH = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit status: 2 for mistakes in a rule or in what was typed."""
    parser = command_parser()
    words = sys.argv[1:] if arguments is None else list(arguments)
    if not words:
        parser.print_help()
        return 0
    options = parser.parse_args(words)
    prepare()
    commands = {
        "show": _show,
        "check": _check,
        "run": _run,
        "step": _step,
        "ablate": rule_reading.ablate,
        "simplify": rule_reading.simplify,
        "survey": rule_search.survey,
        "distil": rule_distilling.distil,
        "page": rule_report.page,
        "dashboard": rule_report.dashboard,
        "steer": rule_steering.steer,
        "fork": rule_steering.fork,
        "db": rule_database.run,
    }
    return ended(lambda: commands[options.command](options), _messages)


def command_parser() -> ArgumentParser:
    """Return the parser of the command line."""
    parser = ArgumentParser(
        prog="python -m vsml.rules",
        description="Local rules: look at one, check it, let it learn, step through it; databases of rules. "
        "See docs/rules.md and docs/rules_database.md.",
    )
    words = "show | check | run | step | ablate | simplify | distil | survey"
    words += " | page | dashboard | steer | fork | db"
    commands = parser.add_subparsers(dest="command", required=True, metavar=words)
    rule_help = "a rule that comes with the library, or a file whose name ends in .rule"
    showing = commands.add_parser("show", help="say what is in a rule: text, hash, slots, constants")
    showing.add_argument("rule", metavar="FILE", help=rule_help)
    showing.add_argument("--latex", action="store_true", help="print it as equations, for LaTeX")
    checking = commands.add_parser("check", help="tell all mistakes, a line for each")
    checking.add_argument("rules", nargs="+", metavar="FILE", help=rule_help)
    running = commands.add_parser("run", help="let a rule learn a small task, and say how its error falls")
    stepping = commands.add_parser("step", help="say what happens in each tick, as text or as a page")
    for command in (running, stepping):
        command.add_argument("rule", metavar="FILE", help=rule_help)
        _add_experiment(command)
    running.add_argument("--examples", type=positive, default=1000, help="examples that are shown")
    running.add_argument("--starts", type=positive, default=4, help="fresh starts to average over")
    stepping.add_argument("--examples", type=positive, default=1, help="examples that are watched")
    stepping.add_argument("--skip", type=not_negative, default=0, help="examples to learn from before")
    stepping.add_argument(
        "--ticks",
        type=positive,
        help="ticks to print, from the first one on (default: all; none with --html)",
    )
    stepping.add_argument(
        "--layout", default="levels", help="where the page has nodes: levels (the default), spring or circle"
    )
    stepping.add_argument("--html", type=Path, metavar="OUT", help="file to write a page with a slider to")
    rule_reading.add_commands(commands, rule_help)
    rule_search.add_command(commands)
    rule_distilling.add_command(commands)
    rule_report.add_commands(commands)
    rule_steering.add_commands(commands)
    rule_database.add_commands(
        commands.add_parser("db", help="databases of rules, as the search writes them")
    )
    return parser


def _add_experiment(command: argparse.ArgumentParser) -> None:
    """Add the options that say what a rule runs on."""
    tasks = ", ".join(f"{name} ({task.does})" for name, task in TASKS.items())
    command.add_argument("--task", choices=TASKS, default="and", help=f"{tasks}; default: and")
    command.add_argument("--graph", default="layered", metavar="KIND", help="kind of graph (docs/graphs.md)")
    command.add_argument("--hidden", type=not_negative, default=4, help="hidden nodes (default: 4)")
    command.add_argument(
        "--graph_options",
        nargs="+",
        default=[],
        type=pair,
        metavar="KEY=VALUE",
        help="parameters of the kind, such as p=0.3",
    )
    command.add_argument("--graph_seed", type=not_negative, default=0, help="seed of the graph")
    add_settings(command)
    command.add_argument(
        "--constants",
        nargs="+",
        default=[],
        type=pair,
        metavar="NAME=NUMBER",
        help="other values for the rule's constants, such as lr=0.01",
    )
    command.add_argument("--seed", type=not_negative, default=0, help="seed of all else that is drawn")


def _messages(error: Exception) -> Iterator[str]:
    """Yield the lines that tell an error: of a rule one for each mistake."""
    from vsml.rules import RuleError

    if not isinstance(error, RuleError):
        yield from error_lines(error)
        return
    for line, message in error.mistakes:
        yield f"{error.source}:{line}: {message}"


def _show(options: argparse.Namespace) -> int:
    """Print what a rule says and what is in it."""
    if options.latex:
        return _show_latex(options)
    from vsml.reporting.rule_text import description
    from vsml.rules.known import TEACHING, KnownRule, read_rule, rule_text

    rule = read_rule(options.rule)
    about = KnownRule(options.rule, rule_text(options.rule)).about
    if about:
        print(textwrap.fill(about, _WIDTH), end="\n\n")
    print(description(rule))
    if teaching := TEACHING.get(options.rule):
        told = " ".join(f"{name}={value}" for name, value in teaching.items())
        print(f"\nsettings of its own:\n  {told}")
    return 0


def _show_latex(options: argparse.Namespace) -> int:
    """Print a rule as equations."""
    from vsml.reporting.rule_latex import latex
    from vsml.rules import read_rule

    print(latex(read_rule(options.rule)), end="")
    return 0


def _check(options: argparse.Namespace) -> int:
    """Print the mistakes of each rule, or that it has none."""
    from vsml.rules import read_rule, rule_hash

    status = 0
    for name in options.rules:
        try:
            rule = read_rule(name)
        except (OSError, ValueError) as error:
            status = USAGE
            print(*_messages(error), sep="\n", file=sys.stderr)
        else:
            sizes = f"{len(rule.slots)} slots, {rule.size} operators a tick"
            print(f"{name}: no mistakes; {sizes}, hash {rule_hash(rule)[:16]}")
    return status


def _run(options: argparse.Namespace) -> int:
    """Let a rule learn from several fresh starts, and print how the error falls."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from vsml.rules.watching import learn

    rule, graph, settings = _experiment(options)
    task = TASKS[options.task]
    starts = [_keys(options.seed, start) for start in range(options.starts)]
    keys, task_keys = (jnp.stack(part) for part in zip(*starts, strict=True))
    x, targets = jax.vmap(lambda key: task.draw(options.examples, key))(task_keys)
    _introduce(options, graph, settings)
    answers = learn(rule, graph, settings, x, targets, keys)
    squares = np.square(answers - np.asarray(targets)).mean((0, 2))
    constant = float(np.asarray(targets).std())
    print(f"root of the mean squared error; the best constant answer has {constant:.3f}\n")
    stretches = np.array_split(squares, min(_MOST_STRETCHES, options.examples))
    errors = [float(np.sqrt(stretch.mean())) for stretch in stretches]
    last = np.cumsum([len(stretch) for stretch in stretches])
    digits = len(str(options.examples))
    for end, stretch, error in zip(last, stretches, errors, strict=True):
        begin = end - len(stretch) + 1
        bar = "#" * round(_BAR * min(error / max(*errors, constant), 1))
        print(f"examples {begin:>{digits}} to {end:>{digits}}  {error:8.4f}  {bar}".rstrip())
    return 0


def _step(options: argparse.Namespace) -> int:
    """Print, or write as a page, what happens in each tick."""
    from vsml.reporting.rule_page import rule_page
    from vsml.reporting.rule_text import watched_text
    from vsml.rules.watching import watch

    rule, graph, settings = _experiment(options)
    _check_size(options.examples * settings.ticks, rule, graph)
    key, task_key = _keys(options.seed, start=0)
    count = options.skip + options.examples
    x, targets = TASKS[options.task].draw(count, task_key)
    watched = watch(rule, graph, settings, x, targets, key, options.skip)
    title = f"{Path(options.rule).stem} learns {TASKS[options.task].does}"
    if options.html:
        page = rule_page(watched, title, options.layout)
        options.html.write_text(page, encoding="utf-8")
        print(f"page: {options.html}")
    if options.ticks or not options.html:
        _introduce(options, graph, settings)
        for block in watched_text(watched, options.ticks):
            print(block, end="\n\n")
    return 0


def _keys(
    seed: int,
    start: int,
) -> "tuple[Array, Array]":
    """Return the keys of what the rule and the task draw in a fresh start; `step` watches the first one."""
    import jax

    key = jax.random.fold_in(jax.random.key(seed), start)
    return jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)


def _introduce(
    options: argparse.Namespace,
    graph: "Graph",
    settings: "Settings",
) -> None:
    """Say what a rule runs on."""
    sizes = f"{graph.num_nodes} nodes and {graph.num_edges} edges"
    timing = f"{settings.ticks} ticks an example, the answer after tick {settings.read_tick}"
    print(f"{options.rule} learns {TASKS[options.task].does} on a {graph.kind} graph of {sizes}")
    print(f"{timing}; teach: {settings.teach}")


def _experiment(options: argparse.Namespace) -> "tuple[Rule, Graph, Settings]":
    """Return the rule, the graph and the timing that the options ask for.

    Raises:
        ValueError: they cannot be had; the message says which option.
    """
    from vsml.graphs import generate

    rule = _read(options.rule, dict(options.constants))
    given = dict(options.settings)
    num_outputs = 2 if given.get("read") == "ready" else 1
    parameters = dict(options.graph_options)
    own = {"kind", "num_inputs", "num_hidden", "num_outputs", "seed"}
    if taken := own & set(parameters):
        raise ValueError(
            f"--graph_options: got {sorted(taken)}, which --graph, --hidden and --graph_seed say"
        )
    try:
        graph = generate(
            options.graph, NUM_INPUTS, options.hidden, num_outputs, options.graph_seed, **parameters
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"--graph: {error}") from error
    return rule, graph, settings_of(options.rule, given, graph)


def _read(
    name: str,
    constants: Mapping[str, Any],
) -> "Rule":
    """Return a rule with other values for some constants."""
    from vsml.rules import read_rule, with_constants

    rule = read_rule(name)
    try:
        return with_constants(rule, constants)
    except ValueError as error:
        raise ValueError(f"--{error}") from error


def _check_size(
    ticks: int,
    rule: "Rule",
    graph: "Graph",
) -> None:
    """Refuse to keep more numbers than a person and a browser can take."""
    numbers = ticks * len(rule.slots) * 2 * graph.num_edges
    if numbers > _MOST_NUMBERS:
        raise ValueError(
            f"--examples: got {ticks} ticks of {len(rule.slots)} slots on {graph.num_edges} edges, "
            f"{numbers} numbers, expected at most {_MOST_NUMBERS}; watch fewer examples, after --skip others"
        )

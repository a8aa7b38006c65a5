"""The words of `vsml rules` that say what a rule needs: `simplify` and `ablate`.

    vsml rules ablate backprop
    vsml rules simplify found.rule --out shorter.rule

Nothing that starts JAX is imported before a command runs.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsml.launching.rule_options import add_settings, check_out, settings_of
from vsml.system.arguments import not_negative, positive
from vsml.system.files import atomic_write
from vsml.tasks.data.small_tasks import NUM_INPUTS, TASKS

if TYPE_CHECKING:
    from vsml.rules import Rule
    from vsml.search.scoring import Scoring
    from vsml.search.simplifying import Simplified

_TASKS = ("and", "or", "xor")
_EXAMPLES = 400
_SEEDS = 16


def add_commands(commands: Any, rule_help: str) -> None:
    """Add the words to those of a parser.

    Args:
        commands: what `add_subparsers` returned.
        rule_help: what a rule may be given as.
    """
    ablating = commands.add_parser("ablate", help="say what each line of a rule is worth")
    simplifying = commands.add_parser("simplify", help="leave out of a rule what it does not need")
    for command in (ablating, simplifying):
        command.add_argument("rule", metavar="FILE", help=rule_help)
        _add_scoring(command)
        command.add_argument("--json", action="store_true", help="print JSON")
    ablating.add_argument(
        "--database",
        metavar="DATABASE",
        help="and keep it there, for `vsml rules page`; the rule must be there, too",
    )
    simplifying.add_argument(
        "--exact", action="store_true", help="only what computes nothing; no rule is run"
    )
    simplifying.add_argument(
        "--out", type=Path, metavar="NEW.rule", help="file to write the rule to; its name ends in .rule"
    )
    simplifying.add_argument("--force", action="store_true", help="write over a file that is there")


def _add_scoring(command: argparse.ArgumentParser) -> None:
    """Add the options that say how rules are scored."""
    command.add_argument(
        "--tasks", nargs="+", choices=TASKS, default=_TASKS, metavar="TASK", help=f"of {', '.join(TASKS)}"
    )
    command.add_argument(
        "--graph",
        metavar="KIND",
        help="kind of graph of all tasks (default: layered; inputs beside the output for and and or)",
    )
    command.add_argument("--hidden", type=not_negative, help="hidden nodes of all tasks (default: 0, or 4)")
    command.add_argument("--graph_seed", type=not_negative, default=0, help="seed of the graph")
    command.add_argument(
        "--examples", type=positive, default=_EXAMPLES, help=f"of each stream (default: {_EXAMPLES})"
    )
    command.add_argument(
        "--seeds", type=positive, default=_SEEDS, help=f"fresh starts of each task (default: {_SEEDS})"
    )
    command.add_argument("--seed", type=not_negative, default=0, help="seed of all that is drawn")
    add_settings(command)


def _scoring(options: argparse.Namespace) -> "Scoring":
    """Return how rules are scored.

    Raises:
        ValueError: an option cannot be meant.
    """
    from vsml.graphs import generate
    from vsml.search.scoring import Scoring, exercises_of

    graph = None
    if options.graph is not None or options.hidden is not None:
        kind = "layered" if options.graph is None else options.graph
        hidden = 4 if options.hidden is None else options.hidden
        try:
            graph = generate(kind, NUM_INPUTS, hidden, 1, options.graph_seed)
        except (TypeError, ValueError) as error:
            raise ValueError(f"--graph: {error}") from error
    if len(set(options.tasks)) < len(options.tasks):
        raise ValueError(f"--tasks: got {' '.join(options.tasks)}, expected each task once")
    if options.seeds < 2:
        raise ValueError(f"--seeds: got {options.seeds}, expected at least 2: a standard error needs them")
    exercises = exercises_of(options.tasks, graph)
    # News goes as far as the longest way of them all.
    longest = max((exercise.graph for exercise in exercises), key=lambda graph: graph.longest_path)
    return Scoring(
        exercises=exercises,
        examples=options.examples,
        seeds=options.seeds,
        settings=settings_of(options.rule, dict(options.settings), longest),
        seed=options.seed,
    )


def ablate(options: argparse.Namespace) -> int:
    """Print what each line of a rule is worth."""
    from vsml.reporting import rule_worth
    from vsml.reporting.tables import plain
    from vsml.rules import read_rule
    from vsml.search.ablation import ablate as ablated

    rule, scoring = read_rule(options.rule), _scoring(options)
    if options.database is not None:
        _check_known(options.database, rule)
    found = ablated(rule, scoring)
    told = rule_worth.ablation_json(found, scoring)
    if options.database is not None:
        _keep(options.database, told)
    if options.json:
        print(json.dumps(told, indent=2))
        return 0
    print(rule_worth.scoring_text(scoring))
    print(f"With all its lines: {rule_worth.scores_text(found.names, found.scores)}.")
    print("Below: score without a part less score with it, ± one standard error.\n")
    print(plain(rule_worth.ablation_table(found)))
    return 0


def _check_known(url: str, rule: "Rule") -> None:
    """Refuse a rule that a database does not have, before anything is computed."""
    from vsml.rules import rule_hash
    from vsml.search.store import Database, StoreError, known_hashes

    own = rule_hash(rule)
    with Database(url) as database:
        if own not in known_hashes(database, [own]):
            raise StoreError(f"{database.name}: has no rule of the hash {own}")


def _keep(url: str, told: dict[str, Any]) -> None:
    """Write an ablation to a database, as an event."""
    from vsml.search.store import Database, EventRow, insert_all
    from vsml.search.store.overview import ABLATION

    event = EventRow(kind=ABLATION, detail=told)
    with Database(url) as database, database.writing() as connection:
        insert_all(connection, {"event": [event.values()]})


def simplify(options: argparse.Namespace) -> int:
    """Leave out what a rule does not need; print what is left, or write it to a file."""
    from vsml.reporting import rule_worth
    from vsml.rules import read_rule, show
    from vsml.search.folding import folded
    from vsml.search.simplifying import simplify as simplified

    check_out(options.out, options.force)
    rule = read_rule(options.rule)
    if options.exact:
        if options.json:
            raise ValueError("--exact: got --json as well, expected one of them: nothing is scored")
        less = folded(rule)
        _write(options, less, f"{rule.size} operators became {less.size}; it computes the same")
        print(show(less), end="")
        return 0
    scoring = _scoring(options)
    if not options.json:
        print(rule_worth.scoring_text(scoring), end="\n\n", flush=True)

    def tell(done: Any) -> None:
        print(rule_worth.round_text(done), file=sys.stderr if options.json else sys.stdout, flush=True)

    found = simplified(rule, scoring, tell)
    _write(options, found.rule, _origin(found, scoring))
    if options.json:
        print(json.dumps(rule_worth.simplified_json(found, scoring), indent=2))
        return 0
    print()
    print(*rule_worth.simplified_text(found, scoring), sep="\n")
    if lost := rule_worth.unlearned(scoring.names, found.before):
        print(
            f"note: the rule before is no better than a constant answer in {', '.join(lost)}; "
            "what it needs there alone may be gone",
            file=sys.stderr,
        )
    return 0


def _write(options: argparse.Namespace, rule: "Rule", said: str) -> None:
    from vsml.rules import show

    if options.out is None:
        return
    name = Path(options.rule).stem
    atomic_write(options.out, f"# Simplified from {name}: {said}.\n{show(rule)}")
    print(f"wrote {options.out}", file=sys.stderr)


def _origin(found: "Simplified", scoring: "Scoring") -> str:
    """Return in a few words what was left out, and what that cost."""
    from vsml.reporting.rule_worth import with_error

    change = with_error(found.difference.mean, found.difference.error)
    return (
        f"{found.original.size} operators became {found.rule.size}; progress in {', '.join(scoring.names)} "
        f"changed by {change} (standard error)"
    )

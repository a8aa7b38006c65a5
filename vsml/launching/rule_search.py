"""The word of `vsml rules` that searches: a survey of rules drawn at random, or near a known one.

    python -m vsml.rules survey --rules 20480 --save found/
    python -m vsml.rules survey --start backprop --changes 2

Nothing that starts JAX is imported before the command runs.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsml.system.arguments import not_negative, positive
from vsml.system.files import atomic_write, write_json
from vsml.system.hashes import SHOWN_DIGITS

if TYPE_CHECKING:
    from vsml.search import Judge, Survivor
    from vsml.search.survey import Source, Surveyed

_BATCH = 2048
"""Most rules that are judged at once."""

_RULES = 20 * _BATCH

_STAGES = ("S2", "S3", "S4")


def add_command(commands: Any) -> None:
    """Add the word to those of a parser.

    Args:
        commands: what `add_subparsers` returned.
    """
    parser = commands.add_parser("survey", help="say how many rules pass each stage")
    parser.add_argument(
        "--rules", type=positive, default=_RULES, help=f"how many, in batches of at most {_BATCH:,}"
    )
    parser.add_argument(
        "--start", metavar="RULE", help="children of this rule (a known one, or a file); default: drawn ones"
    )
    parser.add_argument("--changes", type=positive, help="mutations of a child of --start (default: 1)")
    parser.add_argument(
        "--stages",
        nargs="+",
        choices=_STAGES,
        default=list(_STAGES),
        help="stages in which rules learn, after S0 and S1 (default: all)",
    )
    parser.add_argument("--seed", type=not_negative, default=0, help="seed of all that is drawn")
    parser.add_argument("--teach", default="error", help="what rules are told (docs/operators.md)")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="write each rule that passes S1 there")
    parser.add_argument("--json", type=Path, metavar="OUT", help="file to write shares and counters to")


def survey(options: argparse.Namespace) -> int:
    """Judge rules, save the survivors, and print how many passed and where the others ended."""
    import jax

    from vsml.search import survey as run_survey

    judge, source = _made(options)
    size = min(_BATCH, options.rules)
    batches = -(-options.rules // size)
    for state in run_survey(judge, source, jax.random.key(options.seed), batches, size):
        if options.save is not None:
            for survivor in state.survivors:
                _save(survivor, options.save)
        rate = state.probed / state.wall_s
        print(
            f"{state.drawn:,} drawn, {state.probed:,} probed ({rate:,.0f}/s), {state.passed:,} passed S1",
            flush=True,
        )
    print()
    for stage, why, count in judge.funnel.rows():
        print(f"{stage}  {count:>10,}  {why}")
    print("\nof all rules, met before or not, passed:")
    shares = _shares(state)
    for stage, (count, share, least, most) in shares.items():
        print(f"{stage}  {count:>10,}  {share:.3%} ({least:.3%} to {most:.3%})")
    if options.json is not None:
        told = {
            "start": options.start,
            "changes": options.changes or (1 if options.start else None),
            "seed": options.seed,
            "drawn": state.drawn,
            "wall_s": state.wall_s,
            "passed": {stage: dict(zip(_SHARE, row, strict=True)) for stage, row in shares.items()},
            "ended": [list(row) for row in judge.funnel.rows()],
        }
        write_json(options.json, told)
    return 0


_SHARE = ("count", "share", "least", "most")


def _shares(state: "Surveyed") -> dict[str, tuple[int, float, float, float]]:
    """Return by stage how many passed, their share, and its 95 % interval (Wilson)."""
    from scipy.stats import binomtest

    found: dict[str, tuple[int, float, float, float]] = {}
    for stage, count in state.reached.items():
        interval = binomtest(count, state.drawn).proportion_ci(method="wilson")
        found[stage] = (count, count / state.drawn, float(interval.low), float(interval.high))
    return found


def _made(options: argparse.Namespace) -> "tuple[Judge, Source]":
    """Return what judges rules, and where they are from.

    Raises:
        ValueError: `--changes` without `--start`, or there is no such rule, or no room for it.
    """
    from vsml.rules import read_rule
    from vsml.rules.settings import Teaching
    from vsml.search import Drawing, Judge, Judging, Room, genome_of
    from vsml.search.survey import drawn, near

    if options.start is None and options.changes is not None:
        raise ValueError(f"--changes: got {options.changes} without --start, expected both")
    # Hurdles stay where they are, so that a share does not depend on the order of rules.
    judging = Judging(percentile=0, learning=tuple(sorted(set(options.stages))))
    teaching = Teaching(teach=options.teach)
    if options.start is None:
        room = Room()
        return Judge(judging, teaching, room, options.seed), drawn(Drawing(), room)
    room = Room(slots=16, constants=10, initial=16, operators=64)
    start = genome_of(read_rule(options.start), room.capacity)
    return Judge(judging, teaching, room, options.seed), near(Drawing(), start, options.changes or 1)


def _save(survivor: "Survivor", folder: Path) -> None:
    """Write a rule to a file that is named after its hash; its first line says what it has passed."""
    from vsml.rules import rule_hash, show
    from vsml.search import rule_of

    rule = rule_of(survivor.genome)
    scores = ", ".join(f"{stage} {score:.3f}" for stage, score in survivor.scores.items())
    told = f"# Of a survey; passed {survivor.stage}. Progress: {scores or 'not measured'}\n"
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / f"{rule_hash(rule)[:SHOWN_DIGITS]}.rule", told + show(rule))

"""The word of `vsml rules` that searches: a survey of rules drawn at random.

    python -m vsml.rules survey --rules 20480 --save found/

Nothing that starts JAX is imported before the command runs.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsml.system.arguments import not_negative, positive
from vsml.system.files import atomic_write

if TYPE_CHECKING:
    from vsml.search import Survivor

_BATCH = 2048
"""Rules that are drawn and judged at once."""


def add_command(commands: Any) -> None:
    """Add the word to those of a parser.

    Args:
        commands: what `add_subparsers` returned.
    """
    parser = commands.add_parser("survey", help="draw rules at random, and say how many pass each stage")
    parser.add_argument(
        "--rules", type=positive, default=20 * _BATCH, help=f"rules to draw, in batches of {_BATCH}"
    )
    parser.add_argument("--seed", type=not_negative, default=0, help="seed of all that is drawn")
    parser.add_argument("--teach", default="error", help="what rules are told (docs/operators.md)")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="write each rule that passes S1 there")


def survey(options: argparse.Namespace) -> int:
    """Draw rules, judge them, save the survivors, and print where the others ended."""
    import jax

    from vsml.rules.settings import Teaching
    from vsml.search import Drawing, Judge, Judging, Room
    from vsml.search import survey as run_survey

    judge = Judge(Judging(), Teaching(teach=options.teach), Room(), options.seed)
    batches = -(-options.rules // _BATCH)
    key = jax.random.key(options.seed)
    for state in run_survey(judge, Drawing(), key, batches, _BATCH):
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
    return 0


def _save(survivor: "Survivor", folder: Path) -> None:
    """Write a rule to a file that is named after its hash; its first line says what it has passed."""
    from vsml.rules import rule_hash, show
    from vsml.search import rule_of

    rule = rule_of(survivor.genome)
    scores = ", ".join(f"{stage} {score:.3f}" for stage, score in survivor.scores.items())
    told = f"# Drawn at random; passed {survivor.stage}. Progress: {scores or 'not measured'}\n"
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / f"{rule_hash(rule)[:12]}.rule", told + show(rule))

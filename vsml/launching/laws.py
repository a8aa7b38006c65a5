"""The command line of laws: what more compute buys, and what to run.

    python -m vsml.laws fit runs/meta_steps/* --x meta_steps
    python -m vsml.laws plan --core_hours 20
    python -m vsml.laws report runs/meta_steps/*
    python -m vsml.laws inner --datasets digits

Nothing that starts JAX is imported before `prepare` has been called.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vsml.launching.ending import USAGE, ended
from vsml.system.arguments import ArgumentParser
from vsml.system.devices import prepare
from vsml.system.terminal import say

if TYPE_CHECKING:
    from vsml.laws.plan import Option
    from vsml.laws.runs import Family, RunPoint
    from vsml.laws.summary import Summary

PROGRAM = "python -m vsml.laws"

_LEAST_SIZES = 3
"""Different sizes from which on `report` tries a law."""

_HOUR_S = 3600.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit status."""
    parser = command_parser()
    words = sys.argv[1:] if arguments is None else list(arguments)
    if not words:
        parser.print_help()
        return 0
    options = parser.parse_args(words)
    prepare()
    commands = {"fit": _fit, "plan": _plan, "report": _report, "inner": _inner}
    return ended(lambda: commands[options.command](options))


def command_parser() -> ArgumentParser:
    """Return the parser of the command line."""
    parser = ArgumentParser(
        prog=PROGRAM,
        description="Laws of learning and of meta-training: what more compute buys. See docs/laws.md.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="fit | plan | report | inner")
    fitting = commands.add_parser("fit", help="fit a law to runs, and keep it for plans and dry runs")
    _add_runs(fitting)
    fitting.add_argument(
        "--x",
        nargs="+",
        required=True,
        metavar="SIZE",
        help="one or two of: see docs/laws.md, such as meta_steps",
    )
    fitting.add_argument(
        "--form", help="power, two_powers, saturating, broken or constant (default: the best)"
    )
    fitting.add_argument(
        "--out", type=Path, default=Path("runs", "laws"), metavar="DIR", help="for file and figure"
    )
    fitting.add_argument("--name", help="of the files (default: the sizes)")
    fitting.add_argument(
        "--beside", metavar="LOSS", help="another loss of the runs, drawn as rings, such as meta-training"
    )
    planning = commands.add_parser("plan", help="say what to run for so much time, and what it will come to")
    planning.add_argument(
        "laws", nargs="*", type=Path, metavar="LAW", help="files of `fit` (default: all there are)"
    )
    planning.add_argument(
        "--core_hours", type=_positive, required=True, metavar="C", help="of one CPU core, or one GPU"
    )
    planning.add_argument(
        "--flops_per_s",
        type=_positive,
        help="counted operations a second (default: as fast as the runs of the law)",
    )
    planning.add_argument("--write", type=Path, metavar="FILE", help="write the best plan as a configuration")
    reporting = commands.add_parser(
        "report", help="fit all laws that runs speak for, into one page with figures"
    )
    _add_runs(reporting)
    reporting.add_argument(
        "--out", type=Path, default=Path("laws_report"), metavar="DIR", help="folder of the page"
    )
    inner = commands.add_parser("inner", help="how much of what n examples hold learners take from them")
    inner.add_argument(
        "--learners", nargs="+", metavar="LEARNER", help="names or files (default: all that ship)"
    )
    inner.add_argument("--datasets", nargs="+", default=["digits"], metavar="NAME", help="NAME or NAME@14x14")
    inner.add_argument(
        "--counts", nargs="+", type=int, default=[10, 30, 100, 250], metavar="N", help="examples"
    )
    inner.add_argument("--sights", type=int, default=4, help="how often the examples are shown (default: 4)")
    inner.add_argument("--episodes", type=int, default=8, help="to average over (default: 8)")
    inner.add_argument("--queries", type=int, default=200, help="examples that are asked and not learned")
    inner.add_argument("--seed", type=int, default=0, help="of the episodes")
    inner.add_argument(
        "--out", type=Path, default=Path("runs", "inner_law"), metavar="DIR", help="for results and figure"
    )
    return parser


def _add_runs(command: argparse.ArgumentParser) -> None:
    command.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a complete run")
    command.add_argument("--loss", help="data set, or meta-training (default: the first that all runs have)")
    command.add_argument(
        "--on_the_way",
        action="store_true",
        help="take evaluations in the course of runs, too: right at a constant rate of learning only",
    )


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text}, expected a number above 0")
    return number


def _read(options: Any) -> "list[RunPoint]":
    """Read the runs of a command."""
    from vsml.launching.schema import load_config
    from vsml.laws.runs import read_points
    from vsml.setup import Setup

    def read_setup(path: Path) -> Setup:
        return Setup(load_config([path], default=None))

    return read_points(options.runs, read_setup, options.on_the_way)


def _fit(options: Any) -> int:
    """Fit a law to each family of runs, print it, and write its file and a figure."""
    from vsml.laws.figure import draw_laws
    from vsml.laws.files import write_law
    from vsml.laws.runs import differing, families
    from vsml.laws.summary import lines, rival_table, summarise
    from vsml.laws.variables import variables_of
    from vsml.reporting.tables import print_table

    points = _read(options)
    found = families(points, variables_of(options.x), options.loss)
    beside = _beside(points, options.x, options.beside) if options.beside else []
    name = options.name or "-".join(options.x)
    summaries: list[Summary] = []
    labels: list[str] = []
    for number, (family, label) in enumerate(zip(found, differing(found), strict=True), start=1):
        say(f"{label or 'all runs'}:")
        try:
            summary = summarise(family, options.form)
        except ValueError as error:
            say(f"  no law: {error}")
            continue
        for line in lines(summary):
            say(f"  {line}")
        print_table(rival_table(summary))
        own_name = name if len(found) == 1 else f"{name}-{number}"
        path = options.out / f"{own_name}.json"
        options.out.mkdir(parents=True, exist_ok=True)
        write_law(path, family)
        say(f"wrote {path}")
        summaries.append(summary)
        labels.append(label or "runs")
    if summaries and len(options.x) == 1:
        path = options.out / f"{name}.png"
        draw_laws(path, summaries, labels, beside)
        say(f"wrote {path}")
    return 0 if summaries else USAGE


def _plan(options: Any) -> int:
    """Print how a time can be spent, the least loss first, and write the best as a configuration."""
    from vsml.laws.files import law_files, read_law
    from vsml.laws.plan import STEPS, configuration, contradictions
    from vsml.laws.plan import options as ways
    from vsml.laws.summary import summarise
    from vsml.reporting.tables import print_table

    paths = options.laws or law_files()
    told: list[tuple[Option, Path]] = []
    summaries: dict[Path, Summary] = {}
    for path in paths:
        family = read_law(path)
        if STEPS not in family.points.names:
            say(f"left out: {path} is not about {STEPS}")
            continue
        summary = summaries[path] = summarise(family)
        told += [
            (option, path) for option in ways(summary, options.core_hours * _HOUR_S, options.flops_per_s)
        ]
    if not told:
        raise ValueError(
            f"plan: got no law of {STEPS}, expected one; `{PROGRAM} fit RUNS --x {STEPS}` makes it"
        )
    losses = {option.family.loss for option, _ in told}
    told.sort(key=lambda pair: pair[0].prediction.law.value)
    print_table(_plan_table(told))
    if len(losses) > 1:
        say(f"losses are of different data sets ({', '.join(sorted(losses))}): compare within one only")
    best, path = told[0]
    for line in [*_caveats(best), *contradictions(best, summaries)]:
        say(line)
    settings = " ".join(f"{key}={value}" for key, value in best.settings.items())
    if options.write is None:
        say(f"best: {settings}, all else as in the runs of {path}; --write FILE makes it a configuration")
        return 0
    _write_plan(
        options.write, configuration(best), f"{options.core_hours:g} core-hours by {path.name}: {settings}"
    )
    say(f"wrote {options.write}; to run it: python launch.py --config_files {options.write}")
    return 0


def _plan_table(told: "Sequence[tuple[Option, Path]]") -> Any:
    from vsml.reporting.tables import Table

    rows = []
    for option, path in told:
        law, run = option.prediction.law, option.prediction.run
        settings = ", ".join(f"{key.rpartition('.')[2]} {value:,}" for key, value in option.settings.items())
        rows.append(
            [
                settings,
                f"{option.flops:.3g}",
                f"{option.seconds / _HOUR_S:.3g} h",
                f"{law.value:.3f}",
                f"{law.low:.3f} to {law.high:.3f}",
                f"{run.low:.3f} to {run.high:.3f}",
                f"{option.beyond:.3g}",
                path.stem,
            ]
        )
    headings = (
        "settings",
        "operations",
        "time",
        "loss",
        "95 %",
        "of one run",
        "times the longest run",
        "law",
    )
    return Table(headings, rows, left=frozenset(("settings", "law")))


def _caveats(option: "Option") -> list[str]:
    """Return what a reader has to know before the plan is believed."""
    from vsml.laws.plan import TRUSTED

    found = []
    if option.beyond > TRUSTED:
        found.append(
            f"a guess: {option.beyond:.3g} times as many meta-steps as were ever measured here; "
            f"laws were checked at up to {TRUSTED:g} times"
        )
    interval = option.prediction.law
    if interval.high - interval.low > 0.1 * interval.value:
        found.append(
            "the interval is wider than a tenth of the loss: make larger runs before spending this time"
        )
    return found


def _write_plan(path: Path, settings: dict[str, Any], what: str) -> None:
    import yaml

    from vsml.system.files import atomic_write

    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, default_flow_style=None)
    atomic_write(path, f"# {what}\n{text}")


def _report(options: Any) -> int:
    """Fit a law of each size that runs have in several values, into one page of Markdown with figures."""
    from vsml.laws.page import Part, write_page
    from vsml.laws.runs import META_TRAINING, differing, families
    from vsml.laws.summary import summarise
    from vsml.laws.variables import VARIABLES, variables_of

    points = _read(options)
    parts: list[Part] = []
    for name in VARIABLES:
        # Of runs of the same cost, measured seconds tell what else the machine did.
        told_by = (name, "flops") if name == "seconds" else (name,)
        if any(_different(points, each) < _LEAST_SIZES for each in told_by):
            continue
        found: list[Family] = families(points, variables_of([name]), options.loss)
        laws = []
        for family, label in zip(found, differing(found), strict=True):
            try:
                laws.append((label or "all runs", summarise(family)))
            except ValueError as error:
                say(f"{name}, {label or 'all runs'}: no law: {error}")
        if laws:
            beside = _beside(points, [name], META_TRAINING) if name == "tasks" else []
            parts.append(Part(name, laws, beside))
    if not parts:
        raise ValueError(f"report: got no size with {_LEAST_SIZES} different values, expected one")
    say(f"wrote {write_page(options.out, parts)}")
    return 0


def _different(points: "Sequence[RunPoint]", size: str) -> int:
    """Return how many different values of a size runs have."""
    return len({point.sizes[size] for point in points if size in point.sizes})


def _beside(points: "Sequence[RunPoint]", sizes: Sequence[str], loss: str) -> "list[Family]":
    """Return the families of runs with another loss; evaluations in the course of a run may lack it.

    Raises:
        ValueError: no run has the loss, or there is no figure to draw it in.
    """
    from vsml.laws.runs import families
    from vsml.laws.variables import variables_of

    if len(sizes) > 1:
        raise ValueError(f"beside: got {len(sizes)} sizes, expected one, of which there is a figure")
    usable = [point for point in points if loss in point.losses]
    if not usable:
        known = sorted({name for point in points for name in point.losses})
        raise ValueError(f"beside: got {loss}, expected one of {', '.join(known)}")
    return families(usable, variables_of(sizes), loss)


def _inner(options: Any) -> int:
    """Measure the inner law, print it, and write results and a figure."""
    from vsml.laws.inner_report import measure_and_write

    measure_and_write(
        out=options.out,
        learners=options.learners,
        datasets=options.datasets,
        counts=options.counts,
        sights=options.sights,
        episodes=options.episodes,
        queries=options.queries,
        seed=options.seed,
    )
    return 0

"""Repair of back-propagation: how soon evolution and its controls mend lines that were removed or changed.

    python benchmarks/repair.py [--lines 1 2] [--seeds 3] [--rules 20000] [--methods evolution best_of]

Each seed breaks other lines (`vsml.search.damage`); damage after which the rule still passes is left out. A
rule counts as repaired when an elite has passed all stages of configs/search/repair.yaml on three fresh
seeds, one after the other: AND, OR and XOR on a layered graph with hidden nodes. All methods get the same
number of rules. Seconds are those of the process, so that other programs count less; compilation is not in
them. Results go to benchmarks/results after each run, unless --json names a file.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # works without the package being installed

from vsml.system.devices import prepare

prepare()  # JAX reads its flags when it is imported

import jax
from rich.console import Console

from benchmarks.report import default_path, record_of, write
from vsml.calls.search_config import SearchConfig
from vsml.launching.schema import load_config
from vsml.reporting.tables import Table
from vsml.rules.known import rule_text
from vsml.search import Breeder, Judge
from vsml.search.damage import damaged
from vsml.search.sources import genomes_of

RULE = "backprop"
METHODS = ("evolution", "best_of", "constants", "random")

_PASSES = 3
"""Fresh seeds, one after the other, that a repaired rule passes."""


def breeder_of(config: SearchConfig, method: str, text: str, seed: int) -> Breeder:
    """Return a breeder that starts from the text of a damaged rule."""
    breeding = config.breeding.model_copy(update={"method": method})
    judge = Judge(config.judging, config.teaching, config.room, seed)
    sources = genomes_of([[text]], config.room)
    if method == "random":
        sources = [[]]
    key = jax.random.key(seed)
    return Breeder(breeding, config.drawing, config.mutations, judge, sources, key)


def compile_all(config: SearchConfig) -> None:
    """Run each compiled function once."""
    breeder = breeder_of(config, "evolution", rule_text(RULE), 0)
    (start,) = breeder.sources[0]
    for number in range(_PASSES):
        breeder.judge.fresh([start], jax.random.key(number))
    breeder.step()
    breeder_of(config, "random", rule_text(RULE), 0).step()


def is_broken(config: SearchConfig, text: str) -> bool:
    """Whether a damaged rule fails on one of three fresh seeds."""
    breeder = breeder_of(config, "evolution", text, 0)
    (start,) = breeder.sources[0]
    for number in range(_PASSES):
        (fitness,) = breeder.judge.fresh([start], jax.random.fold_in(jax.random.key(1), number))
        if fitness < breeder.judge.passing:
            return True
    return False


def broken_texts(config: SearchConfig, lines: int, count: int) -> list[tuple[int, str]]:
    """Return texts of which as many lines are broken, and the seeds of their damage."""
    found: list[tuple[int, str]] = []
    seed = 0
    while len(found) < count:
        text = damaged(rule_text(RULE), lines, seed)
        if is_broken(config, text):
            found.append((seed, text))
        seed += 1
    return found


def repair(
    config: SearchConfig,
    method: str,
    text: str,
    seed: int,
    rules: int,
) -> dict[str, Any]:
    """Breed until the rule is repaired or the rules are used up; return what that took."""
    breeder = breeder_of(config, method, text, seed)
    judge = breeder.judge
    started, cpu = time.monotonic(), time.process_time()
    while judge.funnel.proposed < rules and breeder.solution(_PASSES) is None:
        breeder.step()
    best = breeder.best
    known = judge.funnel.ended.get(("S0", "known: the same program was met before"), 0)
    twins = judge.funnel.ended.get(("S1", "twin: another rule answers the same"), 0)
    return {
        "method": method,
        "solved": breeder.solution(_PASSES) is not None,
        "rules": judge.funnel.proposed,
        "learned": judge.learned,
        "known": known,
        "twins": twins,
        "cpu_s": time.process_time() - cpu,
        "wall_s": time.monotonic() - started,
        "best": None if best is None else best.scores.mean,
    }


def median_of(rows: Sequence[dict[str, Any]], name: str) -> str:
    """Return a median over seeds; more than the largest where most were not solved."""
    values = [row[name] if row["solved"] else float("inf") for row in rows]
    middle = statistics.median_low(values)
    return "not solved" if middle == float("inf") else f"{middle:,.0f}"


def table_of(rows: Sequence[dict[str, Any]]) -> Table:
    """Return the results as a table: medians over seeds."""
    cells = []
    groups = dict.fromkeys((row["lines"], row["method"]) for row in rows)
    for lines, method in groups:
        own = [row for row in rows if (row["lines"], row["method"]) == (lines, method)]
        solved = sum(row["solved"] for row in own)
        medians = [median_of(own, name) for name in ("rules", "learned", "cpu_s")]
        cells.append([str(lines), method, f"{solved}/{len(own)}", *medians])
    headings = ("lines", "method", "repaired", "rules", "scores", "CPU s")
    return Table(headings, cells, "Repair of back-propagation, medians", left=frozenset(["method"]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--lines", type=int, nargs="+", default=[1, 2], help="how many lines are broken")
    parser.add_argument("--seeds", type=int, default=3, help="damages of each number of lines")
    parser.add_argument("--rules", type=int, default=20_000, help="rules that a method may propose")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args(arguments)
    for name in ("seeds", "rules"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}: got {getattr(options, name)}, expected a number above 0")
    config = load_config([ROOT / "configs" / "search" / "repair.yaml"]).search  # type: ignore[attr-defined]
    path = options.json or default_path("repair")
    settings = {"lines": options.lines, "seeds": options.seeds, "rules": options.rules}
    rows: list[dict[str, Any]] = []
    compile_all(config)
    for lines in options.lines:
        for seed, text in broken_texts(config, lines, options.seeds):
            for method in options.methods:
                row = repair(config, method, text, seed, options.rules)
                rows.append({"lines": lines, "damage": seed, **row})
                print(rows[-1], flush=True)
                write(record_of(rows, None, settings), path)
    Console(width=120).print(table_of(rows))
    print(f"results: {path}")


if __name__ == "__main__":
    main()

"""How often good rules survive the stages of the search: each seed is other tasks and other starts.

    python benchmarks/planted.py [--rules backprop delta] [--seeds 32] [--stages S2 S3] [--json FILE]

The fixed hurdles alone stand, as the percentile of other rules would depend on which ones were met. A rule
survives a seed if it passes every length of every stage, one after the other. Results go to
benchmarks/results every few seeds, unless --json names a file.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # works without the package being installed

from vsml.system.devices import prepare

prepare()  # JAX reads its flags when it is imported

from rich.console import Console
from scipy.stats import binomtest

from benchmarks.report import default_path, record_of, write
from vsml.reporting.tables import Table
from vsml.rules import read_rule
from vsml.rules.settings import Teaching
from vsml.search import Judge, Judging, Room, genome_of
from vsml.search.genome import Genome

RULES = ("backprop", "backprop_momentum", "delta", "feedback_alignment", "recurrent_backprop")
STAGES = ("S2", "S3", "S4")

_ROOM = Room(slots=16, constants=12, initial=16, operators=64)

_EVERY = 20
"""Seeds after which the results are written."""


def least_scores(
    genomes: Sequence[Genome],
    stages: Sequence[str],
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Let rules learn in all stages, and return who survived them [R], and progress at their ends [S, R]."""
    judge = Judge(Judging(percentile=0, learning=tuple(stages)), Teaching(), _ROOM, seed)
    survived = np.ones(len(genomes), bool)
    ends = []
    for stage in judge.stages:
        for examples in stage.examples:
            scores = np.array(judge.scores(stage, examples, genomes))
            survived &= scores >= stage.hurdle_at(examples)
        ends.append(scores)
    return survived, np.array(ends)


def survival(names: Sequence[str], seeds: int, stages: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """Yield a row for each rule, ready for JSON, every few seeds and at the end."""
    genomes = [genome_of(read_rule(name), _ROOM.capacity) for name in names]
    survived: list[np.ndarray] = []
    ends: list[np.ndarray] = []
    for seed in range(seeds):
        passed, scores = least_scores(genomes, stages, seed)
        survived.append(passed)
        ends.append(scores)
        if len(survived) % _EVERY and len(survived) < seeds:
            continue
        counts, progress = np.sum(survived, 0), np.array(ends)  # [R], [seeds, S, R]
        rows = []
        for place, name in enumerate(names):
            count, done = int(counts[place]), len(survived)
            least = binomtest(count, done).proportion_ci(method="wilson").low
            row = {"rule": name, "seeds": done, "survived": count, "interval_from": float(least)}
            for number, stage in enumerate(sorted(stages)):
                own = progress[:, number, place]
                row[stage] = {"least": float(own.min()), "median": float(np.median(own))}
            rows.append(row)
        yield rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rules", nargs="+", default=list(RULES), help="known rules, or files")
    parser.add_argument("--seeds", type=int, default=32, help="how many")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=["S2", "S3"], help="which stages")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args(arguments)
    if options.seeds < 1:
        parser.error(f"--seeds: got {options.seeds}, expected a number above 0")
    stages = sorted(set(options.stages))
    path = options.json or default_path("planted")
    settings = {"seeds": options.seeds, "stages": stages}
    for rows in survival(options.rules, options.seeds, stages):
        write(record_of(rows, None, settings), path)
        print(f"{rows[0]['seeds']} seeds: {[row['survived'] for row in rows]}", flush=True)
    cells = []
    for row in rows:
        progress = [f"{row[stage]['least']:.2f}, {row[stage]['median']:.2f}" for stage in stages]
        cells.append([row["rule"], f"{row['survived']} of {row['seeds']}", *progress])
    headings = ("rule", "survived", *(f"{stage}: least, median" for stage in stages))
    Console(width=120).print(Table(headings, cells, "Good rules in the stages", left=frozenset(["rule"])))
    print(f"results: {path}")


if __name__ == "__main__":
    main()

"""Rules a second in the search: drawn, looked at, probed, on one core; and by the schedule of `vmap`.

    python benchmarks/search.py [--rules 1024] [--repetitions 3] [--processes 2] [--seed 0] [--json FILE]

Rules are drawn, and those that S0 leaves are probed on S1's instances: three times by the same interpreter,
as one kernel, as an ordinary loop (`lax.map`), and batched over rules (`vmap`), which computes every operator
for every instruction. All are compiled, then run in turns, and the fastest run of each counts. The time is
that of the process, so that other programs count less; it is one core's. "End to end" is drawing, S0, the
cache of known programs and the probe, for each rule that is probed. "Stored" is the same through `Judge`,
in several processes at once: each has a database of its own, and writes what passes S1 to it, a transaction a
batch. Results go to benchmarks/results, unless
--json names a file.
"""

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # works without the package being installed

from vsml.system.devices import prepare

prepare()  # JAX reads its flags when it is imported

import jax
import numpy as np
from rich.console import Console

from benchmarks.report import default_path, record_of, write
from vsml.reporting.tables import Table
from vsml.rules.settings import Teaching
from vsml.search.drawing import draw_genomes
from vsml.search.genome import Genome, rule_of
from vsml.search.judge import Judge
from vsml.search.judging import Judging
from vsml.search.lesson import Lesson
from vsml.search.one_kernel import one_kernel
from vsml.search.settings import Drawing, Room
from vsml.search.stages import ALIVE, Probe, probe, probe_lesson, screened
from vsml.search.store import Database, Writer, rule_row

DRAWN, LOOKED_AT = "drawing", "S0 and key"
ONE_KERNEL, LOOP, BATCHED = "S1, one kernel", "S1, lax.map", "S1, vmap over rules"
END_TO_END = "end to end"
STORED = "end to end, stored"

_BATCHES = 6
"""Batches of a process that stores; the first one, which compiles, does not count."""

Run = Callable[[], Any]
"""Runs a compiled program once, and waits for it."""


def survivors(genomes: Genome, count: int) -> Genome:
    """Return rules that S0 leaves, each program once, the first ones again where there are too few."""
    reasons, keys = (np.asarray(part) for part in screened(genomes, "error"))
    _, first = np.unique(keys, axis=0, return_index=True)
    places = np.intersect1d(first, np.flatnonzero(reasons == ALIVE))
    chosen = np.resize(places, count)
    return jax.tree.map(lambda array: array[chosen], genomes)


def runs_of(count: int, seed: int) -> dict[str, Run]:
    """Compile what is measured, each on so many rules."""
    drawing, room = Drawing(), Room()
    key = jax.random.key(seed)
    genomes = draw_genomes(drawing, room, key, count)
    alive = survivors(genomes, count)
    lesson = probe_lesson(Teaching(), room.slots)

    def loop(genomes: Genome, lesson: Lesson) -> Probe:
        return jax.lax.map(lambda each: probe(each, lesson), genomes)

    def batched(genomes: Genome, lesson: Lesson) -> Probe:
        return jax.vmap(probe, (0, None))(genomes, lesson)

    ways = {ONE_KERNEL: one_kernel(loop), LOOP: jax.jit(loop), BATCHED: jax.jit(batched)}
    answers = {name: np.asarray(way(alive, lesson).fingerprint) for name, way in ways.items()}
    for name, found in answers.items():
        same = (found == answers[ONE_KERNEL]).all(1).mean()
        # `vmap` may add in another order, so that a rounded digit may differ here and there.
        assert same > 0.95, f"{name}: only {same:.0%} of the rules answer the same"
    runs: dict[str, Run] = {
        DRAWN: lambda: jax.block_until_ready(draw_genomes(drawing, room, key, count)),
        LOOKED_AT: lambda: jax.block_until_ready(screened(genomes, "error")),
    }
    for name, way in ways.items():
        runs[name] = lambda way=way: jax.block_until_ready(way(alive, lesson))
    return runs


def share_probed(count: int, seed: int) -> float:
    """Return the share of drawn rules that come to the probe: left by S0, and not met before."""
    genomes = draw_genomes(Drawing(), Room(), jax.random.key(seed), count)
    reasons, keys = (np.asarray(part) for part in screened(genomes, "error"))
    alive = keys[reasons == ALIVE]
    return len(np.unique(alive, axis=0)) / count


def measure(count: int, repetitions: int, seed: int) -> list[dict[str, Any]]:
    """Return the fastest run of each, ready for JSON, in microseconds of one core a rule."""
    runs = runs_of(count, seed)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repetition in range(repetitions + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if repetition > 0:  # the first one does not count
                times[name].append(time.process_time() - start)
    costs = {name: 1e6 * min(taken) / count for name, taken in times.items()}
    share = share_probed(count, seed)
    costs[END_TO_END] = (costs[DRAWN] + costs[LOOKED_AT]) / share + costs[ONE_KERNEL]
    rows = []
    for name, cost in costs.items():
        row = {"what": name, "us_a_rule": cost, "rules_per_s": 1e6 / cost}
        row["of_one_kernel"] = cost / costs[ONE_KERNEL] if name.startswith("S1") else None
        rows.append(row)
    return rows


def stored_cost(count: int, seed: int) -> float:
    """Return the microseconds of one core that a probed rule takes if what passes S1 is stored."""
    judge = Judge(Judging(), Teaching(), Room(), seed)
    with (
        tempfile.TemporaryDirectory() as folder,
        Database(Path(folder) / "rules.db", create=True) as database,
        Writer(database, Path(folder) / "rules.spool") as writer,
    ):
        start, probed = 0.0, 0
        for number in range(_BATCHES):
            if number == 1:
                start, probed = time.process_time(), judge.funnel.entered("S1")
            key = jax.random.fold_in(jax.random.key(seed), number)
            for survivor in judge.screen(draw_genomes(Drawing(), judge.room, key, count)):
                writer.write(rule_row(rule_of(survivor.genome), "drawn"))
            writer.flush()
        taken = time.process_time() - start
    return 1e6 * taken / (judge.funnel.entered("S1") - probed)


def measure_stored(count: int, processes: int, seed: int) -> dict[str, Any]:
    """Return the row of processes that draw, probe and store at once, each on other rules."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context) as pool:
        seeds = range(seed, seed + processes)
        costs = list(pool.map(stored_cost, [count] * processes, seeds))
    rate = sum(1e6 / cost for cost in costs)
    return {
        "what": f"{STORED}, {processes} process(es)",
        "us_a_rule": statistics.mean(costs),
        "rules_per_s": rate,
        "of_one_kernel": None,
    }


def table_of(rows: Sequence[dict[str, Any]]) -> Table:
    """Return the results as a table."""
    cells = []
    for row in rows:
        ratio = row["of_one_kernel"]
        times = "" if ratio is None else f"{ratio:.1f}"
        cells.append([row["what"], f"{row['us_a_rule']:.1f}", f"{row['rules_per_s']:,.0f}", times])
    headings = ("what", "us of a core a rule", "rules/s", "times one kernel's")
    return Table(headings, cells, "The search for rules, a core for each process", left=frozenset(["what"]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rules", type=int, default=1024, help="rules in a batch")
    parser.add_argument("--repetitions", type=int, default=3, help="timed runs of each")
    parser.add_argument("--processes", type=int, default=2, help="processes that store at once")
    parser.add_argument("--seed", type=int, default=0, help="seed of the rules")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args(arguments)
    for name in ("rules", "repetitions", "processes"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}: got {getattr(options, name)}, expected a number above 0")
    rows = measure(options.rules, options.repetitions, options.seed)
    rows.append(measure_stored(options.rules, options.processes, options.seed))
    Console(width=120).print(table_of(rows))
    names = ("rules", "repetitions", "processes", "seed")
    settings = {name: getattr(options, name) for name in names}
    path = options.json or default_path("search")
    write(record_of(rows, None, settings), path)
    print(f"results: {path}")


if __name__ == "__main__":
    main()

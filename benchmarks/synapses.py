"""Speed and memory of the synapses: every kernel, the plain nested vmap, and Flax's LSTM cells, in one run.

    python benchmarks/synapses.py [--full] [--axes inputs depth convolution population episode memory]
                                  [--inputs 784] [--members 4] [--episode_length 100]
                                  [--contestants tiled reference] [--repetitions 3] [--most_s 3]
                                  [--cpu_time] [--json FILE]

One axis is varied at a time, from the base point that --inputs, --members and --episode_length set. All
contestants of a case are compiled, then run in turns, and the fastest run of each counts: so what else the
machine does hits all alike, and ratios survive a noisy machine. (pytest-benchmark is not used for this: it
finishes with one function before it begins with the next, so their ratio depends on what happened between;
nor has it a place for what compilers report.) Times leave compilation and the drawing of episodes out. What
would take a contestant longer than --most_s for one run, by its pace at the base point, is left out, and so
is what does not fit into memory; --full leaves out nothing for its time. The table says what is missing.

--cpu_time is for CPUs that other work keeps busy: a run takes the CPU time of this process, shared out evenly
among its devices. That is what the clock would say if all devices had worked for themselves all the time.

"of roofline" is the share that is reached of what the machine's rates allow: `make roofline` measures these,
`vsml.cost.roofline` says what it means. Results go to benchmarks/results, unless --json names a file.
"""

import argparse
import dataclasses
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # works without the package being installed

from vsml.system.devices import prepare

prepare()  # JAX reads its flags when it is imported

import jax
import psutil
from rich.console import Console

from benchmarks.cases import Axis, Case, cases
from benchmarks.contestants import Program, build, contestants, make_learner
from benchmarks.report import Result, cost_in, default_path, record_of, rows_of, segments_in, table_of, write
from vsml.cost import roofline

MEMORY_SHARE = 0.8
"""Of the memory there is; what needs more is not run."""

TANH_FLOPS = 21
"""What one transcendental counts where work is compared: the operations of the rational tanh."""

PATIENCE = 4
"""Timed runs of a contestant in a case take at most so many times --most_s; then there are fewer of them."""

Pace = dict[tuple[str, str], float]
"""Seconds for an amount of work, at the base point, by what and contestant."""


def work_in(case: Case) -> float:
    """Return how much there is to do in a case."""
    cost = cost_in(case)
    return case.examples * (cost.flops + TANH_FLOPS * cost.transcendentals)


def free_bytes() -> float:
    """Return the memory that there is for one device."""
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return psutil.virtual_memory().available / jax.local_device_count()
    statistics = device.memory_stats() or {}
    return statistics.get("bytes_limit", math.inf) - statistics.get("bytes_in_use", 0)


def clock() -> float:
    """Return the time in seconds."""
    return time.perf_counter()


def cpu_clock() -> float:
    """Return the CPU time of this process for each of its devices, in seconds."""
    return time.process_time() / jax.local_device_count()


def measure(
    case: Case,
    names: Sequence[str],
    repetitions: int,
    most_s: float,
    pace: Pace,
    now: Callable[[], float] = clock,
) -> list[Result]:
    """Measure all contestants of a case.

    Args:
        case: the case.
        names: of the contestants.
        repetitions: timed runs of each.
        most_s: how long one run may take, by its pace.
        pace: of each contestant; measuring the base point adds it.
        now: what tells the time.
    """
    results: dict[str, Result] = {}
    programs: dict[str, Program] = {}
    for name in names:
        learner = make_learner(case, name)
        expected_s = pace.get((case.what, name), 0.0) * work_in(case)
        if learner is None:
            results[name] = Result(case, name, note="has no convolutions")
        elif case.timed and expected_s > most_s:
            note = f"left out: a run would take about {expected_s:.0f} s"
            results[name] = Result(case, name, note=note)
        else:
            try:
                program = build(case, learner)
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                results[name] = Result(
                    case, name, note="left out: compiling it needs more memory than there is"
                )
                continue
            needed, there = program.memory_bytes, free_bytes()
            results[name] = Result(case, name, memory_bytes=needed)
            if case.timed and needed > MEMORY_SHARE * there:
                note = f"not run: it needs {needed / 2**30:.3g} GiB of the {there / 2**30:.3g} GiB there are"
                results[name] = Result(case, name, memory_bytes=needed, note=note)
            elif case.timed:
                programs[name] = program
    for name, best_s in best_times(programs, repetitions, PATIENCE * most_s, now).items():
        memory_bytes = results[name].memory_bytes
        results[name] = Result(case, name, case.examples / best_s, memory_bytes)
        if case.axis == "base":
            pace[case.what, name] = best_s / work_in(case)
    return list(results.values())


def best_times(
    programs: dict[str, Program],
    repetitions: int,
    patience_s: float,
    now: Callable[[], float] = clock,
) -> dict[str, float]:
    """Return the shortest time of each program in seconds, after one run that does not count.

    They are run in turns. One that has used up `patience_s` has had enough runs.
    """
    arguments = {name: jax.block_until_ready(program.draw()) for name, program in programs.items()}
    times: dict[str, list[float]] = {name: [] for name in programs}
    for repetition in range(repetitions + 1):
        for name, program in programs.items():
            if repetition > 1 and sum(times[name]) > patience_s:
                continue
            start = now()
            jax.block_until_ready(program.compiled(*arguments[name]))
            if repetition > 0:
                times[name].append(now() - start)
    return {name: min(taken) for name, taken in times.items()}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    devices = jax.local_device_count()
    on_cpu = jax.default_backend() == "cpu"
    names = contestants()
    axes = get_args(Axis)
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--full", action="store_true", help="leave out nothing for its time (on a GPU)")
    parser.add_argument("--axes", nargs="+", choices=axes, default=axes, help="what to vary; base: nothing")
    parser.add_argument("--inputs", type=int, default=784, help="input units of the base point")
    parser.add_argument("--episode_length", type=int, default=100, help="steps T of the base point")
    members = (2 if on_cpu else 256) * devices
    parser.add_argument("--members", type=int, default=members, help="members at once, on all devices")
    parser.add_argument("--contestants", nargs="+", choices=names, default=names, help="who")
    parser.add_argument("--repetitions", type=int, default=3, help="timed runs of each")
    parser.add_argument("--most_s", type=float, default=3.0, help="longest run, estimated, in seconds")
    parser.add_argument("--cpu_time", action="store_true", help="count CPU time, on a busy CPU")
    parser.add_argument("--json", type=Path, metavar="FILE", help="file for the numbers")
    options = parser.parse_args(arguments)
    for name in ("inputs", "episode_length", "members", "repetitions", "most_s"):
        if getattr(options, name) <= 0:
            parser.error(f"--{name}: got {getattr(options, name)}, expected more than 0")
    if options.cpu_time and not on_cpu:
        parser.error("--cpu_time: is for CPUs")
    if options.full:
        options.most_s = math.inf
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table and write the JSON file."""
    options = parse(arguments)
    console = Console()
    if not console.is_terminal:
        console.width = 160  # a file has no width; that of a narrow terminal would cut numbers off
    base = Case(
        "base",
        "forward",
        inputs=options.inputs,
        members=options.members,
        episode_length=options.episode_length,
    )
    settings = {
        "axes": list(options.axes),
        "repetitions": options.repetitions,
        "most_s": options.most_s if math.isfinite(options.most_s) else None,
        "cpu_time": options.cpu_time,
    }
    path = options.json or default_path()
    rates, pace, results = roofline.load(), Pace(), []
    now = cpu_clock if options.cpu_time else clock
    for case in cases(base, options.axes):
        if not case.segmented and segments_in(dataclasses.replace(case, segmented=True)) == 1:
            continue  # it would be the same again
        told = f"{case.what}, {case.layers}, T = {case.episode_length}, {case.members} members"
        if not console.is_terminal:
            print(told, file=sys.stderr, flush=True)
        with console.status(told):
            results += measure(case, options.contestants, options.repetitions, options.most_s, pace, now)
        rows = rows_of(results, rates)
        write(record_of(rows, rates, settings), path)  # at once, so that stopping it keeps what there is
    console.print(table_of(rows, roofline.machine_name()))
    if rates is None:
        console.print(
            f"The rates of this machine are not known, so no roofline: {roofline.COMMAND} measures them."
        )
    console.print(f"written to {path}", soft_wrap=True)


if __name__ == "__main__":
    main()

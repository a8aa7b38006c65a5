"""Strong scaling: the same meta step on 1, 2 and 4 ranks, where its time goes, and what the model says.

    python benchmarks/scaling.py [--ranks 1 2 4] [--steps 5] [--json FILE]
                                 [--config_files FILE ...] [--config KEY=VALUE ...]
    python benchmarks/scaling.py --predict flops_per_s=1e13 step_s=2e-4 ... --ranks 1 8 128 1024
                                 --config_files configs/rand_proj.yaml

The first form starts itself under mpirun, each rank bound to a core of its own while there are enough cores,
and takes real meta steps (`vsml.calls.train.meta_step`) with a stopwatch around the communicator and the
outer loop. The fastest meta step counts, with its parts, each of the slowest rank: evaluation, in time and in
CPU time (less than the time where the machine is busy with something else), ask and tell, and the transfer
after a barrier; and the mean wait at this barrier. The model (`vsml.cost.ranks`) is fitted to one rank, and
its messages to those of two ranks; more ranks are predicted.
The second form predicts only, for any machine: its arguments are those of `vsml.cost.ranks.Machine`.
"""

import argparse
import dataclasses
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # works without the package being installed

from vsml.reporting.tables import Table
from vsml.system.devices import prepare

prepare()  # JAX reads its flags when it is imported

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from vsml.config.files import ConfigError
from vsml.cost.ranks import Machine, Work, efficient_ranks, exchange_time, meta_step_time, work_of
from vsml.launching.schema import load_config
from vsml.meta.mapping import map_trials, tree_sum
from vsml.meta.optimizers.evosax import Evolution
from vsml.meta.step import meta_step
from vsml.meta.trials import Results
from vsml.setup import Setup
from vsml.system.comm import Communicator, abort_on_error, connect
from vsml.system.files import library_versions

PROBLEM = (
    "training={dataset: digits, population_size: 32, chunk_size: 4, episode_length: 100}",
    "evaluation.datasets=[]",
)
"""What is measured unless something else is asked for: real digits, 64 inputs, 8 chunks."""

PAIRS = 1024
"""Population of the paper, whose exchange is measured by itself: two losses, two accuracies a pair."""

PARAMETERS = 2384
"""Meta-parameters of the paper's synapse; a chunk of back-propagation sends as many numbers."""

LARGE_BYTES = 4 * 2**20
"""Message that tells the bandwidth."""

MESSAGES = 200
"""How often an exchange is repeated; the fastest counts."""


class TimedCommunicator:
    """Passes everything on, and times what an exchange is made of."""

    def __init__(self, comm: Communicator):
        self.comm, self.rank, self.size = comm, comm.rank, comm.size
        self.arrived = self.arrived_cpu = self.waited_s = self.transfer_s = 0.0
        self.sent_bytes = 0

    def allgather(self, array: np.ndarray) -> np.ndarray:
        self.arrived, self.arrived_cpu = time.perf_counter(), time.process_time()
        self.comm.barrier()
        together = time.perf_counter()
        gathered = self.comm.allgather(array)
        self.waited_s = together - self.arrived
        self.transfer_s = time.perf_counter() - together
        self.sent_bytes = array.nbytes
        return gathered


class TimedOptimizer:
    """Passes everything on, and times ask and tell."""

    def __init__(self, optimizer: Any):
        self.optimizer, self.objective = optimizer, optimizer.objective
        self.trial_members = optimizer.trial_members
        self.evaluate = optimizer.evaluate
        self.asked = self.asked_cpu = self.ask_tell_s = 0.0

    def ask(self, state: Any) -> Any:
        start = time.perf_counter()
        asked = jax.block_until_ready(self.optimizer.ask(state))
        self.asked, self.asked_cpu = time.perf_counter(), time.process_time()
        self.ask_tell_s = self.asked - start
        return asked

    def tell(self, state: Any, members: Any, results: Results) -> Any:
        start = time.perf_counter()
        told = jax.block_until_ready(self.optimizer.tell(state, members, results))
        self.ask_tell_s += time.perf_counter() - start
        return told


def best_time(
    function: Callable[[], Any], repetitions: int, before: Callable[[], Any] = lambda: None
) -> float:
    """Return the shortest time in seconds, after one run that does not count."""
    taken = []
    for _ in range(repetitions + 1):
        before()
        start = time.perf_counter()
        function()
        taken.append(time.perf_counter() - start)
    return min(taken[1:])


def measure(setup: Setup, steps: int, comm: Communicator) -> dict[str, Any]:
    """Take meta steps on the ranks there are, and time messages between them.

    Returns:
        The parts of the fastest meta step, and what the model needs, the same on every rank.
    """
    chunks = setup.chunks(setup.load_groups(comm), comm)
    params = setup.learner.init_params(jax.random.key(0))
    optimizer: Any = TimedOptimizer(setup.optimizer(params))
    timed: Any = TimedCommunicator(comm)
    state = optimizer.optimizer.init(jax.random.key(1), params)
    rows = []
    for step in range(steps + 1):
        comm.barrier()
        start = time.perf_counter()
        state, _ = meta_step(optimizer, state, chunks, jax.random.key(step), timed)
        total = time.perf_counter() - start
        evaluation = timed.arrived - optimizer.asked
        cpu = timed.arrived_cpu - optimizer.asked_cpu
        rows.append([total, evaluation, cpu, optimizer.ask_tell_s, timed.transfer_s, timed.waited_s])
    ranks_steps_parts = comm.allgather(np.array(rows[1:]))  # the first step compiles
    slowest, mean = ranks_steps_parts.max(0), ranks_steps_parts.mean(0)
    fastest = int(slowest[:, 0].argmin())
    names = ("total_s", "evaluation_s", "evaluation_cpu_s", "ask_tell_s", "transfer_s")
    return {
        **dict(zip(names, map(float, slowest[fastest]), strict=False)),
        "waited_s": float(mean[fastest, -1]),
        "ranks": comm.size,
        "cores": float(comm.allgather(np.array(jax.local_device_count())).mean()),
        "sent_bytes": timed.sent_bytes,
        "received_bytes": timed.sent_bytes * (comm.size - 1),
        "messages": messages(comm),
        **(alone(setup, params) if comm.size == 1 else {}),
    }


def messages(comm: Communicator) -> dict[str, float]:
    """Return the times of exchanges alone, in seconds, by what is exchanged."""
    sent = {
        "empty": 1,
        "evolution": -(-16 * PAIRS // comm.size),
        "gradient": 4 * (PARAMETERS + 2),
        "large": LARGE_BYTES,
    }
    times = {}
    for name, size in sent.items():
        data = np.zeros(size, np.uint8)
        repetitions = MESSAGES if size < LARGE_BYTES else 10
        best = best_time(partial(comm.allgather, data), repetitions, before=comm.barrier)
        times[name] = float(comm.allgather(np.array(best)).max())
    return times


def alone(setup: Setup, params: Any) -> dict[str, float]:
    """Return what one rank tells about an empty call, and about ask and tell of the paper's population."""
    training = setup.config.training.model_copy(update={"population_size": PAIRS, "chunk_size": None})
    resized = Setup(setup.config.model_copy(update={"training": training}))
    optimizer = resized.optimizer(params)
    shape = (PAIRS, optimizer.trial_members)
    results = Results(
        loss=np.random.default_rng(0).normal(size=shape).astype(np.float32),
        score=np.zeros(shape, np.float32),
        gradient=np.zeros(work_of(resized, 1).row_bytes // 4 - 2 * math.prod(shape), np.float32),
    )
    state = optimizer.init(jax.random.key(1), params)

    def ask_tell() -> None:
        asked, members = jax.block_until_ready(optimizer.ask(state))
        jax.block_until_ready(optimizer.tell(asked, members, results))

    empty = jax.jit(lambda trials: map_trials(lambda trial, shared: trial, trials))
    units = jnp.zeros(1)
    # What is drawn, `fit` takes from ask and tell themselves; sums of gradients are not part of them.
    gradients = np.zeros((PAIRS, PARAMETERS), np.float32)
    summed = best_time(lambda: tree_sum(gradients), 5) / gradients.size
    return {
        **({} if isinstance(optimizer, Evolution) else {"number_s": summed}),
        "call_s": best_time(lambda: jax.device_get(empty(units)), MESSAGES),
        "ask_tell_s_of_the_papers_population": best_time(ask_tell, 5),
    }


def fit(work: Work, one: dict[str, Any], two: dict[str, Any] | None, devices: int) -> Machine:
    """Fit the model to what one rank measured, and its messages to those of two ranks."""
    latency_s = two["messages"]["empty"] if two else 0.0
    calls_s = len(work.chunk_flops) * one["call_s"]
    return Machine(
        flops_per_s=sum(work.chunk_flops) / (one["evaluation_s"] - calls_s),
        call_s=one["call_s"],
        replicated_s=one["ask_tell_s"] if "number_s" in one else 0.0,
        number_s=one.get("number_s", one["ask_tell_s"] / work.replicated_numbers),
        latency_s=latency_s,
        bytes_per_s=LARGE_BYTES / (two["messages"]["large"] - latency_s) if two else math.inf,
        devices=devices,
    )


def start_ranks(ranks: int, cores: int, folder: Path, arguments: Sequence[str]) -> dict[str, Any]:
    """Measure on a number of ranks, in processes of their own.

    Raises:
        RuntimeError: they failed; what they said is on stderr.
    """
    result = folder / f"{ranks}.json"
    binding = ["--bind-to", "core"] if ranks <= cores else ["--bind-to", "none", "--map-by", ":OVERSUBSCRIBE"]
    mpirun = Path(sys.executable).with_name("mpirun")
    command = [str(mpirun if mpirun.exists() else "mpirun"), "-n", str(ranks), *binding]
    command += [sys.executable, str(Path(__file__).resolve()), "--worker", str(result), *arguments]
    environment = {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),  # all ranks compile the same
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    } | {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "OMP_NUM_THREADS")}
    if os.geteuid() == 0:  # as in a container; mpirun would refuse
        environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    code = subprocess.run(command, env=environment, stdout=subprocess.DEVNULL).returncode
    if code != 0:
        raise RuntimeError(f"{ranks} rank(s) failed with exit code {code}: {' '.join(command)}")
    return json.loads(result.read_text())


def milliseconds(*seconds: float) -> list[str]:
    return [f"{1000 * each:,.2f}" for each in seconds]


def report(measured: Sequence[dict[str, Any]], predicted: Sequence[dict[str, float]], cores: int) -> Table:
    """Return a table with a line for what was measured, and one for what the model says, for each size."""
    headings = (
        "total",
        "evaluation",
        "its CPU",
        "ask + tell",
        "transfer",
        "wait",
        "sent B",
        "recv B",
        "speed-up",
    )
    rows = []
    for m, p in zip(measured, predicted, strict=True):
        parts = ("total_s", "evaluation_s", "evaluation_cpu_s", "ask_tell_s", "transfer_s", "waited_s")
        speedup = f"{measured[0]['total_s'] / m['total_s']:.2f}"
        traffic = (f"{m['sent_bytes']:,}", f"{m['received_bytes']:,}")
        over = "*" if m["ranks"] > cores else ""
        times = milliseconds(*(m[name] for name in parts))
        rows.append([f"{m['ranks']}{over}", "measured", *times, *traffic, speedup])
        total, evaluation = milliseconds(p["total_s"], p["evaluation_s"] + p["calls_s"])
        rest = milliseconds(p["replicated_s"], p["exchange_s"])
        speedup = f"{predicted[0]['total_s'] / p['total_s']:.2f}"
        what = "predicted" if m["ranks"] > 1 else "fitted"
        rows.append(["", what, total, evaluation, "", *rest, "", "", "", speedup])
    return Table(
        ("ranks", "what", *headings),
        rows,
        title=f"a meta step in milliseconds, on {cores} core(s)",
        caption="* oversubscribed: more ranks than cores, bound to none",
        left=frozenset(["what"]),
    )


def message_table(measured: Sequence[dict[str, Any]]) -> Table:
    """Return a table of exchanges alone, as shares of a meta step of one second."""
    columns = {
        f"{PAIRS:,} pairs": "evolution",
        f"a gradient of {PARAMETERS:,} a rank": "gradient",
        "1 byte a rank": "empty",
    }
    rows = []
    for m in measured:
        times = [m["messages"][name] for name in columns.values()]
        rows.append([str(m["ranks"]), *[f"{1000 * taken:.3f} ms, {taken:.4%}" for taken in times]])
    return Table(("ranks", *columns), rows, "exchanges alone, and their share of a meta step of 1 s")


def parts_of(machine: Machine, work: Work, ranks: int) -> dict[str, float]:
    predicted = meta_step_time(machine, work, ranks)
    return dataclasses.asdict(predicted) | {"total_s": predicted.total_s}


def predict(setup: Setup, machine: Machine, ranks: Sequence[int]) -> tuple[Table, dict[str, Any]]:
    """Predict meta steps of a run for numbers of ranks."""
    works = {number: work_of(setup, number) for number in {1, *ranks}}
    alone_s = meta_step_time(machine, works[1], 1).total_s
    headings = ("ranks", "units a chunk", "total", "evaluation", "calls", "ask + tell", "exchange")
    title = f"a meta step in milliseconds, predicted for {setup.config.name or 'the configuration'}"
    lines = []
    rows = {}
    for number in ranks:
        parts = parts_of(machine, works[number], number)
        units = setup.config.training.population_size / len(works[number].chunk_flops)
        speedup = alone_s / parts["total_s"]
        shown = ("total_s", "evaluation_s", "calls_s", "replicated_s", "exchange_s")
        cells = [f"{units:g}", *milliseconds(*(parts[name] for name in shown)), f"{parts['exchange_s']:.3%}"]
        lines.append([str(number), *cells, f"{speedup:.1f}", f"{speedup / number:.0%}"])
        rows[number] = parts | {"speedup": speedup, "efficiency": speedup / number}
    best = efficient_ranks(machine, works.__getitem__, ranks)
    caption = f"efficiency is at least 50 % up to {best} of these"
    table = Table((*headings, "share of 1 s", "speed-up", "efficiency"), lines, title, caption)
    return table, {"machine": dataclasses.asdict(machine), "ranks": rows}


def machine_of(settings: Sequence[str]) -> Machine:
    """Read name=value settings of a machine.

    Raises:
        ValueError: a name is unknown or a value no number.
    """
    names = {field.name for field in dataclasses.fields(Machine)}
    values: dict[str, Any] = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        if name not in names:
            raise ValueError(
                f"--predict: got {setting!r}, expected NAME=VALUE with one of {', '.join(sorted(names))}"
            )
        try:
            values[name] = int(value) if name == "devices" else float(value)
        except ValueError as error:
            raise ValueError(f"--predict: got {setting!r}, expected a number") from error
    if "flops_per_s" not in values:
        raise ValueError("--predict: expected flops_per_s=VALUE, the FLOP rate of a device")
    return Machine(**values)


def scaling(setup: Setup, options: argparse.Namespace, passed: Sequence[str], console: Console) -> None:
    """Measure on every number of ranks, fit, predict, and print."""
    cores = len(os.sched_getaffinity(0))
    measured = []
    with tempfile.TemporaryDirectory() as folder:
        for ranks in options.ranks:
            with console.status(f"{ranks} rank(s)"):
                measured.append(start_ranks(ranks, cores, Path(folder), passed))
    two = next((each for each in measured if each["ranks"] == 2), None)
    machine = fit(work_of(setup, 1), measured[0], two, devices=cores)
    predicted = [parts_of(machine, work_of(setup, m["ranks"]), m["ranks"]) for m in measured]
    console.print(report(measured, predicted, cores))
    console.print(message_table(measured))
    console.print(f"fitted: {machine}")
    paper_s = measured[0]["ask_tell_s_of_the_papers_population"]
    console.print(f"ask and tell of {PAIRS:,} units alone, on every rank: {1000 * paper_s:.1f} ms")
    small = exchange_time(machine, 16, PAIRS)
    console.print(
        f"{PAIRS:,} ranks with such messages, one pair each: {1000 * small:.2f} ms, {small:.3%} of 1 s"
    )
    if options.json:
        record = {"versions": library_versions(), "cores": cores, "machine": dataclasses.asdict(machine)}
        record |= {"measured": measured, "predicted": predicted}
        options.json.write_text(json.dumps(record, indent=2) + "\n")


def main() -> None:
    """Measure or predict, print the tables and write the JSON file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4], help="numbers of ranks")
    parser.add_argument("--steps", type=int, default=5, help="timed meta steps for each")
    parser.add_argument(
        "--config_files", nargs="+", action="extend", default=[], metavar="FILE", help="as for launch.py"
    )
    parser.add_argument(
        "--config", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="as for launch.py"
    )
    parser.add_argument("--predict", nargs="+", metavar="NAME=VALUE", help="predict for this machine only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="file for the numbers")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    console = Console()
    if not console.is_terminal:
        console.width = 120  # a file has no width; that of a narrow terminal would cut numbers off
    if min(*options.ranks, options.steps) < 1:
        parser.error("--ranks and --steps: expected at least 1")
    if not options.predict and options.ranks[0] != 1:
        parser.error(f"--ranks: got {options.ranks}, expected 1 first: the model is fitted to it")
    settings = [*([] if options.config_files else PROBLEM), *options.config]
    try:
        setup = Setup(load_config(options.config_files, settings))
        if options.predict:
            table, record = predict(setup, machine_of(options.predict), options.ranks)
            console.print(table)
            if options.json:
                options.json.write_text(json.dumps(record, indent=2) + "\n")
            return
    except (ConfigError, ValueError) as error:
        parser.error(str(error))
    if options.worker:
        comm = connect()
        with abort_on_error(comm):
            result = measure(setup, options.steps, comm)
            if comm.rank == 0:
                options.worker.write_text(json.dumps(result))
        return
    passed = ["--steps", str(options.steps)]
    for name in ("config_files", "config"):
        given = getattr(options, name)
        passed += [f"--{name}", *given] if given else []
    scaling(setup, options, passed, console)


if __name__ == "__main__":
    main()

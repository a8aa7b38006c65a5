"""Measure what this machine can do at best, once, and keep it for bounds on other times.

    python benchmarks/roofline.py [--repetitions 50] [--fresh] [--json FILE]

All devices of the process compute side by side, as they do for the members of a population. Each resource is
asked for by programs of several sizes, each some milliseconds long, many times; the best rate counts, so
that what else the machine does matters little (on one that is never quiet the rates come out too low).
On a CPU everything is measured twice, with XLA's preferred width of vectors and with the widest, in a process
for each: a bound is about the machine, not about a compiler's default.

What an earlier measurement stored counts, too, unless --fresh: others' work can only make rates look too low.

What is measured, and how a bound follows from it, is said in `vsml.cost.roofline`, which also stores it.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from rich.console import Console

from vsml.cost.roofline import Roofline, load, machine_name, save
from vsml.networks.kernels.activations import tanh
from vsml.types import Array

WIDEST_VECTORS = "--xla_cpu_prefer_vector_width=512"

GATES, STATE = 64, 16
"""Of the product that a synapse needs: `hidden` [4N, N] times h [N, synapses]."""

MULTIPLY_ADDS = (8, 32, 128)
"""Lengths of the chains of multiply-adds on one element: long enough for its load and store not to count."""

ACCELERATOR_TANHS = 16
"""Likewise, how many tanh on one element, where memory is slower than they are."""

FIRST_LEVEL_BYTES = 2**17
"""Smaller arrays than twice this may fit into a core's first cache, where no state of a learner does."""

LEAST_TURNS = 8
"""Of a loop, so that copying its input does not count."""

PATIENCE_S = 2.0
"""Time for the repetitions of one program; what takes longer is repeated less often."""


@dataclass(frozen=True)
class Sizes:
    """How large the programs are, each resource's in turn.

    Attributes:
        matrices: sides of square matrices.
        synapses: columns of the small products.
        elements: of arrays of elementwise programs.
        tanhs: on one element.
        copied_bytes: of arrays that are read and written, small to large; the last lies in memory.
        least_s: of a timed run.
    """

    matrices: tuple[int, ...]
    synapses: tuple[int, ...]
    elements: tuple[int, ...]
    tanhs: int
    copied_bytes: tuple[int, ...]
    least_s: float


CPU = Sizes(
    matrices=(128, 256, 512),
    synapses=(256, 1024, 4096),
    elements=(2**12, 2**14, 2**16),
    tanhs=1,
    copied_bytes=(*(2**k for k in range(18, 26)), 2**28),
    least_s=0.004,
)
ACCELERATOR = Sizes(
    matrices=(2048, 4096, 8192),
    synapses=(2**18, 2**21, 2**23),
    elements=(2**22, 2**25, 2**27),
    tanhs=ACCELERATOR_TANHS,
    copied_bytes=(*(2**k for k in range(20, 29)), 2**31),
    least_s=0.02,
)


@dataclass(frozen=True)
class Program:
    """A loop to time.

    Attributes:
        resource: what it asks for.
        size: of its arrays; of a copy, in bytes.
        work: of one turn on one device: FLOP, tanh or bytes.
        step: one turn.
        start: what it starts from, on each device.
    """

    resource: str
    size: int
    work: float
    step: Callable[[Array], Array]
    start: tuple[int, ...]


def programs(sizes: Sizes) -> list[Program]:
    """Return all programs. Their numbers stay as they are, or harmless: no overflow, nothing denormal."""
    found = []
    for n in sizes.matrices:
        found.append(Program("matrix", n, 2 * n**3, lambda y, n=n: y @ jnp.full((n, n), 1 / n), (n, n)))
    for n in sizes.synapses:
        work = 2 * 2 * GATES * STATE * n  # there, and back with as much
        found.append(Program("small matrix", n, work, _gates_and_back, (STATE, n)))
    for n in sizes.elements:
        for length in MULTIPLY_ADDS:
            step = _repeated(lambda y: y * 0.5 + 0.5, length)
            found.append(Program("multiply-add", n, 2 * length * n, step, (n,)))
        for name, function in (("tanh", jnp.tanh), ("rational tanh", tanh)):
            found.append(Program(name, n, sizes.tanhs * n, _repeated(function, sizes.tanhs), (n,)))
    for size in sizes.copied_bytes:
        found.append(Program("copy", size, 2 * size, lambda y: y * 0.5 + 0.5, (size // 4,)))
    return found


def _gates_and_back(h: Array) -> Array:
    return jnp.full((STATE, GATES), 1 / GATES) @ (jnp.full((GATES, STATE), 1 / STATE) @ h)


def _repeated(function: Callable[[Array], Array], times: int) -> Callable[[Array], Array]:
    def step(y: Array) -> Array:
        for _ in range(times):
            y = function(y)
        return y

    return step


def rates(sizes: Sizes, repetitions: int) -> list[tuple[Program, float]]:
    """Return the best rate of each program, of all devices together, a second."""
    mesh = Mesh(np.array(jax.local_devices()), ("devices",))
    split = NamedSharding(mesh, PartitionSpec("devices"))
    devices = len(mesh.devices)
    results = []
    for program in programs(sizes):

        def loop(y: Array, turns: Array, step: Callable[[Array], Array] = program.step) -> Array:
            return jax.lax.fori_loop(0, turns, lambda _, y: step(y), y[0])[None]

        spec = PartitionSpec("devices")
        compiled = jax.jit(
            jax.shard_map(loop, mesh=mesh, in_specs=(spec, PartitionSpec()), out_specs=spec, check_vma=False)
        )
        y = jax.jit(lambda shape=program.start: jnp.ones((devices, *shape)), out_shardings=split)()

        def seconds(turns: int, compiled: Any = compiled, y: Array = y) -> float:
            start = time.perf_counter()
            jax.block_until_ready(compiled(y, turns))
            return time.perf_counter() - start

        turns = LEAST_TURNS
        seconds(turns)  # compiles
        while min(seconds(turns) for _ in range(2)) < sizes.least_s:
            turns *= 2
        best, begun = seconds(turns), time.perf_counter()
        for _ in range(repetitions):
            if time.perf_counter() - begun > PATIENCE_S:
                break
            best = min(best, seconds(turns))
        results.append((program, devices * turns * program.work / best))
    return results


def measure(sizes: Sizes | None = None, repetitions: int = 50) -> Roofline:
    """Measure all resources of this process.

    Args:
        sizes: of the programs; None for those of the platform.
        repetitions: of each program.
    """
    on_cpu = jax.default_backend() == "cpu"
    if sizes is None:
        sizes = CPU if on_cpu else ACCELERATOR
    measured = rates(sizes, repetitions)

    def best(resource: str) -> float:
        return max(rate for program, rate in measured if program.resource == resource)

    copied = {program.size: rate for program, rate in measured if program.resource == "copy"}
    memory = copied[max(copied)]
    cached = {size: rate for size, rate in copied.items() if size > FIRST_LEVEL_BYTES} or copied
    cache = max(cached.values())
    # Where the rate has fallen half way, by factors, from that of the cache to that of memory.
    fitting = [size for size, rate in cached.items() if rate >= (cache * memory) ** 0.5]
    return Roofline(
        machine=machine_name(),
        shared_units=on_cpu,
        matrix_flops_per_s=best("matrix"),
        small_matrix_flops_per_s=best("small matrix"),
        multiply_add_flops_per_s=best("multiply-add"),
        tanh_per_s=best("tanh"),
        rational_tanh_per_s=best("rational tanh"),
        cache_bytes_per_s=cache,
        memory_bytes_per_s=memory,
        cache_bytes=max(fitting),
    )


def better(one: Roofline, other: Roofline) -> Roofline:
    """Return the best of two measurements of a machine, rate by rate."""
    pairs = zip(dataclasses.asdict(one).items(), dataclasses.asdict(other).values(), strict=True)
    return Roofline(**{name: max(a, b) if isinstance(a, int | float) else a for (name, a), b in pairs})


def measure_in_a_process(repetitions: int, flag: str = "") -> Roofline:
    """Measure with a flag of XLA more.

    Raises:
        subprocess.CalledProcessError: it failed; what it said is on stderr.
    """
    command = [sys.executable, __file__, "--worker", "--repetitions", str(repetitions)]
    environment = os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()}
    told = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True).stdout
    return Roofline(**json.loads(told))


def earlier(machine: str) -> Roofline | None:
    """Return what is stored of a machine; None if there is nothing, or nothing of use."""
    try:
        return load(machine)
    except ValueError:  # it is about to be replaced
        return None


def table_of(roofline: Roofline) -> Table:
    """Return the rates as a table."""
    rates = (
        ("matrix products, best size", roofline.matrix_flops_per_s, "GFLOP/s"),
        (f"matrix products [{GATES}, {STATE}] x [{STATE}, n]", roofline.small_matrix_flops_per_s, "GFLOP/s"),
        ("multiply-adds, elementwise", roofline.multiply_add_flops_per_s, "GFLOP/s"),
        ("tanh of XLA", roofline.tanh_per_s, "G/s"),
        ("tanh as a rational function", roofline.rational_tanh_per_s, "G/s"),
        ("cache, read and written", roofline.cache_bytes_per_s, "GB/s"),
        ("memory, read and written", roofline.memory_bytes_per_s, "GB/s"),
    )
    rows = [(name, f"{value / 1e9:,.3g} {unit}") for name, value, unit in rates]
    rows.append(("what the cache of a device holds", f"{roofline.cache_bytes / 2**20:.3g} MiB"))
    return Table(("resource", "rate"), rows, roofline.machine, left=frozenset(["resource"]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and store."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repetitions", type=int, default=50, help="timed runs of each program")
    parser.add_argument("--fresh", action="store_true", help="forget what an earlier measurement stored")
    parser.add_argument("--json", type=Path, metavar="FILE", help="another file for the numbers")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.repetitions < 1:
        parser.error(f"--repetitions: got {options.repetitions}, expected at least 1")
    if options.worker:
        print(json.dumps(dataclasses.asdict(measure(repetitions=options.repetitions))))
        return
    console = Console()
    with console.status("measuring, about a minute"):  # JAX is not started here: it would take a GPU's memory
        roofline = measure_in_a_process(options.repetitions)
        if roofline.shared_units:
            wide = measure_in_a_process(options.repetitions, WIDEST_VECTORS)
            roofline = better(roofline, wide)
    stored = None if options.fresh else earlier(roofline.machine)
    roofline = better(roofline, stored) if stored else roofline
    console.print(table_of(roofline))
    path = save(roofline)
    console.print(f"stored in {path}", soft_wrap=True)
    if options.json:
        options.json.write_text(json.dumps(dataclasses.asdict(roofline), indent=2) + "\n")


if __name__ == "__main__":
    main()

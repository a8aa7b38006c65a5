"""Speed and memory of the synapses: the tiled kernel against the plain nested vmap, in one run.

    python benchmarks/synapses.py [--inputs 64 784] [--episode_length 100] [--units 4] [--repetitions 5]
                                  [--conv] [--json FILE]

Both kernels are driven as the outer loop drives them, by `map_units`: forward over antithetic pairs (two
members side by side per unit), gradient by back-propagation through the episode (one member per unit). Their
repetitions alternate, and the fastest counts, so that what else the machine does hits both. Times leave
compilation and the drawing of episodes out. Memory is what the compiled program needs on one device.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vsml.devices import prepare

prepare()  # JAX reads its flags when it is imported

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from vsml.conv import Conv
from vsml.files import library_versions
from vsml.layers import Kernel
from vsml.learners import Vsml
from vsml.meta.objective import map_units, segments_of, unit_result
from vsml.types import Array, Episode, Params

KERNELS: tuple[Kernel, ...] = ("tiled", "reference")
NUM_CLASSES = 10
NOISE_STD = 0.05
CONV = Conv(8, kernel_size=3, stride=2)
LONG_EPISODE = 500
"""Steps of the paper's episodes; at this length the gradient is compiled, for its memory, and not run."""

Program = tuple[Any, tuple[Any, ...]]
"""A compiled function and its arguments."""


@dataclass(frozen=True)
class Measurement:
    """One line of the result.

    Attributes:
        inputs: I.
        what: "forward" or "gradient".
        episode_length: T.
        examples_per_s: by kernel, over all devices; empty where nothing was run.
        memory_bytes: by kernel, of one device: temporary buffers, arguments and results.
    """

    inputs: int
    what: str
    episode_length: int
    examples_per_s: dict[Kernel, float]
    memory_bytes: dict[Kernel, int]

    @property
    def speedup(self) -> float | None:
        """How many times as fast the tiled kernel is."""
        rates = self.examples_per_s
        return rates["tiled"] / rates["reference"] if rates else None

    @property
    def saving(self) -> float:
        """How many times as much memory the reference kernel needs."""
        return self.memory_bytes["reference"] / self.memory_bytes["tiled"]


def draw_episodes(key: Array, input_shape: tuple[int, ...], length: int, units: int) -> Episode:
    """Draw one episode of noise per unit."""
    labels = jax.random.randint(jax.random.fold_in(key, 1), (units, length, 1), 0, NUM_CLASSES)
    x = jax.random.normal(key, (units, length, 1, *input_shape))
    return Episode(x=x, labels=labels, weight=jnp.ones(labels.shape))


def draw_pairs(key: Array, params: Params, units: int) -> Params:
    """Draw antithetic pairs around `params`; leaves [units, 2, ...]."""

    def pair(leaf: Array, noise: Array) -> Array:
        return jnp.stack([leaf + NOISE_STD * noise, leaf - NOISE_STD * noise], axis=1)

    leaves, structure = jax.tree.flatten(params)
    noises = [
        jax.random.normal(jax.random.fold_in(key, i), (units, *leaf.shape)) for i, leaf in enumerate(leaves)
    ]
    paired = [pair(leaf, noise) for leaf, noise in zip(leaves, noises, strict=True)]
    return jax.tree.unflatten(structure, paired)


def forward_program(learner: Vsml, length: int, units: int) -> Program:
    """Compile the losses [units, 2] of antithetic pairs."""
    key = jax.random.key(0)
    episodes = draw_episodes(key, learner.input_shape, length, units)
    pairs = draw_pairs(key, learner.init_params(key), units)

    def evaluate_pair(unit: tuple[Episode, Array, Params], shared: Any) -> Array:
        episode, state_key, pair = unit
        return jax.vmap(lambda params: unit_result(learner, "mean", params, episode, state_key).loss)(pair)

    return compile_over_units(evaluate_pair, (episodes, jax.random.split(key, units), pairs), ())


def gradient_program(learner: Vsml, length: int, units: int) -> Program:
    """Compile the gradients of single episodes, recomputed in segments where the outer loop does so."""
    key = jax.random.key(0)
    episodes = draw_episodes(key, learner.input_shape, length, units)
    segments = segments_of(learner, length, batch_size=1)

    def evaluate_unit(unit: tuple[Episode, Array], params: Params) -> Params:
        episode, state_key = unit
        return jax.grad(lambda p: unit_result(learner, "mean", p, episode, state_key, segments).loss)(params)

    return compile_over_units(
        evaluate_unit, (episodes, jax.random.split(key, units)), learner.init_params(key)
    )


def compile_over_units(function: Callable[..., Any], units: Any, shared: Any) -> Program:
    """Compile `map_units` of a function."""
    spread = jax.jit(lambda units, shared: map_units(function, units, shared))
    return spread.lower(units, shared).compile(), (units, shared)


def memory_bytes(compiled: Any) -> int:
    """Return what a program needs on one device while it runs."""
    memory = compiled.memory_analysis()
    return memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes


def best_times(programs: Sequence[Program], repetitions: int) -> list[float]:
    """Return the shortest time of each program in seconds, after one run that does not count."""
    times: list[list[float]] = [[] for _ in programs]
    for repetition in range(repetitions + 1):
        for taken, (compiled, arguments) in zip(times, programs, strict=True):
            start = time.perf_counter()
            jax.block_until_ready(compiled(*arguments))
            if repetition > 0:
                taken.append(time.perf_counter() - start)
    return [min(taken) for taken in times]


def make_learner(inputs: int, conv: bool, kernel: Kernel) -> Vsml:
    """Make the learner to measure: a dense layer, with a convolution before it if asked for."""
    if not conv:
        return Vsml((inputs,), NUM_CLASSES, kernel=kernel)
    side = math.isqrt(inputs)
    return Vsml((side, side, 1), NUM_CLASSES, (CONV,), kernel=kernel)


def measure(inputs: int, conv: bool, what: str, length: int, units: int, repetitions: int) -> Measurement:
    """Measure both kernels; with no repetitions, their memory alone."""
    build, members = (forward_program, 2) if what == "forward" else (gradient_program, 1)
    programs = [build(make_learner(inputs, conv, kernel), length, units) for kernel in KERNELS]
    rates = {}
    if repetitions > 0:
        examples = units * members * length
        times = best_times(programs, repetitions)
        rates = {kernel: examples / taken for kernel, taken in zip(KERNELS, times, strict=True)}
    memory = {kernel: memory_bytes(compiled) for kernel, (compiled, _) in zip(KERNELS, programs, strict=True)}
    return Measurement(inputs, what, length, rates, memory)


def table_of(measurements: Sequence[Measurement], title: str) -> Table:
    """Return the results as a table: a line for each speed and for each memory."""
    table = Table(title=title, caption="gain: examples/s of tiled / reference, memory of reference / tiled")
    for heading in ("inputs", "what", "T"):
        table.add_column(heading)
    for heading in (*KERNELS, "gain"):
        table.add_column(heading, justify="right")
    for m in measurements:
        head = (str(m.inputs), m.what, str(m.episode_length))
        if m.speedup is not None:
            rates = (f"{m.examples_per_s[kernel]:,.0f} examples/s" for kernel in KERNELS)
            table.add_row(*head, *rates, f"{m.speedup:.2f}x")
        memories = (f"{m.memory_bytes[kernel] / 2**20:,.1f} MiB" for kernel in KERNELS)
        table.add_row(*head, *memories, f"{m.saving:.2f}x")
    return table


def main() -> None:
    """Measure, print the table and write the JSON file."""
    devices = jax.local_devices()
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--inputs", type=int, nargs="+", default=[64, 784], help="input units, each in turn")
    parser.add_argument("--episode_length", type=int, default=100, help="steps T of what is timed")
    parser.add_argument(
        "--units",
        type=int,
        default=2 * len(devices),
        help="episodes (forward: pairs) at once, on all devices",
    )
    parser.add_argument("--repetitions", type=int, default=5, help="timed runs of each kernel")
    parser.add_argument(
        "--conv", action="store_true", help=f"images, and before the dense layer a convolution: {CONV}"
    )
    parser.add_argument("--json", type=Path, help="file for the numbers")
    arguments = parser.parse_args()
    for name in ("inputs", "episode_length", "units", "repetitions"):
        given = getattr(arguments, name)
        if min(given if isinstance(given, list) else [given]) < 1:
            parser.error(f"--{name}: got {given}, expected at least 1")
    if arguments.conv and any(math.isqrt(inputs) ** 2 != inputs for inputs in arguments.inputs):
        parser.error(f"--inputs: got {arguments.inputs}, expected squares with --conv")

    length, units = arguments.episode_length, arguments.units
    plan = [
        *(("forward", length, arguments.repetitions), ("gradient", length, arguments.repetitions)),
        *([("gradient", LONG_EPISODE, 0)] if length != LONG_EPISODE else []),
    ]
    console, measurements = Console(), []
    for inputs in arguments.inputs:
        for what, steps, repetitions in plan:
            with console.status(f"{inputs} inputs, {what}, T = {steps}"):
                measurements.append(measure(inputs, arguments.conv, what, steps, units, repetitions))
    where = f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})"
    console.print(table_of(measurements, f"{NUM_CLASSES} classes, {units} units, {where}"))
    console.print(
        "examples/s: over all devices together. Memory: of one device, for temporary buffers, arguments and "
        f"results, as the compiler reports it; gradients with T = {LONG_EPISODE} are compiled and not run."
    )
    if arguments.json:
        record = {
            "device": {
                "platform": devices[0].platform,
                "kind": devices[0].device_kind,
                "count": len(devices),
            },
            "versions": library_versions(),
            "num_classes": NUM_CLASSES,
            "conv": arguments.conv,
            "units": units,
            "repetitions": arguments.repetitions,
            "measurements": [
                {**vars(m), "speedup": m.speedup, "memory_saving": m.saving} for m in measurements
            ],
        }
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()

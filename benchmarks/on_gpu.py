"""All that is to be known of an accelerator, in one call: is it right, how fast is it, and what is left.

    python benchmarks/on_gpu.py [--most_s 480] [--json FILE] [--parts kernel parity ...]

Parts, in this order, as what comes first matters most. Each is written as soon as it is known.

- kernel: can the fused kernel be used, how long is it compiled, how far is a visit from XLA's. Without a GPU
  a CPU emulates one.
- parity: kernels against the plain formulation, answers and gradients.
- roofline: what the machine could do at best, unless `make roofline` has measured it.
- speed: examples a second of fitness and of gradients at 784 x 10 and 196 x 10, each kernel.
- meta_step: of the paper, 1,024 antithetic pairs and episodes of 500, the whole outer loop, with states in
  32 and in 16 bits. What is aimed at on an H100 is 0.7 s.
- populations: up to 100,000 members at once.
- graphs: ticks of rules and of LSTM synapses on graphs.

What would begin after --most_s is left out, and so is what fails: the record says why. --small takes sizes
for which a CPU needs a minute, to try the script out.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # works without the package being installed

from vsml.system.devices import prepare

prepare()  # JAX reads its flags when it is imported

import jax
import jax.numpy as jnp

from benchmarks import graphs, scaling, synapses
from benchmarks import roofline as rates
from benchmarks.cases import NUM_CLASSES, Case
from benchmarks.contestants import FLAX, ORACLE, contestants, make_learner
from benchmarks.report import default_path, record_of, rows_of, write
from vsml.cost import roofline
from vsml.launching.schema import load_config
from vsml.learners import run_episode
from vsml.losses import cross_entropy
from vsml.networks.kernels import fused
from vsml.setup import Setup
from vsml.system.comm import SerialCommunicator
from vsml.types import Array, Episode, Params

MOST_S = 480.0
"""Seconds after which no part is begun."""

GOAL_S = 0.7
"""Of the paper's meta step on an H100."""

Rows = Iterator[dict[str, Any]]


@dataclass(frozen=True)
class Sizes:
    """How large the parts are.

    Attributes:
        state_sizes: N of the visits that are compared with XLA's.
        inputs: units of the layers that are measured.
        members: at once, of the speed.
        episode_length: of the speed.
        pairs: of the meta step.
        meta_episode_length: of the meta step.
        populations: members at once, the least first.
        edges: of graphs.
        updates: edges times ticks of a run on a graph.
        repetitions: timed runs of each.
    """

    state_sizes: tuple[int, ...] = (16, 8, 20, 32)
    inputs: tuple[int, ...] = (784, 196)
    members: int = 2048
    episode_length: int = 100
    pairs: int = 1024
    meta_episode_length: int = 500
    populations: tuple[int, ...] = (1_000, 10_000, 100_000)
    edges: tuple[int, ...] = (100, 1000, 10000)
    updates: int = 200_000
    repetitions: int = 3


SMALL = Sizes(
    state_sizes=(4,),
    inputs=(16,),
    members=4,
    episode_length=5,
    pairs=4,
    meta_episode_length=5,
    populations=(4, 8),
    edges=(100,),
    updates=2_000,
    repetitions=1,
)


def kernels() -> tuple[str, ...]:
    """Return the kernels that this machine has, the plain formulation last."""
    return tuple(name for name in contestants() if name != FLAX)


def fused_kernel(sizes: Sizes) -> Rows:
    """Yield whether the fused kernel can be used, and how far its visits are from XLA's."""
    on_gpu = jax.default_backend() == "gpu"
    for state_size in sizes.state_sizes:
        start = time.perf_counter()
        reason = fused.missing(state_size)  # the first call compiles and compares
        row = {"state_size": state_size, "reason": reason or "", "compile_s": time.perf_counter() - start}
        if reason is None or not on_gpu:
            row["error"] = fused.largest_error(state_size, emulated=not on_gpu)
        yield row


def parity(sizes: Sizes) -> Rows:
    """Yield how far each kernel is from the plain formulation, as a share of the largest entry."""
    for inputs in sizes.inputs:
        case = Case("base", "gradient", inputs=inputs, episode_length=10)
        answers, gradient = _answers_and_gradient(case, ORACLE)
        for kernel in kernels()[:-1]:
            other_answers, other_gradient = _answers_and_gradient(case, kernel)
            yield {
                "layers": case.layers,
                "kernel": kernel,
                "answers": _distance(answers, other_answers),
                "gradient": _distance(gradient, other_gradient),
            }


def _answers_and_gradient(case: Case, kernel: str) -> tuple[Array, Params]:
    """Return the logits of an episode, and the gradient of its mean loss."""
    learner = make_learner(case, kernel)
    assert learner is not None  # only convolutions are not for everybody
    key = jax.random.key(0)
    params = learner.init_params(key)
    labels = jax.random.randint(key, (case.episode_length, 1), 0, NUM_CLASSES)
    x = jax.random.normal(key, (case.episode_length, 1, *case.input_shape))
    episode = Episode(x, labels, jnp.ones(labels.shape))

    def loss(params: Params) -> tuple[Array, Array]:
        logits = run_episode(learner, params, key, episode)
        return cross_entropy(logits, labels).mean(), logits

    gradient, logits = jax.jit(jax.grad(loss, has_aux=True))(params)
    return logits, gradient


def _distance(one: Any, other: Any) -> float:
    """Return the largest difference of two trees, as a share of the largest entry of the first."""
    pairs = list(zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))
    largest = max(float(jnp.abs(leaf).max()) for leaf, _ in pairs)
    apart = max(float(jnp.abs(leaf - same).max()) for leaf, same in pairs)
    return apart / largest


def rates_of_machine(sizes: Sizes) -> Rows:
    """Measure the rates of the machine, and store them, unless they are known."""
    if roofline.load() is None:
        roofline.save(rates.measure(repetitions=10 * sizes.repetitions))
    yield {"stored": True}


def speed(sizes: Sizes) -> Rows:
    """Yield examples a second, with the share of the roofline and the ratio to the plain formulation."""
    for inputs in sizes.inputs:
        for what in ("forward", "gradient"):
            case = Case(
                "base", what, inputs=inputs, members=sizes.members, episode_length=sizes.episode_length
            )
            results = synapses.measure(case, kernels(), sizes.repetitions, 30.0, {})
            yield from rows_of(results, roofline.load())


def meta_step(sizes: Sizes) -> Rows:
    """Yield the parts of the fastest of some meta steps of the paper, with digits as large as MNIST's."""
    side = 28 if max(sizes.inputs) >= 784 else 8
    examples = 2 * sizes.pairs * sizes.meta_episode_length
    for state_dtype in ("float32", "bfloat16"):
        settings = [
            "training.dataset=digits",
            f"training.population_size={sizes.pairs}",
            f"training.episode_length={sizes.meta_episode_length}",
            f"data.preprocess.resize=[{side}, {side}]",
            "evaluation.datasets=[]",
            f"model.vsml.state_dtype={state_dtype}",
        ]
        config = load_config([str(ROOT / "configs" / "rand_proj.yaml")], settings)
        measured = scaling.measure(Setup(config), sizes.repetitions, SerialCommunicator())
        rate = examples / measured["total_s"]
        yield {"state_dtype": state_dtype, **measured, "examples_per_s": rate, "goal_s": GOAL_S}


def populations(sizes: Sizes) -> Rows:
    """Yield examples a second of more and more members at once, up to what fits into memory."""
    for members in sizes.populations:
        case = Case("population", "forward", inputs=min(sizes.inputs), members=members, episode_length=10)
        results = synapses.measure(case, ["auto"], sizes.repetitions, 60.0, {})
        yield from rows_of(results, roofline.load())


def rules_and_synapses(sizes: Sizes) -> Rows:
    """Yield nanoseconds for an edge and tick."""
    for edges in sizes.edges:
        yield from graphs.rows_of(graphs.measure(edges, "backprop", sizes.updates, sizes.repetitions))


PARTS: dict[str, Callable[[Sizes], Rows]] = {
    "kernel": fused_kernel,
    "parity": parity,
    "roofline": rates_of_machine,
    "speed": speed,
    "meta_step": meta_step,
    "populations": populations,
    "graphs": rules_and_synapses,
}


def run(parts: Sequence[str], sizes: Sizes, most_s: float, path: Path) -> dict[str, Any]:
    """Run parts one after the other, and write the record after each row.

    Args:
        parts: their names.
        sizes: how large they are.
        most_s: seconds after which nothing is begun.
        path: of the record.
    """
    start = time.perf_counter()
    found: dict[str, Any] = {}

    def keep() -> None:
        rows = [{"part": part, **row} for part, entry in found.items() for row in entry["rows"]]
        record = record_of(rows, roofline.load(), {"most_s": most_s, "sizes": repr(sizes)})
        notes = {part: {key: entry[key] for key in ("seconds", "note")} for part, entry in found.items()}
        write({**record, "parts": notes}, path)

    for part in parts:
        entry: dict[str, Any] = {"rows": [], "seconds": 0.0, "note": ""}
        found[part] = entry
        began = time.perf_counter()
        try:
            for row in PARTS[part](sizes):
                entry["rows"].append(row)
                print(part, _in_words(row), flush=True)
                keep()
                if time.perf_counter() - start > most_s:
                    entry["note"] = f"stopped: {most_s:,.0f} s were over"
                    break
        except (jax.errors.JaxRuntimeError, ValueError, NotImplementedError) as error:
            # The other parts are still worth having.
            entry["note"] = f"failed: {type(error).__name__}: {str(error).splitlines()[0]}"
        entry["seconds"] = round(time.perf_counter() - began, 1)
        if entry["note"]:
            print(part, entry["note"], flush=True)
        keep()
        if time.perf_counter() - start > most_s:
            break
    for part in parts:
        if part not in found:
            found[part] = {"rows": [], "seconds": 0.0, "note": f"not begun: {most_s:,.0f} s were over"}
            print(part, found[part]["note"], flush=True)
    keep()
    return found


def _in_words(row: dict[str, Any]) -> str:
    """Return a row in a line."""
    shown = []
    for name, value in row.items():
        if isinstance(value, float):
            shown.append(f"{name}={value:.4g}")
        elif isinstance(value, str | int) and value != "":
            shown.append(f"{name}={value}")
    return " ".join(shown)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--most_s", type=float, default=MOST_S, help="seconds after which nothing is begun")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="some of the parts")
    parser.add_argument("--small", action="store_true", help="sizes for which a CPU needs a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="file for the numbers")
    options = parser.parse_args(arguments)
    if options.most_s <= 0:
        parser.error(f"--most_s: got {options.most_s}, expected more than 0")
    path = options.json or default_path("accelerator")
    run(options.parts, SMALL if options.small else Sizes(), options.most_s, path)
    print(f"written to {path}")


if __name__ == "__main__":
    main()

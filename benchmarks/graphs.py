"""Ticks a second on graphs of 100, 1,000 and 10,000 edges: rules as data, a compiled rule, LSTM synapses.

    python benchmarks/graphs.py [--rule backprop] [--repetitions 3] [--updates 200000] [--json FILE]

A tick visits every edge once. All contestants of a graph are compiled, then run in turns, and the fastest run
of each counts. On a CPU the time is that of the process, so that other programs count less. What is asked is
whether the cost of an edge stays the same: the last column has it beside that on the smallest graph. Results
go to benchmarks/results, unless --json names a file.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # works without the package being installed

from vsml.system.devices import prepare

prepare()  # JAX reads its flags when it is imported

import jax
import jax.numpy as jnp
from rich.console import Console

from benchmarks.report import default_path, record_of, write
from vsml.graphs import Graph, generate, to_arrays
from vsml.learners import continue_episode, make_learner
from vsml.learners.vsml import VsmlConfig
from vsml.reporting.tables import Table
from vsml.rules import Machine, Ports, compile_rule, known_names, pack, read_rule
from vsml.types import Array, Episode

SIZES = {100: (5, 10, 5), 1000: (15, 40, 10), 10000: (190, 50, 10)}
"""Inputs, hidden nodes and outputs of a layered graph with so many edges."""

MIN_TICKS = 20

INTERPRETER, COMPILED, SYNAPSES = "rule as data", "compiled rule", "LSTM synapses"

Run = Callable[[], Any]
"""Runs a compiled program once, and waits for it."""


@dataclass(frozen=True)
class Measured:
    """What came out for one contestant on one graph.

    Attributes:
        edges: of the graph.
        contestant: who.
        ticks_per_s: how many ticks of the whole graph.
    """

    edges: int
    contestant: str
    ticks_per_s: float

    @property
    def edge_ns(self) -> float:
        """Nanoseconds for an edge and tick."""
        return 1e9 / self.ticks_per_s / self.edges


def graph_of(edges: int) -> Graph:
    """Return the layered graph with so many edges."""
    return generate("layered", *SIZES[edges], seed=0)


def ports_of(graph: Graph, key: Array) -> Ports:
    """Return ports on which something stands everywhere."""
    names = ("x", "x_on", "t", "t_on", "node_noise", "edge_noise")
    keys = jax.random.split(key, len(names))
    sizes = [graph.num_nodes] * 5 + [2 * graph.num_edges]
    draws = [jax.random.uniform(key, (size,)) for key, size in zip(keys, sizes, strict=True)]
    return Ports(*draws)


def run_of_rule(machine: Machine, graph: Graph, ticks: int) -> Run:
    """Compile ticks of a rule on a graph."""
    arrays = to_arrays(graph)
    ports = ports_of(graph, jax.random.key(0))
    memory = machine.initial(arrays, jax.random.key(1), jnp.float32)

    def go(machine: Machine, memory: Array, ports: Ports) -> Array:
        def tick(memory: Array, _: None) -> tuple[Array, None]:
            return machine.tick(arrays, memory, ports), None

        return jax.lax.scan(tick, memory, None, length=ticks)[0]

    compiled = jax.jit(go).lower(machine, memory, ports).compile()
    return lambda: jax.block_until_ready(compiled(machine, memory, ports))


def run_of_synapses(edges: int, ticks: int) -> Run:
    """Compile ticks of LSTM synapses, one on each edge, all at once; an example lasts a tick."""
    inputs, hidden, outputs = SIZES[edges]
    graph = {"kinds": ["layered"], "hidden": [hidden], "schedule": "sync", "ticks": 1}
    config = VsmlConfig.model_validate({"graph": graph, "micro_ticks": 1})
    learner = make_learner("vsml", config, (inputs,), outputs)
    params = learner.init_params(jax.random.key(0))
    state = learner.init_state(params, jax.random.key(1))
    x = jax.random.normal(jax.random.key(2), (ticks, 1, inputs))
    stream = Episode(x, jnp.zeros((ticks, 1), jnp.int32), jnp.ones((ticks, 1)))
    go = jax.jit(lambda params, state, stream: continue_episode(learner, params, state, stream))
    compiled = go.lower(params, state, stream).compile()
    return lambda: jax.block_until_ready(compiled(params, state, stream))


def measure(edges: int, rule_name: str, updates: int, repetitions: int) -> list[Measured]:
    """Measure all contestants on a graph.

    Args:
        edges: of the graph, one of `SIZES`.
        rule_name: a rule that comes with the library.
        updates: edges times ticks of a run, as near as may be.
        repetitions: timed runs of each.
    """
    rule = read_rule(rule_name)
    graph = graph_of(edges)
    assert graph.num_edges == edges
    ticks = max(MIN_TICKS, updates // edges)
    runs = {
        INTERPRETER: run_of_rule(pack(rule), graph, ticks),
        COMPILED: run_of_rule(compile_rule(rule), graph, ticks),
        SYNAPSES: run_of_synapses(edges, ticks),
    }
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in runs}
    for repetition in range(repetitions + 1):
        for name, run in runs.items():
            start = clock()
            run()
            if repetition > 0:  # the first one does not count
                times[name].append(clock() - start)
    return [Measured(edges, name, ticks / min(taken)) for name, taken in times.items()]


def rows_of(found: Sequence[Measured]) -> list[dict[str, Any]]:
    """Return the results ready for JSON, the cost of an edge beside that on the smallest graph."""
    first: dict[str, float] = {}
    for each in found:
        first.setdefault(each.contestant, each.edge_ns)
    rows = []
    for each in found:
        row = {
            "edges": each.edges,
            "contestant": each.contestant,
            "ticks_per_s": each.ticks_per_s,
            "edge_ns": each.edge_ns,
            "of_smallest": each.edge_ns / first[each.contestant],
        }
        rows.append(row)
    return rows


def table_of(rows: Sequence[dict[str, Any]], rule_name: str) -> Table:
    """Return the results as a table."""
    headings = ("edges", "contestant", "ticks/s", "ns an edge", "of the smallest graph's")
    cells = []
    for row in rows:
        speed, cost, ratio = row["ticks_per_s"], row["edge_ns"], row["of_smallest"]
        cells.append(
            [f"{row['edges']:,}", row["contestant"], f"{speed:,.0f}", f"{cost:,.1f}", f"{ratio:.2f}"]
        )
    title = f"Ticks on layered graphs; the rule is {rule_name}"
    return Table(headings, cells, title, left=frozenset(["contestant"]))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rule", choices=known_names(), default="backprop", help="the rule that runs")
    parser.add_argument("--repetitions", type=int, default=3, help="timed runs of each")
    parser.add_argument("--updates", type=int, default=200_000, help="edges times ticks of a run")
    parser.add_argument("--json", type=Path, help="file for the results")
    options = parser.parse_args(arguments)
    for name in ("repetitions", "updates"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}: got {getattr(options, name)}, expected a number above 0")
    found: list[Measured] = []
    for edges in SIZES:
        found += measure(edges, options.rule, options.updates, options.repetitions)
    rows = rows_of(found)
    Console(width=120).print(table_of(rows, options.rule))
    settings = {"rule": options.rule, "repetitions": options.repetitions, "updates": options.updates}
    path = options.json or default_path("graphs")
    write(record_of(rows, None, settings), path)
    print(f"results: {path}")


if __name__ == "__main__":
    main()

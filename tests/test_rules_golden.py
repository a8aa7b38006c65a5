"""Golden cases of local rules: recorded numbers, texts with one mistake, and pairs of hashes.

The folder is VSML_RULES_GOLDEN_DIR, or rules/golden in `shared` beside or above the repository. Its README.md
describes the format. All cases run as data of one program format and in one bucket where they fit, so that
the interpreter is compiled once for ticks and once for each setting of streams.
"""

import functools
import os
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from vsml.graphs import Bucket, Graph, to_arrays
from vsml.rules import (
    Harness,
    Ports,
    RuleError,
    Settings,
    compile_rule,
    memory_of,
    pack,
    parse,
    rule_hash,
    slots_of,
)
from vsml.rules.harness import Record, Teaching

pytestmark = pytest.mark.usefixtures("hasty", "double")

TOLERANCE = 1e-6
LEAST_BUCKET = Bucket(16, 64)
MACHINES = {"program": pack, "compiled": compile_rule}


def golden_folder():
    given = os.environ.get("VSML_RULES_GOLDEN_DIR")
    places = [given] if given else [parent / "shared/rules/golden" for parent in Path(__file__).parents[1:4]]
    return next((Path(place) for place in places if (Path(place) / "cases.yaml").exists()), None)


FOLDER = golden_folder()


def read(name):
    return yaml.safe_load((FOLDER / name).read_text(encoding="utf-8")) if FOLDER else {}


CASES = read("cases.yaml")
BAD = read("bad/bad.yaml")
PAIRS = read("same_hash.yaml") or []

if not FOLDER:
    WHERE = os.environ.get("VSML_RULES_GOLDEN_DIR", "../shared/rules/golden")
    pytest.skip(f"no golden cases of rules: got no {WHERE}/cases.yaml", allow_module_level=True)


class Case:
    """A case: its rule and graph, and its arrays by their names."""

    def __init__(self, name, make_machine, is_padded):
        self.settings = CASES[name]
        self.rule = parse(self.settings["rule"])
        with np.load(FOLDER / f"{name}.npz") as file:
            self.arrays = dict(file)
        inputs, outputs = self.arrays["graph/inputs"], self.arrays["graph/outputs"]
        self.graph = Graph(int(self.arrays["graph/num_nodes"]), self.arrays["graph/edges"], inputs, outputs)
        self.on_device = to_arrays(self.graph, self.bucket(is_padded))
        self.machine = make_machine(self.rule)
        rows = 16 if make_machine is pack else None
        initial = {slot.name: self.arrays[f"initial/{slot.name}"] for slot in self.rule.slots}
        self.memory = memory_of(self.rule, self.on_device, initial, rows)
        # Of a stream all ticks have recorded ports.
        self.num_ticks = len(self.arrays.get("port/x", ())) or 1 + max(self.settings["checked_after_ticks"])

    def bucket(self, is_padded):
        if "pad" in self.settings:
            return Bucket(**self.settings["pad"])
        if not is_padded:
            return None
        graph = self.graph
        return Bucket(max(LEAST_BUCKET.nodes, graph.num_nodes), max(LEAST_BUCKET.edges, graph.num_edges))

    def port(self, name, size, prefix="port"):
        """Return what a port holds in each tick, [T, size]."""
        given = self.arrays.get(f"{prefix}/{name}", np.zeros((self.num_ticks, 0)))
        return jnp.asarray(np.pad(given, ((0, 0), (0, size - given.shape[1]))))

    def check_slots(self, got, kind, expected_prefix):
        """Compare every slot's numbers at real places."""
        for slot in self.rule.slots:
            expected = self.arrays[f"{expected_prefix}/{slot.name}"]
            check_close(np.asarray(got[slot.name])[: len(expected)], expected, f"{kind}, slot {slot.name}")

    def check_initial(self):
        if self.settings.get("compute_initial"):
            memory = initial(self.machine, self.on_device)
            self.check_slots(slots_of(self.rule, self.on_device, memory), "initial memory", "initial")

    def check_memories(self, memories):
        """Compare the memories after ticks 0, 1, ..., an array [T, S, H], where numbers are recorded."""
        for tick in self.settings["checked_after_ticks"]:
            got = slots_of(self.rule, self.on_device, jnp.asarray(memories[tick]))
            self.check_slots(got, f"after tick {tick}", f"after/{tick}")


def check_close(got, expected, where):
    expected = np.asarray(expected, float)
    assert got.shape == expected.shape, where
    allowed = TOLERANCE * (1 + np.abs(expected))
    wrong = np.argwhere(~(np.abs(got - expected) <= allowed))
    assert not len(wrong), f"{where}, place {wrong[0]}: got {got[*wrong[0]]}, expected {expected[*wrong[0]]}"


@jax.jit
def initial(machine, graph):
    return machine.initial(graph, jax.random.key(0), jnp.float64)


@jax.jit
def tick(machine, graph, memory, ports):
    return machine.tick(graph, memory, ports)


def run_ticks(case):
    nodes, half_edges = case.on_device.num_nodes, case.on_device.num_half_edges
    sizes = dict.fromkeys(("x", "x_on", "t", "t_on", "node_noise"), nodes) | {"edge_noise": half_edges}
    ports = {name: case.port(name, size) for name, size in sizes.items()}
    memory = case.memory
    memories = []
    for number in range(case.num_ticks):
        now = Ports(**{name: values[number] for name, values in ports.items()})
        memory = tick(case.machine, case.on_device, memory, now)
        memories.append(memory)
    case.check_memories(memories)


class TickByTick:
    """A machine whose tick is the function that all cases share: a setting compiles nothing."""

    def __init__(self, machine):
        self.machine = machine
        self.out = machine.out
        self.without_signals = machine.without_signals
        self.tick = functools.partial(tick, machine)

    def noise(self, graph, key, dtype):
        """Return nothing: the noise of all ticks is given."""
        return jnp.zeros(graph.num_nodes), jnp.zeros(graph.num_half_edges)


def run_example_by_ticks(harness, machine, graph, state, x, target, noise):
    """Run an example as K single ticks; see `Harness.recorded`."""
    machine = TickByTick(machine)
    memory = harness.reset(machine, state)
    before = machine.out(graph, memory)
    teaching = Teaching.nothing(graph, memory.dtype)
    memories, ports = [], []
    for number in range(harness.settings.ticks):
        memory, now = harness.tick(machine, graph, state, memory, jnp.int32(number), x, teaching, noise)
        memories.append(memory)
        ports.append(now)
        if number == harness.settings.read_tick:
            outs = jnp.stack([machine.out(graph, after) for after in memories])
            answer = harness.read(graph, before, outs)
            teaching = harness.teaching(graph, state, answer, target)
    state = replace(state, memory=memory, pending=teaching, tick=state.tick + harness.settings.ticks)
    return state, answer, Record(jnp.stack(memories), jax.tree.map(lambda *parts: jnp.stack(parts), *ports))


@functools.partial(jax.jit, static_argnums=0)
def run_example_at_once(harness, machine, graph, state, x, target, noise):
    return harness.recorded(machine, graph, state, x, target, noise=noise)


def run_stream(case, run_example):
    settings = Settings(**case.settings["settings"])
    harness = Harness(settings)
    graph, dtype = case.on_device, jnp.float64
    state = begin_stream(harness, case)
    targets = case.arrays["example/label" if settings.loss == "classes" else "example/target"]
    ticks = settings.ticks
    noise = [
        case.port("node_noise", graph.num_nodes, "noise"),
        case.port("edge_noise", graph.num_half_edges, "noise"),
    ]
    memories, ports = [], []
    for number, (x, target) in enumerate(zip(case.arrays["example/x"], targets, strict=True)):
        now = slice(number * ticks, (number + 1) * ticks)
        own = tuple(values[now] for values in noise)
        x, target = jnp.asarray(x, dtype), jnp.asarray(target)
        state, answer, record = run_example(harness, case.machine, graph, state, x, target, own)
        check_close(np.asarray(answer), case.arrays["answer"][number], f"answer {number}")
        memories += list(record.memory)
        ports.append(record.ports)
    case.check_memories(memories)
    for name in ("x", "x_on", "t", "t_on"):
        got = np.concatenate([getattr(part, name) for part in ports])[:, : case.graph.num_nodes]
        check_close(got, case.arrays[f"port/{name}"], f"port {name}")


def begin_stream(harness, case):
    """Return the state before the first example, with the memory and feedback that are given."""
    state = harness.begin(case.machine, case.on_device, jax.random.key(0), jnp.float64)
    state = replace(state, memory=case.memory)
    if state.start is not None:
        state = replace(state, start=case.memory)
    if state.feedback is not None:
        given = case.arrays["feedback"]
        padded = np.pad(given, ((0, case.on_device.num_nodes - len(given)), (0, 0)))
        state = replace(state, feedback=jnp.asarray(padded))
    return state


def run_case(case, run_example):
    case.check_initial()
    if case.settings["kind"] == "ticks":
        run_ticks(case)
    else:
        run_stream(case, run_example)


@pytest.mark.parametrize("name", CASES)
def test_a_program_computes_the_recorded_numbers(name):
    run_case(Case(name, pack, is_padded=True), run_example_by_ticks)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("machine", MACHINES)
def test_every_machine_computes_the_recorded_numbers_without_padding(name, machine):
    run_case(Case(name, MACHINES[machine], is_padded=False), run_example_at_once)


@pytest.mark.parametrize("name", BAD)
def test_a_text_with_a_mistake_is_refused_with_its_line(name):
    text = (FOLDER / f"bad/{name}.rule").read_text(encoding="utf-8")
    with pytest.raises(RuleError) as caught:
        parse(text)
    line, message = caught.value.mistakes[0]
    assert line == BAD[name]["line"]
    for word in BAD[name]["mentions"]:
        assert word in message


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair["what"])
def test_hashes_are_equal_where_they_must_be(pair):
    one, other = (rule_hash(parse(pair[name])) for name in ("one", "other"))
    assert (one == other) == pair["same"]

"""Machines of rules: the interpreter, compiled rules and a slow reference compute the same numbers."""

import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_rules import random_rule
from rule_reference import Reference

from vsml.graphs import Bucket, Graph, generate, to_arrays
from vsml.rules import (
    Capacity,
    Ports,
    canonical,
    compile_rule,
    memory_of,
    pack,
    pack_all,
    parse,
    slots_of,
)
from vsml.rules.rule import MAX_SLOTS

pytestmark = pytest.mark.usefixtures("hasty", "double")

GRAPH = generate("waxman", 2, 5, 2, 0)
ARRAYS = to_arrays(GRAPH, Bucket(12, 32))
NUM_TICKS = 3
NODE_PORTS = ("x", "x_on", "t", "t_on", "node_noise")
FEW, MANY = 60, 1000
ROUNDING = 1e-7
"""Part of a number that rounding may change; a comparison on a knife's edge would change all of it."""


def draw_ports(seed, graph=GRAPH):
    """Return what the real places of all ports hold in each tick."""
    random = np.random.default_rng(seed)
    ports = {name: random.normal(size=(NUM_TICKS, graph.num_nodes)) for name in NODE_PORTS}
    for name in ("x_on", "t_on"):
        ports[name] = (ports[name] > 0).astype(float)
    return ports | {"edge_noise": random.normal(size=(NUM_TICKS, 2 * graph.num_edges))}


def draw_slots(rule, seed, graph=GRAPH):
    """Return numbers for every slot; both ends of a shared one hold the same."""
    random = np.random.default_rng([seed, 1])
    slots = {}
    for slot in rule.slots:
        size = graph.num_nodes if slot.kind == 0 else 2 * graph.num_edges
        numbers = random.normal(size=size)
        slots[slot.name] = np.repeat(numbers[::2], 2) if slot.kind > 1 else numbers
    return slots


def as_ports(ports, arrays):
    """Return ports of all ticks, padded, with a leading axis."""
    padded = {}
    for name, values in ports.items():
        size = arrays.num_half_edges if name == "edge_noise" else arrays.num_nodes
        padded[name] = jnp.asarray(np.pad(values, ((0, 0), (0, size - values.shape[1]))))
    return Ports(**padded)


def run(machine, arrays, memory, ports):
    """Return the memories after all ticks, [T, S, H]."""

    def step(memory, now):
        memory = machine.tick(arrays, memory, now)
        return memory, memory

    return jax.lax.scan(step, memory, ports)[1]


run_compiled = jax.jit(run)


@jax.jit
def run_rules(programs, memories, ports, arrays=ARRAYS):
    """Run each rule on its own memory, one after the other: each instruction is a branch.

    Tests share what is compiled for `FEW` rules and one bucket.
    """
    return jax.lax.map(lambda rule: run(rule[0], arrays, rule[1], ports), (programs, memories))


def check_same(got, expected, where):
    """Compare the slots of one tick at real places."""
    for name, numbers in expected.items():
        values = np.asarray(got[name])[: len(numbers)]
        wrong = np.abs(values - numbers) > ROUNDING * (1 + np.abs(numbers))
        assert not wrong.any(), f"{where}, slot {name}: got {values[wrong][0]}, expected {numbers[wrong][0]}"


def stack_memories(rules, slots, arrays=ARRAYS):
    """Return the memories of rules, [rules, S, H]."""
    return jnp.stack(
        [memory_of(rule, arrays, own, MAX_SLOTS) for rule, own in zip(rules, slots, strict=True)]
    )


def as_numpy(slots):
    return {name: np.asarray(value) for name, value in slots.items()}


def check_against_the_reference(seeds):
    texts = [random_rule(seed) for seed in seeds]
    rules = [parse(text) for text in texts]
    slots = [draw_slots(rule, seed) for rule, seed in zip(rules, seeds, strict=True)]
    memories = [
        np.asarray(memory_of(rule, ARRAYS, own, MAX_SLOTS)) for rule, own in zip(rules, slots, strict=True)
    ]
    ports = draw_ports(0)
    programs = pack_all(rules, Capacity())
    interpreted = np.asarray(run_rules(programs, jnp.asarray(np.stack(memories)), as_ports(ports, ARRAYS)))
    for place, (text, rule, memory) in enumerate(zip(texts, rules, slots, strict=True)):
        reference = Reference(text, GRAPH.num_nodes, GRAPH.edges)
        for tick in range(NUM_TICKS):
            memory = reference.tick(memory, {name: values[tick] for name, values in ports.items()})
            got = slots_of(rule, ARRAYS, interpreted[place, tick])
            check_same(got, memory, f"rule {seeds[place]}, tick {tick}\n{text}")


def check_compiled_against_interpreted(seeds, count, run_alone):
    rules = [parse(random_rule(seed)) for seed in seeds]
    memories = stack_memories(
        rules, [draw_slots(rule, seed) for rule, seed in zip(rules, seeds, strict=True)]
    )
    ports = as_ports(draw_ports(1), ARRAYS)
    interpreted = np.asarray(run_rules(pack_all(rules, Capacity()), memories, ports))
    for place, rule in enumerate(rules[:count]):
        memory = memories[place][: len(rule.slots)]
        for tick, after in enumerate(run_alone(compile_rule(rule), memory, ports)):
            expected = {
                name: np.asarray(value)
                for name, value in slots_of(rule, ARRAYS, interpreted[place, tick]).items()
            }
            check_same(slots_of(rule, ARRAYS, after), expected, f"rule {seeds[place]}, tick {tick}")


def operator_by_operator(machine, memory, ports):
    """Yield the memories after all ticks, each operator compiled by itself: a second a rule is spared."""
    for tick in range(NUM_TICKS):
        now = jax.tree.map(operator.itemgetter(tick), ports)
        memory = machine.tick(ARRAYS, memory, now)
        yield memory


@pytest.mark.slow
def test_programs_compute_what_the_slow_reference_does():
    check_against_the_reference(range(FEW))


@pytest.mark.slow
def test_a_thousand_programs_compute_what_the_slow_reference_does():
    check_against_the_reference(range(MANY))


@pytest.mark.slow
def test_compiled_rules_compute_what_programs_do():
    check_compiled_against_interpreted(range(FEW), FEW // 4, operator_by_operator)


@pytest.mark.slow
def test_hundreds_of_compiled_rules_compute_what_programs_do():
    count = MANY // 4
    check_compiled_against_interpreted(range(count), count, operator_by_operator)


@pytest.mark.slow
def test_rules_that_are_compiled_as_a_whole_compute_what_programs_do():
    def run_alone(machine, memory, ports):
        return run_compiled(machine, ARRAYS, memory, ports)

    check_compiled_against_interpreted(range(FEW), FEW // 2, run_alone)


def test_the_canonical_form_computes_the_same_numbers_in_live_slots():
    rules = [parse(random_rule(seed)) for seed in range(FEW)]
    forms = [canonical(rule) for rule in rules]
    slots = [draw_slots(rule, seed) for seed, rule in enumerate(rules)]
    ports = as_ports(draw_ports(2), ARRAYS)
    results = []
    for group in (rules, forms):
        memories = stack_memories(group, slots)
        results.append(np.asarray(run_rules(pack_all(group, Capacity()), memories, ports)))
    for place, (rule, form) in enumerate(zip(rules, forms, strict=True)):
        whole = slots_of(rule, ARRAYS, results[0][place, -1])
        live = slots_of(form, ARRAYS, results[1][place, -1])
        check_same(whole, as_numpy(live), f"rule {place}")


def test_canonical_rules_begin_with_the_same_draws():
    rule = parse("b : edge = normal()\na : node = uniform() + normal()\na <- sum(b)\nout = a\n")
    form = canonical(rule)
    assert [slot.name for slot in form.slots] == ["a", "b"]
    memories = [initial(pack(one), ARRAYS) for one in (rule, form)]
    begun = [slots_of(one, ARRAYS, memory) for one, memory in zip((rule, form), memories, strict=True)]
    for name in "ab":
        assert begun[0][name].tolist() == begun[1][name].tolist()


@jax.jit
def initial(machine, arrays, key=None):
    return machine.initial(arrays, jax.random.key(0) if key is None else key, jnp.float64)


def initial_alone(rule, arrays):
    return compile_rule(rule).initial(arrays, jax.random.key(0), jnp.float64)


DRAWING = """
@k = 2
a : node = k * normal()
b : edge = normal()
c : edge shared(owner) = uniform() - degree
d : edge shared(mean) = normal() - normal()
e : node
f : node = sum(b_like) + std(parity)
out = a
""".replace("b_like", "uniform()")


def test_initial_draws_are_the_same_in_both_machines_and_in_every_bucket():
    rule = parse(DRAWING)
    plain = to_arrays(GRAPH)
    expected = slots_of(rule, plain, initial_alone(rule, plain))
    got = slots_of(rule, ARRAYS, initial(pack(rule), ARRAYS))
    check_same(got, as_numpy(expected), "padded")
    assert np.ptp(np.asarray(expected["a"])) > 0
    # A shared slot has one number an edge, a private one a number of its own at each end.
    ends = {name: np.asarray(expected[name]).reshape(-1, 2) for name in "bcd"}
    assert (ends["c"][:, 0] == ends["c"][:, 1]).all()
    assert (ends["d"][:, 0] == ends["d"][:, 1]).all()
    assert (ends["d"] != 0).all()  # its two draws differ
    assert (ends["b"][:, 0] != ends["b"][:, 1]).all()
    assert not np.asarray(expected["e"]).any()


def test_initial_draws_have_the_moments_they_are_said_to_have():
    rule = parse("a : node = normal()\nb : edge = uniform()\nout = a\n")
    graph = to_arrays(generate("dag", 3, 100, 3, 0, p=0.5))
    slots = slots_of(rule, graph, initial_alone(rule, graph))
    normal, uniform = np.asarray(slots["a"]), np.asarray(slots["b"])
    assert abs(normal.mean()) < 0.4
    assert normal.std() == pytest.approx(1, abs=0.3)
    assert uniform.min() >= 0
    assert uniform.max() < 1
    assert uniform.mean() == pytest.approx(0.5, abs=0.03)
    assert uniform.var() == pytest.approx(1 / 12, abs=0.01)


def test_another_rule_constant_or_graph_of_the_same_sizes_compiles_nothing():
    chain, star = [(0, 1), (1, 2), (2, 3)], [(0, 3), (1, 3), (2, 3)]
    graphs = [Graph.of(4, edges, [0], [3]) for edges in (chain, star)]
    texts = [
        "@k = 1\na : node\na <- a + k * x\nout = a\n",
        "@k = 3\ns : edge\na : node\na <- sum(rev(s))\nout = a\n",
    ]

    @jax.jit
    def run_once(machine, arrays, memory):
        return machine.tick(arrays, memory, Ports.silent(arrays, memory.dtype))

    for graph in graphs:
        for text in texts:
            arrays = to_arrays(graph)
            run_once(pack(parse(text)), arrays, jnp.zeros((MAX_SLOTS, arrays.num_half_edges)))
    assert run_once._cache_size() == 1


LEARNING = """
@lr = 0.1
w : edge shared(owner) = 1 / degree
s : edge
a : node
act = sel(x_on, x, tanh(sum(w * rev(s), incoming)))
a <- act
s <- act
w <- w - lr * t * rev(s) if t_on
out = a
"""


def test_constants_and_seeds_are_mapped_over():
    rule = parse(LEARNING)
    machine = pack(rule)
    memory = initial(machine, ARRAYS)
    constants = jnp.stack([machine.constants, 3 * machine.constants])
    ports = [as_ports(draw_ports(seed), ARRAYS) for seed in range(3)]
    stacked = jax.tree.map(lambda *parts: jnp.stack(parts), *ports)

    def one(constants, ports):
        return run(machine.replace(constants=constants), ARRAYS, memory, ports)

    together = jax.jit(jax.vmap(jax.vmap(one, (None, 0)), (0, None)))(constants, stacked)
    compiled = compile_rule(rule)
    own = memory[: len(rule.slots)]
    for number, values in enumerate(constants):
        changed = compiled.replace(constants=values[: len(rule.constants)])
        *_, last = operator_by_operator(changed, own, ports[2])
        np.testing.assert_allclose(together[number, 2, -1, : len(own)], last, rtol=0, atol=1e-12)
    assert np.abs(together[0] - together[1]).max() > 0.01


@pytest.mark.slow
def test_padding_changes_nothing():
    rules = [parse(random_rule(seed)) for seed in range(FEW)]
    slots = [draw_slots(rule, seed) for seed, rule in enumerate(rules)]
    programs = pack_all(rules, Capacity())
    results = []
    for arrays in (to_arrays(GRAPH), ARRAYS):
        memories = stack_memories(rules, slots, arrays)
        ports = as_ports(draw_ports(0), arrays)
        results.append(np.asarray(run_rules(programs, memories, ports, arrays)))
    plain, padded = results
    np.testing.assert_allclose(padded[..., : plain.shape[-1]], plain, rtol=0, atol=1e-12)
    assert np.isfinite(padded).all()


def distances(graph, start):
    """Return how many edges each node is away from one."""
    away = np.full(graph.num_nodes, graph.num_nodes)
    away[start] = 0
    for _ in range(graph.num_nodes):
        for u, v in graph.edges:
            away[u], away[v] = min(away[u], away[v] + 1), min(away[v], away[u] + 1)
    return away


def test_news_travels_one_edge_a_tick():
    nodes = 8
    line = Graph.of(nodes, [(node, node + 1) for node in range(nodes - 1)], [0], [7])
    arrays = to_arrays(line, Bucket(12, 32))
    seeds = range(FEW)
    rules = [parse(random_rule(seed)) for seed in seeds]
    slots = [draw_slots(rule, seed, line) for rule, seed in zip(rules, seeds, strict=True)]
    memories = stack_memories(rules, slots, arrays)
    start = 2
    plain = draw_ports(3, line)
    changed = {name: values.copy() for name, values in plain.items()}
    for name in NODE_PORTS:
        changed[name][0, start] += 1.5

    programs = pack_all(rules, Capacity())
    before = np.asarray(run_rules(programs, memories, as_ports(plain, arrays), arrays))
    after = np.asarray(run_rules(programs, memories, as_ports(changed, arrays), arrays))
    away = distances(line, start)[line.node]
    num_changed = 0
    for place, rule in enumerate(rules):
        for tick in range(NUM_TICKS):
            differs = before[place, tick] != after[place, tick]
            for number, slot in enumerate(rule.slots):
                reach = tick + 1 if slot.kind > 1 else tick
                where = away[differs[number, : len(away)]]
                assert (where <= reach).all(), f"rule {place}, tick {tick}, slot {slot.name}"
                num_changed += len(where)
    assert num_changed > 100


def test_float32_gives_the_numbers_of_float64_to_its_precision():
    rule = parse(LEARNING)
    memory = memory_of(rule, ARRAYS, draw_slots(rule, 0))
    ports = as_ports(draw_ports(0), ARRAYS)
    machine = compile_rule(rule)
    *_, double = operator_by_operator(machine, memory, ports)
    *_, single = operator_by_operator(machine, memory.astype(jnp.float32), ports)
    assert (double.dtype, single.dtype) == (jnp.float64, jnp.float32)
    np.testing.assert_allclose(single, double, rtol=0, atol=1e-5)


KINKS = """
@k = 0
a : node
e : edge
e <- sqrt(k) + log(k) + x / k + exp(k * 10000) + abs(k) + std(k * e)
a <- sum(e)
out = a
"""


@pytest.mark.slow
def test_gradients_are_finite_where_a_derivative_is_not():
    machine = compile_rule(parse(KINKS))
    ports = as_ports(draw_ports(0), ARRAYS)
    memory = jnp.zeros((2, ARRAYS.num_half_edges))

    def total(constants):
        *_, last = operator_by_operator(machine.replace(constants=constants), memory, ports)
        return machine.out(ARRAYS, last).sum()

    assert np.isfinite(np.asarray(jax.grad(total)(machine.constants))).all()


def test_gradients_of_constants_are_slopes():
    rule = parse(LEARNING)
    machine = compile_rule(rule)
    ports = as_ports(draw_ports(0), ARRAYS)
    memory = memory_of(rule, ARRAYS, draw_slots(rule, 0))

    def total(constants):
        *_, last = operator_by_operator(machine.replace(constants=constants), memory, ports)
        return last.sum()

    small = 1e-6 * jnp.eye(len(machine.constants))[0]
    slope = (total(machine.constants + small) - total(machine.constants - small)) / 2e-6
    gradient = jax.grad(total)(machine.constants)[0]
    assert abs(slope) > 1e-3
    assert gradient == pytest.approx(float(slope), rel=1e-5)


def test_what_is_too_large_or_missing_is_refused():
    rule = parse(LEARNING)
    with pytest.raises(ValueError, match="capacity: got a rule of 9 tick, expected at most 8"):
        pack(rule, Capacity(tick=8))
    with pytest.raises(ValueError, match="slots: got none named s, expected numbers for every slot"):
        memory_of(rule, ARRAYS, {"w": np.zeros(4)})
    with pytest.raises(ValueError, match=r"slot a: got numbers of shape \(90,\), expected at most \(12,\)"):
        memory_of(rule, ARRAYS, {"w": np.zeros(4), "s": np.zeros(4), "a": np.zeros(90)})

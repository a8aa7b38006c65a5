"""The interpreter of the search: rules in a loop, each instruction a real branch, instances side by side.

It computes what `vsml.rules.Program` and `vsml.rules.Harness` do. Those run one graph and are batched from
outside; here half-edges of all seeds, graphs and tasks are one axis, nothing is scattered, and random draws
are tables that all rules share. So a loop over rules compiles into one kernel.
"""

from functools import partial

import jax
import jax.numpy as jnp

from vsml.rules.machine import NUM_KINDS, TICK_OPERATORS, Index, begin, passing, store
from vsml.rules.operators import OPERATORS, Operator, repair
from vsml.rules.rule import GRAPH_VALUES, PORTS
from vsml.search.code import Code
from vsml.search.union import DRAW_OPERATORS, PeerSummary, Union
from vsml.types import Array


def apply(
    operator: Operator,
    union: Union,
    rows: Array,
    a: Index,
    b: Index,
    c: Index,
) -> Array:
    """Return the result [M] of an operator of a tick, repaired; see `vsml.rules.machine.apply`."""
    values = [rows[register] for register in (a, b, c)[: operator.operands]]
    if operator.family == "rev":
        return union.rev(values[0])
    assert operator.compute is not None or operator.family == "count"
    if operator.family == "elementwise":
        return repair(operator.compute(*values))  # type: ignore[misc]  # asserted above
    summary = PeerSummary(union)
    if operator.family == "count":
        return summary.count(values[0] > 0, values[0])
    passes = jnp.broadcast_to(passing(lambda register: rows[register], b), values[0].shape)
    return repair(operator.compute(values[0], passes, summary))  # type: ignore[misc]  # asserted above


def _draw(operator: Operator, union: Union, rows: Array, slot: Index, call: Index, is_node: Index) -> Array:
    del rows
    return union.draws[slot, call, is_node, DRAW_OPERATORS.index(operator)]


_TICK = [partial(apply, operator) for operator in TICK_OPERATORS]
_BEGINNING = [*_TICK, *(partial(_draw, operator) for operator in OPERATORS[len(TICK_OPERATORS) :])]


def _run(code: Code, union: Union, rows: Array, program: Array, size: Array, functions: list) -> Array:
    """Return the rows with the results of a program's instructions."""
    branches = [partial(function, union) for function in functions]

    def step(number: Array, rows: Array) -> Array:
        operator, a, b, c = program[number]
        result = jax.lax.switch(operator, branches, rows, a, b, c)
        return rows.at[code.first_instruction + number].set(result.astype(rows.dtype))

    return jax.lax.fori_loop(0, size, step, rows)


def started(code: Code, union: Union) -> Array:
    """Return all rows before the first tick, [R, M]."""
    slots, half_edges = code.kind.shape[0], union.num_half_edges
    dtype = union.graph_values.dtype
    rows = jnp.zeros((code.num_rows, half_edges), dtype)
    first = slots + len(PORTS)
    rows = rows.at[first : first + len(GRAPH_VALUES)].set(union.graph_values)
    constants = repair(code.constants.astype(dtype))
    rows = rows.at[code.first_constant : code.first_instruction].set(
        jnp.broadcast_to(constants[:, None], (len(constants), half_edges))
    )
    rows = _run(code, union, rows, code.beginning, code.sizes[2], _BEGINNING)
    begins = [lambda value, kind=kind: begin(kind, union, value) for kind in range(NUM_KINDS)]  # type: ignore[arg-type]

    def begin_slot(number: Array, memory: Array) -> Array:
        register = code.initial[number]
        value = jax.lax.switch(code.kind[number], begins, rows[jnp.maximum(register, 0)])
        return memory.at[number].set(jnp.where(register >= 0, value, 0))

    memory = jax.lax.fori_loop(0, code.sizes[0], begin_slot, jnp.zeros((slots, half_edges), dtype))
    return rows.at[:slots].set(memory)


def ticked(code: Code, union: Union, rows: Array, ports: Array) -> Array:
    """Return all rows after a tick, [R, M].

    Args:
        code: the rule.
        union: what it runs on.
        rows: before the tick; the first hold the memory.
        ports: what stands on them, [6, M].
    """
    slots = code.kind.shape[0]
    rows = rows.at[slots : slots + len(PORTS)].set(repair(ports))
    rows = _run(code, union, rows, code.tick, code.sizes[3], _TICK)
    stores = [partial(store, kind, union) for kind in range(NUM_KINDS)]  # type: ignore[arg-type]

    def store_slot(number: Array, memory: Array) -> Array:
        value, guard = code.value[number], code.guard[number]
        # Without a store nothing passes, and the old number stays.
        passes = passing(lambda register: rows[register], guard) & (value >= 0)
        passes = jnp.broadcast_to(passes, memory.shape[1:])
        proposal = rows[jnp.maximum(value, 0)]
        return memory.at[number].set(
            jax.lax.switch(code.kind[number], stores, rows[number], proposal, passes)
        )

    memory = jax.lax.fori_loop(0, code.sizes[0], store_slot, rows[:slots])
    return rows.at[:slots].set(memory)

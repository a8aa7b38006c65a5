"""What every way of running a rule shares: ports, operators on half-edges, stores and random draws."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import struct

from vsml.graphs.arrays import GraphArrays
from vsml.rules.operators import OPERATORS, Operator, Summary, repair
from vsml.rules.rule import KINDS, MEAN, NODE, OWNER, PRIVATE, SUM
from vsml.types import Array

Index = Array | int
"""A register: traced where rules are data, else a number."""


@struct.dataclass
class Ports:
    """What the harness tells a graph in one tick. Letters: N nodes and H half-edges.

    Attributes:
        x: input numbers [N].
        x_on: 1 where an input is given, [N].
        t: teaching numbers [N].
        t_on: 1 where teaching is given, [N].
        node_noise: fresh normal draws [N].
        edge_noise: fresh normal draws [H].
    """

    x: Array
    x_on: Array
    t: Array
    t_on: Array
    node_noise: Array
    edge_noise: Array

    @staticmethod
    def silent(
        graph: GraphArrays,
        dtype: jnp.dtype,
    ) -> "Ports":
        """Return ports that say nothing: all 0."""
        nodes = jnp.zeros(graph.num_nodes, dtype)
        edges = jnp.zeros(graph.num_half_edges, dtype)
        return Ports(nodes, nodes, nodes, nodes, nodes, edges)


class Machine(Protocol):
    """A rule that runs. It is a pytree, so that its constants can be traced and mapped over.

    Memory is one array [S, H] for S slots: a node slot is the same at all half-edges of its node, a shared
    slot the same at both half-edges of its edge. `memory_of` and `slots_of` convert it.

    Attributes:
        constants: float [C]; the first are those that may be tuned, in the order of `Rule.tuned`.
    """

    constants: Array

    def initial(
        self,
        graph: GraphArrays,
        key: Array,
        dtype: jnp.dtype,
    ) -> Array:
        """Return the memory [S, H] before the first tick; draws depend on key, slot and place alone."""

    def tick(
        self,
        graph: GraphArrays,
        memory: Array,
        ports: Ports,
    ) -> Array:
        """Return the memory [S, H] after a tick, in the dtype of the memory before."""

    def out(
        self,
        graph: GraphArrays,
        memory: Array,
    ) -> Array:
        """Return the slot that is read, [N]."""

    def without_signals(self, memory: Array) -> Array:
        """Return the memory [S, H] with 0 in the slots that have no initialisation."""

    def noise(
        self,
        graph: GraphArrays,
        key: Array,
        dtype: jnp.dtype,
    ) -> tuple[Array, Array]:
        """Return draws for the ports of a tick, [N] and [H]; zeros for a port that the rule does not read."""


def graph_registers(
    graph: GraphArrays,
    dtype: jnp.dtype,
) -> Array:
    """Return degree, parity, incoming and outgoing at each half-edge, [4, H]."""
    degree = graph.to_half_edges(graph.degree)
    incoming = graph.parity < 0
    outgoing = graph.parity > 0
    return jnp.stack([value.astype(dtype) for value in (degree, graph.parity, incoming, outgoing)])


def port_registers(
    graph: GraphArrays,
    ports: Ports,
    dtype: jnp.dtype,
) -> Array:
    """Return what the ports hold at each half-edge, repaired, [6, H]."""
    nodes = jnp.stack([ports.x, ports.x_on, ports.t, ports.t_on, ports.node_noise])
    at_half_edges = jax.vmap(graph.to_half_edges)(nodes)
    return repair(jnp.concatenate([at_half_edges, ports.edge_noise[None]]).astype(dtype))


def apply(
    operator: Operator,
    graph: GraphArrays,
    read: Callable[[Any], Array],
    operands: tuple[Index, Index, Index],
) -> Array:
    """Return the result [H] of an operator of a tick, repaired.

    Args:
        operator: any but a draw.
        graph: the graph.
        read: gives the value [H] of a register.
        operands: registers; those after the operator's own are not read. A filter below 0 lets all pass.
    """
    values = [read(register) for register in operands[: operator.operands]]
    if operator.family == "rev":
        return graph.rev(values[0])
    if operator.family == "elementwise":
        assert operator.compute is not None
        return repair(operator.compute(*values))
    is_filter = operator.family == "count"
    passes = values[0] > 0 if is_filter else passing(read, operands[1])
    return graph.to_half_edges(reduce(operator, graph, values[0], passes))


def reduce(
    operator: Operator,
    graph: GraphArrays,
    value: Array,
    passes: Array,
) -> Array:
    """Return the result [N] of a reducer or of `count`, repaired.

    Args:
        operator: the reducer, or `count`, which counts what passes.
        graph: the graph.
        value: what is reduced, [H].
        passes: the half-edges that count, bool [H] or []; padded ones never do.
    """
    summary = Summary(graph.node, graph.num_nodes)
    passes = graph.is_real & passes
    if operator.family == "count":
        return summary.count(passes, value)
    assert operator.compute is not None
    return repair(operator.compute(value, passes, summary))


def passing(
    read: Callable[[Any], Array],
    register: Index,
) -> Array:
    """Return where a filter or guard is true, bool [H] or []: everywhere if its register is below 0."""
    if isinstance(register, int):
        return read(register) > 0 if register >= 0 else jnp.array(True)
    return (register < 0) | (read(jnp.maximum(register, 0)) > 0)


# Stores: what a slot keeps, from the old memory, what is proposed [H], and where its guard is true.


def _store_node(
    graph: GraphArrays,
    old: Array,
    value: Array,
    passes: Array,
) -> Array:
    new = jnp.where(passes, value, old)
    # Read at one half-edge of the node, so that all have the same bits for ever.
    return graph.to_half_edges(graph.to_nodes(new))


def _store_private(
    graph: GraphArrays,
    old: Array,
    value: Array,
    passes: Array,
) -> Array:
    return jnp.where(passes, value, old)


def _store_owner(
    graph: GraphArrays,
    old: Array,
    value: Array,
    passes: Array,
) -> Array:
    return graph.of_owner(jnp.where(passes, value, old))


def _store_mean(
    graph: GraphArrays,
    old: Array,
    value: Array,
    passes: Array,
) -> Array:
    passes = jnp.broadcast_to(passes, value.shape)
    proposed = jnp.where(passes, value, 0)
    total = proposed + graph.rev(proposed)
    own = passes.astype(value.dtype)
    count = own + graph.rev(own)
    return jnp.where(count > 0, total / jnp.maximum(count, 1), old)


def _store_sum(
    graph: GraphArrays,
    old: Array,
    value: Array,
    passes: Array,
) -> Array:
    change = jnp.where(passes, value - old, 0)
    return old + (change + graph.rev(change))


STORES = {
    NODE: _store_node,
    PRIVATE: _store_private,
    OWNER: _store_owner,
    MEAN: _store_mean,
    SUM: _store_sum,
}
"""How each kind of slot combines what is proposed."""


def store(
    kind: int,
    graph: GraphArrays,
    old: Array,
    value: Array,
    passes: Array,
) -> Array:
    """Return what a slot holds after a tick, repaired, [H].

    Args:
        kind: number of the slot's kind.
        graph: the graph.
        old: what it held, repaired, [H].
        value: what each half-edge proposes, [H].
        passes: where the guard is true, [H] or [].
    """
    return repair(STORES[kind](graph, old, value, passes))


def begin(
    kind: int,
    graph: GraphArrays,
    value: Array,
) -> Array:
    """Return what a slot of a kind holds before the first tick, [H]: of a shared slot the owner's value."""
    is_shared = kind in (OWNER, MEAN, SUM)
    return graph.of_owner(value) if is_shared else value


def draw(
    operator: Operator,
    graph: GraphArrays,
    key: Array,
    stream: Index,
    call: Index,
    is_node: Index,
    dtype: jnp.dtype,
) -> Array:
    """Return a draw for each half-edge, [H], that depends on key, slot, call and place alone.

    Args:
        operator: `normal` or `uniform`.
        graph: the graph.
        key: of all draws.
        stream: number of the slot among the streams of draws.
        call: number of the call within the slot's initialisation.
        is_node: 1 if all half-edges of a node get the same draw.
        dtype: of the result.
    """
    half_edges = jnp.arange(graph.num_half_edges)
    place = jnp.where(jnp.asarray(is_node) > 0, graph.node, half_edges)
    own = jax.random.fold_in(jax.random.fold_in(key, stream), call)
    return draw_at(operator.name, own, place, dtype)


def draw_at(
    name: str,
    key: Array,
    place: Array,
    dtype: jnp.dtype,
) -> Array:
    """Return a draw for each place [...], which depends on key and place alone."""
    function = {"normal": jax.random.normal, "uniform": jax.random.uniform}[name]
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, place)
    return jax.vmap(lambda key: function(key, (), dtype))(keys)


def node_noise(
    graph: GraphArrays,
    key: Array,
    dtype: jnp.dtype,
) -> Array:
    """Return a normal draw for each node, [N]."""
    return draw_at("normal", jax.random.fold_in(key, 0), jnp.arange(graph.num_nodes), dtype)


def edge_noise(
    graph: GraphArrays,
    key: Array,
    dtype: jnp.dtype,
) -> Array:
    """Return a normal draw for each half-edge, [H]."""
    return draw_at("normal", jax.random.fold_in(key, 1), jnp.arange(graph.num_half_edges), dtype)


TICK_OPERATORS = tuple(operator for operator in OPERATORS if operator.family != "draw")
"""Operators that a tick may have; draws have the last numbers."""

NUM_KINDS = len(KINDS)

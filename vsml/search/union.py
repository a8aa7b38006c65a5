"""Instances of graphs side by side, as one graph that falls into parts.

Seeds, graphs and tasks of one rule are computed together: half-edges of all instances are one axis, and no
instance sees another one. What a node knows of its half-edges is gathered, never scattered, so that a loop
over rules can be one kernel.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from vsml.graphs import Graph, GraphArrays, to_arrays
from vsml.rules.harness import Harness
from vsml.rules.machine import draw, edge_noise, graph_registers, node_noise
from vsml.rules.operators import BOUND, OPERATORS
from vsml.rules.settings import Settings
from vsml.types import Array

MOST_DRAWS = 4
"""Draws that one initialisation may have; more repeat the last of these."""

DRAW_OPERATORS = tuple(operator for operator in OPERATORS if operator.family == "draw")


@struct.dataclass
class Union:
    """Instances of graphs side by side. Letters: M half-edges of all, G instances, O answers.

    Attributes:
        peers: half-edges of the same node, int32 [M, D] for the largest degree D; its own where less.
        is_peer: which of them count, bool [M, D].
        graph_values: degree, parity, incoming and outgoing, [4, M].
        instance: int32 [M].
        input: place of the input that stands at a half-edge's node among those of all instances, one instance
            after the other; -1 for none, int32 [M].
        answer: place of the answer that is read there in y [G * O], -1 for none, int32 [M].
        read_at: a half-edge of the node of each answer, int32 [G * O].
        draws: what initialisations may draw, [S, MOST_DRAWS, 2, 2, M]: by slot, call, whether the slot is a
            node slot, and operator.
        feedback: how errors reach each node, [M, O].
    """

    peers: Array
    is_peer: Array
    graph_values: Array
    instance: Array
    input: Array
    answer: Array
    read_at: Array
    draws: Array
    feedback: Array

    @property
    def num_half_edges(self) -> int:
        """M."""
        return self.instance.shape[0]

    @property
    def num_instances(self) -> int:
        """G."""
        return self.read_at.shape[0] // self.feedback.shape[1]

    @property
    def is_real(self) -> Array:
        """Whether a half-edge is no padding, bool []: none is."""
        return jnp.array(True)

    # A value of a node is kept at all its half-edges, so that there is nothing to convert.

    def to_half_edges(self, value: Array) -> Array:
        """Return a value of nodes at half-edges: the same."""
        return value

    def to_nodes(self, value: Array) -> Array:
        """Return a value that is the same at all half-edges of a node: the same."""
        return value

    def rev(self, value: Array) -> Array:
        """Return what the other end of each half-edge has of a value [M]."""
        return value.reshape(-1, 2)[:, ::-1].reshape(-1)

    def of_owner(self, value: Array) -> Array:
        """Return what the owner of each half-edge's edge has of a value [M]."""
        ends = value.reshape(-1, 2)
        return jnp.broadcast_to(ends[:, 1:], ends.shape).reshape(-1)


@struct.dataclass
class PeerSummary:
    """Sums over the half-edges of each node, at each half-edge; as `Summary` of `vsml.rules.operators`.

    Attributes:
        union: the graphs.
    """

    union: Union

    def add(self, value: Array) -> Array:
        """Return the sum of a value [M] over the half-edges of the node."""
        return self._reduced(jnp.add, value, 0)

    def largest(self, value: Array) -> Array:
        """Return the largest of a value [M] over the half-edges of the node."""
        return self._reduced(jnp.maximum, value, -2 * BOUND)

    def _reduced(self, function: Callable[[Array, Array], Array], value: Array, nothing: float) -> Array:
        """Return a value [M] reduced over the half-edges of each node, one after the other.

        One kernel cannot have a reduction over an axis of a large array.
        """
        union = self.union
        result = jnp.full_like(value, nothing)
        for place in range(union.peers.shape[1]):
            peer = jnp.where(union.is_peer[:, place], value[union.peers[:, place]], nothing)
            result = function(result, peer)
        return result

    def count(self, passes: Array, like: Array) -> Array:
        """Return how many half-edges of the node pass, [M], as numbers of an array's type."""
        return self.add(passes.astype(like.dtype))

    def spread(self, value: Array) -> Array:
        """Return a value of nodes at their half-edges: the same."""
        return value


def union_of(
    graphs: Sequence[Graph],
    keys: Array,
    slots: int,
    dtype: Any = jnp.float32,
) -> Union:
    """Return instances side by side.

    Args:
        graphs: one for each instance, with as many outputs as each other.
        keys: one for each instance: what `Harness.begin` takes. The draws are those of `Machine.initial`.
        slots: S, most slots of the rules that run.
        dtype: of everything.

    Raises:
        ValueError: the numbers of outputs differ, or there are not as many keys as graphs.
    """
    numbers = {len(graph.outputs) for graph in graphs}
    if len(numbers) > 1:
        raise ValueError(f"outputs: got graphs of {sorted(numbers)}, expected as many in each")
    if len(keys) != len(graphs):
        raise ValueError(f"keys: got {len(keys)}, expected one for each of {len(graphs)} graphs")
    most = max(int(graph.degree.max()) for graph in graphs)
    parts: dict[str, list[Any]] = {name: [] for name in Union.__dataclass_fields__}
    structures: dict[int, _Structure] = {}
    first, first_input = 0, 0
    for number, graph in enumerate(graphs):
        # Many instances have one graph.
        if id(graph) not in structures:
            structures[id(graph)] = _Structure.of(graph, most, dtype)
        one = structures[id(graph)]
        parts["peers"].append(first + one.peers)
        parts["is_peer"].append(one.is_peer)
        parts["graph_values"].append(one.graph_values)
        parts["instance"].append(np.full(2 * graph.num_edges, number, np.int32))
        parts["input"].append(np.where(one.input >= 0, first_input + one.input, -1))
        answers = number * len(graph.outputs) + one.answer
        parts["answer"].append(np.where(one.answer >= 0, answers, -1))
        parts["read_at"].append(first + one.read_at)
        first += 2 * graph.num_edges
        first_input += len(graph.inputs)
    for run in _runs(graphs):
        drawn = _drawn(to_arrays(graphs[run.start]), keys[run.start : run.stop], slots, dtype)
        parts["draws"].append(drawn[0])
        parts["feedback"].append(drawn[1])
    axes = {"graph_values": 1, "draws": -1}
    joined = {}
    for name, arrays_of in parts.items():
        joined[name] = jnp.concatenate([jnp.asarray(each) for each in arrays_of], axes.get(name, 0))
    return Union(**joined)


def _peers(graph: Graph, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the half-edges of each half-edge's node, in their order, and which of the places count."""
    peers = np.zeros((2 * graph.num_edges, most), np.int32)
    is_peer = np.zeros_like(peers, bool)
    for node in range(graph.num_nodes):
        own = np.flatnonzero(graph.node == node)
        peers[own] = own[:, None]
        here = np.ix_(own, np.arange(len(own)))
        peers[here] = own
        is_peer[here] = True
    return peers, is_peer


@dataclass(frozen=True)
class _Structure:
    """What instances of one graph share; places are counted from its own first one."""

    peers: np.ndarray
    is_peer: np.ndarray
    graph_values: np.ndarray
    input: np.ndarray
    answer: np.ndarray
    read_at: np.ndarray

    @classmethod
    def of(cls, graph: Graph, most: int, dtype: Any) -> "_Structure":
        """Return it; nodes have at most `most` half-edges."""
        peers, is_peer = _peers(graph, most)
        read_at = [int(np.flatnonzero(graph.node == node)[0]) for node in graph.outputs]
        return cls(
            peers=peers,
            is_peer=is_peer,
            graph_values=np.asarray(graph_registers(to_arrays(graph), dtype)),
            input=_places(graph, graph.inputs),
            answer=_places(graph, graph.outputs),
            read_at=np.array(read_at, np.int32),
        )


def _places(graph: Graph, nodes: Sequence[int]) -> np.ndarray:
    """Return the place of each half-edge's node among some nodes; -1 for none."""
    places = np.full(2 * graph.num_edges, -1, np.int32)
    for place, node in enumerate(nodes):
        places[graph.node == node] = place
    return places


def _runs(graphs: Sequence[Graph]) -> Iterator[range]:
    """Yield ranges of instances that follow each other and have one graph."""
    start = 0
    for stop in range(1, len(graphs) + 1):
        if stop == len(graphs) or graphs[stop] is not graphs[start]:
            yield range(start, stop)
            start = stop


@partial(jax.jit, static_argnums=(2, 3))
def _drawn(arrays: GraphArrays, keys: Array, slots: int, dtype: Any) -> tuple[Array, Array]:
    """Return draws [..., n * H] and feedback [n * H, O] of instances of one graph."""
    draws = jax.vmap(lambda key: _draws(arrays, key, slots, dtype), out_axes=-2)(keys)
    feedback = jax.vmap(lambda key: _feedback(arrays, key, dtype))(keys)
    joined = draws.reshape(*draws.shape[:-2], -1)
    return joined, feedback.reshape(-1, feedback.shape[-1])


def _draws(arrays: GraphArrays, key: Array, slots: int, dtype: Any) -> Array:
    """Return what `Machine.initial` may draw on one graph, [S, MOST_DRAWS, 2, 2, H]."""
    own = jax.random.fold_in(key, 0)

    def drawn(stream: Array, call: Array, is_node: Array) -> Array:
        values = [draw(operator, arrays, own, stream, call, is_node, dtype) for operator in DRAW_OPERATORS]
        return jnp.stack(values)

    over_kinds = jax.vmap(drawn, (None, None, 0))
    over_calls = jax.vmap(over_kinds, (None, 0, None))
    over_slots = jax.vmap(over_calls, (0, None, None))
    return over_slots(jnp.arange(slots), jnp.arange(MOST_DRAWS), jnp.arange(2))


def _feedback(arrays: GraphArrays, key: Array, dtype: Any) -> Array:
    """Return what `Harness.begin` draws of how errors reach nodes, at half-edges, [H, O]."""
    harness = Harness(Settings(ticks=1, read_tick=0, loss="regression"))
    drawn = harness.draw_feedback(arrays, jax.random.fold_in(key, 2), dtype)
    return drawn[arrays.node]


def noise_of(
    graphs: Sequence[Graph],
    keys: Array,
    ticks: int,
    dtype: Any = jnp.float32,
) -> Array:
    """Return node_noise and edge_noise of each tick, [ticks, 2, M]: those that `Harness.begin` leads to.

    Args:
        graphs: one for each instance.
        keys: as of `union_of`.
        ticks: of all examples together.
        dtype: of the draws.
    """
    parts = [_noise(to_arrays(graph), key, ticks, dtype) for graph, key in zip(graphs, keys, strict=True)]
    return jnp.concatenate(parts, -1)


@partial(jax.jit, static_argnums=(2, 3))
def _noise(arrays: GraphArrays, key: Array, ticks: int, dtype: Any) -> Array:
    """Return the noise of all ticks on one graph, [ticks, 2, H]."""
    own = jax.random.fold_in(key, 1)

    def drawn(tick: Array) -> Array:
        of_tick = jax.random.fold_in(own, tick)
        at_nodes = node_noise(arrays, of_tick, dtype)[arrays.node]
        return jnp.stack([at_nodes, edge_noise(arrays, of_tick, dtype)])

    return jax.vmap(drawn)(jnp.arange(ticks))

"""Graphs as arrays: padded to a bucket, so that graphs of one bucket share a compiled function."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from flax import struct

from vsml.graphs.graph import Graph
from vsml.types import Array


@dataclass(frozen=True)
class Bucket:
    """A size that graphs are padded to.

    Attributes:
        nodes: places for nodes.
        edges: places for edges.
    """

    nodes: int
    edges: int

    def check_holds(self, graph: Graph) -> None:
        """Refuse a graph that is larger.

        Raises:
            ValueError: it has too many nodes or edges.
        """
        if graph.num_nodes > self.nodes or graph.num_edges > self.edges:
            sizes = f"{graph.num_nodes} nodes and {graph.num_edges} edges"
            raise ValueError(
                f"bucket: got a graph of {sizes}, expected at most {self.nodes} and {self.edges}"
            )


def round_up(size: int) -> int:
    """Return the smallest of 1, 2, 3, 4, 6, 8, 12, 16, 24, ... that is at least a size."""
    power = 1
    while True:
        for candidate in (power, power + power // 2):
            if candidate >= size:
                return candidate
        power *= 2


def bucket_of(graphs: Sequence[Graph]) -> Bucket:
    """Return the bucket that holds some graphs and leaves at most a third of it empty for the largest."""
    nodes = max(graph.num_nodes for graph in graphs)
    edges = max(graph.num_edges for graph in graphs)
    return Bucket(round_up(nodes), round_up(edges))


@struct.dataclass
class GraphArrays:
    """A graph as data on the device. Letters: N nodes and H half-edges, padding included; see `Graph`.

    Padded half-edges are at node 0, pass no filter, and are each other's other ends.

    Attributes:
        node: the node of each half-edge, int32 [H].
        first: a half-edge of each node, int32 [N]; of padded nodes half-edge 0.
        parity: 1 where the other end's node has the higher number, -1 where the lower, 0 if padded, int8 [H].
        is_real: whether a half-edge is no padding, bool [H].
        degree: how many edges each node has, int32 [N]; 0 if padded.
        inputs: input nodes, int32 [I].
        outputs: output nodes, int32 [O].
    """

    node: Array
    first: Array
    parity: Array
    is_real: Array
    degree: Array
    inputs: Array
    outputs: Array

    @property
    def num_nodes(self) -> int:
        """N."""
        return self.first.shape[0]

    @property
    def num_half_edges(self) -> int:
        """H."""
        return self.node.shape[0]

    def to_half_edges(self, value: Array) -> Array:
        """Return a value [N] of nodes at each half-edge, that of its own node, [H]."""
        # Stored first, by a scatter: else XLA moves what computes a node's value into the gather, and
        # computes it anew at every half-edge.
        nodes = jnp.arange(self.num_nodes)
        stored = jnp.zeros_like(value).at[nodes].set(value, mode="promise_in_bounds", unique_indices=True)
        return stored.at[self.node].get(mode="promise_in_bounds")

    def to_nodes(self, value: Array) -> Array:
        """Return a value [H], the same at all half-edges of a node, at each node, [N]."""
        return jnp.asarray(value).at[self.first].get(mode="promise_in_bounds")

    def rev(self, value: Array) -> Array:
        """Return what the other end of each half-edge has of a value [H]."""
        return value.reshape(-1, 2)[:, ::-1].reshape(-1)

    def of_owner(self, value: Array) -> Array:
        """Return what the owner of each half-edge's edge has of a value [H]."""
        ends = value.reshape(-1, 2)
        return jnp.broadcast_to(ends[:, 1:], ends.shape).reshape(-1)


def to_arrays(
    graph: Graph,
    bucket: Bucket | None = None,
) -> GraphArrays:
    """Return a graph as arrays.

    Args:
        graph: the graph.
        bucket: what it is padded to; None: nothing is padded.

    Raises:
        ValueError: the bucket is too small.
    """
    bucket = Bucket(graph.num_nodes, graph.num_edges) if bucket is None else bucket
    host = _host_arrays(graph, bucket)
    return GraphArrays(**{name: jnp.asarray(array) for name, array in host.items()})


def _host_arrays(
    graph: Graph,
    bucket: Bucket,
) -> dict[str, np.ndarray]:
    """Return a graph as arrays of numpy: making them compiles nothing."""
    bucket.check_holds(graph)
    real = 2 * graph.num_edges
    node = np.zeros(2 * bucket.edges, np.int32)
    node[:real] = graph.node
    parity = np.zeros(2 * bucket.edges, np.int8)
    parity[:real] = np.tile([1, -1], graph.num_edges)
    first = np.zeros(bucket.nodes, np.int32)
    # Of a place that is written several times the last writing counts: backwards, so that it is the first.
    first[graph.node[::-1]] = np.arange(real)[::-1]
    degree = np.zeros(bucket.nodes, np.int32)
    degree[: graph.num_nodes] = graph.degree
    return {
        "node": node,
        "first": first,
        "parity": parity,
        "is_real": np.arange(2 * bucket.edges) < real,
        "degree": degree,
        "inputs": np.array(graph.inputs, np.int32),
        "outputs": np.array(graph.outputs, np.int32),
    }


def stack(
    graphs: Sequence[Graph],
    bucket: Bucket | None = None,
) -> GraphArrays:
    """Return graphs as arrays with a leading axis G, for `jax.vmap` or to choose one from.

    Args:
        graphs: with as many inputs as each other, and as many outputs.
        bucket: what they are padded to; by default `bucket_of` them.

    Raises:
        ValueError: the bucket is too small, or inputs or outputs differ in number.
    """
    for name in ("inputs", "outputs"):
        numbers = {len(getattr(graph, name)) for graph in graphs}
        if len(numbers) > 1:
            raise ValueError(f"{name}: got graphs of {sorted(numbers)}, expected as many in each")
    bucket = bucket_of(graphs) if bucket is None else bucket
    hosts = [_host_arrays(graph, bucket) for graph in graphs]
    stacked = {name: np.stack([host[name] for host in hosts]) for name in hosts[0]}
    return GraphArrays(**{name: jnp.asarray(array) for name, array in stacked.items()})

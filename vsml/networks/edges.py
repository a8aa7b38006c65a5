"""The edges of a graph, as synapses are kept on them: in groups for sweeps, and as padded arrays."""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from flax import struct

from vsml.types import Array

AnyArray = Array | np.ndarray
"""Of one graph, arrays are known when a function is compiled; of several, they are data."""


@dataclass(frozen=True)
class Edges:
    """The edges of one graph, in the order in which synapses are kept: by level, then by higher node.

    Attributes:
        nodes: how many nodes there are.
        pairs: the edges (u, v), u < v.
        inputs: nodes at which a message enters, in the order of its parts.
        outputs: nodes at which a message leaves, likewise.
    """

    nodes: int
    pairs: tuple[tuple[int, int], ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    @staticmethod
    def of(
        nodes: int,
        pairs: Iterable[Sequence[int]],
        inputs: Sequence[int],
        outputs: Sequence[int],
    ) -> "Edges":
        """Return the edges of a graph, sorted.

        Raises:
            ValueError: an edge does not ascend, or is there twice.
        """
        edges = [(int(u), int(v)) for u, v in pairs]
        for u, v in edges:
            if not 0 <= u < v < nodes:
                raise ValueError(f"edge ({u}, {v}): expected 0 <= u < v < {nodes}, the number of nodes")
        if len(set(edges)) < len(edges):
            raise ValueError("edges: got one of them twice, expected each once")
        levels = _levels(nodes, edges)
        edges.sort(key=lambda edge: (levels[edge[1]], edge[1], edge[0]))
        return Edges(nodes, tuple(edges), tuple(map(int, inputs)), tuple(map(int, outputs)))

    @functools.cached_property
    def groups(self) -> "tuple[Group, ...]":
        """The groups of a sweep, those of lower nodes first."""
        levels = _levels(self.nodes, self.pairs)
        source, target = np.array(self.pairs, np.int32).reshape(-1, 2).T
        of_edge = np.array(levels)[target]
        starts = np.flatnonzero(np.diff(of_edge, prepend=-1))
        ends = [*starts[1:], len(target)]
        return tuple(
            Group.of(source, target, int(start), int(end)) for start, end in zip(starts, ends, strict=True)
        )

    @functools.cached_property
    def depth(self) -> int:
        """Edges on the way from an input to an output, the longest of the shortest ascending ways."""
        unreachable = self.nodes + 1
        distance = [unreachable] * self.nodes
        for node in self.inputs:
            distance[node] = 0
        # Edges of a node come after all those of lower levels, which lead to it.
        for u, v in self.pairs:
            distance[v] = min(distance[v], distance[u] + 1)
        reached = [distance[node] for node in self.outputs if distance[node] < unreachable]
        return max(reached, default=1)


def _levels(
    nodes: int,
    pairs: Iterable[tuple[int, int]],
) -> list[int]:
    """Return the number of edges on the longest ascending path to each node."""
    level = [0] * nodes
    for u, v in sorted(pairs):
        level[v] = max(level[v], level[u] + 1)
    return level


@dataclass(frozen=True, eq=False)
class Group:
    """Edges that a sweep visits at once: those to the nodes of one level, and how these nodes send.

    Attributes:
        start, end: where the edges are among all of them.
        nodes: their higher nodes, ascending.
        target: the higher node of each edge, by its place in `nodes`.
        fan_in: edges from lower nodes, of each of `nodes`.
        senders: those of `nodes` that have higher edges, which all outputs lack.
        leaving: these higher edges, in the order of `senders`.
        source: the lower node of each of them, by its place in `senders`.
        fan_out: how many of them each sender has.
    """

    start: int
    end: int
    nodes: np.ndarray
    target: np.ndarray
    fan_in: np.ndarray
    senders: np.ndarray
    leaving: np.ndarray
    source: np.ndarray
    fan_out: np.ndarray

    @staticmethod
    def of(source: np.ndarray, target: np.ndarray, start: int, end: int) -> "Group":
        """Return the group of edges start to end, of all edges source -> target."""
        nodes, place, fan_in = np.unique(target[start:end], return_inverse=True, return_counts=True)
        leaving = np.flatnonzero(np.isin(source, nodes))
        leaving = leaving[np.argsort(source[leaving], kind="stable")]
        senders, sender, fan_out = np.unique(source[leaving], return_inverse=True, return_counts=True)
        return Group(
            start=start,
            end=end,
            nodes=nodes,
            target=place,
            fan_in=fan_in.astype(np.float32),
            senders=senders,
            leaving=leaving,
            source=sender,
            fan_out=fan_out.astype(np.float32),
        )


@struct.dataclass
class Wires:
    """Edges as arrays. Those beyond the last edge of a graph lead from a node to a node beyond its last one.

    Attributes:
        source: lower node of each edge, int32 [E].
        target: higher node, likewise; ascending within a group.
        by_source: edges in the order of their lower nodes, int32 [E].
        fan_in: edges from lower nodes, at least 1, float32 [V].
        fan_out: edges to higher nodes, at least 1, float32 [V].
        outputs: nodes at which a message leaves, int32 [O].
    """

    source: AnyArray
    target: AnyArray
    by_source: AnyArray
    fan_in: AnyArray
    fan_out: AnyArray
    outputs: AnyArray

    @staticmethod
    def of(edges: Edges, places: int, nodes: int) -> "Wires":
        """Return edges as arrays with room for `places` edges, and for `nodes` nodes and one more."""
        missing = places - len(edges.pairs)
        pairs = np.array([*edges.pairs, *[(nodes, nodes)] * missing], np.int32).reshape(-1, 2)
        source, target = pairs.T
        return Wires(
            source=source,
            target=target,
            by_source=np.argsort(source, kind="stable").astype(np.int32),
            fan_in=_counts(target, nodes + 1),
            fan_out=_counts(source, nodes + 1),
            outputs=np.array(edges.outputs, np.int32),
        )


def _counts(numbers: np.ndarray, size: int) -> np.ndarray:
    """Return how often each number occurs, at least 1."""
    counts = np.bincount(numbers, minlength=size)
    return np.maximum(counts, 1).astype(np.float32)

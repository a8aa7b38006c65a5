"""Graphs: nodes in an order, undirected edges, and which nodes are inputs and outputs."""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

Pair = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Graph:
    """An undirected simple graph on the host. The order of its nodes is its only direction.

    Edge e = (u, v) has two half-edges: 2e at node u and 2e + 1 at node v. The other end of half-edge h is
    h ^ 1. The owner of an edge is its half-edge 2e + 1, at the higher node. Letters of shapes: N nodes, E
    edges, H = 2E half-edges.

    Attributes:
        num_nodes: N.
        edges: int32 [E, 2], each with u < v, sorted by u and then by v.
        inputs: nodes; the k-th number of an example goes to the k-th of them.
        outputs: nodes; the k-th answer comes from the k-th of them.
        kind: what generated it, for people to read.

    Raises:
        ValueError: an edge is out of order or range, inputs and outputs share a node, or a node has no edge.
    """

    num_nodes: int
    edges: np.ndarray
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    kind: str = "graph"

    def __post_init__(self) -> None:
        edges = np.array(self.edges, np.int32).reshape(-1, 2)
        edges.setflags(write=False)
        object.__setattr__(self, "edges", edges)
        object.__setattr__(self, "inputs", tuple(int(node) for node in self.inputs))
        object.__setattr__(self, "outputs", tuple(int(node) for node in self.outputs))
        self._check_edges()
        self._check_ends()

    def _check_edges(self) -> None:
        low, high = self.edges[:, 0], self.edges[:, 1]
        for u, v in self.edges[(low < 0) | (high >= self.num_nodes) | (low >= high)][:1]:
            raise ValueError(f"edges: got ({u}, {v}), expected u < v of nodes 0 to {self.num_nodes - 1}")
        pairs = low.astype(np.int64) * self.num_nodes + high
        for place in np.flatnonzero(np.diff(pairs) <= 0)[:1]:
            u, v = self.edges[place + 1]
            raise ValueError(f"edges: got ({u}, {v}) out of order or twice; Graph.of sorts edges")
        for node in np.flatnonzero(self.degree == 0)[:1]:
            raise ValueError(f"edges: got none at node {node}, expected at least one at every node")

    def _check_ends(self) -> None:
        for name, nodes in (("inputs", self.inputs), ("outputs", self.outputs)):
            if len(set(nodes)) < len(nodes):
                raise ValueError(f"{name}: got {nodes}, expected different nodes")
            for node in nodes:
                if not 0 <= node < self.num_nodes:
                    raise ValueError(f"{name}: got node {node}, expected 0 to {self.num_nodes - 1}")
        if shared := set(self.inputs) & set(self.outputs):
            raise ValueError(f"outputs: got {sorted(shared)}, which are inputs too; expected others")

    @classmethod
    def of(
        cls,
        num_nodes: int,
        edges: Iterable[Sequence[int]],
        inputs: Sequence[int],
        outputs: Sequence[int],
        kind: str = "graph",
    ) -> "Graph":
        """Return a graph of edges in any order and direction; an edge that is given twice counts once."""
        pairs = {(min(u, v), max(u, v)) for u, v in edges}
        return cls(num_nodes, np.array(sorted(pairs), np.int32), tuple(inputs), tuple(outputs), kind)

    @property
    def num_edges(self) -> int:
        """E."""
        return len(self.edges)

    @functools.cached_property
    def node(self) -> np.ndarray:
        """The node of each half-edge, int32 [H]."""
        return self.edges.reshape(-1)

    @functools.cached_property
    def degree(self) -> np.ndarray:
        """How many edges each node has, int [N]."""
        return np.bincount(self.edges.reshape(-1), minlength=self.num_nodes)

    @functools.cached_property
    def level(self) -> np.ndarray:
        """Length in edges of the longest ascending path that ends at each node, int [N]."""
        level = np.zeros(self.num_nodes, int)
        # Edges are sorted by their lower end, whose own level is final when its first edge is met.
        for u, v in self.edges:
            level[v] = max(level[v], level[u] + 1)
        return level

    @property
    def longest_path(self) -> int:
        """L, the length in edges of the longest ascending path."""
        return int(self.level.max())

    def _identity(self) -> tuple:
        return self.num_nodes, self.edges.tobytes(), self.inputs, self.outputs

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graph) and self._identity() == other._identity()

    @functools.cached_property
    def _hash(self) -> int:
        return hash(self._identity())

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        ends = f"{len(self.inputs)} inputs, {len(self.outputs)} outputs"
        return f"<{self.kind}: {self.num_nodes} nodes, {self.num_edges} edges, {ends}>"

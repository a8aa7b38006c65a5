"""Growth of graphs: new nodes and edges, and where the old ones are then."""

from dataclasses import dataclass

import numpy as np

from vsml.graphs.graph import Graph


@dataclass(frozen=True, eq=False)
class Grown:
    """A graph that has grown.

    Attributes:
        graph: with the new nodes and edges.
        nodes: number in it of each old node, int [N].
        half_edges: number in it of each old half-edge, int [H].
    """

    graph: Graph
    nodes: np.ndarray
    half_edges: np.ndarray


def grow(
    graph: Graph,
    nodes: int,
) -> Grown:
    """Return a graph with more nodes, each joined to all inputs and all outputs.

    In the order of nodes they come right before the first output, so that they are above the inputs and below
    the outputs where that is the order. Old edges keep their direction.

    Args:
        graph: the graph.
        nodes: how many are added, at least 1.

    Raises:
        ValueError: there are none to add.
    """
    if nodes < 1:
        raise ValueError(f"nodes: got {nodes}, expected at least 1 to be added")
    place = min(graph.outputs)
    old = np.arange(graph.num_nodes)
    number = np.where(old < place, old, old + nodes)
    edges = number[graph.edges].tolist()
    ends = number[[*graph.inputs, *graph.outputs]]
    for new in range(place, place + nodes):
        for end in ends:
            edges.append((min(new, end), max(new, end)))
    grown = Graph.of(
        graph.num_nodes + nodes,
        edges,
        number[list(graph.inputs)].tolist(),
        number[list(graph.outputs)].tolist(),
        f"{graph.kind}, grown by {nodes}",
    )
    place_of = {tuple(edge): index for index, edge in enumerate(grown.edges.tolist())}
    new_edges = np.array([place_of[tuple(edge)] for edge in number[graph.edges].tolist()])
    half_edges = np.stack([2 * new_edges, 2 * new_edges + 1], axis=1).reshape(-1)
    return Grown(grown, number, half_edges)

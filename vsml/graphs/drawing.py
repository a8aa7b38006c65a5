"""Drawings of graphs as SVG or PNG."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vsml.graphs.graph import Graph
from vsml.system.extras import needed_for

with needed_for("drawings of graphs"):
    import matplotlib
    import networkx
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

LAYOUTS = ("levels", "spring", "circle")

# Okabe and Ito's colours, told apart with every kind of colour vision.
INPUT_COLOUR = "#0072b2"
HIDDEN_COLOUR = "#999999"
OUTPUT_COLOUR = "#d55e00"


def positions(
    graph: Graph,
    layout: str = "levels",
    seed: int = 0,
) -> np.ndarray:
    """Return where nodes are drawn, float [N, 2], in the unit square.

    Args:
        graph: the graph.
        layout: `levels` puts each node right of its lower neighbours, `spring` puts neighbours together,
            `circle` puts nodes on a circle in their order.
        seed: of `spring`.

    Raises:
        ValueError: there is no such layout.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout: got {layout!r}, expected one of {', '.join(LAYOUTS)}")
    if layout == "levels":
        return _level_positions(graph)
    network = networkx.Graph()
    network.add_nodes_from(range(graph.num_nodes))
    network.add_edges_from(graph.edges.tolist())
    if layout == "spring":
        places = networkx.spring_layout(network, seed=seed)
    else:
        places = networkx.circular_layout(network)
    place = np.array([places[node] for node in range(graph.num_nodes)])
    low, high = place.min(0), place.max(0)
    return (place - low) / np.maximum(high - low, 1e-9)


def _level_positions(graph: Graph) -> np.ndarray:
    level = graph.level.copy()
    # Outputs stand together at the right end, wherever their paths end.
    level[list(graph.outputs)] = max(level.max(), 1)
    place = np.zeros((graph.num_nodes, 2))
    place[:, 0] = level / level.max()
    for column in np.unique(level):
        members = np.flatnonzero(level == column)
        heights = (np.arange(len(members)) + 1) / (len(members) + 1)
        # Neighbouring columns a little apart in height, so that edges along a row do not cover one another.
        place[members, 1] = 1 - heights + 0.03 * (column % 3 - 1)
    return place


def draw(
    graph: Graph,
    path: str | Path,
    layout: str = "levels",
    edge_values: Sequence[float] | None = None,
    node_values: Sequence[float] | None = None,
    labels: bool = True,
    title: str = "",
) -> Path:
    """Draw a graph into a file: inputs blue, outputs orange, hidden nodes grey.

    Args:
        graph: the graph.
        path: ends in `.svg` or `.png`. The same graph gives the same bytes of SVG.
        layout: see `positions`.
        edge_values: numbers [E]: positive ones are blue, negative ones orange, larger ones wider.
        node_values: numbers [N] that nodes are filled by, from white to black.
        labels: whether nodes show their numbers.
        title: words above.

    Returns:
        The path.

    Raises:
        ValueError: the path ends in something else, there is no such layout, or values are not one for each.
    """
    path = Path(path)
    if path.suffix not in (".svg", ".png"):
        raise ValueError(f"path: got {path.name!r}, expected a name that ends in .svg or .png")
    _check_length("edge_values", edge_values, graph.num_edges)
    _check_length("node_values", node_values, graph.num_nodes)
    place = positions(graph, layout)
    figure = Figure(figsize=(7, 4.5))
    axes = figure.add_axes((0.02, 0.02, 0.96, 0.9 if title else 0.96))
    axes.set_axis_off()
    axes.set_title(title)
    axes.add_collection(_edge_lines(graph, place, edge_values))
    roles = np.full(graph.num_nodes, HIDDEN_COLOUR)
    roles[list(graph.inputs)] = INPUT_COLOUR
    roles[list(graph.outputs)] = OUTPUT_COLOUR
    fill = list(roles) if node_values is None else _greys(node_values)
    axes.scatter(place[:, 0], place[:, 1], s=160, c=fill, edgecolors=roles.tolist(), linewidths=2, zorder=2)
    if labels:
        for node, (x, y) in enumerate(place):
            axes.text(x, y, str(node), ha="center", va="center", fontsize=7, color="white", zorder=3)
    axes.margins(0.06)
    with matplotlib.rc_context({"svg.hashsalt": "vsml", "svg.fonttype": "none"}):
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        figure.savefig(path, metadata=metadata)
    return path


def _check_length(
    name: str,
    values: Sequence[float] | None,
    expected: int,
) -> None:
    if values is not None and len(values) != expected:
        raise ValueError(f"{name}: got {len(values)} numbers, expected {expected}")


def _greys(values: Sequence[float]) -> list[str]:
    """Return a grey for each number, the least white and the largest black."""
    numbers = np.asarray(values, float)
    spread = max(float(np.ptp(numbers)), 1e-9)
    return [str(1 - (number - numbers.min()) / spread) for number in numbers]


def _edge_lines(
    graph: Graph,
    place: np.ndarray,
    values: Sequence[float] | None,
) -> LineCollection:
    segments = list(place[graph.edges])
    if values is None:
        return LineCollection(segments, colors="#c8ccd0", linewidths=0.8, zorder=1)
    size = np.abs(np.asarray(values, float))
    widths = 0.3 + 2.7 * size / max(size.max(), 1e-9)
    colours = np.where(np.asarray(values) >= 0, INPUT_COLOUR, OUTPUT_COLOUR)
    return LineCollection(segments, colors=list(colours), linewidths=widths, zorder=1)

"""Generators of graphs: kinds by name, and the clean-up that gives all of them the same guarantees."""

import inspect
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vsml.graphs.graph import Graph, Pair
from vsml.system.extras import needed_for


@dataclass(frozen=True)
class Sizes:
    """How many nodes of each role a graph has; inputs have the lowest numbers, outputs the highest.

    Attributes:
        inputs: number of inputs.
        hidden: number of nodes that are neither.
        outputs: number of outputs.
    """

    inputs: int
    hidden: int
    outputs: int

    @property
    def total(self) -> int:
        """N."""
        return self.inputs + self.hidden + self.outputs

    @property
    def first_output(self) -> int:
        """The lowest output."""
        return self.inputs + self.hidden

    def allows(
        self,
        u: int,
        v: int,
    ) -> bool:
        """Return whether there may be an edge between two nodes: not between two inputs or two outputs."""
        is_between_inputs = max(u, v) < self.inputs
        is_between_outputs = min(u, v) >= self.first_output
        return u != v and not is_between_inputs and not is_between_outputs


def waxman(
    sizes: Sizes,
    seed: int,
    beta: float = 0.9,
    alpha: float = 0.4,
) -> Iterator[Pair]:
    """Join points in the unit square, near ones more often: P(u, v) = beta exp(-d(u, v) / (alpha max d)).

    Source: Waxman, Routing of multipoint connections, 1988.
    """
    with needed_for("graphs"):
        import networkx  # slow to import, and most runs have no graph

    check_probability("beta", beta)
    check_positive("alpha", alpha)
    yield from networkx.waxman_graph(sizes.total, beta, alpha, seed=seed).edges


def layered(
    sizes: Sizes,
    seed: int,
    layers: Sequence[int] | None = None,
    skip: float = 0.0,
) -> Iterator[Pair]:
    """Join all nodes of neighbouring layers, and those of layers further apart with probability `skip`.

    `sizes` of `generate` are the hidden layers; all hidden nodes are one by default.
    """
    check_probability("skip", skip)
    default = [sizes.hidden] if sizes.hidden else []
    hidden = list(default if layers is None else layers)
    if sum(hidden) != sizes.hidden or any(size < 1 for size in hidden):
        raise ValueError(f"sizes: got {hidden}, expected layers of {sizes.hidden} hidden nodes together")
    random = np.random.default_rng([seed, 1])
    ends = list(itertools.accumulate([sizes.inputs, *hidden, sizes.outputs]))
    groups = [range(start, end) for start, end in itertools.pairwise([0, *ends])]
    for low, high in itertools.combinations(range(len(groups)), 2):
        for pair in itertools.product(groups[low], groups[high]):
            if high == low + 1 or random.random() < skip:
                yield pair


def dag(
    sizes: Sizes,
    seed: int,
    p: float = 0.3,
) -> Iterator[Pair]:
    """Join each pair of nodes with probability p."""
    check_probability("p", p)
    yield from random_pairs(range(sizes.total), p, seed)


def complete(
    sizes: Sizes,
    seed: int,
) -> Iterator[Pair]:
    """Join all pairs of nodes."""
    yield from itertools.combinations(range(sizes.total), 2)


def ring(
    sizes: Sizes,
    seed: int,
) -> Iterator[Pair]:
    """Join each hidden node to the next, and the last to the first."""
    check_hidden("ring", sizes, 3)
    for node in range(sizes.hidden):
        yield node, (node + 1) % sizes.hidden


def lattice(
    sizes: Sizes,
    seed: int,
    width: int | None = None,
    wrap: bool = False,
) -> Iterator[Pair]:
    """Join hidden nodes in rows of `width` to the next in their row and in their column.

    With `wrap` the last of each row and column is joined to its first, too.
    """
    check_hidden("lattice", sizes, 1)
    width = math.isqrt(sizes.hidden) if width is None else width
    if not 1 <= width <= sizes.hidden:
        raise ValueError(f"width: got {width}, expected 1 to {sizes.hidden} for {sizes.hidden} hidden nodes")
    nodes = range(sizes.hidden)
    rows = [nodes[start : start + width] for start in nodes[::width]]
    columns = [nodes[start::width] for start in range(width)]
    for line in [*rows, *columns]:
        yield from itertools.pairwise(line)
        if wrap and len(line) > 2:
            yield line[0], line[-1]


def small_world(
    sizes: Sizes,
    seed: int,
    k: int = 4,
    p: float = 0.2,
) -> Iterator[Pair]:
    """Join hidden nodes in a ring to the k nearest, and move each edge with probability p.

    Source: Watts and Strogatz, Collective dynamics of 'small-world' networks, 1998.
    """
    with needed_for("graphs"):
        import networkx  # slow to import, and most runs have no graph

    check_probability("p", p)
    if not 2 <= k < sizes.hidden:
        raise ValueError(f"k: got {k}, expected 2 to {sizes.hidden - 1} for {sizes.hidden} hidden nodes")
    yield from networkx.watts_strogatz_graph(sizes.hidden, k, p, seed=seed).edges


def reservoir(
    sizes: Sizes,
    seed: int,
    p: float = 0.2,
) -> Iterator[Pair]:
    """Join each pair of hidden nodes with probability p."""
    check_hidden("reservoir", sizes, 1)
    check_probability("p", p)
    yield from random_pairs(range(sizes.hidden), p, seed)


KINDS: dict[str, Callable[..., Iterator[Pair]]] = {
    "waxman": waxman,
    "layered": layered,
    "dag": dag,
    "complete": complete,
    "ring": ring,
    "lattice": lattice,
    "small_world": small_world,
    "reservoir": reservoir,
}
"""Kinds of graphs by name."""

CORE_KINDS = ("ring", "lattice", "small_world", "reservoir")
"""Kinds that join hidden nodes, counted from 0; each input and output is joined to `fan` of them."""

DEFAULT_FAN = 3


def generate(
    kind: str,
    num_inputs: int,
    num_hidden: int,
    num_outputs: int,
    seed: int,
    **parameters: object,
) -> Graph:
    """Return a graph of a kind. The same arguments give the same graph.

    Inputs have the lowest numbers and outputs the highest. After the clean-up no edge joins two inputs or
    two outputs, every node is on an ascending path from an input to an output, and every input reaches every
    output.

    Args:
        kind: one of `KINDS`.
        num_inputs: at least 1.
        num_hidden: at least 0; some kinds need more.
        num_outputs: at least 1.
        seed: of all draws.
        **parameters: of the kind, such as `p`; of those in `CORE_KINDS` also `fan`. `layered` takes `sizes`.

    Raises:
        ValueError: there is no such kind or parameter, or it cannot take a value or the sizes.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: got {kind!r}, expected one of {', '.join(KINDS)}")
    sizes = Sizes(num_inputs, num_hidden, num_outputs)
    for name, size, least in (
        ("num_inputs", num_inputs, 1),
        ("num_hidden", num_hidden, 0),
        ("num_outputs", num_outputs, 1),
    ):
        if size < least:
            raise ValueError(f"{name}: got {size}, expected at least {least}")
    options = dict(parameters)
    fan = options.pop("fan", DEFAULT_FAN) if kind in CORE_KINDS else 0
    if kind == "layered" and "sizes" in options:
        options["layers"] = options.pop("sizes")
    check_parameters(kind, options)
    pairs = KINDS[kind](sizes, seed, **options)
    random = np.random.default_rng([seed, 0])
    if kind in CORE_KINDS:
        pairs = join_core(sizes, pairs, fan, random)
    edges = clean_up(sizes, pairs, random)
    inputs = range(num_inputs)
    outputs = range(sizes.first_output, sizes.total)
    return Graph.of(sizes.total, edges, inputs, outputs, kind)


def check_parameters(
    kind: str,
    options: dict[str, object],
) -> None:
    """Refuse parameters that a kind has not."""
    known = list(inspect.signature(KINDS[kind]).parameters)[2:]
    if unknown := set(options) - set(known):
        names = ["sizes" if name == "layers" else name for name in known]
        names += ["fan"] if kind in CORE_KINDS else []
        raise ValueError(f"{kind}: got {sorted(unknown)}, expected parameters among {names}")


def check_probability(
    name: str,
    value: float,
) -> None:
    """Refuse what is not between 0 and 1."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: got {value}, expected a probability from 0 to 1")


def check_positive(
    name: str,
    value: float,
) -> None:
    """Refuse what is not above 0."""
    if not value > 0:
        raise ValueError(f"{name}: got {value}, expected a number above 0")


def check_hidden(
    kind: str,
    sizes: Sizes,
    least: int,
) -> None:
    """Refuse too few hidden nodes."""
    if sizes.hidden < least:
        raise ValueError(f"num_hidden: got {sizes.hidden}, expected at least {least} for a {kind}")


def random_pairs(
    nodes: range,
    p: float,
    seed: int,
) -> Iterator[Pair]:
    """Yield each pair of nodes with probability p."""
    random = np.random.default_rng([seed, 1])
    count = len(nodes)
    chosen = np.triu(random.random((count, count)) < p, 1)
    for u, v in np.argwhere(chosen):
        yield nodes[u], nodes[v]


def join_core(
    sizes: Sizes,
    pairs: Iterator[Pair],
    fan: object,
    random: np.random.Generator,
) -> Iterator[Pair]:
    """Yield the edges among hidden nodes, and those that join each input and output to `fan` of them."""
    core = list(pairs)
    if not isinstance(fan, int) or not 1 <= fan <= sizes.hidden:
        raise ValueError(f"fan: got {fan}, expected 1 to {sizes.hidden} for {sizes.hidden} hidden nodes")
    for u, v in core:
        yield sizes.inputs + u, sizes.inputs + v
    ends = [*range(sizes.inputs), *range(sizes.first_output, sizes.total)]
    for end in ends:
        for node in random.choice(sizes.hidden, fan, replace=False):
            yield end, sizes.inputs + int(node)


def clean_up(
    sizes: Sizes,
    pairs: Iterator[Pair],
    random: np.random.Generator,
) -> set[Pair]:
    """Return edges (u, v), u < v, that keep the guarantees of `generate`."""
    edges = {(min(u, v), max(u, v)) for u, v in pairs if sizes.allows(u, v)}
    add_lower_neighbours(sizes, edges, random)
    add_higher_neighbours(sizes, edges, random)
    join_components(sizes, edges, random)
    return edges


def add_lower_neighbours(
    sizes: Sizes,
    edges: set[Pair],
    random: np.random.Generator,
) -> None:
    """Join every node that has no lower neighbour, but inputs, to one."""
    have_lower = {v for _, v in edges}
    for node in range(sizes.inputs, sizes.total):
        if node not in have_lower:
            allowed = [lower for lower in range(node) if sizes.allows(lower, node)]
            edges.add((int(random.choice(allowed)), node))


def add_higher_neighbours(
    sizes: Sizes,
    edges: set[Pair],
    random: np.random.Generator,
) -> None:
    """Join every node that has no higher neighbour, but outputs, to one."""
    have_higher = {u for u, _ in edges}
    for node in range(sizes.first_output):
        if node not in have_higher:
            allowed = [higher for higher in range(node + 1, sizes.total) if sizes.allows(node, higher)]
            edges.add((node, int(random.choice(allowed))))


def join_components(
    sizes: Sizes,
    edges: set[Pair],
    random: np.random.Generator,
) -> None:
    """Join the component of node 0 to the others, one after the other, lowest numbers first."""
    with needed_for("graphs"):
        import networkx  # slow to import, and most runs have no graph

    graph = networkx.Graph(sorted(edges))
    components = sorted(map(sorted, networkx.connected_components(graph)))
    joined = components[0]
    for other in components[1:]:
        # An input of one and an output of the other are always there, so that some pair is allowed.
        pairs = itertools.product(joined, other)
        allowed = [pair for pair in pairs if sizes.allows(*pair)]
        u, v = allowed[random.integers(len(allowed))]
        edges.add((min(u, v), max(u, v)))
        joined = sorted([*joined, *other])

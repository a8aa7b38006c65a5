"""Graphs: every generator keeps its guarantees, padding adds nothing, and what is refused is named."""

import jax
import networkx
import numpy as np
import pytest

from vsml.graphs import (
    Bucket,
    Graph,
    GraphDistribution,
    GraphKind,
    bucket_of,
    draw,
    generate,
    stack,
    to_arrays,
)
from vsml.graphs.arrays import round_up
from vsml.graphs.drawing import LAYOUTS, positions
from vsml.graphs.generators import CORE_KINDS, KINDS

PATH = Graph.of(4, [(0, 1), (1, 2), (2, 3)], [0], [3])

# What each kind is drawn with, from a source of random numbers and the number of hidden nodes.
PARAMETERS = {
    "waxman": lambda random, hidden: {"beta": random.uniform(0, 1), "alpha": random.uniform(0.05, 1)},
    "layered": lambda random, hidden: {"sizes": [hidden - 2, 1, 1], "skip": random.choice([0, 0.3])},
    "dag": lambda random, hidden: {"p": random.uniform(0, 1)},
    "complete": lambda random, hidden: {},
    "ring": lambda random, hidden: {"fan": int(random.integers(1, 4))},
    "lattice": lambda random, hidden: {"width": int(random.integers(1, 4)), "wrap": bool(random.integers(2))},
    "small_world": lambda random, hidden: {"k": 2, "p": random.uniform(0, 1), "fan": 1},
    "reservoir": lambda random, hidden: {"p": random.uniform(0, 1)},
}


def draw_some(kind, seed):
    random = np.random.default_rng(seed)
    inputs, outputs = random.integers(1, 5, 2)
    hidden = int(random.integers(3, 12))
    return generate(kind, int(inputs), hidden, int(outputs), seed, **PARAMETERS[kind](random, hidden))


def check_guarantees(graph):
    edges = graph.edges.tolist()
    assert edges == sorted(edges)
    assert len(set(map(tuple, edges))) == len(edges)
    assert all(u < v for u, v in edges)
    inputs, outputs = set(graph.inputs), set(graph.outputs)
    assert graph.inputs == tuple(range(len(inputs)))
    assert graph.outputs == tuple(range(graph.num_nodes - len(outputs), graph.num_nodes))
    have_lower = {v for _, v in edges}
    have_higher = {u for u, _ in edges}
    nodes = set(range(graph.num_nodes))
    # Exactly inputs have no lower neighbour, and exactly outputs no higher one.
    assert nodes - have_lower == inputs
    assert nodes - have_higher == outputs
    assert networkx.is_connected(networkx.Graph(edges))


@pytest.mark.parametrize("kind", KINDS)
def test_every_graph_of_thousands_keeps_the_guarantees(kind):
    for seed in range(300):
        check_guarantees(draw_some(kind, seed))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_arguments_give_the_same_graph_and_another_seed_another(kind):
    graphs = [draw_some(kind, 5) for _ in range(2)]
    assert graphs[0] == graphs[1]
    assert hash(graphs[0]) == hash(graphs[1])
    if kind != "complete":
        others = {
            generate(kind, 2, 9, 2, seed, **({"skip": 0.5} if kind == "layered" else {})) for seed in range(9)
        }
        assert len(others) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_graphs_of_the_smallest_sizes_keep_the_guarantees_or_are_refused(kind):
    for hidden in range(4):
        try:
            graph = generate(kind, 1, hidden, 1, 0)
        except ValueError as error:
            assert "got" in str(error)
            assert kind in CORE_KINDS
        else:
            check_guarantees(graph)


def test_layers_are_joined_to_their_neighbours_and_all_pairs_of_layers_with_skip_1():
    graph = generate("layered", 2, 5, 1, 0, sizes=[3, 2])
    assert graph.num_edges == 2 * 3 + 3 * 2 + 2
    assert graph.level.tolist() == [0, 0, 1, 1, 1, 2, 2, 3]
    assert graph.longest_path == 3
    everything = generate("layered", 2, 5, 1, 0, sizes=[3, 2], skip=1)
    assert everything.num_edges == graph.num_edges + 2 * 2 + 2 * 1 + 3 * 1


def test_a_lattice_has_rows_and_columns_and_closes_them():
    def core(**parameters):
        edges = generate("lattice", 1, 9, 1, 0, fan=1, **parameters).edges
        return {(u - 1, v - 1) for u, v in edges.tolist() if u >= 1 and v <= 9}

    rows = {(0, 1), (1, 2), (3, 4), (4, 5), (6, 7), (7, 8)}
    columns = {(0, 3), (3, 6), (1, 4), (4, 7), (2, 5), (5, 8)}
    assert rows | columns <= core()
    assert len(core()) <= 13  # one more where the clean-up needs it
    assert rows | columns | {(0, 2), (3, 5), (6, 8), (0, 6), (1, 7), (2, 8)} <= core(wrap=True)
    assert {(0, 1), (2, 3), (4, 5), (7, 8)} - core(width=2) == {(7, 8)}


def test_each_input_and_output_of_a_core_graph_has_fan_neighbours():
    graph = generate("ring", 3, 8, 2, 0, fan=4)
    ends = graph.degree[[*graph.inputs, *graph.outputs]]
    # One more at an input or output that the clean-up joined to a hidden node.
    assert ends.min() == 4
    assert ends.sum() <= 5 * 4 + 2


def test_waxman_graphs_join_near_nodes_more_often():
    shares = [generate("waxman", 5, 60, 5, 0, alpha=alpha).num_edges for alpha in (0.05, 0.4, 10.0)]
    assert shares[0] < shares[1] < shares[2]
    pairs = 70 * 69 / 2 - 2 * 10  # less those between two inputs or two outputs
    assert shares[2] == pytest.approx(0.9 * pairs, rel=0.1)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("star", 1, 1, 1), "kind: got 'star', expected one of waxman"),
        (("dag", 0, 1, 1), "num_inputs: got 0"),
        (("dag", 1, 1, 0), "num_outputs: got 0"),
        (("dag", 1, -1, 1), "num_hidden: got -1"),
        (("ring", 1, 2, 1), "num_hidden: got 2, expected at least 3 for a ring"),
        (("ring", 1, 3, 1, {"fan": 4}), "fan: got 4, expected 1 to 3"),
        (("small_world", 1, 4, 1), "k: got 4, expected 2 to 3"),
        (("lattice", 1, 4, 1, {"width": 5}), "width: got 5"),
        (("layered", 1, 4, 1, {"sizes": [2, 1]}), "sizes: got [2, 1], expected layers of 4 hidden"),
        (("dag", 1, 1, 1, {"p": 1.5}), "p: got 1.5"),
        (("dag", 1, 1, 1, {"q": 1}), "dag: got ['q'], expected parameters among ['p']"),
        (("dag", 1, 1, 1, {"fan": 1}), "dag: got ['fan']"),
        (("waxman", 1, 1, 1, {"alpha": 0}), "alpha: got 0"),
    ],
)
def test_what_a_kind_cannot_take_is_refused(arguments, words):
    kind, inputs, hidden, outputs, *parameters = arguments
    with pytest.raises(ValueError, match="got") as caught:
        generate(kind, inputs, hidden, outputs, 0, **(parameters[0] if parameters else {}))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((2, [(1, 0)], [0], [1]), r"got \(1, 0\), expected u < v"),
        ((2, [(0, 2)], [0], [1]), r"got \(0, 2\)"),
        ((3, [(1, 2), (0, 1)], [0], [1]), r"got \(0, 1\) out of order"),
        ((2, [(0, 1), (0, 1)], [0], [1]), r"got \(0, 1\) out of order or twice"),
        ((3, [(0, 1)], [0], [1]), "got none at node 2"),
        ((2, [(0, 1)], [0, 0], [1]), "inputs: got"),
        ((2, [(0, 1)], [0], [0]), "outputs: got"),
        ((2, [(0, 1)], [0], [5]), "outputs: got node 5"),
    ],
)
def test_what_is_no_graph_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        Graph(*arguments)


def test_arrays_say_what_the_graph_does():
    arrays = to_arrays(PATH)
    assert arrays.node.tolist() == [0, 1, 1, 2, 2, 3]
    assert arrays.parity.tolist() == [1, -1] * 3
    assert arrays.degree.tolist() == [1, 2, 2, 1]
    assert arrays.first.tolist() == [0, 1, 3, 5]
    assert arrays.rev(arrays.node).tolist() == [1, 0, 2, 1, 3, 2]
    assert arrays.of_owner(arrays.node).tolist() == [1, 1, 2, 2, 3, 3]
    assert arrays.to_nodes(arrays.to_half_edges(jax.numpy.arange(4.0))).tolist() == [0, 1, 2, 3]


def test_padding_adds_no_real_half_edge_and_changes_none():
    plain, padded = to_arrays(PATH), to_arrays(PATH, Bucket(8, 5))
    assert padded.is_real.tolist() == [True] * 6 + [False] * 4
    for name in ("node", "parity"):
        assert getattr(padded, name)[:6].tolist() == getattr(plain, name).tolist()
    for name in ("degree", "first"):
        assert getattr(padded, name)[:4].tolist() == getattr(plain, name).tolist()
    assert padded.degree[4:].tolist() == [0] * 4
    with pytest.raises(ValueError, match="got a graph of 4 nodes and 3 edges, expected at most 8 and 2"):
        to_arrays(PATH, Bucket(8, 2))


def test_buckets_leave_at_most_a_third_empty():
    assert [round_up(size) for size in (1, 2, 3, 4, 5, 6, 7, 9, 13)] == [1, 2, 3, 4, 6, 6, 8, 12, 16]
    assert all(round_up(size) < 1.5 * size + 0.6 for size in range(1, 3000))
    assert bucket_of([PATH, generate("dag", 2, 5, 2, 0, p=1)]) == Bucket(12, 48)


def test_graphs_with_other_numbers_of_inputs_cannot_be_stacked():
    with pytest.raises(ValueError, match=r"inputs: got graphs of \[1, 2\]"):
        stack([PATH, generate("dag", 2, 1, 1, 0)])


def test_an_episode_draws_one_graph_of_a_pool_inside_of_a_compiled_function():
    kinds = [GraphKind("dag", (3, 6), {"p": 0.5}), GraphKind("ring", (3, 9), weight=2.0)]
    distribution = GraphDistribution(kinds, num_inputs=2, num_outputs=1, seed=3)
    graphs = distribution.draw_all(20)
    assert graphs == distribution.draw_all(20)
    assert {graph.kind for graph in graphs} == {"dag", "ring"}
    assert len({graph.num_nodes for graph in graphs}) > 3
    pool = distribution.pool(20)
    real = [2 * graph.num_edges for graph in graphs]
    assert np.asarray(pool.arrays.is_real).sum(1).tolist() == real
    sizes = jax.jit(jax.vmap(lambda key: pool.draw(key).is_real.sum()))(
        jax.random.split(jax.random.key(0), 200)
    )
    assert set(sizes.tolist()) == set(real)
    with pytest.raises(ValueError, match="num_hidden: got"):
        GraphKind("dag", (3, 2))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_drawings_have_every_node_at_a_place_of_its_own(layout):
    graph = generate("waxman", 3, 10, 2, 0)
    place = positions(graph, layout)
    distances = np.linalg.norm(place[:, None] - place[None], axis=-1) + np.eye(15)
    assert distances.min() > 0.01
    assert np.isfinite(place).all()


def test_graphs_are_drawn_as_svg_and_png(tmp_path):
    graph = generate("layered", 3, 5, 2, 0)
    paths = [
        draw(graph, tmp_path / f"{name}.svg", title="a graph", edge_values=graph.edges[:, 0] - 2.0)
        for name in "ab"
    ]
    assert paths[0].read_bytes() == paths[1].read_bytes()
    text = paths[0].read_text()
    assert "a graph" in text
    assert all(f">{node}</text>" in text for node in range(10))
    picture = draw(graph, tmp_path / "graph.png", node_values=np.arange(10.0), labels=False)
    assert picture.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match=r"ends in \.svg or \.png"):
        draw(graph, tmp_path / "graph.pdf")
    with pytest.raises(ValueError, match="layout: got 'tree'"):
        draw(graph, tmp_path / "graph.svg", layout="tree")
    with pytest.raises(ValueError, match="edge_values: got 1 numbers, expected 25"):
        draw(graph, tmp_path / "graph.svg", edge_values=[1.0])

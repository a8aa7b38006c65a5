"""Synapses on the edges of a graph: a layered one is a stack of dense layers; news travels an edge a tick."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vsml.networks.edges import Edges
from vsml.networks.graph import GraphNetwork
from vsml.networks.layered import Network
from vsml.networks.wirings.base import from_tiles
from vsml.networks.wirings.dense import DenseLayer

pytestmark = pytest.mark.usefixtures("hasty", "explicit_ranks")

KEY = jax.random.key(0)
SIZES = (4, 3, 5, 2)
FIRST = np.cumsum([0, *SIZES])
N, M = 4, 3
RANDOM = np.random.default_rng(0)

# Two inputs, two outputs, and a triangle with a tail between them.
SMALL = Edges.of(7, [(0, 2), (1, 3), (2, 3), (2, 4), (3, 4), (4, 5), (3, 6)], (0, 1), (5, 6))
PATH = Edges.of(6, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)], (0,), (5,))


def layered():
    """Return the graph of fully connected layers."""
    pairs = []
    for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(SIZES)):
        for i, o in itertools.product(range(fan_in), range(fan_out)):
            pairs.append((FIRST[layer] + i, FIRST[layer + 1] + o))
    return Edges.of(sum(SIZES), pairs, range(SIZES[0]), range(FIRST[-2], FIRST[-1]))


def make(*graphs, **settings):
    settings = {"state_size": N, "message_size": M, "micro_ticks": 1} | settings
    return GraphNetwork(graphs, **settings)


def draw(*shape):
    return RANDOM.normal(size=shape).astype(np.float32)


def make_params(network):
    """Return the synapses as a graph, and larger meta-parameters than fresh ones."""
    random = np.random.default_rng(0)
    graph, params = nnx.split(network.init_synapses(nnx.Rngs(0)))
    return graph, jax.tree.map(lambda p: p + random.normal(0, 0.7, p.shape).astype(np.float32), params)


@functools.partial(jax.jit, static_argnums=(0, 1))
def learn(network, graph, params, state, xs, feedbacks):
    """Pass forward and backward over examples; return the state, and what left at the outputs."""
    synapses = nnx.merge(graph, params)
    answers = []
    for x, (pending, feedback) in zip(xs, feedbacks, strict=True):
        state, forward = network.forward_sweep(synapses, state, x, pending)
        state = network.backward_sweep(synapses, state, forward, feedback)
        answers.append(forward[-1])
    return state, jnp.stack(answers)


@pytest.mark.slow
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("micro_ticks", [1, 2])
def test_a_sweep_over_a_layered_graph_is_one_over_dense_layers(layer_norm, micro_ticks):
    settings = {"separate_backward": True, "layer_norm": layer_norm, "micro_ticks": micro_ticks}
    layers = tuple(DenseLayer(*pair, "reference") for pair in itertools.pairwise(SIZES))
    dense = Network(layers, state_size=N, message_size=M, **settings)
    edges = layered()
    on_graph = make(edges, **settings)
    graph, params = make_params(dense)
    dense_state = dense.init_state(KEY)
    cells = np.zeros((len(edges.pairs), N), np.float32)
    of_pair = {pair: number for number, pair in enumerate(edges.pairs)}
    for layer, state in enumerate(dense_state.layers):
        for (i, o), c in zip(
            np.ndindex(*SIZES[layer : layer + 2]), np.array(from_tiles(state.c)).reshape(-1, N), strict=True
        ):
            cells[of_pair[FIRST[layer] + i, FIRST[layer + 1] + o]] = c
    xs = draw(3, SIZES[0], M)
    feedbacks = draw(3, 2, SIZES[-1], M)
    want_state, want = learn(dense, graph, params, dense_state, xs, feedbacks)
    got_state, got = learn(on_graph, graph, params, on_graph.with_cells(jnp.asarray(cells)), xs, feedbacks)
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert np.ptp(want) > 0.1
    for layer, state in enumerate(want_state.layers):
        for (i, o), h in zip(
            np.ndindex(*SIZES[layer : layer + 2]), np.array(from_tiles(state.h)).reshape(-1, N), strict=True
        ):
            number = of_pair[FIRST[layer] + i, FIRST[layer + 1] + o]
            np.testing.assert_allclose(got_state.layers[0].h[number, :, 0, 0], h, atol=1e-6)


@pytest.mark.parametrize("schedule", ["sync", "async"])
def test_padding_changes_nothing(schedule):
    settings = {"schedule": schedule, "ticks": 3, "backward_ticks": 2}
    alone, beside = make(SMALL, **settings), make(SMALL, two_by_two(), **settings)
    graph, params = make_params(alone)
    xs, feedbacks = draw(2, 2, M), draw(2, 2, 2, M)
    cells = draw(len(SMALL.pairs), N)
    missing = beside.places - len(cells)
    assert missing > 0 and beside.nodes > alone.nodes
    padded = jnp.pad(cells, ((0, missing), (0, 0)))
    state, want = learn(alone, graph, params, alone.with_cells(jnp.asarray(cells), 0, KEY), xs, feedbacks)
    padded_state, got = learn(beside, graph, params, beside.with_cells(padded, 0, KEY), xs, feedbacks)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    there = padded_state.layers[0].c[: len(cells)]
    np.testing.assert_allclose(there, state.layers[0].c, rtol=1e-6)


def two_by_two():
    """Return a larger graph than SMALL: two inputs and two outputs around 8 nodes, all of them joined."""
    pairs = [(u, v) for u, v in itertools.combinations(range(12), 2) if not (v < 2 or u > 9)]
    return Edges.of(12, pairs, (0, 1), (10, 11))


def test_fresh_noise_does_not_depend_on_padding_either():
    alone, beside = make(SMALL), make(SMALL, two_by_two(), schedule="sync")
    keys = (key for key in jax.random.split(KEY, 20))
    key = next(key for key in keys if beside.init_state(key).number == 0)
    want = alone.init_state(key).layers[0].c
    np.testing.assert_array_equal(beside.init_state(key).layers[0].c[: len(want)], want)
    assert np.std(want[:, : N // 2]) > 0.1
    np.testing.assert_array_equal(want[:, N // 2 :], 0)


def test_every_graph_of_several_is_drawn():
    network = make(SMALL, two_by_two(), SMALL, schedule="sync")
    numbers = jax.vmap(lambda key: network.init_state(key).number)(jax.random.split(KEY, 40))
    assert set(numbers.tolist()) == {0, 1, 2}


@pytest.mark.parametrize("ticks", [1, 2, 3, 4])
def test_news_travels_one_edge_a_tick(ticks):
    network = make(PATH, schedule="sync", ticks=ticks)
    graph, params = make_params(network)
    synapses = nnx.merge(graph, params)
    state = network.init_state(KEY)
    one, _ = network.forward_sweep(synapses, state, draw(1, M), jnp.zeros((1, M)))
    other, _ = network.forward_sweep(synapses, state, draw(1, M), jnp.zeros((1, M)))
    changed = np.abs(one.layers[0].c - other.layers[0].c).max((1, 2, 3)) > 0
    np.testing.assert_array_equal(changed, np.arange(5) < ticks)


def test_an_asynchronous_tick_visits_some_synapses_and_others_the_next_time():
    network = make(two_by_two(), schedule="async", ticks=1, rate=0.5)
    graph, params = make_params(network)
    synapses = nnx.merge(graph, params)
    x, feedback = draw(2, M), draw(2, M)
    first = network.init_state(KEY)
    second, _ = network.forward_sweep(synapses, first, x, feedback)
    third, _ = network.forward_sweep(synapses, second, x, feedback)
    before, after, last = (state.layers[0].c[:, :, 0, 0] for state in (first, second, third))
    visited = np.any(before != after, axis=1)
    visited_next = np.any(after != last, axis=1)
    assert 0.3 < visited.mean() < 0.7
    assert 0.3 < visited_next.mean() < 0.7
    assert np.any(visited != visited_next)


def test_always_visited_is_synchronous():
    sync, always = make(SMALL, schedule="sync", ticks=3), make(SMALL, schedule="async", ticks=3, rate=1.0)
    graph, params = make_params(sync)
    xs, feedbacks = draw(2, 2, M), draw(2, 2, 2, M)
    _, want = learn(sync, graph, params, sync.init_state(KEY), xs, feedbacks)
    _, got = learn(always, graph, params, always.init_state(KEY), xs, feedbacks)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("schedule", ["sweep", "sync", "async"])
def test_gradients_reach_all_meta_parameters(schedule):
    network = make(SMALL, schedule=schedule, ticks=3, backward_ticks=3, separate_backward=False)
    graph, params = make_params(network)
    state = network.init_state(KEY)
    xs, feedbacks = draw(3, 2, M), draw(3, 2, 2, M)

    def loss(params):
        return jnp.square(learn(network, graph, params, state, xs, feedbacks)[1]).mean()

    for leaf in jax.tree.leaves(jax.grad(loss)(params)):
        assert np.isfinite(leaf).all()
        assert np.abs(leaf).max() > 0


def test_the_state_may_be_kept_in_fewer_bits():
    network = make(SMALL, state_dtype="bfloat16")
    graph, params = make_params(network)
    state, _ = learn(network, graph, params, network.init_state(KEY), draw(2, 2, M), draw(2, 2, 2, M))
    assert state.layers[0].h.dtype == jnp.bfloat16


def test_edges_are_sorted_by_level_and_depth_is_that_of_the_shortest_way():
    targets = [v for _, v in SMALL.pairs]
    assert targets == [2, 3, 3, 4, 4, 6, 5]
    assert [group.start for group in SMALL.groups] == [0, 1, 3, 6]
    assert SMALL.depth == 3  # 0 - 2 - 4 - 5
    assert PATH.depth == 5


@pytest.mark.parametrize(
    ("pairs", "mistake"),
    [
        ([(1, 0)], r"edge \(1, 0\): expected 0 <= u < v < 3"),
        ([(0, 3)], r"edge \(0, 3\): expected"),
        ([(0, 1), (0, 1)], "one of them twice"),
    ],
)
def test_what_is_no_graph_is_refused(pairs, mistake):
    with pytest.raises(ValueError, match=mistake):
        Edges.of(3, pairs, (0,), (2,))


def test_a_sweep_is_over_one_graph():
    with pytest.raises(ValueError, match="schedule: got sweep, expected sync or async for several graphs"):
        make(SMALL, SMALL)
    with pytest.raises(ValueError, match="inputs: got nodes"):
        make(Edges.of(3, [(0, 1), (1, 2)], (1,), (2,)))

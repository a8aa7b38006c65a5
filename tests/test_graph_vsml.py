"""VSML on graphs as a learner: settings, meta-parameters from elsewhere, its cost, and what it learns."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError

from vsml import load_learner
from vsml.cost.counts import cost_of
from vsml.learners import continue_episode, make_learner, run_episode
from vsml.learners.memory import perturb, state_floats
from vsml.learners.vsml import VsmlConfig
from vsml.networks.wirings.base import from_tiles
from vsml.tasks import load
from vsml.types import Classes, Episode, Values

pytestmark = pytest.mark.usefixtures("hasty", "explicit_ranks")

KEY = jax.random.key(0)
RANDOM = np.random.default_rng(0)
SMALL = {"state_size": 4, "message_size": 2}
WRITTEN = {"init": "backprop", "random_fraction": 0.25, "init_rate": 0.5, "init_weights": 1.0}
SEVERAL = {"kinds": ["ring", "complete"], "hidden": [3, 5], "count": 3, "schedule": "sync"}


def make(graph, input_shape=(4,), outputs=3, **settings):
    config = VsmlConfig.model_validate({"synapse": SMALL, "graph": graph} | settings)
    return make_learner("vsml", config, input_shape, outputs)


def layered(*sizes):
    return {"kinds": [{"type": "layered", "options": {"sizes": list(sizes)}}], "hidden": [sum(sizes)]}


def episode(steps=6, batch_size=1, inputs=4, outputs=3):
    x = RANDOM.normal(size=(steps, batch_size, inputs)).astype(np.float32)
    y = RANDOM.integers(outputs, size=(steps, batch_size)).astype(np.int32)
    return Episode(jnp.asarray(x), jnp.asarray(y), jnp.ones((steps, batch_size)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "graph", [{"kinds": ["waxman"], "hidden": [5]}, SEVERAL, SEVERAL | {"schedule": "async"}]
)
def test_a_stream_may_be_cut_anywhere(graph):
    learner = make(graph, backward_pass=True)
    params = learner.init_params(KEY)
    stream = episode()
    want = run_episode(learner, params, KEY, stream)
    state = learner.init_state(params, KEY)
    parts = []
    for start, end in ((0, 2), (2, 6)):
        part = jax.tree.map(lambda a, start=start, end=end: a[start:end], stream)
        state, answers = continue_episode(learner, params, state, part)
        parts.append(answers)
    np.testing.assert_array_equal(jnp.concatenate(parts), want)


def test_predict_gives_the_answers_of_step():
    learner = make(SEVERAL, backward_pass=True)
    params = learner.init_params(KEY)
    stream = episode(steps=3)
    state, _ = continue_episode(learner, params, learner.init_state(params, KEY), stream)
    x = stream.x[0]
    _, want = learner.step(params, state, x, stream.y[0])
    np.testing.assert_allclose(learner.predict(params, state, x), want, rtol=1e-6)


def test_meta_parameters_of_layers_serve_on_graphs():
    dense = make(None)
    on_graph = make(SEVERAL)
    shapes = jax.tree.map(jnp.shape, dense.init_params(KEY))
    assert jax.tree.map(jnp.shape, on_graph.init_params(KEY)) == shapes


def as_on_a_graph(state, on_graph):
    """Return the state of dense layers as one of the same network on a layered graph."""
    (edges,) = on_graph.network.graphs
    of_pair = {pair: number for number, pair in enumerate(edges.pairs)}
    layers = [np.array(from_tiles(layer.c[0])) for layer in state.network.layers]
    sizes = [len(layers[0]), *[c.shape[1] for c in layers]]
    first = [0, *itertools.accumulate(sizes)]
    cells = np.zeros((len(edges.pairs), layers[0].shape[-1]), np.float32)
    for layer, c in enumerate(layers):
        for i, o in np.ndindex(*c.shape[:2]):
            cells[of_pair[first[layer] + i, first[layer + 1] + o]] = c[i, o]
    network = on_graph.network.with_cells(jnp.asarray(cells))
    return dataclasses.replace(on_graph.with_network(network), features=state.features)


@pytest.mark.parametrize("name", ["general", "mnist14"])
@pytest.mark.parametrize("hidden", [(), (6,)])
def test_algorithms_that_ship_give_the_numbers_of_layers_on_a_layered_graph(name, hidden):
    shapes = {"input_shape": (8, 8), "num_classes": 10}
    # What ships has no other synapse for backward sweeps, which only gradient descent in hidden layers needs.
    synapse = {"init": "random"}
    layers = [*[{"type": "dense", "out_size": size} for size in hidden], {"type": "dense"}]
    dense = load_learner(name, **shapes, model={"vsml": {"synapse": synapse, "layers": layers}})
    on_graph = load_learner(name, **shapes, model={"vsml": {"synapse": synapse, "graph": layered(*hidden)}})
    digits = load("digits", "test")
    x = (np.asarray(digits.images[:100], np.float32).reshape(-1, 1, 8, 8) - digits.mean) / digits.std
    y = np.asarray(digits.labels[:100], np.int32)[:, None]
    state = dense.start(seed=3)
    _, want = dense.run(state, x, y)
    _, got = on_graph.run(as_on_a_graph(state, on_graph.learner), x, y)
    assert np.ptp(want) > 0.1
    # What ships was made for one layer. With two it does not learn, and rounding grows.
    same = 8 if hidden else 100
    np.testing.assert_allclose(got[:same], want[:same], atol=1e-3)
    if not hidden:
        right = np.argmax(got, -1) == y
        assert right[50:].mean() > 0.3


def test_an_inner_batch_and_values_are_taken():
    learner = make(SEVERAL, outputs=Values(3))
    params = learner.init_params(KEY)
    state = learner.init_state(params, KEY, batch_size=2)
    x = RANDOM.normal(size=(2, 4)).astype(np.float32)
    y = RANDOM.normal(size=(2, 3)).astype(np.float32)
    state, answers = learner.step(params, state, x, y)
    assert answers.shape == (2, 3)
    # Elements share the first half of their states.
    h = learner._merge_batch(state.network).layers[0].h
    np.testing.assert_array_equal(h[0, :, :2], h[1, :, :2])


def test_steps_without_teaching_tell_nothing():
    learner = make(SEVERAL, backward_pass=True)
    params = jax.tree.map(lambda p: 3 * p, learner.init_params(KEY))
    state = learner.init_state(params, KEY)
    x = RANDOM.normal(size=(1, 4)).astype(np.float32)
    states = [learner.step(params, state, x, np.array([label]), jnp.zeros(1))[0] for label in (0, 2)]
    for one, other in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_array_equal(one, other)


def test_its_memory_is_counted_and_can_be_disturbed():
    learner = make(SEVERAL)
    params = learner.init_params(KEY)
    state = learner.init_state(params, KEY)
    assert int(state_floats(learner)) >= 2 * learner.network.places * SMALL["state_size"]
    disturbed = perturb(learner, state, KEY, "drop_units", 0.5)
    lost = np.all(np.asarray(disturbed.network.layers[0].c) == 0, axis=(0, 2, 3, 4))
    had = ~np.all(np.asarray(state.network.layers[0].c) == 0, axis=(0, 2, 3, 4))
    assert 0.3 < (lost & had).mean() < 0.7


def test_a_layered_graph_costs_what_dense_layers_cost():
    layers = [{"type": "dense", "out_size": 5}, {"type": "dense"}]
    dense = cost_of(make(None, layers=layers))
    on_graph = cost_of(make(layered(5)))
    assert on_graph.synapses == dense.synapses
    assert on_graph.transcendentals == dense.transcendentals
    assert on_graph.matrix_flops == pytest.approx(
        dense.matrix_flops, rel=0.06
    )  # it also has the messages of inputs to nobody
    # Three visits in each direction instead of one in all.
    often = make(layered(5) | {"schedule": "sync", "ticks": 3}, backward_pass=True)
    assert cost_of(often).transcendentals == 6 * on_graph.transcendentals


@pytest.mark.slow
def test_gradient_descent_in_synapses_learns_on_a_graph_with_shortcuts():
    """A graph with edges over layers: no stack of layers is this network."""
    graph = {"kinds": [{"type": "layered", "options": {"sizes": [6, 6], "skip": 0.5}}], "hidden": [12]}
    synapse = WRITTEN | {"init_rate": 2.0, "init_max_weight": 60.0}
    flags = {"backward_pass": True, "separate_backward": True, "micro_ticks": 1}
    config = VsmlConfig.model_validate({"synapse": synapse, "graph": graph} | flags)
    learner = make_learner("vsml", config, (4,), Classes(2))
    params = learner.init_params(KEY)
    x = RANDOM.normal(size=(400, 1, 4)).astype(np.float32)
    y = (x[..., 0] > x[..., 1]).astype(np.int32)
    answers = run_episode(learner, params, KEY, Episode(jnp.asarray(x), jnp.asarray(y), jnp.ones(y.shape)))
    right = np.argmax(answers, -1) == y
    assert right[:10].mean() <= 0.8
    assert right[-100:].mean() > 0.85


@pytest.mark.parametrize(
    ("graph", "settings", "message"),
    [
        ({"kinds": ["waxmann"]}, {}, "kinds.0.type: got 'waxmann', expected one of .*did you mean waxman"),
        ({"hidden": [5, 3]}, {}, "hidden: got .*the least number first"),
        ({"count": 2}, {}, "graph.schedule: got 'sweep', expected sync or async with 2 graphs"),
        ({"ticks": 2}, {}, "graph.ticks: got 2, expected null with schedule: sweep"),
        ({}, {"layerwise": True}, "layerwise: got True, expected its default with a graph"),
        ({}, {"kernel": "tiled"}, "kernel: got 'tiled', expected its default with a graph"),
        ({}, {"layers": [{"type": "dense", "out_size": 3}, {"type": "dense"}]}, "layers: got .*with a graph"),
    ],
)
def test_settings_that_mean_nothing_on_a_graph_are_refused(graph, settings, message):
    with pytest.raises(ValidationError, match=message):
        VsmlConfig.model_validate({"graph": graph} | settings)


def test_parameters_that_a_kind_does_not_take_are_refused():
    with pytest.raises(ValueError, match="alhpa"):
        make({"kinds": [{"type": "waxman", "options": {"alhpa": 0.3}}]}).init_params(KEY)

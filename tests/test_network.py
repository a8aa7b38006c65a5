"""A network: whose meta-parameters a layer uses, what a sweep passes on, and its symmetries."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vsml.networks.layered import Network
from vsml.networks.wirings.dense import DenseLayer

pytestmark = pytest.mark.usefixtures("hasty", "explicit_ranks")

KEY = jax.random.key(0)
SIZES = (3, 2, 4)
N, M = 4, 3
RANDOM = np.random.default_rng(0)


def make(sizes=SIZES, **settings):
    layers = tuple(DenseLayer(*pair) for pair in itertools.pairwise(sizes))
    return Network(layers, state_size=N, message_size=M, micro_ticks=1, **settings)


def make_params(network, seed=0):
    """Return the synapses as a graph, and larger meta-parameters than fresh ones."""
    random = np.random.default_rng(seed)
    graph, params = nnx.split(network.init_synapses(nnx.Rngs(seed)))
    return graph, jax.tree.map(lambda p: p + random.normal(0, 0.5, p.shape).astype(np.float32), params)


def draw(*shape):
    return RANDOM.normal(size=shape).astype(np.float32)


@functools.partial(jax.jit, static_argnums=(0, 1))
def sweep_twice(network, graph, params, state, x, feedback):
    """Sweep forward, backward and forward again."""
    synapses = nnx.merge(graph, params)
    first, forward = network.forward_sweep(synapses, state, x, feedback)
    second = network.backward_sweep(synapses, first, forward, feedback)
    return first, forward, second, network.forward_sweep(synapses, second, x, 0 * feedback)


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({}, 1),
        ({"layerwise": True}, 2),
        ({"separate_backward": True}, 2),
        ({"layerwise": True, "separate_backward": True}, 4),
    ],
)
def test_each_synapse_is_stored_once_and_every_one_is_used(settings, count):
    network = make(**settings)
    synapses = network.init_synapses(nnx.Rngs(0))
    assert len(synapses) == count
    users = [
        network.synapse_of(synapses, layer, backward) for backward in (False, True) for layer in range(2)
    ]
    assert {id(user) for user in users} == {id(synapse) for synapse in synapses}
    assert (users[0] is users[1]) == (not network.layerwise)
    assert (users[0] is users[2]) == (not network.separate_backward)
    assert (users[1] is users[3]) == (not network.separate_backward)
    leaves = jax.tree.leaves(nnx.split(synapses)[1])
    assert sum(leaf.size for leaf in leaves) == count * ((2 * M + N) * 4 * N + 4 * N + 2 * (N * M + M))


@pytest.mark.parametrize(
    ("settings", "synapse", "changed"),
    [  # which layers are changed by the forward sweep
        ({}, 0, [0, 1]),
        ({"layerwise": True}, 0, [0, 1]),
        ({"layerwise": True}, 1, [1]),
        ({"separate_backward": True}, 1, []),
        ({"layerwise": True, "separate_backward": True}, 2, []),
        ({"layerwise": True, "separate_backward": True}, 3, []),
    ],
)
def test_a_changed_synapse_changes_the_layers_that_use_it_and_those_after(settings, synapse, changed):
    network = make(**settings)
    graph, params = make_params(network)
    state, x, feedback = network.init_state(KEY), draw(3, M), draw(4, M)
    other = jax.tree.map_with_path(
        lambda path, leaf: leaf + 0.5 * (getattr(path[0], "key", None) == synapse), params
    )
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (params, other)), strict=True))
    before = sweep_twice(network, graph, params, state, x, feedback)
    after = sweep_twice(network, graph, other, state, x, feedback)

    def differ(one, two):
        return [k for k in range(2) if (one.layers[k].c != two.layers[k].c).any()]

    assert differ(before[0], after[0]) == changed
    # The backward sweep begins with the last layer, so what changes there reaches the first.
    assert differ(before[2], after[2]) == ([0] if (synapse, len(params)) == (2, 4) else [0, 1])


def test_a_forward_sweep_passes_messages_on_and_leaves_those_back_for_the_next():
    network = make()
    graph, params = make_params(network)
    synapses, x, feedback = nnx.merge(graph, params), draw(3, M), draw(4, M)
    state = network.init_state(KEY)
    assert [message.shape for message in state.backward] == [(2, M)]
    assert not state.backward[0].any()
    waiting = state.replace(backward=(jnp.asarray(draw(2, M)),))
    after, forward = network.forward_sweep(synapses, waiting, x, feedback)
    first, second = network.layers
    state_0, message_0, _ = first.visit(synapses[0], state.layers[0], x, waiting.backward[0], 1)
    state_1, message_1, back_1 = second.visit(synapses[0], state.layers[1], message_0, feedback, 1)
    for got, want in [
        (forward[0], x),
        (forward[1], message_0),
        (forward[2], message_1),
        (after.layers[0].c, state_0.c),
        (after.layers[1].c, state_1.c),
        (after.backward[0], back_1),
    ]:
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
    silent, _ = network.forward_sweep(synapses, state, x, feedback)
    assert (silent.layers[0].c != after.layers[0].c).any()


def test_a_backward_sweep_goes_last_to_first_with_the_forward_messages_it_is_given():
    network = make(separate_backward=True, layerwise=True)
    graph, params = make_params(network)
    synapses, feedback = nnx.merge(graph, params), draw(4, M)
    forward = (draw(3, M), draw(2, M), draw(4, M))
    state = network.init_state(KEY)
    after = network.backward_sweep(synapses, state, forward, feedback)
    first, second = network.layers
    state_1, _, back_1 = second.visit(synapses[3], state.layers[1], forward[1], feedback, 1)
    state_0, _, _ = first.visit(synapses[2], state.layers[0], forward[0], back_1, 1)
    for got, want in [
        (after.layers[0].c, state_0.c),
        (after.layers[1].c, state_1.c),
        (after.backward[0], back_1),
    ]:
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sizes", [(1, 1), (3, 2, 4), (3, 4, 1, 2)])
def test_permuting_the_units_of_a_layer_permutes_what_they_send(sizes):
    network = make(sizes)
    graph, params = make_params(network)
    x, feedback = draw(sizes[0], M), draw(sizes[-1], M)
    cells = [draw(*pair, N) for pair in itertools.pairwise(sizes)]
    orders = [np.roll(np.arange(size), 1) for size in sizes]

    def run(cells, x, feedback):
        layers = tuple(layer.with_cells(c) for layer, c in zip(network.layers, cells, strict=True))
        return sweep_twice(network, graph, params, network.with_layers(layers), x, feedback)

    plain = run(cells, x, feedback)
    moved = run(
        [c[orders[k]][:, orders[k + 1]] for k, c in enumerate(cells)], x[orders[0]], feedback[orders[-1]]
    )
    for k, (one, other) in enumerate(zip(plain[3][1], moved[3][1], strict=True)):
        np.testing.assert_allclose(other, one[orders[k]], rtol=1e-4, atol=1e-5)
    for k, (one, other) in enumerate(zip(plain[2].backward, moved[2].backward, strict=True)):
        np.testing.assert_allclose(other, one[orders[k + 1]], rtol=1e-4, atol=1e-5)


def test_layers_start_from_different_draws():
    network = make((3, 3, 3))
    state = network.init_state(KEY)
    assert (state.layers[0].c != state.layers[1].c).any()

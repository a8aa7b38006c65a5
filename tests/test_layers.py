"""A dense layer: its fresh state, and a visit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vsml.networks.cells.lstm import Synapse
from vsml.networks.wirings.base import from_tiles
from vsml.networks.wirings.dense import DenseLayer

pytestmark = pytest.mark.usefixtures("hasty", "explicit_ranks")

KEY = jax.random.key(0)
RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("fan_in", [1, 4, 100])
def test_random_cells_are_cut_normal_with_variance_one_over_fan_in(fan_in):
    layer = DenseLayer(fan_in, 400 // fan_in)
    state = layer.init_state(KEY, 16, 0.5)
    cells = from_tiles(state.c) * fan_in**0.5
    assert (cells[..., 8:] == 0).all()
    assert not state.h.any()
    random = cells[..., :8]
    assert len(np.unique(random)) > 0.99 * random.size
    assert abs(random).max() <= 2
    assert abs(random).max() > 1.9
    np.testing.assert_allclose(random.mean(), 0, atol=0.06)
    np.testing.assert_allclose(random.std(), 0.8796, atol=0.04)


@pytest.mark.parametrize(
    ("state_size", "fraction", "expected"), [(6, 0.0, 0), (6, 1.0, 6), (5, 0.5, 2), (6, 0.16, 0), (1, 1.0, 1)]
)
def test_the_random_fraction_is_rounded_down(state_size, fraction, expected):
    layer = DenseLayer(3, 2)
    cells = from_tiles(layer.init_state(KEY, state_size, fraction).c)
    assert cells.shape == (3, 2, state_size)
    assert (cells != 0).all(axis=(0, 1)).sum() == expected
    assert (cells == 0).all(axis=(0, 1)).sum() == state_size - expected


@pytest.mark.parametrize(("fan_in", "fan_out"), [(1, 1), (3, 5), (5, 1), (600, 4), (400, 6)])
def test_cells_come_out_of_the_tiles_as_they_went_in(fan_in, fan_out):
    layer = DenseLayer(fan_in, fan_out)
    cells = RANDOM.normal(size=(fan_in, fan_out, 3)).astype(np.float32)
    state = layer.with_cells(jnp.asarray(cells))
    np.testing.assert_array_equal(from_tiles(state.c), cells)
    assert state.c.size == layer.fan_in * layer.fan_out * 3
    tiles, _, rows, _ = state.c.shape
    assert tiles * rows == fan_out
    for output in range(fan_out):
        np.testing.assert_array_equal(state.c[output // rows, :, output % rows], cells[:, output].T)


@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize(("fan_in", "fan_out"), [(1, 1), (3, 2)])
def test_a_visit_averages_what_the_synapses_send(fan_in, fan_out, layer_norm):
    layer, synapse = DenseLayer(fan_in, fan_out), Synapse(4, 3, layer_norm, 1.0, nnx.Rngs(0))
    cells = RANDOM.normal(size=(fan_in, fan_out, 4)).astype(np.float32)
    forward = RANDOM.normal(size=(fan_in, 3)).astype(np.float32)
    backward = RANDOM.normal(size=(fan_out, 3)).astype(np.float32)
    visit = jax.jit(lambda *arguments: layer.visit(synapse, *arguments, 2))
    tick, messages = jax.jit(synapse.__call__), jax.jit(synapse.messages)
    state, out_forward, out_backward = visit(layer.with_cells(cells), forward, backward)
    sent = {}
    for a in range(fan_in):
        for b in range(fan_out):
            h, c = jnp.zeros(4), cells[a, b]
            for _ in range(2):
                h, c = tick(h, c, forward[a], backward[b])
            np.testing.assert_allclose(from_tiles(state.h)[a, b], h, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(from_tiles(state.c)[a, b], c, rtol=1e-4, atol=1e-6)
            sent[a, b] = messages(h)
    for b in range(fan_out):
        want = np.mean([sent[a, b][0] for a in range(fan_in)], axis=0)
        np.testing.assert_allclose(out_forward[b], want, rtol=1e-3, atol=1e-5)
    for a in range(fan_in):
        want = np.mean([sent[a, b][1] for b in range(fan_out)], axis=0)
        np.testing.assert_allclose(out_backward[a], want, rtol=1e-3, atol=1e-5)

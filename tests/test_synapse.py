"""One synapse: its equations, what it remembers, and its two forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vsml.networks.cells.lstm import GATE_OFFSET, Synapse

pytestmark = pytest.mark.usefixtures("hasty", "explicit_ranks")

N, M = 4, 3
RANDOM = np.random.default_rng(0)


def make_synapse(layer_norm=False, noise=0.5):
    synapse = Synapse(N, M, layer_norm, 1.0, nnx.Rngs(0))
    graph, params = nnx.split(synapse)
    noisy = jax.tree.map(lambda p: p + RANDOM.normal(0, noise, p.shape).astype(np.float32), params)
    return nnx.merge(graph, noisy)


def draw(*shape):
    return RANDOM.normal(size=shape).astype(np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_a_tick_is_that_of_the_papers_lstm():
    synapse = make_synapse()
    h, c, forward, backward = draw(N), draw(N), draw(M), draw(M)
    kernel, bias = np.asarray(synapse.lstm.kernel), np.asarray(synapse.lstm.bias)
    gates = np.concatenate([forward, backward, h]) @ kernel + bias
    i, g, f, o = gates.reshape(4, N)
    want_c = sigmoid(f + 5) * c + sigmoid(i - 5) * np.tanh(g)
    got_h, got_c = synapse(h, c, forward, backward)
    np.testing.assert_allclose(got_c, want_c, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got_h, sigmoid(o) * np.tanh(want_c), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_a_message_is_linear_in_h_and_then_normalised(layer_norm):
    synapse, h = make_synapse(layer_norm), draw(N)
    for got, linear, norm in zip(
        synapse.messages(h),
        (synapse.forward_message, synapse.backward_message),
        (synapse.forward_norm, synapse.backward_norm),
        strict=True,
    ):
        want = h @ np.asarray(linear.kernel) + np.asarray(linear.bias)
        if layer_norm:
            want = (want - want.mean()) / np.sqrt(want.var() + 1e-5)
            want = want * np.asarray(norm.scale) + np.asarray(norm.bias)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_a_fresh_synapse_keeps_its_state():
    synapse = Synapse(16, 8, False, 1.0, nnx.Rngs(0))
    c = jnp.asarray(draw(16))
    h = jnp.zeros(16)
    before = c
    for _ in range(10):
        h, c = synapse(h, c, jnp.zeros(8), jnp.zeros(8))
    np.testing.assert_allclose(c, before, rtol=0.1, atol=0.12)
    assert GATE_OFFSET == 5


def test_the_two_halves_of_the_input_are_told_apart():
    synapse = make_synapse()
    h, c, forward, backward = draw(N), draw(N), draw(M), draw(M)
    one, other = synapse(h, c, forward, backward)[1], synapse(h, c, backward, forward)[1]
    assert abs(one - other).max() > 1e-4


def test_the_rewritten_cell_gives_the_gates_of_the_plain_one():
    synapse = make_synapse()
    weights = synapse.cell_weights()
    h, c, forward, backward = draw(N), draw(N), draw(M), draw(M)
    gates = weights.forward @ forward + weights.backward @ backward + weights.hidden @ h + weights.bias
    i, g, f, o = np.tanh(np.asarray(gates)).reshape(4, N)
    got_c = (0.5 + 0.5 * f) * c + (0.5 + 0.5 * i) * g
    want_h, want_c = synapse(h, c, forward, backward)
    np.testing.assert_allclose(got_c, want_c, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose((0.5 + 0.5 * o) * np.tanh(got_c), want_h, rtol=1e-4, atol=1e-6)

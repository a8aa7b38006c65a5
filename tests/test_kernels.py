"""The kernels: the hyperbolic tangent, the tiles, and the fast visit of a layer against the plain one."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flat_vsml import conv as conv_section
from flax import nnx

from vsml.networks.cells.lstm import Synapse
from vsml.networks.kernels import native
from vsml.networks.kernels.activations import FINE, tanh
from vsml.networks.kernels.positions import GROUP_SYNAPSES, group_positions
from vsml.networks.kernels.tiled import TILE_SYNAPSES, tile_rows
from vsml.networks.wirings.base import from_tiles
from vsml.networks.wirings.conv import ConvLayer
from vsml.networks.wirings.dense import DenseLayer

pytestmark = pytest.mark.usefixtures("hasty", "explicit_ranks")

RANDOM = np.random.default_rng(0)

FAST = ["tiled"] if native.missing(16) else ["tiled", "native"]
"""Kernels that can run here, but for the plain one."""


def test_tanh_is_right_to_within_the_precision_of_its_type():
    x = np.concatenate(
        [np.linspace(-12, 12, 200001), [-1e30, -FINE.bound, FINE.bound, 1e30], np.logspace(-30, 0, 1000)]
    )
    got = np.asarray(tanh(jnp.asarray(x, jnp.float32)), np.float64)
    np.testing.assert_allclose(got, np.tanh(x.astype(np.float32).astype(np.float64)), rtol=0, atol=4e-7)
    assert abs(got).max() <= 1 + 4e-7


def test_tanh_is_odd_and_keeps_small_numbers():
    x = jnp.asarray(RANDOM.normal(size=100) * 3, jnp.float32)
    np.testing.assert_array_equal(tanh(-x), -tanh(x))
    assert tanh(jnp.float32(0)) == 0
    np.testing.assert_allclose(tanh(jnp.float32(1e-20)), 1e-20, rtol=1e-6)


def test_tanh_of_what_is_not_a_number_is_not_a_number():
    assert np.isnan(tanh(jnp.float32(jnp.nan)))
    np.testing.assert_allclose(tanh(jnp.array([-jnp.inf, jnp.inf])), [-1, 1], atol=4e-7)


def test_the_derivative_of_tanh_is_one_minus_its_square():
    x = jnp.linspace(-12, 12, 1001)
    slope = jax.vmap(jax.grad(tanh))(x)
    np.testing.assert_allclose(slope, 1 - np.tanh(np.asarray(x, np.float64)) ** 2, rtol=0, atol=1e-6)
    assert (slope >= -1e-6).all()


SIZES = [
    (1, 1),
    (1, 7),
    (7, 1),
    (13, 11),
    (100, 10),
    (1024, 3),
    (1025, 3),
    (784, 10),
    (600, 4),
    (1, 5000),
    (64, 32),
]


@pytest.mark.parametrize(("fan_in", "fan_out"), SIZES)
def test_tiles_are_as_large_as_fits_and_cut_no_output_unit(fan_in, fan_out):
    rows = tile_rows(fan_in, fan_out)
    fitting = [r for r in range(1, fan_out + 1) if fan_out % r == 0 and r * fan_in <= TILE_SYNAPSES]
    assert fan_out % rows == 0
    assert rows == (fitting[-1] if fitting else 1)


def make_synapse(state_size, message_size, layer_norm, seed=0):
    """Make a synapse with larger meta-parameters than fresh ones, and no bias 0 or scale 1."""
    random = np.random.default_rng(seed)
    synapse = Synapse(state_size, message_size, layer_norm, 1.0, nnx.Rngs(seed))
    graph, params = nnx.split(synapse)
    noisy = jax.tree.map(lambda p: p + random.normal(0, 0.5, p.shape).astype(np.float32), params)
    return graph, noisy


@functools.partial(jax.jit, static_argnums=(0, 1, 6))
def visit_all(layer, graph, params, cells, forward, backward, micro_ticks):
    """Visit a layer whose h is not 0 either, and differentiate a function of all that comes out."""

    @functools.partial(jax.grad, argnums=(0, 1, 2, 3), has_aux=True)
    def gradient(params, cells, forward, backward):
        synapse = nnx.merge(graph, params)
        state = layer.with_cells(cells)
        state = state.replace(h=jnp.tanh(state.c))
        state, out_forward, out_backward = layer.visit(synapse, state, forward, backward, micro_ticks)
        out = from_tiles(state.h), from_tiles(state.c), out_forward, out_backward
        return sum(jnp.sin(3 * leaf).sum() / leaf.shape[0] for leaf in out), out

    return gradient(params, cells, forward, backward)


@pytest.mark.parametrize(
    ("fan_in", "fan_out", "state_size", "micro_ticks", "layer_norm"),
    [
        (1, 1, 5, 1, False),
        (3, 5, 5, 2, True),
        (39, 3, 16, 3, False),  # 2 vectors of 16 floats and a part of one
        (400, 6, 8, 1, True),  # 3 tiles of two
        (1030, 2, 5, 1, False),  # a unit with more synapses than a tile should have
    ],
)
def test_the_fast_kernels_compute_what_the_plain_one_does(
    fan_in, fan_out, state_size, micro_ticks, layer_norm
):
    graph, params = make_synapse(state_size, 3, layer_norm)
    cells = RANDOM.normal(size=(fan_in, fan_out, state_size)).astype(np.float32)
    forward = RANDOM.normal(size=(fan_in, 3)).astype(np.float32)
    backward = RANDOM.normal(size=(fan_out, 3)).astype(np.float32)
    want, *fast = (
        visit_all(DenseLayer(fan_in, fan_out, kernel), graph, params, cells, forward, backward, micro_ticks)
        for kernel in ("reference", *FAST)
    )
    for got in fast:
        compare(got, want)


@pytest.mark.parametrize(
    ("shape", "conv", "micro_ticks", "layer_norm", "tiles", "groups", "positions_last"),
    [
        ((5, 4, 1), conv_section(2, 3, 2), 2, False, 1, 1, False),
        ((4, 4, 1), conv_section(2, 3), 1, True, 1, 1, True),
        ((1, 600, 1), conv_section(3, 5, axes=1), 2, False, 1, 3, True),
        ((1, 3, 120), conv_section(4, 5, axes=1), 2, True, 4, 3, False),  # an output unit has 600 synapses
        ((1, 2, 210), conv_section(2, 5, axes=1), 1, False, 2, 2, False),  # more than a tile should have
    ],
)
def test_the_fast_kernels_of_convolutions_compute_what_the_plain_one_does(
    shape, conv, micro_ticks, layer_norm, tiles, groups, positions_last
):
    want, *fast = [ConvLayer(shape, conv, kernel) for kernel in ("reference", *FAST)]
    graph, params = make_synapse(5, 3, layer_norm)
    kernel = (conv.kernel_size,) * conv.axes
    cells = RANDOM.normal(size=(*kernel, shape[-1], conv.out_channels, 5)).astype(np.float32)
    forward = RANDOM.normal(size=(want.fan_in, 3)).astype(np.float32)
    backward = RANDOM.normal(size=(want.fan_out, 3)).astype(np.float32)
    expected = visit_all(want, graph, params, cells, forward, backward, micro_ticks)
    for layer in fast:
        compare(visit_all(layer, graph, params, cells, forward, backward, micro_ticks), expected)

    fan_in = math.prod(kernel) * shape[-1]
    assert want.with_cells(cells).c.shape[0] == tiles
    places = want.fan_out // conv.out_channels
    assert group_positions(conv.out_channels // tiles, fan_in, places) == (places // groups, positions_last)


@pytest.mark.parametrize(
    ("rows", "fan_in", "positions", "expected"),
    [
        (8, 9, 49, (49, True)),
        (8, 9, 196, (49, True)),
        (8, 72, 49, (1, False)),
        (8, 72, 784, (1, False)),  # 7 would fit, and 72 synapses of an output unit are longer
        (2, 72, 49, (7, False)),
        (1, 5000, 7, (1, False)),
        (1, 1, 1, (1, False)),
    ],
)
def test_groups_have_as_many_positions_as_fit_and_their_longest_axis_last(rows, fan_in, positions, expected):
    assert group_positions(rows, fan_in, positions) == expected
    count, positions_last = expected
    assert positions % count == 0
    assert count == 1 or count * rows * fan_in <= (GROUP_SYNAPSES if positions_last else TILE_SYNAPSES)


def compare(got_of_both, want_of_both):
    """Compare the gradients and results of `visit_all`."""
    (got_gradient, got), (want_gradient, want) = got_of_both, want_of_both
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=5e-6)
    for a, b in zip(jax.tree.leaves(got_gradient), jax.tree.leaves(want_gradient), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * abs(b).max() + 1e-7)
        assert abs(b).max() > 0

"""A convolutional layer: what it computes, spelt out; where messages go; what it shares with a dense one."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flat_vsml import conv as conv_section
from flax import nnx

from vsml.networks.cells.lstm import Synapse
from vsml.networks.wirings.base import from_tiles
from vsml.networks.wirings.conv import ConvLayer
from vsml.networks.wirings.dense import DenseLayer

pytestmark = pytest.mark.usefixtures("hasty", "explicit_ranks")

KEY = jax.random.key(0)
N, M = 4, 3
RANDOM = np.random.default_rng(0)


def draw(*shape):
    return RANDOM.normal(size=shape).astype(np.float32)


def make_synapse(layer_norm=False):
    """Make a synapse with larger meta-parameters than fresh ones, and no bias 0 or scale 1."""
    graph, params = nnx.split(Synapse(N, M, layer_norm, 1.0, nnx.Rngs(0)))
    return graph, jax.tree.map(lambda p: p + 0.5 * draw(*p.shape), params)


def draw_cells(layer):
    conv = layer.config
    return draw(*[conv.kernel_size] * conv.axes, layer.input_shape[-1], conv.out_channels, N)


# To compile is what takes time here, so the compiler is told not to optimise.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def visit_plainly(layer, graph, params, cells, forward, backward, micro_ticks=1):
    """Visit a layer in a fresh state: its h and c [I, O, N], and the messages it sends."""
    state = layer.with_cells(cells)
    state, *sent = layer.visit(nnx.merge(graph, params), state, forward, backward, micro_ticks)
    return from_tiles(state.h), from_tiles(state.c), *sent


visit = jit(visit_plainly, static_argnums=(0, 1, 6))


def spelt_out(layer, graph, params, cells, forward, backward, micro_ticks):
    """Compute what `visit` does, place by place: which pixel, which synapse, which mean."""
    (H, W, channels_in), (rows, columns, channels_out) = layer.input_shape, layer.output_shape
    down, across = layer.config.strides
    height, width = layer.config.kernel_shape
    patch = list(itertools.product(range(height), range(width), range(channels_in)))
    places = list(itertools.product(range(rows), range(columns), range(len(patch)), range(channels_out)))

    def pixel(place):
        """Return the number of the input unit that this synapse reads at this position, None if outside."""
        row, column, a, _ = place
        y, x, channel = patch[a]
        y, x = row * down + y - (height - 1) // 2, column * across + x - (width - 1) // 2
        return (y * W + x) * channels_in + channel if 0 <= y < H and 0 <= x < W else None

    def unit(place):
        row, column, _, b = place
        return (row * columns + column) * channels_out + b

    synapse = nnx.merge(graph, params)
    tick, messages = jit(jax.vmap(synapse)), jit(jax.vmap(synapse.messages))
    read = np.stack([np.zeros(M) if pixel(p) is None else forward[pixel(p)] for p in places])
    heard = np.stack([backward[unit(p)] for p in places])
    c = cells.reshape(len(patch), channels_out, N)
    h = np.zeros_like(c)
    for _ in range(micro_ticks):
        each = (np.stack([state[p[2], p[3]] for p in places]) for state in (h, c))
        h_each, c_each = tick(*each, read, heard)
        h, c = (np.zeros_like(c) for _ in range(2))
        for p, one_h, one_c in zip(places, h_each, c_each, strict=True):
            h[p[2], p[3]] += one_h / (rows * columns)
            c[p[2], p[3]] += one_c / (rows * columns)
    out, back = np.zeros((layer.fan_out, M)), np.zeros((layer.fan_in, M))
    for p, one_forward, one_backward in zip(places, *messages(h_each), strict=True):
        out[unit(p)] += one_forward / len(patch)
        if pixel(p) is not None:
            back[pixel(p)] += one_backward / channels_out / (height * width)
    return h, c, out, back


@pytest.mark.parametrize(
    ("shape", "conv", "micro_ticks", "layer_norm"),
    [
        ((3, 4, 2), conv_section(2, 3, 2), 2, False),
        ((4, 3, 1), conv_section(3, 3, 1), 1, True),
        ((2, 5, 2), conv_section(2, 5, 3, axes=1), 3, False),
        ((1, 1, 2), conv_section(2, 3, 2), 2, False),  # a patch that is mostly border
        ((3, 5, 1), conv_section(1, 1, 2), 1, False),  # pixels that nobody reads
    ],
)
def test_a_visit_is_what_it_says_place_by_place(shape, conv, micro_ticks, layer_norm):
    layer = ConvLayer(shape, conv)
    graph, params = make_synapse(layer_norm)
    arguments = (draw_cells(layer), draw(layer.fan_in, M), draw(layer.fan_out, M), micro_ticks)
    got = visit(layer, graph, params, *arguments)
    for one, other in zip(got, spelt_out(layer, graph, params, *arguments), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel_size", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize(("shape", "axes"), [((5, 4, 1), 2), ((1, 5, 1), 1), ((2, 4, 1), 1)])
def test_a_unit_hears_back_from_exactly_those_that_it_sends_to(shape, axes, kernel_size, stride):
    """The support of d out_bwd / d m_bwd is the transpose of the support of d out_fwd / d m_fwd.

    Both at one micro tick: with more, the shared state makes everything depend on everything. The first is
    [inputs, outputs]: from which output unit's incoming message something reaches an input unit; the second
    is [outputs, inputs]. The distance between pixels says independently what they should be.
    """
    layer = ConvLayer(shape, conv_section(1, kernel_size, stride, axes), "reference")
    graph, params = make_synapse()
    forward, backward = draw(layer.fan_in, M), draw(layer.fan_out, M)

    @jit
    @functools.partial(jax.jacfwd, argnums=(0, 1))
    def slopes(forward, backward):
        return visit_plainly(layer, graph, params, draw_cells(layer), forward, backward)[2:]

    (by_forward, _), (_, by_backward) = slopes(forward, backward)
    reads = (by_forward != 0).any((1, 3))
    returns = (by_backward != 0).any((1, 3))
    (H, W, _), (rows, columns, _) = layer.input_shape, layer.output_shape
    down, across = layer.config.strides
    reach = (kernel_size - 1) // 2
    expected = [
        [
            abs(y - row * down) <= (reach if axes == 2 else 0) and abs(x - column * across) <= reach
            for y in range(H)
            for x in range(W)
        ]
        for row in range(rows)
        for column in range(columns)
    ]
    np.testing.assert_array_equal(reads, expected)
    np.testing.assert_array_equal(returns, reads.T)


@pytest.mark.parametrize(
    ("shape", "conv", "readers"),
    [
        ((5,), conv_section(1, 3, 1, axes=1), [2, 3, 3, 3, 2]),
        ((5,), conv_section(1, 3, 2, axes=1), [1, 2, 1, 2, 1]),
        ((5,), conv_section(1, 1, 2, axes=1), [1, 0, 1, 0, 1]),
        ((6,), conv_section(1, 5, 2, axes=1), [2, 2, 3, 2, 2, 1]),
        ((5, 5), conv_section(1, 3, 1), np.outer([2, 3, 3, 3, 2], [2, 3, 3, 3, 2])),
        ((4, 5), conv_section(2, 5, 1), np.outer([3, 4, 4, 3], [3, 4, 5, 4, 3])),
    ],
)
def test_backward_messages_are_divided_by_the_kernel_size_of_each_axis(shape, conv, readers):
    """Synapses that all send the same message v: out is v, borders included; back is v * readers / K^axes."""
    layer = ConvLayer((*(1,) * (2 - len(shape)), *shape, 1), conv)
    graph, params = nnx.split(Synapse(N, M, False, 1.0, nnx.Rngs(0)))
    sent = draw(2, M)
    params = jax.tree.map(jnp.zeros_like, params)
    params["forward_message"]["bias"][...] = jnp.asarray(sent[0])
    params["backward_message"]["bias"][...] = jnp.asarray(sent[1])
    arguments = draw_cells(layer), draw(layer.fan_in, M), draw(layer.fan_out, M)
    _, _, out, back = visit(layer, graph, params, *arguments)
    np.testing.assert_allclose(out, np.tile(sent[0], (layer.fan_out, 1)), rtol=1e-6)
    share = np.ravel(readers) / conv.kernel_size**conv.axes
    np.testing.assert_allclose(back, share[:, None] * sent[1], rtol=1e-6)


@pytest.mark.parametrize("axes", [1, 2])
def test_with_the_smallest_kernel_on_one_pixel_it_is_a_dense_layer(axes):
    conv, dense = ConvLayer((1, 1, 3), conv_section(2, 1, axes=axes)), DenseLayer(3, 2)
    graph, params = make_synapse()
    cells, forward, backward = draw_cells(conv), draw(3, M), draw(2, M)
    got = visit(conv, graph, params, cells, forward, backward, 2)
    want = visit(dense, graph, params, cells.reshape(3, 2, N), forward, backward, 2)
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stride", [1, 2])
def test_what_moves_within_the_image_moves_in_the_messages(stride):
    layer = ConvLayer((1, 16, 2), conv_section(2, 3, stride, axes=1))
    graph, params = make_synapse()
    cells, quiet = draw_cells(layer), np.zeros((layer.fan_out, M), np.float32)
    image = np.zeros((16, 2, M), np.float32)
    image[6:9] = draw(3, 2, M)  # two visits from here reach no further than 4 pixels
    results = []
    for moved in (0, stride):
        forward = np.roll(image, moved, axis=0).reshape(layer.fan_in, M)
        h, c, out, back = visit(layer, graph, params, cells, forward, quiet, 2)
        out, back = out.reshape(-1, 2, M), back.reshape(16, 2, M)
        results.append((h, c, np.roll(out, -moved // stride, axis=0), np.roll(back, -moved, axis=0)))
    (h, c, out, back), moved = results
    np.testing.assert_allclose(moved[0], h, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(moved[1], c, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(moved[2], out, rtol=1e-5, atol=1e-6)
    inner = slice(3, 13)  # a border gets less from its fewer readers
    np.testing.assert_allclose(moved[3][inner], back[inner], rtol=1e-5, atol=1e-6)
    assert abs(out[6 // stride] - out[0]).max() > 1e-3


def test_along_the_width_only_every_row_is_alike():
    one, many = (ConvLayer((rows, 5, 2), conv_section(2, 3, 2, axes=1)) for rows in (1, 3))
    assert many.output_shape == (3, 3, 2)
    graph, params = make_synapse()
    cells, forward, backward = draw_cells(one), draw(10, M), draw(6, M)
    h, c, out, back = visit(one, graph, params, cells, forward, backward, 2)
    got = visit(many, graph, params, cells, np.tile(forward, (3, 1)), np.tile(backward, (3, 1)), 2)
    for one, other in zip(got, (h, c, np.tile(out, (3, 1)), np.tile(back, (3, 1))), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def memory_of_gradient(layer):
    """Return how many numbers a visit of two ticks keeps for its gradient, and how many that then takes."""
    graph, params = make_synapse()
    arguments = params, draw_cells(layer), draw(layer.fan_in, M), draw(layer.fan_out, M)

    def sent(*arguments):
        return sum(out.sum() for out in visit_plainly(layer, graph, *arguments, 2))

    pullback = jax.eval_shape(lambda *a: jax.vjp(sent, *a)[1], *arguments)
    gradient = jit(jax.grad(sent, argnums=(0, 1, 2, 3))).lower(*arguments).compile()
    kept = sum(leaf.size for leaf in jax.tree.leaves(pullback))
    return kept, gradient.memory_analysis().temp_size_in_bytes / 4


def test_back_propagation_keeps_the_states_of_each_tick_and_no_gates():
    many_synapses, many_positions = (
        ((3, 3, 8), conv_section(8, 3, 3)),
        ((1, 4000, 1), conv_section(8, axes=1)),
    )
    states, gates = 2 * 2 * 9 * 8 * 8 * N, 4000 * 3 * 8 * 4 * N
    for kernel, fits in (("tiled", True), ("reference", False)):
        assert (memory_of_gradient(ConvLayer(*many_synapses, kernel))[0] < 1.5 * states) == fits
        assert (memory_of_gradient(ConvLayer(*many_positions, kernel))[1] < gates) == fits


@pytest.mark.parametrize(
    ("shape", "conv", "output"),
    [
        ((28, 28, 1), conv_section(8, 3, 2), (14, 14, 8)),
        ((7, 4, 3), conv_section(2, 5, 3), (3, 2, 2)),
        ((7, 4, 3), conv_section(2, 5, 3, axes=1), (7, 2, 2)),
        ((1, 1, 1), conv_section(1, 5, 3), (1, 1, 1)),
    ],
)
def test_there_is_an_output_for_every_started_stride(shape, conv, output):
    layer = ConvLayer(shape, conv)
    assert layer.output_shape == output
    assert (layer.fan_in, layer.fan_out) == (np.prod(shape), np.prod(output))


@pytest.mark.parametrize(("axes", "kernel_size"), [(2, 1), (2, 5), (1, 3)])
def test_random_cells_are_cut_normal_with_variance_one_over_the_kernel_size(axes, kernel_size):
    layer = ConvLayer((4, 4, 10), conv_section(200, kernel_size, axes=axes))
    state = layer.init_state(KEY, 8, 0.5)
    cells = from_tiles(state.c) * kernel_size**0.5
    assert cells.shape == (kernel_size**axes * 10, 200, 8)
    assert not state.h.any()
    assert not cells[..., 4:].any()
    assert 1.9 < abs(cells[..., :4]).max() <= 2
    np.testing.assert_allclose(cells[..., :4].std(), 0.8796, atol=0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((0,), "out_channels\n.*greater than or equal to 1"),
        ((1, 2), "kernel_size\n.*an odd number"),
        ((1, -1), "kernel_size\n.*greater than or equal to 1"),
        ((1, 3, 0), "stride\n.*greater than or equal to 1"),
    ],
)
def test_a_convolution_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        conv_section(*settings)

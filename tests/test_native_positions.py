"""The compiled kernel of convolutions: against plain JAX, many members, states, what a machine may lack."""

import functools
import platform
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from comparing import assert_same_numbers
from flat_vsml import conv as conv_section
from flax import nnx

from vsml.networks.cells.lstm import Synapse
from vsml.networks.kernels import chosen, libraries, native, native_at_positions, native_positions, positions
from vsml.networks.kernels.tiled import tile_rows
from vsml.networks.wirings.conv import ConvLayer

pytestmark = pytest.mark.usefixtures("hasty")

RANDOM = np.random.default_rng(0)
N, M = 5, 5  # as many, so that `send_means` can take the place of messages

needs_native = pytest.mark.skipif(
    native.missing(N, 0, "positions") is not None,
    reason=f"no native kernel: {native.missing(N, 0, 'positions')}",
)


def draw(*shape):
    return jnp.asarray(RANDOM.normal(size=shape), jnp.float32)


def make_weights(seed=0):
    return Synapse(N, M, False, 2.0, nnx.Rngs(seed)).cell_weights()


def make_operands(fan_in, fan_out, places, members=()):
    rows = tile_rows(fan_in, fan_out)
    c = draw(*members, fan_out // rows, N, rows, fan_in)
    return jnp.tanh(c), c, draw(*members, places, fan_in, M), draw(*members, places, fan_out, M)


def send_means(h_QNRI):
    """Send h itself, as the compiled kernel does."""
    return h_QNRI.mean(3).swapaxes(1, 2), h_QNRI.mean(2).swapaxes(1, 2)


def tick_by_xla(weights, *operands):
    return positions.tick(weights, send_means, *operands)


def visit_twice(tick, micro_ticks, weights, h, c, forward, backward):
    """Visit, and visit again what the first visit left, which has to be kept for the way back."""
    first = tick(weights, h, c, forward, backward, micro_ticks)
    second = tick(weights, *first[:2], first[3][..., :M], first[2][..., :M], micro_ticks)
    return sum(jnp.sin(3 * leaf).sum() for leaf in (*first, *second)), (first, second)


def results(tick, weights, operands, micro_ticks=2, axes=()):
    """Return values and gradients with respect to everything, members by vmap over the axes given."""
    visit = functools.partial(visit_twice, tick, micro_ticks)
    function = jax.value_and_grad(visit, argnums=(0, 1, 2, 3, 4), has_aux=True)
    for axis in reversed(axes):
        function = jax.vmap(function, (axis, 0, 0, 0, 0))
    return jax.jit(function)(weights, *operands)


def assert_alike(got, want):
    assert_same_numbers(got, want, atol=3e-5)


@needs_native
@pytest.mark.parametrize(
    ("fan_in", "fan_out", "places", "micro_ticks"),
    [
        (3, 2, 1, 2),  # a dense layer
        (2, 18, 1, 1),  # more output units than lanes of a vector
        (4, 7, 5, 3),  # three output units share a vector
        (2, 5, 9, 2),  # one position more than half a vector: none share
        (3, 3, 32, 2),  # whole vectors alone
        (2, 20, 49, 2),  # whole vectors and a rest of one position
        (1, 6, 3300, 2),  # so many positions that gates of few output units fit into a cache
        (700, 4, 18, 1),  # four tiles
    ],
)
def test_positions_are_laid_out_in_vectors_without_a_trace(fan_in, fan_out, places, micro_ticks):
    weights, operands = make_weights(), make_operands(fan_in, fan_out, places)
    got, want = (
        results(tick, weights, operands, micro_ticks) for tick in (native_positions.tick, tick_by_xla)
    )
    assert_alike(got, want)


@needs_native
@pytest.mark.parametrize("axes", [(0,), (None,), (0, None)])
def test_members_tick_side_by_side_with_shared_meta_parameters_or_their_own(axes):
    sizes = (2, 3)[: len(axes)]
    own = [size for size, axis in zip(sizes, axes, strict=True) if axis == 0]
    every = [make_weights(seed) for seed in range(int(np.prod(own)))]
    weights = jax.tree.map(lambda *a: jnp.stack(a).reshape(*own, *a[0].shape), *every) if own else every[0]
    operands = make_operands(3, 4, 17, sizes)
    got, want = (results(tick, weights, operands, axes=axes) for tick in (native_positions.tick, tick_by_xla))
    assert_alike(got, want)


@needs_native
def test_a_sum_over_members_has_the_gradient_of_shared_meta_parameters():
    weights, operands = make_weights(), make_operands(3, 4, 17, (3,))

    def total(weights, tick):
        return jax.vmap(lambda *each: visit_twice(tick, 2, weights, *each)[0])(*operands).sum()

    gradient = jax.jit(jax.grad(total), static_argnums=1)
    assert_alike(*(gradient(weights, tick) for tick in (native_positions.tick, tick_by_xla)))


@needs_native
@pytest.mark.parametrize("layer_norm", [False, True])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_states_of_shorter_types_are_kept_as_such(dtype, layer_norm):
    synapse = Synapse(N, M, layer_norm, 2.0, nnx.Rngs(0))
    native_layer, by_xla = (
        ConvLayer((5, 5, 1), conv_section(2, 3), kernel) for kernel in ("native", "tiled")
    )
    state = native_layer.with_cells(draw(3, 3, 1, 2, N)).kept_as(dtype)
    messages = draw(25, M), draw(50, M)

    def visit(layer, state):
        return layer.visit(synapse, state, *messages, 2)

    got, want = visit(native_layer, state), visit(by_xla, state)
    assert got[0].h.dtype == got[0].c.dtype == dtype
    assert got[1].dtype == got[2].dtype == jnp.float32
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        tolerance = 2 * jnp.finfo(a.dtype).eps + 1e-4
        np.testing.assert_allclose(np.float32(a), np.float32(b), rtol=tolerance, atol=tolerance)
    slope = jax.grad(lambda state: sum(jnp.sin(each).sum() for each in visit(native_layer, state)[1:]))(state)
    assert slope.c.dtype == dtype


@needs_native
def test_the_operands_of_a_visit_stay_as_they_are():
    weights, operands = make_weights(), make_operands(3, 4, 17)
    before = jax.tree.map(np.array, operands)
    native_positions.tick(weights, *operands, 2)
    jax.tree.map(np.testing.assert_array_equal, operands, before)


@needs_native
def test_what_is_not_a_number_stays_so_and_reaches_only_its_own_units():
    h, c, forward, backward = make_operands(3, 4, 17)
    c = c.at[0, 0, 1, 2].set(jnp.nan)  # between input unit 2 and output unit 1
    h, c, out_PxOxN, back_PxIxN = native_positions.tick(make_weights(), h, c, forward, backward, 1)
    assert np.isnan(c[0, 0, 1, 2])
    assert np.isnan(out_PxOxN[:, 1, 0]).all() and np.isnan(back_PxIxN[:, 2, 0]).all()
    assert np.isfinite(jnp.delete(out_PxOxN, 1, 1)).all()
    assert np.isfinite(back_PxIxN[:, :2]).all()
    assert np.isfinite(c.at[0, 0, 1, 2].set(0)).all()


@needs_native
def test_a_message_that_is_not_a_number_reaches_no_other_position():
    h, c, forward, backward = make_operands(3, 4, 17)
    forward = forward.at[16, 2, 0].set(jnp.nan)
    _, _, out_PxOxN, back_PxIxN = native_positions.tick(make_weights(), h, c, forward, backward, 1)
    assert np.isnan(out_PxOxN[16]).all() and np.isnan(back_PxIxN[16, 2]).all()
    assert np.isfinite(out_PxOxN[:16]).all() and np.isfinite(back_PxIxN[:16]).all()
    assert np.isfinite(back_PxIxN[16, :2]).all()


@needs_native
def test_the_same_visit_gives_the_same_bits_whatever_was_visited_before():
    weights, operands = make_weights(), make_operands(3, 4, 49, (2,))
    visit = jax.jit(functools.partial(results, native_positions.tick, micro_ticks=3, axes=(None,)))
    first = visit(weights, operands)
    native_positions.tick(weights, *make_operands(2, 40, 100), 1)  # the memory that is kept is written to
    jax.tree.map(np.testing.assert_array_equal, visit(weights, operands), first)
    assert visit._cache_size() == 1


@needs_native
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("c_GNRI", (1, N, 4, 2)),
        ("forward_PxIxM", (17, 2, M)),
        ("backward_PxOxM", (16, 4, M)),
        ("backward_PxOxM", (17, 8, M)),
        ("senders", (2, N, M)),
    ],
)
def test_shapes_that_do_not_fit_together_are_refused(name, shape):
    h, c, forward, backward = make_operands(3, 4, 17)
    operands = {"h_GNRI": h, "c_GNRI": c, "forward_PxIxM": forward, "backward_PxOxM": backward}
    operands[name] = jnp.zeros(shape)
    with pytest.raises(ValueError, match=rf"{name}: got shape \({shape[0]}, .*expected"):
        native_positions.tick(make_weights(), **operands, micro_ticks=1)


@needs_native
def test_no_tick_and_no_position_are_refused():
    weights, operands = make_weights(), make_operands(3, 4, 17)
    with pytest.raises(ValueError, match="micro_ticks: got 0, expected at least 1"):
        native_positions.tick(weights, *operands, 0)
    with pytest.raises(ValueError, match=r"forward_PxIxM: got shape \(0, 3, 5\), expected at least one"):
        native_positions.tick(weights, *make_operands(3, 4, 0), 1)


@pytest.fixture
def forgotten():
    """Let kernels be looked for anew."""
    functions = (native.missing, native._build, chosen, native_at_positions)
    for function in functions:
        function.cache_clear()
    yield
    for function in functions:
        function.cache_clear()


@needs_native
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the flags are those of x86 processors")
@pytest.mark.parametrize("narrower", [("-mno-avx512f",), ("-mno-avx512f", "-mno-avx2", "-mno-avx")])
def test_processors_with_shorter_vectors_compute_the_same(forgotten, monkeypatch, narrower):
    monkeypatch.setattr(libraries, "_FLAGS", ("-O1", *libraries._FLAGS[1:], *narrower))  # compiles fast
    weights, operands = make_weights(), make_operands(3, 5, 21)
    assert_alike(*(results(tick, weights, operands) for tick in (native_positions.tick, tick_by_xla)))


@needs_native
def test_where_it_does_not_compile_convolutions_tick_by_xla_and_it_is_said(forgotten, monkeypatch, tmp_path):
    source = tmp_path / "native_positions.cpp"
    source.write_text("int broken = ;")
    monkeypatch.setenv("VSML_CACHE_DIR", str(tmp_path))
    monkeypatch.setitem(native.SOURCES, "positions", source)
    monkeypatch.setattr(libraries, "_FLAGS", ("-O1", *libraries._FLAGS[1:]))
    said = r"convolutions tick by XLA, which is slower than the native kernel: .*native_positions\.cpp"
    with pytest.warns(RuntimeWarning, match=said):
        assert not native_at_positions("auto", N, 0, "float32")
    synapse = Synapse(N, M, False, 2.0, nnx.Rngs(0))
    layers = [ConvLayer((3, 3, 1), conv_section(2, 3), kernel) for kernel in ("auto", "tiled")]
    state, messages = layers[0].with_cells(draw(3, 3, 1, 2, N)), (draw(9, M), draw(18, M))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        got, want = (layer.visit(synapse, state, *messages, 2) for layer in layers)
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_without_a_compiler_it_is_said_once_for_all_layers(forgotten, monkeypatch, tmp_path):
    monkeypatch.setenv("VSML_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.warns(RuntimeWarning, match=r"slower than the native kernel: no C\+\+ compiler") as told:
        assert chosen("auto", 7, 0, "float32") == "tiled"
        assert not native_at_positions("auto", 7, 0, "float32")
    assert len(told) == 1

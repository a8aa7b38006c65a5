"""The fused kernel: against the tiled one, without a GPU (interpreted), and lowered for one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from vsml.networks.kernels import fused, tiled
from vsml.networks.kernels.fused import block_size, largest_error

pytestmark = pytest.mark.usefixtures("hasty")

TICK = functools.partial(fused.tick, interpret=True)

jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
"""Compiles in half the time what is run once."""


def make_inputs(tiles, rows, fan_in, state_size=16, message_size=8, seed=0):
    """Draw what `tick` takes, with weights for which gates are neither linear nor saturated."""
    random = np.random.default_rng(seed)

    def normal(*shape, scale=1.0):
        return jnp.asarray(random.normal(0, scale, shape), jnp.float32)

    weights = tiled.CellWeights(
        forward=normal(4 * state_size, message_size, scale=0.3),
        backward=normal(4 * state_size, message_size, scale=0.3),
        hidden=normal(4 * state_size, state_size, scale=0.3),
        bias=normal(4 * state_size, scale=0.5),
    )
    shape = (tiles, state_size, rows, fan_in)
    messages = normal(fan_in, message_size), normal(tiles * rows, message_size)
    return weights, jnp.tanh(normal(*shape)), normal(*shape), *messages


def loss_of(tick, micro_ticks, *inputs):
    """Weigh all entries of all that comes out, each differently, and add them up."""
    out = tick(*inputs, micro_ticks=micro_ticks)
    weighted = (
        jnp.sin(jnp.arange(1.0, leaf.size + 1)) * leaf.astype(jnp.float32).ravel()
        for leaf in jax.tree.leaves(out)
    )
    return sum(array.sum() for array in weighted), out


def gradient(tick, micro_ticks, argnums=(0, 1, 2, 3, 4)):
    return jax.grad(functools.partial(loss_of, tick, micro_ticks), argnums, has_aux=True)


def assert_same(got, want):
    """Compare pytrees to within rounding, relative to the largest entry of each array."""
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert a.dtype == b.dtype
        assert abs(b).max() > 0
        np.testing.assert_allclose(a, b, rtol=0, atol=3e-6 * abs(b).max())


@pytest.mark.parametrize(
    ("tiles", "rows", "fan_in", "state_size", "message_size", "micro_ticks"),
    [
        (1, 1, 1, 16, 8, 1),
        (3, 1, 5, 4, 2, 2),
        (1, 3, 64, 16, 2, 3),
        (5, 2, 20, 20, 3, 2),
    ],
)
def test_results_and_gradients_are_those_of_the_tiled_kernel(
    tiles, rows, fan_in, state_size, message_size, micro_ticks
):
    inputs = make_inputs(tiles, rows, fan_in, state_size, message_size)
    (got_gradient, got), (want_gradient, want) = (
        jit(gradient(tick, micro_ticks))(*inputs) for tick in (TICK, tiled.tick)
    )
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    assert_same(got_gradient, want_gradient)


@pytest.mark.parametrize(("fan_in", "block"), [(16, 32), (100, 64)])
def test_the_size_of_a_block_changes_only_the_rounding(fan_in, block):
    inputs = make_inputs(2, 2, fan_in, 4, 2)
    got = jit(functools.partial(TICK, micro_ticks=2, block=block))(*inputs)
    want = tiled.tick(*inputs, micro_ticks=2)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("fan_in", "block"), [(1, 16), (16, 16), (20, 16), (32, 32), (64, 64), (100, 16), (784, 32), (3072, 64)]
)
def test_blocks_are_large_unless_that_leaves_many_places_idle(fan_in, block):
    assert block_size(fan_in) == block


def test_a_state_too_large_for_the_registers_is_refused():
    with pytest.raises(ValueError, match="at most 32 numbers in it, got state_size 33"):
        TICK(*make_inputs(1, 1, 1, 33, 2), micro_ticks=1)


@pytest.mark.slow
def test_members_and_inner_batches_are_axes_of_the_grid():
    members, batch = 3, 2
    drawn = [make_inputs(2, 1, 20, 4, 2, seed) for seed in range(members * batch)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *drawn)
    weights = jax.tree.map(lambda leaf: leaf[:members], stacked[0])
    states = jax.tree.map(lambda leaf: leaf.reshape(members, batch, *leaf.shape[1:]), stacked[1:])

    def total(tick, weights, states):
        def one(weights, states):
            return loss_of(tick, 2, weights, *states)[0]

        return jax.vmap(jax.vmap(one, (None, 0)))(weights, states).sum()

    gradients = [
        jit(jax.grad(functools.partial(total, tick), (0, 1)))(weights, states) for tick in (TICK, tiled.tick)
    ]
    assert_same(*gradients)
    text = str(jax.make_jaxpr(jax.grad(functools.partial(total, TICK), (0, 1)))(weights, states))
    assert text.count(f"grid=({members}, {batch}, 2)") == 2
    assert text.count("pallas_call[") == 2


def test_members_may_share_their_weights():
    drawn = [make_inputs(1, 2, 5, 4, 2, seed) for seed in range(3)]
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(inputs[1:] for inputs in drawn))
    got, want = (
        jit(jax.vmap(gradient(tick, 1), (None, 0, 0, 0, 0)))(drawn[0][0], *states)
        for tick in (TICK, tiled.tick)
    )
    assert_same(got, want)


@pytest.mark.slow
def test_the_gradient_goes_through_many_visits():
    weights, h, c, forward, backward = make_inputs(2, 2, 20, 4, 4)
    inputs_TxIxM = jnp.stack([forward, forward[::-1], -forward, forward / 2])

    def episode(tick, weights, h, c, inputs_TxIxM, backward):
        def visit(carry, forward):
            h, c, from_inputs, from_outputs = carry
            ticked = tick(weights, h, c, forward + from_inputs, from_outputs, micro_ticks=2)
            return (ticked.h, ticked.c, ticked.backward, jnp.tanh(3 * ticked.forward)), ticked.forward

        carry, out = jax.lax.scan(visit, (h, c, jnp.zeros_like(forward), backward), inputs_TxIxM)
        return jnp.sin(5 * out).sum() + jnp.sin(carry[1]).mean()

    got, want = (
        jit(jax.grad(functools.partial(episode, tick), (0, 1, 2, 3, 4)))(
            weights, h, c, inputs_TxIxM, backward
        )
        for tick in (TICK, tiled.tick)
    )
    assert_same(got, want)


def test_a_state_of_16_bits_is_computed_in_32():
    weights, h, c, forward, backward = make_inputs(1, 2, 20, 4, 2)
    inputs = weights, h.astype(jnp.bfloat16), c.astype(jnp.float16), forward, backward
    (got_gradient, got), (want_gradient, want) = (
        jit(gradient(tick, 2))(*inputs) for tick in (TICK, tiled.tick)
    )
    got, want = jax.tree.leaves(got), jax.tree.leaves(want)
    for a, b in zip(got[2:], want[2:], strict=True):  # means, of what is not yet rounded
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)
    for gradients_too in ((got[:2], want[:2]), (got_gradient[1:3], want_gradient[1:3])):
        for a, b, dtype, bits in zip(*gradients_too, (jnp.bfloat16, jnp.float16), (8, 11), strict=True):
            assert a.dtype == b.dtype == dtype
            a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
            np.testing.assert_allclose(a, b, rtol=2.0 ** (1 - bits), atol=1e-6)
    assert_same(got_gradient[0], want_gradient[0])
    assert_same(got_gradient[3:], want_gradient[3:])


def test_a_second_call_does_not_compile_again():
    visit = jit(lambda *inputs: TICK(*inputs, micro_ticks=1))
    first, second = (visit(*make_inputs(1, 1, 5, 4, 2, seed)) for seed in (0, 1))
    assert visit._cache_size() == 1
    assert not np.array_equal(first.h, second.h)


def test_huge_messages_saturate_and_what_is_not_a_number_stays_with_its_unit():
    weights, h, c, forward, backward = make_inputs(1, 1, 5, 4, 2)
    tick = jit(functools.partial(TICK, micro_ticks=2))
    ticked = tick(weights, h, c, 1e30 * forward, backward)
    assert np.isfinite(ticked.h).all() and np.isfinite(ticked.c).all()
    h = tick(weights, h, c, forward.at[0, 0].set(jnp.nan), backward).h
    assert np.isnan(h[..., 0]).any()
    assert np.isfinite(h[..., 1:]).all()


def test_there_is_a_reason_where_there_is_no_gpu():
    if jax.default_backend() == "gpu":
        assert fused.missing(16) is None
    else:
        assert fused.missing(16) == "it is for GPUs, and this is a cpu"


def test_the_check_of_a_gpu_passes_what_is_right(monkeypatch):
    assert largest_error(interpret=True) < 3e-6
    monkeypatch.setattr(fused, "largest_error", lambda interpret: float("nan"))
    assert "it is off by nan" in fused._fault.__wrapped__()
    monkeypatch.setattr(fused, "largest_error", lambda interpret: 1 / 0)
    assert "ZeroDivisionError: division by zero" in fused._fault.__wrapped__()


@functools.cache
def why_not_lowered():
    """Return why JAX cannot lower even the simplest kernel for a GPU here, or None."""

    def copy(x_ref, y_ref):
        y_ref[...] = x_ref[...]

    x = jax.ShapeDtypeStruct((16,), jnp.float32)
    call = pl.pallas_call(copy, out_shape=x, compiler_params=triton.CompilerParams())
    try:
        jax.jit(call).trace(x).lower(lowering_platforms=("cuda",))
    except Exception as reason:
        return f"this jaxlib does not lower for GPUs: {reason}"
    return None


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("fan_in", [784, 64])
def test_both_kernels_lower_for_a_gpu_and_multiply_in_full_precision(fan_in, dtype):
    if why_not_lowered():
        pytest.skip(why_not_lowered())
    inputs = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((4, *leaf.shape), leaf.dtype),
        jax.eval_shape(lambda: make_inputs(1, 10, fan_in)),
    )
    weights, h, c, *messages = inputs
    h, c = (jax.ShapeDtypeStruct(array.shape, dtype) for array in (h, c))
    traced = jax.jit(jax.vmap(gradient(fused.tick, 2))).trace(weights, h, c, *messages)
    jaxpr = str(traced.jaxpr)
    assert jaxpr.count("dot_general[") == jaxpr.count("precision=(Precision.HIGHEST") > 40
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("custom_call @") == 2

"""Products of bfloat16: what is rounded, the coarser tanh, and every kernel against the plain one."""

import math
import platform

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flat_vsml import conv as conv_section
from flat_vsml import flat_vsml
from flax import nnx
from pydantic import ValidationError
from test_kernels import FAST, make_synapse, visit_all

from vsml.learners.vsml import VsmlConfig
from vsml.networks.kernels import chosen, libraries, native, tiled
from vsml.networks.kernels.activations import COARSE, coarse_tanh
from vsml.networks.kernels.products import product
from vsml.networks.wirings.conv import ConvLayer
from vsml.networks.wirings.dense import DenseLayer

pytestmark = pytest.mark.usefixtures("hasty", "explicit_ranks")

RANDOM = np.random.default_rng(0)

needs_native = pytest.mark.skipif("native" not in FAST, reason="no native kernel")


def draw(*shape):
    return RANDOM.normal(size=shape).astype(np.float32)


def rounded(x):
    return np.asarray(x, jnp.bfloat16).astype(np.float64)


def test_the_coarse_tanh_is_right_to_half_a_step_of_bfloat16_and_no_less_monotone():
    x = np.concatenate([np.linspace(-12, 12, 200001), [-1e30, -COARSE.bound, COARSE.bound, 1e30]])
    x.sort()
    got = np.asarray(coarse_tanh(jnp.asarray(x, jnp.float32)), np.float64)
    np.testing.assert_allclose(got, np.tanh(x), rtol=0, atol=5e-5)
    assert abs(got).max() <= 1
    assert np.diff(got).min() >= -2 * np.finfo(np.float32).eps


def test_the_coarse_tanh_is_odd_and_its_derivative_is_one_minus_its_square():
    x = jnp.linspace(-12, 12, 1001)
    np.testing.assert_array_equal(coarse_tanh(-x), -coarse_tanh(x))
    np.testing.assert_allclose(jax.vmap(jax.grad(coarse_tanh))(x), 1 - np.tanh(x) ** 2, rtol=0, atol=1e-4)
    assert np.isnan(coarse_tanh(jnp.float32(jnp.nan)))


@needs_native
def test_the_tanh_of_the_native_kernel_is_as_coarse_and_stays_within_one():
    N = 16
    x = np.linspace(-7, 7, 2001).astype(np.float32)
    zeros = jnp.zeros((4 * N, 1))
    # The write gate is open and h has no say: the new c is tanh of what the messages bring.
    weights = tiled.CellWeights(
        forward=zeros.at[N : 2 * N].set(1),
        backward=zeros,
        hidden=jnp.zeros((4 * N, N)),
        bias=jnp.zeros(4 * N).at[:N].set(100),
        product_dtype="bfloat16",
    )
    state = jnp.zeros((1, N, 1, len(x)))
    ticked = native.tick(weights, state, state, x[:, None], jnp.zeros((1, 1)), 1)
    np.testing.assert_allclose(ticked.c[0, 0, 0], np.tanh(x), rtol=0, atol=2e-4)
    assert abs(ticked.c).max() <= 1


def test_operands_of_products_and_of_their_derivatives_are_rounded_and_sums_are_not():
    hidden, h, slope = draw(20, 5), draw(5, 3, 7), draw(20, 3, 7)
    got, back = jax.vjp(lambda *operands: product("bfloat16", *operands), hidden, h)
    np.testing.assert_allclose(got, np.einsum("kn,nri->kri", rounded(hidden), rounded(h)), atol=1e-5)
    d_hidden, d_h = back(slope)
    np.testing.assert_allclose(d_hidden, np.einsum("kri,nri->kn", rounded(slope), rounded(h)), atol=2e-5)
    np.testing.assert_allclose(d_h, np.einsum("kn,kri->nri", rounded(hidden), rounded(slope)), atol=2e-5)


def test_rounding_is_to_the_nearest_and_to_even():
    ones = jnp.ones((1, 1))
    step = 2.0**-7  # of bfloat16 above 1
    x = jnp.array([[1 + 0.49 * step, 1 + 0.5 * step, 1 + 1.5 * step, 1 + 1.51 * step]])
    np.testing.assert_array_equal(product("bfloat16", ones, x), [[1, 1, 1 + 2 * step, 1 + 2 * step]])


def distances(got, want):
    """Return the largest error in each leaf, as a share of its largest entry."""
    leaves = zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True)
    return [float(abs(a - b).max() / abs(b).max()) for a, b in leaves]


def dense(kernel):
    return DenseLayer(39, 3, kernel)


def convolution(kernel):
    return ConvLayer((5, 4, 1), conv_section(2, 3, 2), kernel)


@pytest.mark.parametrize(
    ("make", "cells", "state_size", "layer_norm"),
    [
        (dense, (39, 3), 16, False),  # 2 vectors of 16 floats and a part of one
        (dense, (39, 3), 5, True),  # an odd number of factors
        (convolution, (3, 3, 1, 2), 5, False),
    ],
)
def test_the_fast_kernels_round_as_the_plain_one_does(make, cells, state_size, layer_norm):
    layer = make("reference")
    cells, forward, backward = draw(*cells, state_size), draw(layer.fan_in, 3), draw(layer.fan_out, 3)

    def visit(kernel, dtype):
        synapse = nnx.merge(*make_synapse(state_size, 3, layer_norm))
        synapse.product_dtype = dtype
        return visit_all(make(kernel), *nnx.split(synapse), cells, forward, backward, 2)

    exact, want = visit("reference", "float32"), visit("reference", "bfloat16")
    for kernel in FAST:
        got = visit(kernel, "bfloat16")
        # h that lies between two numbers of bfloat16 may be rounded to either: seldom, and by a step.
        assert max(distances(got, want)) < 5e-3
        assert np.mean(distances(got, want)) < np.mean(distances(exact, want)) / 2


@needs_native
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the flags are those of x86 processors")
@pytest.mark.parametrize("narrower", ["-mno-avx512bf16", "-mno-avx512f"])
def test_processors_without_such_products_round_likewise(forgotten, monkeypatch, narrower):
    graph, params = make_synapse(16, 3, False)
    synapse = nnx.merge(graph, params)
    synapse.product_dtype = "bfloat16"
    layer = DenseLayer(39, 3, "native")
    operands = (*nnx.split(synapse), draw(39, 3, 16), draw(39, 3), draw(3, 3), 2)
    want = visit_all(layer, *operands)
    visit_all.clear_cache()
    native.missing.cache_clear(), native._build.cache_clear()
    monkeypatch.setattr(libraries, "_FLAGS", (*libraries._FLAGS, narrower))
    got = visit_all(layer, *operands)
    assert max(distances(got, want)) < 5e-3


@pytest.fixture
def forgotten():
    """Let kernels be looked for anew."""
    functions = (native.missing, native._build, chosen)
    for function in functions:
        function.cache_clear()
    yield
    visit_all.clear_cache()
    for function in functions:
        function.cache_clear()


def test_numbers_of_a_learner_change_a_little_and_by_no_kernel_more_than_by_another():
    kernels = ("reference", *FAST)
    learners = [flat_vsml((6,), 3, product_dtype="bfloat16", kernel=kernel) for kernel in kernels]
    exact = flat_vsml((6,), 3, kernel="reference")
    params = exact.init_params(jax.random.key(0))
    x, y = draw(1, 6), np.array([2])

    def answer(learner):
        state = learner.init_state(params, jax.random.key(1))
        for _ in range(3):
            state, logits = learner.step(params, state, x, y)
        return logits

    first, *others = map(answer, learners)
    change = abs(first - answer(exact)).max()
    assert 0 < change < 0.05 * abs(first).max()
    for other in others:
        np.testing.assert_allclose(other, first, atol=0.01 * abs(first).max())


def test_where_there_are_no_such_products_they_are_refused():
    graph = {"kinds": [{"type": "layered", "options": {"sizes": [3]}}]}
    with pytest.raises(ValidationError, match=r"product_dtype.*float32 with a graph"):
        VsmlConfig.model_validate({"graph": graph, "product_dtype": "bfloat16"})
    with pytest.raises(ValueError, match="'fused', which cannot be used here: its products take float32"):
        flat_vsml((3,), 2, product_dtype="bfloat16", kernel="fused")
    with pytest.raises(ValidationError, match="product_dtype"):
        VsmlConfig.model_validate({"product_dtype": "float16"})


def test_the_size_of_a_learner_does_not_depend_on_them():
    plain, rounding = (flat_vsml((6,), 3, product_dtype=dtype) for dtype in ("float32", "bfloat16"))
    sizes = [
        [leaf.shape for leaf in jax.tree.leaves(learner.init_params(jax.random.key(0)))]
        for learner in (plain, rounding)
    ]
    assert sizes[0] == sizes[1] and math.prod(sizes[0][0]) > 0

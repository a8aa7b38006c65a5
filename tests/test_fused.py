"""The fused kernel: its CUDA on a CPU that emulates a GPU, against the tiled kernel."""

import functools
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from comparing import assert_same_numbers
from flat_vsml import flat_vsml

import vsml.networks.kernels
from vsml.learners import run_episode
from vsml.networks.kernels import chosen, cuda, fused, libraries, native, tiled
from vsml.networks.kernels.fused import largest_error
from vsml.types import Episode

needs_compiler = pytest.mark.skipif(
    native.missing(16) is not None, reason=f"nothing compiles here: {native.missing(16)}"
)
pytestmark = [pytest.mark.usefixtures("hasty"), needs_compiler]

TICK = functools.partial(fused.tick, emulated=True)

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


# A program is compiled for each N, M and number of ticks, in some seconds, and then kept: few of them.
@pytest.mark.parametrize(
    ("tiles", "rows", "fan_in", "state_size", "message_size", "micro_ticks"),
    [
        (1, 1, 1, 4, 2, 2),
        (3, 1, 5, 4, 2, 2),
        (3, 2, 70, 16, 8, 2),  # 3 blocks, the last of them with 6 inputs; 6 outputs, added up 4 at a time
        (1, 2, 33, 20, 3, 1),  # 4 of the 24 numbers are filled up
        (1, 2, 12, 4, 2, 6),  # more ticks than one launch has
        (40, 5, 3, 16, 8, 2),  # gradients of weights are sums over 200 outputs
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
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * max(1, abs(b).max()))
    assert_same(got_gradient, want_gradient)


def test_members_and_inner_batches_are_one_launch():
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
    assert text.count("ffi_call[") == 2


def test_members_may_share_their_weights():
    drawn = [make_inputs(1, 2, 5, 4, 2, seed) for seed in range(3)]
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(inputs[1:] for inputs in drawn))
    got, want = (
        jit(jax.vmap(gradient(tick, 2), (None, 0, 0, 0, 0)))(drawn[0][0], *states)
        for tick in (TICK, tiled.tick)
    )
    assert_same(got, want)


def test_a_member_has_the_same_bits_whatever_the_others_are():
    drawn = [make_inputs(1, 2, 37, 4, 2, seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *drawn)
    visit = jit(jax.vmap(gradient(TICK, 2)))
    results = visit(*stacked)
    turned = visit(*jax.tree.map(lambda leaf: leaf[::-1], stacked))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b[::-1]), results, turned)


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


@pytest.mark.parametrize("fan_in", [20, 21])  # two neighbours are read at once, or one after the other
def test_a_state_of_16_bits_is_computed_in_32(fan_in):
    weights, h, c, forward, backward = make_inputs(1, 2, fan_in, 4, 2)
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
    visit = jit(lambda *inputs: TICK(*inputs, micro_ticks=2))
    first, second = (visit(*make_inputs(1, 1, 5, 4, 2, seed)) for seed in (0, 1))
    assert visit._cache_size() == 1
    assert not np.array_equal(first.h, second.h)


def test_the_operands_of_a_visit_stay_as_they_are():
    inputs = make_inputs(1, 2, 5, 4, 2)
    before = jax.tree.map(np.array, inputs)
    TICK(*inputs, micro_ticks=2)
    jax.tree.map(np.testing.assert_array_equal, inputs, before)


def test_huge_messages_saturate_and_what_is_not_a_number_stays_with_its_unit():
    weights, h, c, forward, backward = make_inputs(1, 1, 5, 4, 2)
    tick = jit(functools.partial(TICK, micro_ticks=2))
    ticked = tick(weights, h, c, 1e30 * forward, backward)
    assert np.isfinite(ticked.h).all() and np.isfinite(ticked.c).all()
    np.testing.assert_allclose(
        ticked.c, tiled.tick(weights, h, c, 1e30 * forward, backward, 2).c, rtol=0, atol=1e-5
    )
    for entry in (jnp.nan, jnp.inf - jnp.inf):
        h_new = tick(weights, h, c, forward.at[0, 0].set(entry), backward).h
        assert np.isnan(h_new[..., 0]).any()
        assert np.isfinite(h_new[..., 1:]).all()
        h_new = tick(weights, h.at[0, 0, 0, 3].set(entry), c, forward, backward).h
        assert np.isnan(h_new[..., 3]).all()
        assert np.isfinite(h_new[..., :3]).all() and np.isfinite(h_new[..., 4:]).all()


@pytest.mark.parametrize(
    ("name", "array", "expected"),
    [
        ("forward_IxM", jnp.zeros((4, 2)), r"forward_IxM: got shape \(4, 2\), expected \(5, 2\)"),
        ("backward_OxM", jnp.zeros((2, 2)), r"backward_OxM: got shape \(2, 2\), expected \(1, 2\)"),
        ("c_GNRI", jnp.zeros((1, 4, 1, 6)), r"c_GNRI: got shape \(1, 4, 1, 6\), expected"),
        ("h_GNRI", jnp.zeros((1, 4, 1, 5), int), "h_GNRI: got int32, expected one of float32, float16"),
        ("micro_ticks", 0, "micro_ticks: got 0, expected at least 1"),
    ],
)
def test_what_does_not_fit_together_is_refused(name, array, expected):
    names = ("weights", "h_GNRI", "c_GNRI", "forward_IxM", "backward_OxM")
    operands = dict(zip(names, make_inputs(1, 1, 5, 4, 2), strict=True), micro_ticks=2)
    with pytest.raises(ValueError, match=expected):
        TICK(**operands | {name: array})


def test_a_state_too_large_for_the_registers_is_refused():
    with pytest.raises(ValueError, match="at most 32 numbers in it, got state_size 33"):
        TICK(*make_inputs(1, 1, 1, 33, 2), micro_ticks=1)


@pytest.mark.parametrize("layer_norm", [False, True])
def test_a_learner_answers_as_with_the_plain_formulation(monkeypatch, layer_norm):
    monkeypatch.setattr(vsml.networks.kernels, "missing", lambda *arguments: None)
    monkeypatch.setattr(fused, "tick", TICK)
    key = jax.random.key(0)
    labels = jax.random.randint(key, (3, 1), 0, 2)
    episode = Episode(jax.random.normal(key, (3, 1, 5)), labels, jnp.ones(labels.shape))
    answers = []
    for kernel in ("fused", "reference"):
        learner = flat_vsml((5,), 2, state_size=4, message_size=2, layer_norm=layer_norm, kernel=kernel)
        params = learner.init_params(key)
        answers.append(jax.jit(functools.partial(run_episode, learner))(params, key, episode))
    chosen.cache_clear()
    assert_same_numbers(*answers, atol=1e-5)


def test_there_is_a_reason_where_there_is_no_gpu():
    if jax.default_backend() == "gpu":
        assert fused.missing(16) is None
    else:
        assert fused.missing(16) == "it is for GPUs, and this is a cpu"


def test_the_check_of_a_gpu_passes_what_is_right(monkeypatch):
    assert largest_error(16, emulated=True) < 3e-6
    monkeypatch.setattr(fused, "largest_error", lambda state_size: float("nan"))
    assert "it is off by nan" in fused._fault.__wrapped__(16)
    monkeypatch.setattr(fused, "largest_error", lambda state_size: 1 / 0)
    assert "ZeroDivisionError: division by zero" in fused._fault.__wrapped__(16)


@pytest.fixture
def altered(monkeypatch, tmp_path):
    """Return a function that alters the text of the kernels."""
    cuda.compiled.cache_clear()

    def alter(old, new, count=1):
        for path in (*cuda.HEADERS, cuda.EMULATOR, cuda.LAUNCHER, cuda.SOURCE):
            (tmp_path / path.name).write_text(path.read_text())
        text = cuda.SOURCE.read_text()
        assert text.count(old) >= count
        (tmp_path / cuda.SOURCE.name).write_text(text.replace(old, new, count))
        for name in ("LAUNCHER", "SOURCE"):
            monkeypatch.setattr(cuda, name, tmp_path / getattr(cuda, name).name)

    monkeypatch.setenv("VSML_CACHE_DIR", str(tmp_path / "cache"))
    yield alter
    cuda.compiled.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize("barrier", ["__syncwarp();", "__syncthreads();"])
def test_the_emulation_tells_where_threads_do_not_wait_for_each_other(altered, barrier):
    inputs = make_inputs(1, 2, 37, 4, 2)
    right = TICK(*inputs, micro_ticks=2)
    cuda.compiled.cache_clear()
    altered(barrier, "")
    assert not np.allclose(TICK(*inputs, micro_ticks=2).forward, right.forward, atol=1e-4)


@pytest.mark.slow
def test_threads_that_would_wait_forever_are_an_error(altered):
    altered("  __syncthreads();", "  if (threadIdx.x == 5) __syncthreads();")
    with pytest.raises(jax.errors.JaxRuntimeError, match="threads wait for each other forever"):
        jax.block_until_ready(TICK(*make_inputs(1, 1, 5, 4, 2), micro_ticks=2))


@pytest.mark.slow
@pytest.mark.parametrize(("state_size", "dtype"), [(16, "float32"), (5, "bfloat16")])
def test_no_thread_reads_or_writes_beyond_an_array(tmp_path, state_size, dtype):
    program = tmp_path / "guarded_arrays"
    options = fused.Plan((1, state_size, 1, 1), 3, 2, (dtype, dtype), emulated=True).definitions
    command = [*libraries._compiler(), "-O1", "-std=c++17", "-w", "-DEMULATED", *options]
    source = Path(__file__).with_name("guarded_arrays.cpp")
    subprocess.run([*command, f"-I{cuda.SOURCE.parent}", source, "-o", program], check=True)
    done = subprocess.run([program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "12\n")


def test_a_source_that_does_not_compile_says_so(altered):
    altered("namespace {", "namespace { int broken = ;")
    with pytest.raises(RuntimeError, match=r"the fused kernel cannot be used: .* cannot compile fused\.cpp"):
        TICK(*make_inputs(1, 1, 5, 4, 2), micro_ticks=2)


def test_the_launcher_knows_how_many_inputs_a_block_has():
    text = cuda.HEADERS[0].read_text()
    assert "WARPS = 4;" in text and "WARP_INPUTS = 8;" in text and fused.BLOCK_INPUTS == 4 * 8

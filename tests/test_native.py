"""The compiled kernel: many members at once, states that are kept, what a machine may lack."""

import concurrent.futures
import os
import platform
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from comparing import assert_same_numbers
from flat_vsml import flat_vsml
from flax import nnx

import vsml.networks.kernels
from vsml.networks.cells.lstm import Synapse
from vsml.networks.kernels import chosen, fused, libraries, native, tiled
from vsml.networks.wirings.base import SynapseState

pytestmark = pytest.mark.usefixtures("hasty")

RANDOM = np.random.default_rng(0)
N, M, FAN_IN, FAN_OUT = 16, 4, 21, 3

needs_native = pytest.mark.skipif(
    native.missing(N) is not None, reason=f"no native kernel: {native.missing(N)}"
)


def draw(*shape):
    return jnp.asarray(RANDOM.normal(size=shape), jnp.float32)


def make_weights(seed=0):
    return Synapse(N, M, False, 2.0, nnx.Rngs(seed)).cell_weights()


def make_operands(*members):
    cells = draw(*members, FAN_IN, FAN_OUT, N).reshape(-1, FAN_IN, FAN_OUT, N)
    states = [SynapseState.fresh(each) for each in cells]
    c = jnp.stack([state.c for state in states]).reshape(*members, *states[0].c.shape)
    return jnp.tanh(c), c, draw(*members, FAN_IN, M), draw(*members, FAN_OUT, M)


def scalar(ticked):
    return sum(jnp.sin(3 * leaf.astype(jnp.float32)).sum() for leaf in jax.tree.leaves(ticked))


def visit_twice(tick, weights, h, c, forward, backward):
    """Visit, and visit again what the first visit left, which has to be kept for the way back."""
    first = tick(weights, h, c, forward, backward, 2)
    second = tick(weights, first.h, first.c, first.backward[:, :M], first.forward[:, :M], 2)
    return scalar(first) + scalar(second), (first, second)


def results(tick, weights, operands, axes):
    """Return values and gradients with respect to everything, members by vmap over the axes given."""
    function = jax.value_and_grad(
        lambda *all_operands: visit_twice(tick, *all_operands), argnums=(0, 1, 2, 3, 4), has_aux=True
    )
    for axis in reversed(axes):
        function = jax.vmap(function, (axis, 0, 0, 0, 0))
    return jax.jit(function)(weights, *operands)


def assert_alike(got, want):
    assert_same_numbers(got, want, atol=2e-5)


@needs_native
@pytest.mark.parametrize("axes", [(), (0,), (None,), (0, None)])
def test_members_tick_side_by_side_with_shared_meta_parameters_or_their_own(axes):
    sizes = (2, 3)[: len(axes)]
    own = [size for size, axis in zip(sizes, axes, strict=True) if axis == 0]
    every = [make_weights(seed) for seed in range(int(np.prod(own)))]
    weights = jax.tree.map(lambda *a: jnp.stack(a).reshape(*own, *a[0].shape), *every) if own else every[0]
    operands = make_operands(*sizes)
    got, want = (results(kernel.tick, weights, operands, axes) for kernel in (native, tiled))
    assert_alike(got, want)


@needs_native
def test_a_sum_over_members_has_the_gradient_of_shared_meta_parameters():
    weights, operands = make_weights(), make_operands(3)

    def total(weights, tick):
        return jax.vmap(lambda *each: visit_twice(tick, weights, *each)[0])(*operands).sum()

    got, want = (jax.jit(jax.grad(total), static_argnums=1)(weights, k.tick) for k in (native, tiled))
    assert_alike(got, want)


@needs_native
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_states_of_shorter_types_are_kept_as_such(dtype):
    h, c, forward, backward = make_operands()
    operands = (h.astype(dtype), c.astype(dtype), forward, backward)
    ticked = native.tick(make_weights(), *operands, 1)
    assert ticked.h.dtype == ticked.c.dtype == dtype
    assert ticked.forward.dtype == ticked.backward.dtype == jnp.float32
    want = tiled.tick(make_weights(), *operands, 1)
    np.testing.assert_allclose(ticked.forward, want.forward, atol=1e-5)
    np.testing.assert_allclose(np.float32(ticked.c), np.float32(want.c), rtol=2 * jnp.finfo(dtype).eps)


@needs_native
def test_the_operands_of_a_visit_stay_as_they_are():
    weights, operands = make_weights(), make_operands()
    before = jax.tree.map(np.array, operands)
    native.tick(weights, *operands, 2)
    jax.tree.map(np.testing.assert_array_equal, operands, before)


@needs_native
def test_what_is_not_a_number_stays_so_and_reaches_nobody_else():
    h, c, forward, backward = make_operands(2)
    c = c.at[0, 0, 0, 0, 0].set(jnp.nan)
    ticked = jax.vmap(lambda *each: native.tick(make_weights(), *each, 1))(h, c, forward, backward)
    assert np.isnan(ticked.c[0, 0, 0, 0, 0]) and np.isnan(ticked.backward[0, 0, 0])
    assert np.isfinite(ticked.backward[0, 1:]).all()
    assert np.isfinite(ticked.c[1]).all() and np.isfinite(ticked.forward[1]).all()


@needs_native
def test_the_same_visit_gives_the_same_bits():
    weights, operands = make_weights(), make_operands(2)
    first, second = (results(native.tick, weights, operands, (None,)) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)


@needs_native
def test_a_second_call_neither_compiles_nor_builds(forgotten, monkeypatch):
    visit = jax.jit(native.tick, static_argnums=5)
    visit(make_weights(), *make_operands(), 2)
    visit(make_weights(1), *make_operands(), 2)
    assert visit._cache_size() == 1
    native.missing.cache_clear(), native._build.cache_clear()
    monkeypatch.setattr(libraries.subprocess, "run", None)  # what would build
    assert native.missing(N) is None


@needs_native
def test_the_same_kernel_from_another_cache_is_no_error(forgotten, monkeypatch, tmp_path):
    monkeypatch.setattr(libraries, "_FLAGS", ("-O1", *libraries._FLAGS[1:]))  # compiles fast
    weights, operands = make_weights(), make_operands(2)
    want = results(tiled.tick, weights, operands, (None,))
    for folder in ("one", "two"):
        monkeypatch.setenv("VSML_CACHE_DIR", str(tmp_path / folder))
        native.missing.cache_clear(), native._build.cache_clear()
        assert_alike(results(native.tick, weights, operands, (None,)), want)
        assert list((tmp_path / folder).rglob("*.so"))


@pytest.mark.parametrize(
    ("machine", "flag"),
    [
        ("x86_64", "-march=native"),
        ("AMD64", "-march=native"),
        ("aarch64", "-mcpu=native"),
        ("arm64", "-mcpu=native"),
    ],
)
def test_the_compiler_is_told_of_the_processor_as_its_family_has_it(machine, flag):
    assert flag in libraries._flags(machine)
    assert libraries._flags(platform.machine()) == libraries._FLAGS


@needs_native
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the flags are those of x86 processors")
@pytest.mark.parametrize("narrower", [("-mno-avx512f",), ("-mno-avx512f", "-mno-avx2", "-mno-avx")])
def test_processors_with_shorter_vectors_compute_the_same(forgotten, monkeypatch, narrower):
    monkeypatch.setattr(libraries, "_FLAGS", (*libraries._FLAGS, *narrower))
    weights, operands = make_weights(), make_operands(2)
    got, want = (results(kernel.tick, weights, operands, (None,)) for kernel in (native, tiled))
    assert_alike(got, want)


@needs_native
@pytest.mark.parametrize("kernel", ["native", "tiled", "reference"])
@pytest.mark.parametrize("inputs", [3, 400])
def test_inputs_of_another_size_are_refused(kernel, inputs):
    learner = flat_vsml((40,), 2, kernel=kernel)
    params = learner.init_params(jax.random.key(0))
    state = learner.init_state(params, jax.random.key(1))
    with pytest.raises((ValueError, TypeError), match=r"shape|size"):
        learner.step(params, state, jnp.ones((1, inputs)), jnp.zeros(1, int))


@needs_native
@pytest.mark.parametrize(
    ("name", "shape"),
    [("forward_IxM", (FAN_IN - 1, M)), ("backward_OxM", (2 * FAN_OUT, M)), ("c_GNRI", (1, N, 1, FAN_IN))],
)
def test_shapes_that_do_not_fit_together_are_refused(name, shape):
    weights, (h, c, forward, backward) = make_weights(), make_operands()
    operands = {"h_GNRI": h, "c_GNRI": c, "forward_IxM": forward, "backward_OxM": backward}
    operands[name] = jnp.zeros(shape)
    with pytest.raises(ValueError, match=rf"{name}: got shape \({shape[0]}, .*expected"):
        native.tick(weights, **operands, micro_ticks=1)


@pytest.fixture
def forgotten():
    """Let kernels be looked for anew."""
    for function in (native.missing, native._build, fused._fault, chosen):
        function.cache_clear()
    yield
    for function in (native.missing, native._build, fused._fault, chosen):
        function.cache_clear()


def test_without_a_compiler_synapses_tick_by_xla_and_it_is_said(forgotten, monkeypatch, tmp_path):
    monkeypatch.setenv("VSML_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.warns(RuntimeWarning, match=r"slower than the native kernel: no C\+\+ compiler"):
        assert chosen("auto", 7) == "tiled"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert chosen("auto", 7) == "tiled"  # said once
    with pytest.raises(
        ValueError, match=r"model\.vsml\.kernel: got 'native', which cannot be used here: no C"
    ):
        flat_vsml((3,), 2, state_size=7, kernel="native")


def test_a_source_that_does_not_compile_says_what_the_compiler_said(forgotten, monkeypatch, tmp_path):
    source = tmp_path / "native.cpp"
    source.write_text("int broken = ;")
    monkeypatch.setenv("VSML_CACHE_DIR", str(tmp_path))
    monkeypatch.setitem(native.SOURCES, "dense", source)
    reason = native.missing(7)
    assert "native.cpp" in reason and ("expected" in reason or "no C++ compiler" in reason)
    assert not list(tmp_path.glob("kernels/*/*.so"))


@needs_native
def test_processes_that_need_it_at_once_compile_once(forgotten, monkeypatch, tmp_path):
    monkeypatch.setenv("VSML_CACHE_DIR", str(tmp_path))
    compiled = []

    def compile_slowly(command, library):
        compiled.append(library)
        time.sleep(0.2)
        library.touch()

    monkeypatch.setattr(libraries, "_compile", compile_slowly)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        paths = set(pool.map(lambda _: native._build.__wrapped__(5, 0), range(4)))
    assert list(paths) == compiled


def test_states_too_large_for_the_stack_are_left_to_xla(forgotten):
    assert (
        native.missing(native.MAX_STATE + 1)
        == "states and normalised messages have at most 128 numbers in it"
    )
    with pytest.raises(ValueError, match="at most 128 numbers"):
        flat_vsml((3,), 2, state_size=129, kernel="native")


def test_a_compiler_may_be_a_command_with_arguments(forgotten, monkeypatch, tmp_path):
    monkeypatch.setenv("VSML_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-cache c++")
    assert "'no-such-cache'" in native.missing(7)


def test_a_compiler_that_is_not_there_is_named(forgotten, monkeypatch, tmp_path):
    monkeypatch.setenv("VSML_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no-such-compiler" in native.missing(7)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_cache_that_cannot_be_written_is_named(forgotten, monkeypatch, tmp_path):
    tmp_path.chmod(0o500)
    monkeypatch.setenv("VSML_CACHE_DIR", str(tmp_path))
    assert str(tmp_path) in native.missing(7)


def test_kernels_are_chosen_for_the_machine(forgotten, monkeypatch):
    monkeypatch.setattr(vsml.networks.kernels.jax, "default_backend", lambda: "tpu")
    assert chosen("auto", N) == "tiled"
    assert chosen("reference", N) == "reference"
    with pytest.raises(ValueError, match="it is for CPUs, and this is a tpu"):
        chosen("native", N)
    with pytest.raises(ValueError, match=r"model\.vsml\.kernel: got 'fused', .* for GPUs, and this is a tpu"):
        chosen("fused", N)


def test_on_a_gpu_the_fused_kernel_is_tried_once_and_left_alone_where_it_fails(forgotten, monkeypatch):
    monkeypatch.setattr(vsml.networks.kernels.jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(fused, "largest_error", lambda state_size: 1e-7)
    assert chosen("auto", N) == "fused"
    with pytest.warns(RuntimeWarning, match="slower than the fused kernel: states have at most 32 numbers"):
        assert chosen("auto", 33) == "tiled"
    chosen.cache_clear(), fused._fault.cache_clear()
    monkeypatch.setattr(fused, "largest_error", lambda state_size: 0.5)
    with pytest.warns(RuntimeWarning, match="it is off by 5.0e-01"):
        assert chosen("auto", N) == "tiled"
    with pytest.raises(ValueError, match="'fused', which cannot be used here: it is off by"):
        chosen("fused", N)

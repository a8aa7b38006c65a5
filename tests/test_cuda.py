"""Kernels for GPUs without one: what NVRTC compiles, and launching on a driver that emulates a GPU."""

import ctypes
import itertools
import os
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_fused import assert_same, gradient, jit, make_inputs

from vsml.networks.kernels import chosen, cuda, fused, libraries, native, nvrtc, tiled

pytestmark = pytest.mark.usefixtures("hasty")

FAKE_DRIVER = os.path.join(os.path.dirname(__file__), "fake_cuda.cpp")
NO_SPILLS = ["--ptxas-options=--warn-on-spills", "--ptxas-options=--warning-as-error"]

PROGRAM = b"what a GPU runs\0"
"""What the fake driver takes for a compiled program."""

NUMBERS = itertools.count()

needs_compiler = pytest.mark.skipif(
    native.missing(16) is not None, reason=f"nothing compiles here: {native.missing(16)}"
)


def why_no_nvrtc():
    try:
        nvrtc.version()
    except OSError as reason:
        return str(reason)
    return None


needs_nvrtc = pytest.mark.skipif(why_no_nvrtc() is not None, reason=f"{why_no_nvrtc()}")


def plan(state_size=16, dtypes=("float32", "float32"), micro_ticks=2):
    return fused.Plan((1, state_size, 10, 784), 8, micro_ticks, dtypes, emulated=False)


def compile_for(capability, a_plan, *options):
    every = ["--std=c++17", *a_plan.definitions, *options]
    return nvrtc.compile_for(capability, cuda.SOURCE, cuda.HEADERS, every)


@needs_nvrtc
@pytest.mark.parametrize("capability", ["8.0", "9.0", "10.0"])
def test_nvrtc_compiles_the_kernels_without_spilling_registers(capability):
    if capability == "10.0" and float(nvrtc.version()) < 12.8:
        pytest.skip(f"NVRTC {nvrtc.version()} does not know compute capability {capability}")
    program = compile_for(capability, plan(), *NO_SPILLS)
    assert program.startswith(b"\x7fELF")
    assert b"visit_back" in program


@needs_nvrtc
@pytest.mark.parametrize(
    "a_plan",
    [
        plan(dtypes=("bfloat16", "bfloat16")),
        plan(dtypes=("float16", "bfloat16"), micro_ticks=1),
        plan(state_size=1),
        plan(state_size=20),
        plan(state_size=32, micro_ticks=1),
    ],
)
def test_nvrtc_compiles_all_sizes_and_types(a_plan):
    assert compile_for("9.0", a_plan).startswith(b"\x7fELF")


@needs_nvrtc
def test_what_nvrtc_does_not_compile_says_what_it_said(tmp_path):
    source = tmp_path / "broken.cu"
    source.write_text("int broken = ;")
    with pytest.raises(
        OSError, match=r"cannot compile broken\.cu for compute capability 9\.0: .*host variable"
    ):
        nvrtc.compile_for("9.0", source, [], [])
    with pytest.raises(OSError, match=r"for compute capability 1\.1: NVRTC_ERROR_INVALID_OPTION"):
        nvrtc.compile_for("1.1", source, [], [])


@pytest.fixture
def forgotten():
    """Let compilers and kernels be looked for anew."""
    functions = (nvrtc._library, cuda.compiled, fused._fault, chosen)
    for function in functions:
        function.cache_clear()
    yield
    for function in functions:
        function.cache_clear()


def test_an_nvrtc_that_is_newer_than_the_driver_comes_last(gpu, monkeypatch):
    monkeypatch.setattr(nvrtc, "_in_wheels", lambda: iter(["a/libnvrtc.so.13", "b/libnvrtc.so.12"]))
    assert nvrtc._major_of_driver() == 12
    assert nvrtc.places()[0] == "b/libnvrtc.so.12" and nvrtc.places()[-1].endswith("libnvrtc.so.13")
    monkeypatch.setattr(nvrtc, "DRIVER", "libno-such-driver.so")
    assert nvrtc._major_of_driver() is None
    assert nvrtc.places()[0] == "a/libnvrtc.so.13"


def test_where_nvrtc_is_nowhere_it_is_said_what_brings_it(forgotten, monkeypatch):
    monkeypatch.setattr(nvrtc, "places", lambda: ["libno-such-thing.so"])
    with pytest.raises(OSError, match=r'no NVRTC .*pip install "jax\[cuda12\]"'):
        nvrtc.version()


def test_nvrtc_is_looked_for_in_wheels_and_in_the_folder_of_cuda(monkeypatch, tmp_path):
    for name in ("libnvrtc.so.9", "libnvrtc.so.12", "libnvrtc-builtins.so.12"):
        (tmp_path / "lib64").mkdir(exist_ok=True)
        (tmp_path / "lib64" / name).touch()
    found = list(nvrtc._in_toolkit({"CUDA_HOME": str(tmp_path)}))
    assert [os.path.basename(path) for path in found] == ["libnvrtc.so.12", "libnvrtc.so.9"]
    wheel = tmp_path / "nvidia" / "cuda_nvrtc" / "lib"
    wheel.mkdir(parents=True)
    (wheel / "libnvrtc.so.12").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert str(wheel / "libnvrtc.so.12") in nvrtc.places()


@needs_compiler
def test_an_nvrtc_that_fails_is_quoted(forgotten, monkeypatch, tmp_path):
    source, library = tmp_path / "nvrtc.cpp", tmp_path / "libnvrtc.so"
    source.write_text(
        'extern "C" {\n'
        "int nvrtcVersion(int* major, int* minor) { *major = 12, *minor = 3; return 0; }\n"
        "int nvrtcCreateProgram(...) { return 5; }\n"
        'const char* nvrtcGetErrorString(int code) { return code == 5 ? "no memory" : "?"; }\n'
        "}\n"
    )
    libraries._compile([*libraries._compiler(), "-shared", "-fPIC", str(source)], library)
    monkeypatch.setattr(nvrtc, "places", lambda: [str(library)])
    assert nvrtc.version() == "12.3"
    with pytest.raises(OSError, match="nvrtcCreateProgram: no memory"):
        nvrtc.compile_for("9.0", source, [], [])


class FakeGpu:
    """A driver whose GPU is the CPU, and the compiler for it."""

    def __init__(self, driver, number):
        self.library = ctypes.CDLL(str(driver))
        self.capability = f"9.{number}"  # no two tests run the same program
        self.compiled = []
        self.before = self.counts()

    def compile(self, capability, source, headers, options):
        self.compiled.append((capability, tuple(options)))
        return PROGRAM

    def counts(self):
        return [self.library.called(which) for which in range(4)]

    @property
    def calls(self):
        """How often programs were loaded, kernels found and launched, and contexts left in place."""
        return [after - before for after, before in zip(self.counts(), self.before, strict=True)]


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """Compile the fake driver, in whose folder everything else is kept."""
    if native.missing(16):
        pytest.skip(native.missing(16))
    path = tmp_path_factory.mktemp("fake") / "libcuda.so"
    sizes = [option.replace("MESSAGE_SIZE=8", "MESSAGE_SIZE=2") for option in plan(4).definitions]
    options = ["-O1", "-std=c++17", "-shared", "-fPIC", "-w", "-DEMULATED", *sizes]
    command = [*libraries._compiler(), *options, f"-I{cuda.SOURCE.parent}", FAKE_DRIVER]
    libraries._compile(command, path)
    return path


@pytest.fixture
def gpu(forgotten, monkeypatch, driver):
    gpu = FakeGpu(driver, next(NUMBERS))
    monkeypatch.setenv("VSML_CACHE_DIR", str(driver.parent / "cache"))
    monkeypatch.setattr(nvrtc, "DRIVER", str(driver))
    monkeypatch.setattr(cuda, "PLATFORM", "cpu")
    # What is registered for the CPU must not be what other tests register for a GPU.
    monkeypatch.setattr(cuda, "LAUNCHER_OPTIONS", ("-O1", "-DNO_STREAM"))
    monkeypatch.setattr(cuda, "capability", lambda: gpu.capability)
    monkeypatch.setattr(nvrtc, "version", lambda: "0.0")
    monkeypatch.setattr(nvrtc, "compile_for", gpu.compile)
    return gpu


def test_kernels_are_loaded_once_and_launched_with_what_they_need(gpu):
    drawn = [make_inputs(2, 1, 37, 4, 2, seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *drawn)
    got, want = (jit(jax.vmap(gradient(tick, 2)))(*stacked) for tick in (fused.tick, tiled.tick))
    assert_same(got, want)
    assert gpu.calls == [1, 2, 2, 0]
    fused.tick(*drawn[0], micro_ticks=2)
    assert gpu.calls == [1, 2, 3, 0]
    (compiled,) = gpu.compiled
    assert compiled[0] == gpu.capability and "-DSTATE_SIZE=4" in compiled[1] and "-DTICKS=2" in compiled[1]


def test_what_nvrtc_compiled_is_kept_and_not_taken_where_it_was_altered(gpu):
    for _ in range(2):
        cuda.compiled.cache_clear()
        fused.tick(*make_inputs(1, 1, 5, 4, 2), micro_ticks=2)
    assert len(gpu.compiled) == 1
    library, name = cuda.compiled(gpu.compiled[0][1][1:], gpu.capability)
    program = library.with_name(f"{name}.cubin")
    program.write_bytes(b"something else")
    cuda.compiled.cache_clear()
    with pytest.warns(RuntimeWarning, match="compiling anew: .*damaged"):
        fused.tick(*make_inputs(1, 1, 5, 4, 2), micro_ticks=2)
    assert program.read_bytes() == PROGRAM


@pytest.mark.parametrize(
    "function", ["cuStreamGetCtx", "cuModuleLoadData", "cuModuleGetFunction", "cuLaunchKernel"]
)
def test_what_a_driver_refuses_is_an_error(gpu, monkeypatch, function):
    monkeypatch.setenv("FAKE_CUDA_FAULT", function)
    with pytest.raises(jax.errors.JaxRuntimeError, match=f"{function}: the fake refuses"):
        jax.block_until_ready(fused.tick(*make_inputs(1, 1, 5, 4, 2), micro_ticks=2))
    assert gpu.calls[3] == 0  # no context is left behind
    monkeypatch.delenv("FAKE_CUDA_FAULT")
    assert np.isfinite(fused.tick(*make_inputs(1, 1, 5, 4, 2), micro_ticks=2).h).all()


def test_without_a_driver_or_with_one_that_lacks_functions_it_is_said(gpu, monkeypatch, tmp_path):
    monkeypatch.setattr(nvrtc, "DRIVER", str(tmp_path / "libnone.so"))
    with pytest.raises(RuntimeError, match=r"the fused kernel cannot be used: .*libnone\.so"):
        fused.tick(*make_inputs(1, 1, 5, 4, 2), micro_ticks=2)
    empty = tmp_path / "empty.cpp"
    empty.write_text("int nothing;")
    libraries._compile([*libraries._compiler(), "-shared", "-fPIC", str(empty)], tmp_path / "libempty.so")
    monkeypatch.setattr(nvrtc, "DRIVER", str(tmp_path / "libempty.so"))
    with pytest.raises(RuntimeError, match="undefined symbol: cu"):
        fused.tick(*make_inputs(1, 1, 5, 4, 2), micro_ticks=2)


def test_the_first_use_checks_the_gpu_and_xla_takes_over_where_it_fails(gpu, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setenv("FAKE_CUDA_FAULT", "cuModuleLoadData")
    with pytest.warns(
        RuntimeWarning, match="slower than the fused kernel: it cannot be compiled or run here"
    ):
        assert chosen("auto", 4) == "tiled"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert chosen("auto", 4) == "tiled"  # said once


@pytest.mark.parametrize(
    ("capabilities", "reason"),
    [
        (["7.5"], "got compute capability 7.5, expected at least 8.0"),
        (["8.0", "9.0"], "GPUs are not alike: got compute capabilities 8.0, 9.0"),
        (["gfx90a"], "got compute capability 'gfx90a', expected two numbers"),
        (["9.0", "9.0"], None),
        (["10.3"], None),
    ],
)
def test_gpus_have_to_be_alike_and_young_enough(monkeypatch, capabilities, reason):
    class Device:
        def __init__(self, capability):
            self.compute_capability = capability

    monkeypatch.setattr(cuda.jax, "local_devices", lambda: [Device(each) for each in capabilities])
    if reason is None:
        assert cuda.capability() == capabilities[0]
    else:
        with pytest.raises(OSError, match=reason):
            cuda.capability()

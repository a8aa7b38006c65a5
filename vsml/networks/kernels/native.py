"""Ticks of all synapses of a dense layer on a CPU, by a kernel that is compiled on the machine it runs on.

XLA leaves a factor of two to what arithmetic allows (docs/results/speed.md). `native.cpp` beside this file
has the derivation. It is compiled at its first use by the C++ compiler that is there, for this very processor
and size N of a state, kept in the user's cache, and called through `jax.ffi`. Where it cannot be compiled,
`tiled` computes the same. `native_positions` is compiled in the same way, for convolutions.
"""

import atexit
import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp

from vsml.networks.kernels import activations
from vsml.networks.kernels.tiled import NORM_EPSILON, CellWeights, Ticked
from vsml.system.cache import private_cache_folder, processor
from vsml.system.files import atomic_path
from vsml.system.locks import take_turns
from vsml.system.trust import UntrustedError, checksum_of, open_trusted
from vsml.types import Array

Layers = Literal["dense", "positions"]
"""Of which layers a kernel is: dense ones, or those whose synapses are used at many positions."""

DENSE_SOURCE = Path(__file__).with_name("native.cpp")

SOURCES: dict[Layers, Path] = {
    "dense": DENSE_SOURCE,
    "positions": Path(__file__).with_name("native_positions.cpp"),
}

_SENDERS_PLACE: dict[Layers, int] = {"dense": 5, "positions": 8}
"""How many operands come before the senders."""

HEADER = Path(__file__).with_name("native.h")
"""What both sources include."""

COMPILE_S = 300.0
"""How long a compiler may take; it takes some 6 seconds."""

_COMPILERS = ("c++", "g++", "clang++")

_BY_PROCESSOR = ("aarch64", "arm", "ppc")
"""Families whose compilers take -mcpu for the very processor of a machine; others take -march."""


def _flags(machine: str) -> tuple[str, ...]:
    """Return the options of the compiler on a machine, as `platform.machine` calls it."""
    names_processor = machine.lower().startswith(_BY_PROCESSOR)
    native = "-mcpu=native" if names_processor else "-march=native"
    return ("-O3", native, "-std=c++17", "-shared", "-fPIC", "-w")


_FLAGS = _flags(platform.machine())

MAX_STATE = 128
"""Largest N: the blocks of larger states would neither fit into a cache nor on the stack of a thread."""


_REGISTERED: set[str] = set()
"""Targets that XLA knows; of one name is what was made of one source in one way, wherever it lies."""


@functools.cache
def missing(state_size: int, normed_channels: int = 0, layers: Layers = "dense") -> str | None:
    """Compile a kernel, and return why it cannot be used; None if it can.

    Args:
        state_size: N.
        normed_channels: M where messages are normalised, else 0.
        layers: of which kind it is.
    """
    if os.name != "posix":
        return f"it is for POSIX systems, and this one is {os.name}"
    if max(state_size, normed_channels) > MAX_STATE:
        return f"states and normalised messages have at most {MAX_STATE} numbers in it"
    try:
        path = _build(state_size, normed_channels, layers)
        library = _load(path)
        for name in ("forward", "backward"):
            target = _target(name, path)
            if target not in _REGISTERED:  # once a process: XLA refuses the same from another folder
                handler = jax.ffi.pycapsule(getattr(library, f"vsml_{name}"))
                jax.ffi.register_ffi_target(target, handler, platform="cpu")
                _REGISTERED.add(target)
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return None


def _target(name: str, path: Path) -> str:
    """Return what XLA calls a function by; what it compiled on other days must not mean another one."""
    return f"vsml-{path.stem}-{name}"


@functools.cache
def _build(state_size: int, normed_channels: int, layers: Layers = "dense") -> Path:
    """Return the compiled library, from the cache or anew.

    Raises:
        OSError: there is no compiler, the cache cannot be written, or the source does not compile.
        SubprocessError: the compiler does not end.
    """
    options = [*_compiler(), *_FLAGS, *_definitions(state_size, normed_channels)]
    source = SOURCES[layers]
    command = [*options, f"-I{jax.ffi.include_dir()}", str(source)]
    # Not where the source is: every copy of it shares what was compiled once.
    texts = [HEADER.read_text(), source.read_text()]
    made_of = [*texts, *options, jax.__version__, processor(), *platform.libc_ver()]
    key = hashlib.sha256("\0".join(made_of).encode()).hexdigest()[:16]
    library = _folder() / f"native-{key}.so"
    # The first process compiles, the others find what it has made.
    with take_turns(library.with_suffix(".lock")):
        fault = _fault(library)
        if fault is not None and library.exists():
            warnings.warn(f"compiling anew: {fault}", RuntimeWarning, stacklevel=2)
        if fault is not None:
            _compile(command, library)
            _seal(library)
    return library


def _compiler() -> list[str]:
    """Return the command of the C++ compiler.

    Raises:
        OSError: there is none, or CXX is no command.
    """
    asked = os.environ.get("CXX", "")
    try:
        words = shlex.split(asked)
    except ValueError as error:
        raise OSError(f"CXX: got {asked!r}, expected a command: {error}") from error
    compiler = words or list(filter(shutil.which, _COMPILERS))[:1]
    if not compiler:
        raise OSError(f"no C++ compiler: none of {', '.join(_COMPILERS)} is there, and CXX is not set")
    return compiler


def _folder() -> Path:
    """Return the folder of compiled kernels: nobody runs what another user has compiled."""
    try:
        return private_cache_folder("kernels")
    except UntrustedError as error:
        warnings.warn(f"kernels are compiled for this process alone: {error}", RuntimeWarning, stacklevel=2)
        return _folder_of_process()


@functools.cache
def _folder_of_process() -> Path:
    """Return a folder that goes when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix="vsml-kernels-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _checksum_file(library: Path) -> Path:
    return library.with_suffix(".sha256")


def _fault(library: Path) -> str | None:
    """Return why a library must not be loaded; None where it is as `_compile` has left it."""
    try:
        with _opened(library) as descriptor, _opened(_checksum_file(library)) as kept:
            got = checksum_of(descriptor, library.name)
            expected = os.read(kept, 2 * len(got)).decode(errors="replace").strip()
    except OSError as error:
        return str(error)
    return None if got == expected else f"{library}: damaged, its content does not match its checksum"


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = open_trusted(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _load(library: Path) -> ctypes.CDLL:
    """Load the very file that is checked.

    Raises:
        OSError: another user could have written it, or it cannot be loaded.
    """
    descriptor = open_trusted(library)
    by_descriptor = f"/proc/self/fd/{descriptor}"  # Linux only
    if not os.path.exists(by_descriptor):
        os.close(descriptor)
        return ctypes.CDLL(str(library))
    # Not closed: of two libraries by the same name the loader would take the first for both.
    return ctypes.CDLL(by_descriptor)


def _compile(command: list[str], library: Path) -> None:
    """Make the library, which is there as a whole or not at all."""
    with atomic_path(library) as temporary:
        done = subprocess.run(
            [*command, "-o", str(temporary)],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMPILE_S,
        )
        if done.returncode:
            raise OSError(
                f"{command[0]} cannot compile {Path(command[-1]).name}: {done.stderr.strip()[-2000:]}"
            )
        os.chmod(temporary, 0o700)  # whatever the umask says


def _seal(library: Path) -> None:
    """Keep the checksum of a library beside it."""
    with _opened(library) as descriptor:
        checksum = checksum_of(descriptor, library.name)
    with atomic_path(_checksum_file(library)) as temporary:
        temporary.write_text(f"{checksum}\n", encoding="utf-8")
        os.chmod(temporary, 0o600)


def _definitions(state_size: int, normed_channels: int) -> list[str]:
    def floats(numbers: tuple[float, ...]) -> str:
        return ",".join(f"{number}f" for number in numbers)

    return [
        f"-DSTATE_SIZE={state_size}",
        f"-DMESSAGE_SIZE={normed_channels}",
        f"-DNORM_EPSILON={NORM_EPSILON}f",
        f"-DTANH_BOUND={activations.BOUND}f",
        f"-DTANH_P={floats(activations.P)}",
        f"-DTANH_Q={floats(activations.Q)}",
    ]


def tick(
    weights: CellWeights,
    h_GNRI: Array,
    c_GNRI: Array,
    forward_IxM: Array,
    backward_OxM: Array,
    micro_ticks: int,
    senders: Array | None = None,
) -> Ticked:
    """Let all synapses of a dense layer tick; see `tiled.tick`.

    Under differentiation the state before the visit is kept, and the visit is recomputed.

    Args:
        weights: the shared LSTM.
        h_GNRI: hidden states, as in `tiled.tick`.
        c_GNRI: cell states, likewise.
        forward_IxM: message of each input unit.
        backward_OxM: message of each output unit.
        micro_ticks: how many ticks.
        senders: [2, N + 1, M], the kernel and (last row) the bias of forward and of backward messages. With
            them the means returned are not of h [N] but of the layer-normalised messages [M].

    Raises:
        ValueError: shapes that do not fit together, which compiled code would not notice.
    """
    G, N, R, fan_in = h_GNRI.shape
    M = forward_IxM.shape[-1]
    check_shapes(
        {
            "c_GNRI": (c_GNRI, (G, N, R, fan_in)),
            "forward_IxM": (forward_IxM, (fan_in, M)),
            "backward_OxM": (backward_OxM, (G * R, M)),
            **shapes_of_weights(weights, senders, N, M),
        }
    )
    return _tick(micro_ticks, weights, h_GNRI, c_GNRI, forward_IxM, backward_OxM, senders)


Expected = Mapping[str, tuple[Array | None, tuple[int, ...]]]
"""Arrays by name, and the shapes that they should have."""


def shapes_of_weights(weights: CellWeights, senders: Array | None, N: int, M: int) -> Expected:
    """Return weights and senders with the shapes that they should have, for states N and messages M."""
    return {
        "weights.forward": (weights.forward, (4 * N, M)),
        "weights.backward": (weights.backward, (4 * N, M)),
        "weights.hidden": (weights.hidden, (4 * N, N)),
        "weights.bias": (weights.bias, (4 * N,)),
        "senders": (senders, (2, N + 1, M)),
    }


def check_shapes(expected: Expected) -> None:
    """Check arrays, by name, that are there, against the shapes they should have.

    Raises:
        ValueError: one has another.
    """
    for name, (array, shape) in expected.items():
        if array is not None and array.shape != shape:
            raise ValueError(f"{name}: got shape {array.shape}, expected {shape}")


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _tick(micro_ticks: int, *operands: Any) -> Ticked:
    return _visit(micro_ticks, *operands)


def _visit(
    micro_ticks: int,
    weights: CellWeights,
    h_GNRI: Array,
    c_GNRI: Array,
    forward_IxM: Array,
    backward_OxM: Array,
    senders: Array | None,
) -> Ticked:
    G, N, R, fan_in = h_GNRI.shape
    added = _added(G, weights, forward_IxM, backward_OxM)
    sent = N if senders is None else senders.shape[-1]
    results = [h_GNRI.shape, h_GNRI.shape, (G * R, sent), (sent, fan_in)]
    call = function("dense", "forward", senders, results, N, {3: 0, 4: 1})
    h, c, forward_OxS, backward_SxI = call(micro_ticks, weights.hidden, *added, h_GNRI, c_GNRI)
    h, c = h.astype(h_GNRI.dtype), c.astype(c_GNRI.dtype)
    return Ticked(h=h, c=c, forward=forward_OxS, backward=backward_SxI.T)


def _added(tiles: int, weights: CellWeights, forward_IxM: Array, backward_OxM: Array) -> tuple[Array, Array]:
    """Return what the messages add to the gates: [4N, I] with the bias, and [G, 4N, R]."""
    from_input_4NxI = weights.forward @ forward_IxM.T + weights.bias[:, None]
    backward_GxRxM = backward_OxM.reshape(tiles, -1, backward_OxM.shape[-1])
    return from_input_4NxI, jnp.einsum("km,grm->gkr", weights.backward, backward_GxRxM)


def _remember(micro_ticks: int, *operands: Any) -> tuple[Ticked, tuple[Any, ...]]:
    return _visit(micro_ticks, *operands), operands


def _differentiate(micro_ticks: int, operands: tuple[Any, ...], cotangent: Ticked) -> tuple[Any, ...]:
    weights, h_GNRI, c_GNRI, *messages, senders = operands
    added, add_back = jax.vjp(functools.partial(_added, len(h_GNRI)), weights, *messages)
    inputs = (weights.hidden, *added, h_GNRI, c_GNRI)
    results = [each.shape for each in inputs]
    call = function("dense", "backward", senders, results, h_GNRI.shape[1], {6: 3, 7: 4})
    d_means = (cotangent.forward, cotangent.backward.T)
    d_hidden, *d_added, d_h, d_c, d_senders = call(micro_ticks, *inputs, cotangent.h, cotangent.c, *d_means)
    # The kernel computes in float32, whatever the messages are of.
    d_added = [d_sum.astype(each.dtype) for d_sum, each in zip(d_added, added, strict=True)]
    d_weights, *d_messages = add_back(tuple(d_added))
    d_weights = d_weights.replace(hidden=d_weights.hidden + d_hidden)
    d_states = (d_h.astype(h_GNRI.dtype), d_c.astype(c_GNRI.dtype))
    return d_weights, *d_states, *d_messages, None if senders is None else d_senders


_tick.defvjp(_remember, _differentiate)


def function(
    layers: Layers,
    name: str,
    senders: Array | None,
    results: Sequence[tuple[int, ...]],
    state_size: int,
    in_place: dict[int, int],
) -> Callable[..., Sequence[Array]]:
    """Return a compiled function, of the micro ticks and its operands but for the senders.

    Args:
        layers: of which kernel.
        name: "forward" or "backward".
        senders: see `tick`.
        results: shapes, but for that of the derivative of the senders.
        state_size: N.
        in_place: operands, counted with the senders, that results take the place of.

    Raises:
        RuntimeError: it cannot be compiled.
    """
    channels = 0 if senders is None else senders.shape[-1]
    if reason := missing(state_size, channels, layers):
        raise RuntimeError(f"the native kernel cannot be used: {reason}")
    sending = jnp.zeros((2, state_size + 1, 1)) if senders is None else senders
    shapes = [*results, sending.shape] if name == "backward" else results
    call = jax.ffi.ffi_call(
        _target(name, _build(state_size, channels, layers)),
        [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes],
        vmap_method="broadcast_all",
        input_output_aliases=in_place,
    )
    place = _SENDERS_PLACE[layers]

    def run(micro_ticks: int, *operands: Array) -> Sequence[Array]:
        every = (*operands[:place], sending, *operands[place:])
        return call(*(operand.astype(jnp.float32) for operand in every), micro_ticks=micro_ticks)

    return run

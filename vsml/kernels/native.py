"""Ticks of all synapses of a dense layer on a CPU, by a kernel that is compiled on the machine it runs on.

XLA leaves a factor of two to what the arithmetic allows (docs/performance.md). `native.cpp` beside this file
has the derivation. It is compiled at its first use by the C++ compiler that is there, for this very processor
and size N of a state, kept in the user's cache, and called through `jax.ffi`. Where it cannot be compiled,
`tiled` computes the same.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from vsml.cache import cache_folder, processor
from vsml.kernels import activations
from vsml.kernels.tiled import CellWeights, Ticked
from vsml.types import Array

SOURCE = Path(__file__).with_name("native.cpp")

_COMPILERS = ("c++", "g++", "clang++")

_FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-w")


@functools.cache
def missing(state_size: int) -> str | None:
    """Compile the kernel for states of size N, and return why it cannot be used; None if it can.

    Args:
        state_size: N.
    """
    try:
        path = _build(state_size)
        library = ctypes.CDLL(str(path))
        for name in ("forward", "backward"):
            handler = jax.ffi.pycapsule(getattr(library, f"vsml_{name}"))
            jax.ffi.register_ffi_target(_target(name, path), handler, platform="cpu")
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return None


def _target(name: str, path: Path) -> str:
    """Return what XLA calls a function by; what it compiled on other days must not mean another one."""
    return f"vsml-{path.stem}-{name}"


@functools.cache
def _build(state_size: int) -> Path:
    """Return the compiled library, from the cache or anew.

    Raises:
        OSError: there is no compiler, the cache cannot be written, or the source does not compile.
        SubprocessError: the compiler does not end.
    """
    compiler = os.environ.get("CXX") or next(filter(shutil.which, _COMPILERS), None)
    if compiler is None:
        raise OSError(f"no C++ compiler: none of {', '.join(_COMPILERS)} is there, and CXX is not set")
    command = [compiler, *_FLAGS, f"-I{jax.ffi.include_dir()}", *_definitions(state_size), str(SOURCE)]
    made_of = [SOURCE.read_text(), *command, jax.__version__, processor()]
    key = hashlib.sha256("\0".join(made_of).encode()).hexdigest()[:16]
    folder = cache_folder("kernels")
    library = folder / f"native-{state_size}-{key}.so"
    if not library.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Several processes may compile at once: each for itself, and the last name given stays.
        descriptor, temporary = tempfile.mkstemp(suffix=".so", dir=folder)
        os.close(descriptor)
        try:
            done = subprocess.run([*command, "-o", temporary], capture_output=True, text=True, timeout=300)
            if done.returncode:
                raise OSError(f"{compiler} cannot compile {SOURCE.name}: {done.stderr.strip()[-2000:]}")
            os.replace(temporary, library)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
    return library


def _definitions(state_size: int) -> list[str]:
    def floats(numbers: tuple[float, ...]) -> str:
        return ",".join(f"{number}f" for number in numbers)

    return [
        f"-DSTATE_SIZE={state_size}",
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
) -> Ticked:
    """Let all synapses of a dense layer tick; see `tiled.tick`.

    Under differentiation the state before the visit is kept, and the visit is recomputed.
    """
    return _tick(micro_ticks, weights, h_GNRI, c_GNRI, forward_IxM, backward_OxM)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _tick(
    micro_ticks: int, weights: CellWeights, h_GNRI: Array, c_GNRI: Array, forward: Array, backward: Array
) -> Ticked:
    return _visit(micro_ticks, weights, h_GNRI, c_GNRI, forward, backward)


def _visit(
    micro_ticks: int, weights: CellWeights, h_GNRI: Array, c_GNRI: Array, forward: Array, backward: Array
) -> Ticked:
    G, N, R, fan_in = h_GNRI.shape
    added = _added(G, weights, forward, backward)
    kept, state = h_GNRI.dtype, jax.ShapeDtypeStruct(h_GNRI.shape, jnp.float32)
    means = (jax.ShapeDtypeStruct((G * R, N), jnp.float32), jax.ShapeDtypeStruct((N, fan_in), jnp.float32))
    h_GNRI, c_GNRI, forward_OxN, backward_NxI = _call(
        "forward",
        (state, state, *means),
        micro_ticks,
        (weights.hidden, *added, h_GNRI, c_GNRI),
        input_output_aliases={3: 0, 4: 1},
    )
    return Ticked(h=h_GNRI.astype(kept), c=c_GNRI.astype(kept), forward=forward_OxN, backward=backward_NxI.T)


def _added(tiles: int, weights: CellWeights, forward_IxM: Array, backward_OxM: Array) -> tuple[Array, Array]:
    """Return what the messages add to the gates: [4N, I] with the bias, and [G, 4N, R]."""
    from_input_4NxI = weights.forward @ forward_IxM.T + weights.bias[:, None]
    backward_GxRxM = backward_OxM.reshape(tiles, -1, backward_OxM.shape[-1])
    return from_input_4NxI, jnp.einsum("km,grm->gkr", weights.backward, backward_GxRxM)


def _remember(micro_ticks: int, *operands: Any) -> tuple[Ticked, tuple[Any, ...]]:
    return _visit(micro_ticks, *operands), operands


def _differentiate(micro_ticks: int, operands: tuple[Any, ...], cotangent: Ticked) -> tuple[Any, ...]:
    weights, h_GNRI, c_GNRI, *messages = operands
    added, add_back = jax.vjp(functools.partial(_added, len(h_GNRI)), weights, *messages)
    like = [jax.ShapeDtypeStruct(a.shape, jnp.float32) for a in (weights.hidden, *added, h_GNRI, c_GNRI)]
    d_hidden, *d_added, dh_GNRI, dc_GNRI = _call(
        "backward",
        tuple(like),
        micro_ticks,
        (
            weights.hidden,
            *added,
            h_GNRI,
            c_GNRI,
            cotangent.h,
            cotangent.c,
            cotangent.forward,
            cotangent.backward.T,
        ),
        input_output_aliases={5: 3, 6: 4},
    )
    d_weights, *d_messages = add_back(tuple(d_added))
    kept = h_GNRI.dtype
    d_weights = d_weights.replace(hidden=d_weights.hidden + d_hidden)
    return d_weights, dh_GNRI.astype(kept), dc_GNRI.astype(kept), *d_messages


_tick.defvjp(_remember, _differentiate)


def _call(
    name: str,
    results: tuple,
    micro_ticks: int,
    operands: tuple[Array, ...],
    input_output_aliases: dict[int, int],
) -> Sequence[Array]:
    state_size = operands[3].shape[1]
    if reason := missing(state_size):
        raise RuntimeError(f"the native kernel cannot be used: {reason}")
    call = jax.ffi.ffi_call(
        _target(name, _build(state_size)),
        results,
        vmap_method="broadcast_all",
        input_output_aliases=input_output_aliases,
    )
    return call(*(operand.astype(jnp.float32) for operand in operands), micro_ticks=micro_ticks)

"""Ticks of all synapses of a dense layer in one GPU kernel, written in CUDA: `tiled`, fused.

Forward. A synapse of input unit a and output unit b with the state h, c [N] gets u[a] = W1 m_fwd[a] and v[b]
= W2 m_bwd[b] + bias; with l(z) = (1 + tanh z) / 2 and W as `CellWeights` has it, each of T micro ticks is

    z_k = W3_k h + u_k[a] + v_k[b],  k in (i, g, f, o);   i, f, o = l(z_i), l(z_f), l(z_o);   g = 2 l(z_g) - 1
    c' = f c + i g;   t = 2 l(c') - 1;   h' = o t

and after the last one the means of h' over a and over b are taken. Gradient. From D(x) = d loss / d x of the
new h and c and of the two means, which D(h') takes in, each tick back to front, computed again from the state
before it,

    D(c') += D(h') o (1 - t^2);   D(z_i) = D(c') g 2 i (1 - i);   D(z_g) = D(c') i (1 - g^2);
    D(z_f) = D(c') c 2 f (1 - f);   D(z_o) = D(h') t 2 o (1 - o);   D(c) = D(c') f;
    D(h) = sum_k W3_k^T D(z_k);   D(W3_k) += D(z_k) h^T;   D(u_k[a]) += D(z_k);   D(v_k[b]) += D(z_k)

v is made outside, by XLA, which also differentiates it (W2, bias, m_bwd) and makes D(W1) and D(m_fwd) from
D(u). Nothing but the inputs is kept for the gradient.

How it is made (`cuda`). `fused.cu` is the kernels as text. NVRTC compiles it at its first use, for the GPU
and the sizes at hand; `fused.cpp` is compiled by the C++ compiler, loads the result by the driver of the GPU,
and launches it on XLA's stream through `jax.ffi`. No part of CUDA has to be installed but what JAX for GPUs
brings. With `emulated.h` the same text runs on a CPU, slowly, in the tests.

Where things are. A block of 4 warps has 32 input units of one member, a warp 8 of them, and goes through all
output units one by one. A batch (`jax.vmap`, nested or not) is more blocks, so members run side by side. The
state is read once and written once, over the old one: XLA then needs no copy of the state that a scan
carries. (That is safe: each number is read and written by the same thread.) It is read one output unit ahead.
W3, u, gates, sums of h over the outputs, D(u) and D(W3) stay in registers. Sums over the inputs of a block
and D(v), D(W3) are written once per block and added outside, in a fixed order: no atomics, the same bits
every time. Arithmetic is float32 whatever the state's type is.

Products are done by tensor cores, from two parts of 11 bits of each number (tf32), without the product of the
lower ones: 21 bits of 24, as near to exact as sums in float32 are. A tensor core hands out the product W3 h
of 8 synapses such that a thread gets all gates of 2 synapses and N / 8 numbers each, and it takes D(z) and h
for D(W3) from where they are. What threads have to exchange, through shared memory, is h and D(z) once per
tick. Tensor cores round sums towards zero, so D(W3) is added up outside of them, beyond what 8 synapses have
at one tick. Ordinary multiply-adds would need 64 instructions for each number and tick, and more than twice
the registers.

l(z) = 1 / (1 + 2^(-2 z log2 e)) is two special-function operations, within some 1e-7 of l; forward, i g and
o t need one reciprocal each, so that there are 8 instead of 10 for each number. The approximate tanh
instruction has 11 bits.

Cost of a synapse and tick, N = 16: forward 4 N^2 = 1024 multiply-adds and 8 N = 128 special-function
operations. The gradient computes T - 1 ticks forward and T back; one back has three times the multiply-adds
and 10 N special functions. Per visit 4 N or 6 N numbers of state are moved. docs/performance.md has what
follows for an H100, and what the compiler makes of it. Nothing of this has run on a GPU yet.
"""

import functools
import math
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from vsml.networks.kernels import cuda, libraries, native, tiled
from vsml.networks.kernels.tiled import CellWeights, Ticked
from vsml.types import Array

GATES = 4

BLOCK_INPUTS = 32
"""Input units that a block has; fused.h has it, too."""

MAX_STATE = 32
"""Largest N. Above 16 a thread has not enough registers for all weights, and keeps some in memory."""

MAX_TICKS = 4
"""Most ticks of a launch; more are more launches. The gradient has h and c of all of them in registers."""

_TYPE_CODES = {"float32": 32, "float16": 16, "bfloat16": 17}


@dataclass(frozen=True)
class Plan:
    """What the kernels are built for; hashable, so that it is known while they are traced.

    Attributes:
        shape: G, N, R and I of the state.
        channels: M.
        micro_ticks: ticks of a launch.
        types: of h and of c.
        emulated: whether to run without a GPU.
    """

    shape: tuple[int, int, int, int]
    channels: int
    micro_ticks: int
    types: tuple[str, str]
    emulated: bool

    @property
    def fan_out(self) -> int:
        """O."""
        return self.shape[0] * self.shape[2]

    @property
    def blocks(self) -> int:
        """J, the number of blocks of a member."""
        return -(-self.shape[3] // BLOCK_INPUTS)

    @property
    def filled(self) -> int:
        """NP, which is N filled up to a multiple of 8."""
        return -(-self.shape[1] // 8) * 8

    @property
    def definitions(self) -> list[str]:
        """Options of a compiler that say what the source is compiled for."""
        sizes = {
            "STATE_SIZE": self.shape[1],
            "MESSAGE_SIZE": self.channels,
            "TICKS": self.micro_ticks,
            "H_TYPE": _TYPE_CODES[self.types[0]],
            "C_TYPE": _TYPE_CODES[self.types[1]],
        }
        return [f"-D{name}={value}" for name, value in sizes.items()]


def tick(
    weights: CellWeights,
    h_GNRI: Array,
    c_GNRI: Array,
    forward_IxM: Array,
    backward_OxM: Array,
    micro_ticks: int,
    emulated: bool = False,
) -> Ticked:
    """Let all synapses of a dense layer tick, with the messages they receive held fixed.

    Args:
        weights: the shared LSTM, float32.
        h_GNRI: hidden states, float32, bfloat16 or float16, in tiles, as in `tiled.tick`.
        c_GNRI: cell states, likewise.
        forward_IxM: message of each input unit, float32.
        backward_OxM: message of each output unit, float32.
        micro_ticks: how many ticks.
        emulated: run on a CPU, slowly.

    Returns:
        The new `h_GNRI` and `c_GNRI`, of the types they came in; the mean of the new h, before it is rounded
        to that type, over the inputs [O, N] and over the outputs [I, N].

    Raises:
        ValueError: states too large, of another type, shapes that do not fit together, or no tick.
        RuntimeError: the kernel cannot be compiled here.
    """
    _check(weights, h_GNRI, c_GNRI, forward_IxM, backward_OxM, micro_ticks)
    kept = h_GNRI.dtype, c_GNRI.dtype
    if micro_ticks > MAX_TICKS:  # states between launches are not rounded
        h_GNRI, c_GNRI = h_GNRI.astype(jnp.float32), c_GNRI.astype(jnp.float32)
    messages = (forward_IxM, backward_OxM)
    for first in range(0, micro_ticks, MAX_TICKS):
        ticks = min(MAX_TICKS, micro_ticks - first)
        ticked = _launch(weights, h_GNRI, c_GNRI, *messages, ticks, emulated)
        h_GNRI, c_GNRI = ticked.h, ticked.c
    h_GNRI, c_GNRI = h_GNRI.astype(kept[0]), c_GNRI.astype(kept[1])
    return Ticked(h=h_GNRI, c=c_GNRI, forward=ticked.forward, backward=ticked.backward)


def _check(
    weights: CellWeights,
    h_GNRI: Array,
    c_GNRI: Array,
    forward_IxM: Array,
    backward_OxM: Array,
    micro_ticks: int,
) -> None:
    """Check what compiled code would not notice.

    Raises:
        ValueError: see `tick`.
    """
    G, N, R, fan_in = h_GNRI.shape
    M = forward_IxM.shape[-1]
    if reason := _too_large(N):
        raise ValueError(reason)
    if micro_ticks < 1:
        raise ValueError(f"micro_ticks: got {micro_ticks}, expected at least 1")
    native.check_shapes(
        {
            "c_GNRI": (c_GNRI, (G, N, R, fan_in)),
            "forward_IxM": (forward_IxM, (fan_in, M)),
            "backward_OxM": (backward_OxM, (G * R, M)),
            **native.shapes_of_weights(weights, None, N, M),
        }
    )
    for name, array in (("h_GNRI", h_GNRI), ("c_GNRI", c_GNRI)):
        if array.dtype.name not in _TYPE_CODES:
            raise ValueError(f"{name}: got {array.dtype.name}, expected one of {', '.join(_TYPE_CODES)}")


def _launch(
    weights: CellWeights,
    h_GNRI: Array,
    c_GNRI: Array,
    forward_IxM: Array,
    backward_OxM: Array,
    micro_ticks: int,
    emulated: bool,
) -> Ticked:
    """Let synapses tick as often as one launch can."""
    G, N, R, fan_in = h_GNRI.shape
    types = h_GNRI.dtype.name, c_GNRI.dtype.name
    plan = Plan((G, N, R, fan_in), forward_IxM.shape[1], micro_ticks, types, emulated)

    def by_number(array_4NxK: Array, columns: int) -> Array:
        """Return [NP, 4, columns], filled up with zeros."""
        array = array_4NxK.astype(jnp.float32).reshape(GATES, N, -1).transpose(1, 0, 2)
        return jnp.pad(array, ((0, plan.filled - N), (0, 0), (0, columns - array.shape[2])))

    from_output_4NxO = jnp.matmul(weights.backward, backward_OxM.T, precision=lax.Precision.HIGHEST)
    h, c, sum_JxOxN, sum_IxN = _visit(
        plan,
        by_number(weights.hidden, plan.filled),
        by_number(weights.forward, plan.channels),
        by_number(from_output_4NxO + weights.bias[:, None], plan.fan_out).transpose(2, 0, 1),
        h_GNRI,
        c_GNRI,
        forward_IxM.astype(jnp.float32),
    )
    means = (sum_JxOxN.sum(0)[:, :N] / fan_in, sum_IxN[:, :N] / plan.fan_out)
    return Ticked(h=h, c=c, forward=means[0], backward=means[1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _visit(plan: Plan, *inputs: Array) -> tuple[Array, ...]:
    """Run the kernel on all blocks, with what it takes and gives but for sums over a block's inputs."""
    fan_in = plan.shape[3]
    results = [
        jax.ShapeDtypeStruct(plan.shape, plan.types[0]),
        jax.ShapeDtypeStruct(plan.shape, plan.types[1]),
        _floats(plan.blocks, plan.fan_out, plan.filled),
        _floats(fan_in, plan.filled),
    ]
    return tuple(_call(plan, "forward", results, {3: 0, 4: 1})(*inputs))


def _visit_forward(plan: Plan, *inputs: Array) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    return _visit(plan, *inputs), inputs


def _visit_backward(
    plan: Plan, inputs: tuple[Array, ...], cotangents: tuple[Array, ...]
) -> tuple[Array, ...]:
    _, forward_NPx4xM, *_, message_IxM = inputs
    results = [
        _floats(plan.blocks, plan.filled, GATES, plan.filled),
        _floats(plan.shape[3], plan.filled, GATES),
        _floats(plan.blocks, plan.fan_out, plan.filled, GATES),
        jax.ShapeDtypeStruct(plan.shape, plan.types[0]),
        jax.ShapeDtypeStruct(plan.shape, plan.types[1]),
    ]
    call = _call(plan, "backward", results, {6: 3, 7: 4})
    d_hidden, d_from_input_IxNPx4, d_from_output, d_h, d_c = call(*inputs, *cotangents)
    product = functools.partial(jnp.einsum, precision=lax.Precision.HIGHEST)
    d_forward = product("ink,im->nkm", d_from_input_IxNPx4, message_IxM)
    d_message = product("ink,nkm->im", d_from_input_IxNPx4, forward_NPx4xM)
    return d_hidden.sum(0), d_forward, d_from_output.sum(0), d_h, d_c, d_message


_visit.defvjp(_visit_forward, _visit_backward)


def _floats(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _call(
    plan: Plan,
    name: str,
    results: list[jax.ShapeDtypeStruct],
    in_place: dict[int, int],
) -> Callable[..., Sequence[Array]]:
    """Return a compiled function of arrays; `in_place` are inputs that results replace."""
    try:
        capability = None if plan.emulated else cuda.capability()
        library, program = cuda.compiled(tuple(plan.definitions), capability)
    except (OSError, subprocess.SubprocessError) as error:
        raise RuntimeError(f"the fused kernel cannot be used: {error}") from error
    call = jax.ffi.ffi_call(
        libraries.target(name, library),
        results,
        vmap_method="broadcast_all",
        input_output_aliases=in_place,
    )
    return functools.partial(call, program=program)


def _too_large(state_size: int) -> str | None:
    if state_size <= MAX_STATE:
        return None
    return f"states have at most {MAX_STATE} numbers in it, got state_size {state_size}"


def missing(state_size: int) -> str | None:
    """Return why the kernels cannot be used on the default device; None if they can.

    The first call with an N on a GPU compiles them, runs them on a small layer, and compares with
    `tiled.tick`.

    Args:
        state_size: N.
    """
    backend = jax.default_backend()
    if backend != "gpu":
        return f"it is for GPUs, and this is a {backend}"
    return _too_large(state_size) or _fault(state_size)


@functools.cache
def _fault(state_size: int) -> str | None:
    try:
        error = largest_error(state_size)
    except Exception as reason:  # JAX, compilers and the driver each raise their own
        return f"it cannot be compiled or run here: {type(reason).__name__}: {reason}"
    if not error <= MAX_ERROR:
        return f"it is off by {error:.1e} of the largest entry here"
    return None


MAX_ERROR = 1e-5
"""Largest difference from `tiled.tick`, relative to the largest entry of an array, taken for rounding."""


def largest_error(state_size: int, emulated: bool = False) -> float:
    """Return how far results and gradients for a small layer are from those of `tiled.tick`.

    It is the largest difference of each array relative to its largest entry, and the worst of these.

    Args:
        state_size: N.
        emulated: whether to run on a CPU.
    """
    N, M, R, fan_in = state_size, 8, 3, 42

    def wave(number: int, *shape: int) -> Array:
        """Return numbers in [-1, 1] that look random and differ from array to array."""
        return jnp.sin((number + 2.0) * jnp.arange(1.0, math.prod(shape) + 1)).reshape(shape)

    def everything(tick: Callable[..., Ticked]) -> Any:
        weights = CellWeights(wave(0, 4 * N, M), wave(1, 4 * N, M), wave(2, 4 * N, N) / 2, wave(3, 4 * N))
        inputs = (
            weights,
            wave(4, 1, N, R, fan_in),
            wave(5, 1, N, R, fan_in),
            wave(6, fan_in, M),
            wave(7, R, M),
        )
        results, gradient = jax.vjp(lambda *arrays: tick(*arrays, micro_ticks=2), *inputs)
        leaves, structure = jax.tree.flatten(results)
        weighting = [wave(8 + n, *array.shape) for n, array in enumerate(leaves)]
        return results, gradient(jax.tree.unflatten(structure, weighting))

    @jax.jit
    def worst() -> Array:
        got, want = everything(functools.partial(tick, emulated=emulated)), everything(tiled.tick)
        errors = jax.tree.map(lambda a, b: jnp.abs(a - b).max() / jnp.abs(b).max(), got, want)
        return jnp.stack(jax.tree.leaves(errors)).max()

    with jax.default_matmul_precision("highest"):  # of `tiled.tick`: a GPU's default has 11 bits
        compiled = worst.lower().compile()  # so that it is run even while something else is traced
    return float(compiled())

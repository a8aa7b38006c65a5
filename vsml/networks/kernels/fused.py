"""Ticks of all synapses of a dense layer in one GPU kernel (Pallas), forward and gradient: `tiled`, fused.

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

and at the end D(m_fwd[a]) = W1^T D(u[a]) and D(W1) = sum_a D(u[a]) m_fwd[a]^T. v is as small as the messages
and made outside, by XLA, which also differentiates it (W2, bias, m_bwd). Nothing but the inputs is kept for
the gradient.

Where things are. A program has B input units of one member and goes through all output units one by one; a
batch (`jax.vmap`, nested or not) is further axes of the grid, so its programs run side by side. It reads h, c
[N, B] of an output unit once, turns them to [B, N] (so that what one product gives is laid out as the next
takes it), and writes them once, over the old ones: XLA then needs no copy of the state that a scan carries.
(That is safe: other programs do not read them, and each thread's part has passed a barrier or is its own
before it is overwritten.) u [4, B, N], the sum of h over the outputs [B, N], D(u) and D(W3) stay in
registers, as do all gates. The sum of h over a block's inputs and D(v), D(W1), D(W3) are written once per
program and added outside, in a fixed order: no atomics, the same bits every time. Arithmetic is float32
whatever the state's type is.

Choices. l(z) = 1 / (1 + 2^(-2 z log2 e)) is two special-function operations, within some 1e-7 of l; a visit
takes 2/3 of the instructions that it takes with the rational function of `activations`, and 3/5 of those with
CUDA's tanhf, which branches; the approximate tanh instruction has 11 bits. It overflows to the right limit,
0. Products have 4 [N, N] operands since Triton cannot slice registers; HIGHEST makes them float32 multiply-
adds rather than tf32. The Triton backend of Pallas is asked for by name: JAX 0.10 to 0.12 have it, deprecated
since 0.11.

Cost of a synapse and tick, N = 16: forward 4 N^2 = 1024 multiply-adds, 10 N = 160 special-function
operations; gradient three times the former, as many of the latter. Per visit 4 N or 6 N numbers of state are
moved. At 784 x 10 with 2 ticks that is, per example, 32 or 96 MFLOP, 2.5 M special-function operations, 2.0
or 3.0 MB in float32, half in 16 bits. Compiled for an H100, one output unit takes a warp (16 synapses, 8
numbers a thread) 2,120 or 6,060 instructions, with all 255 registers (forward 64 bytes spilled, gradient 1.5
kB, to L1), 8 warps per multiprocessor. Were an instruction issued every cycle, this would be 1.2 or 3.4
microseconds per example; the special functions alone are 0.7, the state 0.6 or 0.9 from memory, less from the
L2 cache (50 MB; a member's float32 state is 1 MB). So expect arithmetic to be the limit, at 2 to 3 and 5 to 8
microseconds. Tensor cores (`precision`) save a quarter of the instructions. None of these times have been
measured.
"""

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from vsml.networks.kernels import tiled
from vsml.networks.kernels.tiled import CellWeights, Ticked
from vsml.types import Array

GATES = 4

BLOCKS = (64, 32, 16)
"""How many synapses of an output unit a program may hold."""

THREAD_NUMBERS = {16: 8, 32: 2}
"""How many numbers of a tile [B, N] a thread has, by N filled up.

With more, Triton keeps more of the weights in a thread than there are registers; for N > 32 it always does.
"""

MAX_IDLE = 0.05
"""Most places of the last block that may be idle, relative to the fan-in, for a larger block to be taken."""

MIN_SIZE = 16
"""Least size of a matrix in a product in Triton. All sizes are powers of two; zeros fill them."""


def block_size(fan_in: int, state_size: int = 16) -> int:
    """Return B, the largest of `BLOCKS` that leaves few places idle (`MAX_IDLE`), else the smallest.

    784 inputs are 25 blocks of 32, 64 are one of 64, 100 are 7 of 16. If N > 16, a block of 16 has 8 warps,
    as many as a multiprocessor has registers for.
    """
    if state_size > 16:
        return BLOCKS[-1]
    return next((block for block in BLOCKS if -fan_in % block <= MAX_IDLE * fan_in), BLOCKS[-1])


@dataclass(frozen=True)
class Plan:
    """What the kernels are built for; hashable, so that it is known while they are traced.

    Attributes:
        shape: G, N, R and I of the state.
        channels: M.
        micro_ticks: ticks of a visit.
        block: B, synapses of an output unit in one program.
        precision: of the matrix products.
        interpret: whether to run without a GPU.
    """

    shape: tuple[int, int, int, int]
    channels: int
    micro_ticks: int
    block: int
    precision: lax.PrecisionLike
    interpret: bool

    @property
    def fan_out(self) -> int:
        """O."""
        return self.shape[0] * self.shape[2]

    @property
    def blocks(self) -> int:
        """J, the number of programs."""
        return pl.cdiv(self.shape[3], self.block)

    @property
    def rows(self) -> int:
        """N, filled up."""
        return max(MIN_SIZE, pl.next_power_of_2(self.shape[1]))

    @property
    def columns(self) -> int:
        """M, filled up."""
        return max(MIN_SIZE, pl.next_power_of_2(self.channels))


def tick(
    weights: CellWeights,
    h_GNRI: Array,
    c_GNRI: Array,
    forward_IxM: Array,
    backward_OxM: Array,
    micro_ticks: int,
    interpret: bool = False,
    block: int | None = None,
    precision: lax.PrecisionLike = lax.Precision.HIGHEST,
) -> Ticked:
    """Let all synapses of a dense layer tick, with the messages they receive held fixed.

    Args:
        weights: the shared LSTM, float32.
        h_GNRI: hidden states, float32, bfloat16 or float16, in tiles, as in `tiled.tick`.
        c_GNRI: cell states, likewise.
        forward_IxM: message of each input unit, float32.
        backward_OxM: message of each output unit, float32.
        micro_ticks: how many ticks.
        interpret: run on any device, slowly, as plain JAX.
        block: synapses of an output unit in one program: 16 or a larger power of two; None to choose.
        precision: of the products with `hidden` and `forward`. HIGHEST is float32 throughout. Tensor cores
            compute it from parts if it is `lax.DotAlgorithmPreset.BF16_BF16_F32_X6` (about as exact) or
            `TF32_TF32_F32_X3` (22 bits; not in interpret mode).

    Returns:
        The new `h_GNRI` and `c_GNRI`, of the types they came in; the mean of the new h, before it is rounded
        to its type, over the inputs [O, N] and over the outputs [I, N], float32.

    Raises:
        ValueError: if N is larger than 32.
    """
    G, N, R, fan_in = h_GNRI.shape
    if reason := _too_large(N):
        raise ValueError(reason)
    if (forward_IxM.shape[0], backward_OxM.shape[0]) != (fan_in, G * R):
        got = f"{forward_IxM.shape[0]} forward and {backward_OxM.shape[0]} backward messages"
        raise ValueError(f"got {got}, expected {fan_in} and {G * R}, one for each unit")
    block, channels = block or block_size(fan_in, N), forward_IxM.shape[1]
    plan = Plan((G, N, R, fan_in), channels, micro_ticks, block, precision, interpret)

    def by_gate(array_4NxK: Array, columns: int) -> Array:
        array = array_4NxK.reshape(GATES, N, -1)
        return jnp.pad(array, ((0, 0), (0, plan.rows - N), (0, columns - array.shape[2])))

    from_output_4NxO = jnp.matmul(weights.backward, backward_OxM.T, precision=lax.Precision.HIGHEST)
    h, c, sum_JxOxN, sum_IxN = _visit(
        plan,
        by_gate(weights.hidden, plan.rows),
        by_gate(weights.forward, plan.columns),
        by_gate(from_output_4NxO + weights.bias[:, None], plan.fan_out).transpose(2, 0, 1),
        h_GNRI,
        c_GNRI,
        forward_IxM,
    )
    means = (sum_JxOxN.sum(0)[:, :N] / fan_in, sum_IxN[:, :N] / plan.fan_out)
    return Ticked(h=h, c=c, forward=means[0], backward=means[1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _visit(plan: Plan, *inputs: Array) -> tuple[Array, ...]:
    """Run `_visit_kernel` on all blocks, with what it takes and gives but for sums over a block's inputs."""
    arrays, results, _ = _operands(plan, *inputs[3:5])
    return _call(plan, _visit_kernel, arrays, results, in_place={3: 0, 4: 1})(*inputs)


def _visit_forward(plan: Plan, *inputs: Array) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    return _visit(plan, *inputs), inputs


def _visit_backward(
    plan: Plan, inputs: tuple[Array, ...], cotangents: tuple[Array, ...]
) -> tuple[Array, ...]:
    arrays, results, gradients = _operands(plan, *inputs[3:5])
    call = _call(plan, _gradient_kernel, arrays + results, gradients, in_place={6: 3, 7: 4})
    *parts, d_h, d_c, d_message = call(*inputs, *cotangents)
    return *(part.sum(0) for part in parts), d_h, d_c, d_message


_visit.defvjp(_visit_forward, _visit_backward)

Operand = tuple[jax.ShapeDtypeStruct, pl.BlockSpec]
"""An array, and what of it a program sees."""


def _operands(plan: Plan, h: Array, c: Array) -> tuple[list[Operand], list[Operand], list[Operand]]:
    """Return the inputs and the outputs of `_visit_kernel`, and the outputs of `_gradient_kernel`.

    What all programs add to has a part for each of them, to be summed outside, always in the same order.
    """
    (G, N, R, fan_in), B, J = plan.shape, plan.block, plan.blocks
    weights = [
        (GATES, plan.rows, plan.rows),
        (GATES, plan.rows, plan.columns),
        (plan.fan_out, GATES, plan.rows),
    ]

    def whole(*shape: int) -> Operand:
        return jax.ShapeDtypeStruct(shape, jnp.float32), pl.BlockSpec(shape, lambda j: (0,) * len(shape))

    def part(*shape: int) -> Operand:
        spec = pl.BlockSpec((None, *shape), lambda j: (j, *(0,) * len(shape)))
        return jax.ShapeDtypeStruct((J, *shape), jnp.float32), spec

    def of_inputs(size: int, filled: int) -> Operand:
        return jax.ShapeDtypeStruct((fan_in, size), jnp.float32), pl.BlockSpec((B, filled), lambda j: (j, 0))

    def state(dtype: Any) -> Operand:
        spec = pl.BlockSpec((G, plan.rows, R, B), lambda j: (0, 0, 0, j))
        return jax.ShapeDtypeStruct((G, N, R, fan_in), dtype), spec

    states, message = [state(h.dtype), state(c.dtype)], of_inputs(plan.channels, plan.columns)
    inputs = [*itertools.starmap(whole, weights), *states, message]
    outputs = [*states, part(plan.fan_out, plan.rows), of_inputs(plan.rows, plan.rows)]
    return inputs, outputs, [*itertools.starmap(part, weights), *states, message]


def _call(
    plan: Plan,
    kernel: Callable[..., None],
    inputs: list[Operand],
    outputs: list[Operand],
    in_place: dict[int, int],
) -> Callable[..., tuple[Array, ...]]:
    """Return the function that runs a kernel on all blocks; `in_place` are inputs that outputs replace."""
    from jax.experimental.pallas import triton

    warps = plan.block * plan.rows // (32 * THREAD_NUMBERS[plan.rows])
    return pl.pallas_call(
        functools.partial(kernel, plan),
        grid=(plan.blocks,),
        in_specs=[spec for _, spec in inputs],
        out_specs=tuple(spec for _, spec in outputs),
        out_shape=tuple(array for array, _ in outputs),
        input_output_aliases=in_place,
        compiler_params=triton.CompilerParams(num_warps=warps, num_stages=1),
        interpret=plan.interpret,
    )


def _visit_kernel(
    plan: Plan,
    hidden_ref: Any,
    forward_ref: Any,
    from_output_ref: Any,
    h_ref: Any,
    c_ref: Any,
    message_ref: Any,
    new_h_ref: Any,
    new_c_ref: Any,
    sum_over_inputs_ref: Any,
    sum_over_outputs_ref: Any,
) -> None:
    """Let the synapses between B input units and all output units tick."""
    dot, place = _dot(plan), _Place(plan)
    message_BxM = place.load_message(message_ref)
    from_input = [dot(message_BxM, forward_ref[k].T) for k in range(GATES)]

    def visit_output(b: Array, sum_BxN: Array) -> Array:
        h, c = place.load(h_ref, b), place.load(c_ref, b)
        messages = [from_input[k] + from_output_ref[b, k, :][None, :] for k in range(GATES)]
        for _ in range(plan.micro_ticks):
            gates = [_logistic(dot(h, hidden_ref[k].T) + messages[k]) for k in range(GATES)]
            h, c, _ = _cell(gates, c)
        place.store(new_h_ref, b, h)
        place.store(new_c_ref, b, c)
        h = place.cut(h)
        sum_over_inputs_ref[b, :] = h.sum(0)
        return sum_BxN + h

    nothing = jnp.zeros((plan.block, plan.rows), jnp.float32)
    place.store_sums(sum_over_outputs_ref, lax.fori_loop(0, plan.fan_out, visit_output, nothing))


def _gradient_kernel(
    plan: Plan,
    hidden_ref: Any,
    forward_ref: Any,
    from_output_ref: Any,
    h_ref: Any,
    c_ref: Any,
    message_ref: Any,
    d_new_h_ref: Any,
    d_new_c_ref: Any,
    d_sum_over_inputs_ref: Any,
    d_sum_over_outputs_ref: Any,
    d_hidden_ref: Any,
    d_forward_ref: Any,
    d_from_output_ref: Any,
    d_h_ref: Any,
    d_c_ref: Any,
    d_message_ref: Any,
) -> None:
    """Let the same synapses tick once more, and go back through their ticks."""
    dot, place = _dot(plan), _Place(plan)
    message_BxM = place.load_message(message_ref)
    from_input = [dot(message_BxM, forward_ref[k].T) for k in range(GATES)]
    d_sum_BxN = place.load_sums(d_sum_over_outputs_ref)

    def visit_output(b: Array, sums: tuple[list[Array], list[Array]]) -> tuple[list[Array], list[Array]]:
        d_hidden, d_from_input = sums
        h, c = place.load(h_ref, b), place.load(c_ref, b)
        messages = [from_input[k] + from_output_ref[b, k, :][None, :] for k in range(GATES)]
        ticks = []
        for _ in range(plan.micro_ticks):
            gates = [_logistic(dot(h, hidden_ref[k].T) + messages[k]) for k in range(GATES)]
            new_h, new_c, tanh_c = _cell(gates, c)
            ticks.append((h, c, gates, tanh_c))
            h, c = new_h, new_c

        d_mean = place.cut(d_sum_BxN + d_sum_over_inputs_ref[b, :][None, :])
        d_h, d_c = place.load(d_new_h_ref, b) + d_mean, place.load(d_new_c_ref, b)
        d_messages = [jnp.zeros_like(d_h)] * GATES
        for h, c, gates, tanh_c in reversed(ticks):
            d_gates, d_c = _cell_gradient(gates, c, tanh_c, d_h, d_c)
            d_hidden = [d_hidden[k] + dot(d_gates[k].T, h) for k in range(GATES)]
            d_messages = [d_messages[k] + d_gates[k] for k in range(GATES)]
            d_h = functools.reduce(jnp.add, [dot(d_gates[k], hidden_ref[k]) for k in range(GATES)])
        place.store(d_h_ref, b, d_h)
        place.store(d_c_ref, b, d_c)
        for k in range(GATES):
            d_from_output_ref[b, k, :] = d_messages[k].sum(0)
        return d_hidden, [d_from_input[k] + d_messages[k] for k in range(GATES)]

    nothing = (
        [jnp.zeros((plan.rows, plan.rows), jnp.float32)] * GATES,
        [jnp.zeros((plan.block, plan.rows), jnp.float32)] * GATES,
    )
    d_hidden, d_from_input = lax.fori_loop(0, plan.fan_out, visit_output, nothing)
    for k in range(GATES):
        d_hidden_ref[k] = d_hidden[k]
        d_forward_ref[k] = dot(d_from_input[k].T, message_BxM)
    d_message = functools.reduce(jnp.add, [dot(d_from_input[k], forward_ref[k]) for k in range(GATES)])
    place.store_message(d_message_ref, d_message)


def _dot(plan: Plan) -> Callable[[Array, Array], Array]:
    return functools.partial(jnp.dot, precision=plan.precision, preferred_element_type=jnp.float32)


def _logistic(z: Array) -> Array:
    """Return `(1 + tanh(z)) / 2`, the logistic function of 2 z."""
    return 1.0 / (1.0 + jnp.exp2(_MINUS_2_LOG2_E * z))


_MINUS_2_LOG2_E = -2.8853900817779268


def _cell(gates: list[Array], c: Array) -> tuple[Array, Array, Array]:
    """Return the new h and c and the tanh of c, from the `_logistic` of all gate inputs and the old c."""
    i, g, f, o = gates
    c = f * c + i * (2.0 * g - 1.0)
    tanh_c = 2.0 * _logistic(c) - 1.0
    return o * tanh_c, c, tanh_c


def _cell_gradient(
    gates: list[Array], c: Array, tanh_c: Array, d_h: Array, d_c: Array
) -> tuple[list[Array], Array]:
    """Return the gradients with respect to the gate inputs and the old c, from those of the new h and c."""
    i, g, f, o = gates
    g = 2.0 * g - 1.0
    d_c = d_c + d_h * o * (1.0 - tanh_c * tanh_c)
    d_gates = [
        d_c * g * (2.0 * i * (1.0 - i)),
        d_c * i * (1.0 - g * g),
        d_c * c * (2.0 * f * (1.0 - f)),
        d_h * tanh_c * (2.0 * o * (1.0 - o)),
    ]
    return d_gates, d_c * f


class _Place:
    """Where in the arrays the synapses of a program are; what its blocks have beyond an array reads as 0."""

    def __init__(self, plan: Plan):
        _, N, self.rows, fan_in = plan.shape

        def below(limit: int, size: int, start: Any = 0) -> Array | None:
            return None if limit % size == 0 else start + jnp.arange(size) < limit

        self.input = below(fan_in, plan.block, pl.program_id(0) * plan.block)
        self.state = below(N, plan.rows)
        self.channel = below(plan.channels, plan.columns)

    def load(self, ref: Any, b: Array) -> Array:
        """Return the states [B, N] of the synapses of output unit b."""
        return _load(self._of_output(ref, b), self.state, self.input).astype(jnp.float32).T

    def store(self, ref: Any, b: Array, state_BxN: Array) -> None:
        _store(self._of_output(ref, b), state_BxN.T.astype(ref.dtype), self.state, self.input)

    def load_message(self, ref: Any) -> Array:
        return _load(ref.at[...], self.input, self.channel)

    def store_message(self, ref: Any, message_BxM: Array) -> None:
        _store(ref.at[...], message_BxM, self.input, self.channel)

    def load_sums(self, ref: Any) -> Array:
        return _load(ref.at[...], self.input, None)

    def store_sums(self, ref: Any, sums_BxN: Array) -> None:
        _store(ref.at[...], sums_BxN, self.input, None)

    def cut(self, tile_BxN: Array) -> Array:
        """Return the tile with zeros where there is no input unit."""
        return tile_BxN if self.input is None else jnp.where(self.input[:, None], tile_BxN, 0.0)

    def _of_output(self, ref: Any, b: Array) -> Any:
        return ref.at[lax.div(b, self.rows), :, lax.rem(b, self.rows), :]


def _mask(shape: tuple[int, ...], rows: Array | None, columns: Array | None) -> Array | None:
    masks = [jnp.broadcast_to(rows[:, None], shape)] if rows is not None else []
    masks += [jnp.broadcast_to(columns[None, :], shape)] if columns is not None else []
    return functools.reduce(jnp.logical_and, masks) if masks else None


def _load(ref: Any, rows: Array | None, columns: Array | None) -> Array:
    from jax.experimental.pallas import triton

    mask = _mask(ref.shape, rows, columns)
    return triton.load(ref, mask=mask, other=None if mask is None else 0.0)


def _store(ref: Any, value: Array, rows: Array | None, columns: Array | None) -> None:
    from jax.experimental.pallas import triton

    triton.store(ref, value, mask=_mask(value.shape, rows, columns))


def _too_large(state_size: int) -> str | None:
    largest = max(THREAD_NUMBERS)
    return (
        None
        if state_size <= largest
        else f"states have at most {largest} numbers in it, got state_size {state_size}"
    )


def missing(state_size: int) -> str | None:
    """Return why the kernels cannot be used on the default device; None if they can.

    The first call on a GPU compiles both for a small layer, runs them, and compares with `tiled.tick`.

    Args:
        state_size: N.
    """
    backend = jax.default_backend()
    if backend != "gpu":
        return f"it is for GPUs, and this is a {backend}"
    return _too_large(state_size) or _fault()


@functools.cache
def _fault() -> str | None:
    try:
        error = largest_error(interpret=False)
    except Exception as reason:  # JAX, Triton and the driver each raise their own
        return f"it cannot be compiled or run here: {type(reason).__name__}: {reason}"
    if not error <= MAX_ERROR:
        return f"it is off by {error:.1e} of the largest entry here"
    return None


MAX_ERROR = 1e-5
"""Largest difference from `tiled.tick`, relative to the largest entry of an array, taken for rounding."""


def largest_error(interpret: bool) -> float:
    """Return how far results and gradients for a small layer are from those of `tiled.tick`.

    It is the largest difference of each array relative to its largest entry, and the worst of these.
    """
    N, M, R, fan_in = 16, 8, 3, 40

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
        got, want = everything(functools.partial(tick, interpret=interpret)), everything(tiled.tick)
        errors = jax.tree.map(lambda a, b: jnp.abs(a - b).max() / jnp.abs(b).max(), got, want)
        return jnp.stack(jax.tree.leaves(errors)).max()

    with jax.default_matmul_precision("highest"):  # of `tiled.tick`: a GPU's default has 11 bits
        compiled = worst.lower().compile()  # so that it is run even while something else is traced
    return float(compiled())

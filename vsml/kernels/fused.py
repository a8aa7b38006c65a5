"""Ticks of all synapses of a dense layer in one GPU kernel (Pallas), forward and gradient: `tiled`, fused.

DERIVATION
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from vsml.kernels import tiled
from vsml.kernels.tiled import CellWeights
from vsml.types import Array

GATES = 4

LEAST_SIZE = 16
"""Least size of an operand of a matrix product in Triton; what is smaller is padded with zeros."""

BLOCKS = (64, 32, LEAST_SIZE)
"""How many synapses of an output unit a program may hold: 16 a warp, so that a thread has 8 numbers."""

MOST_IDLE = 0.05
"""Most idle lanes in the last block, relative to the fan-in, for a larger block to be taken."""


@dataclass(frozen=True)
class Plan:
    """What the kernels are built for: hashable, so that it is known while they are traced.

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
    def outputs(self) -> int:
        """O, the number of output units."""
        return self.shape[0] * self.shape[2]

    @property
    def blocks(self) -> int:
        """J, the number of programs."""
        return pl.cdiv(self.shape[3], self.block)

    @property
    def padded_state(self) -> int:
        """N, padded."""
        return max(LEAST_SIZE, pl.next_power_of_2(self.shape[1]))

    @property
    def padded_channels(self) -> int:
        """M, padded."""
        return max(LEAST_SIZE, pl.next_power_of_2(self.channels))


def block_size(fan_in: int) -> int:
    """Return the largest of `BLOCKS` that leaves at most `MOST_IDLE` of the lanes idle, else the smallest."""
    return next((block for block in BLOCKS if -fan_in % block <= MOST_IDLE * fan_in), BLOCKS[-1])


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
) -> tuple[Array, Array, Array, Array]:
    """Let all synapses of a dense layer tick, with the messages they receive held fixed."""
    G, N, R, I = h_GNRI.shape
    plan = Plan((G, N, R, I), forward_IxM.shape[1], micro_ticks, block or block_size(I), precision, interpret)
    O, NP, MP = plan.outputs, plan.padded_state, plan.padded_channels

    def by_gate(array_4NxK: Array, columns: int) -> Array:
        array = array_4NxK.reshape(GATES, N, -1)
        return jnp.pad(array, ((0, 0), (0, NP - N), (0, columns - array.shape[2])))

    from_output_4NxO = jnp.matmul(weights.backward, backward_OxM.T, precision=lax.Precision.HIGHEST)
    h, c, sum_JxOxN, sum_IxN = _visit(
        plan,
        by_gate(weights.hidden, NP),
        by_gate(weights.forward, MP),
        by_gate(from_output_4NxO + weights.bias[:, None], O).transpose(2, 0, 1),
        h_GNRI,
        c_GNRI,
        forward_IxM,
    )
    return h, c, sum_JxOxN.sum(0)[:, :N] / I, sum_IxN[:, :N] / O


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _visit(plan: Plan, *inputs: Array) -> tuple[Array, ...]:
    """Run `_visit_kernel` on all blocks."""
    ins, outs, _ = _operands(plan, *inputs[3:5])
    return _call(plan, _visit_kernel, ins, outs)(*inputs)


def _visit_forward(plan: Plan, *inputs: Array) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    return _visit(plan, *inputs), inputs


def _visit_backward(
    plan: Plan, inputs: tuple[Array, ...], cotangents: tuple[Array, ...]
) -> tuple[Array, ...]:
    ins, outs, gradients = _operands(plan, *inputs[3:5])
    *partial, h, c, message = _call(plan, _gradient_kernel, ins + outs, gradients)(*inputs, *cotangents)
    return *(array.sum(0) for array in partial), h, c, message


_visit.defvjp(_visit_forward, _visit_backward)

Operand = tuple[jax.ShapeDtypeStruct, pl.BlockSpec]
"""An array, and what of it a program sees."""


def _operands(plan: Plan, h: Array, c: Array) -> tuple[list[Operand], list[Operand], list[Operand]]:
    """Return the inputs and outputs of `_visit_kernel`, and the outputs of `_gradient_kernel`.

    What several programs contribute to has one entry for each of them, which are added outside.
    """
    (G, N, R, I), M, B, J = plan.shape, plan.channels, plan.block, plan.blocks
    O, NP, MP = plan.outputs, plan.padded_state, plan.padded_channels

    def array(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype)

    def whole(*shape: int) -> Operand:
        return array(*shape), pl.BlockSpec(shape, lambda j: (0,) * len(shape))

    def part(*shape: int) -> Operand:
        return array(J, *shape), pl.BlockSpec((None, *shape), lambda j: (j,) + (0,) * len(shape))

    weights = [(GATES, NP, NP), (GATES, NP, MP), (O, GATES, NP)]
    state_block = pl.BlockSpec((G, NP, R, B), lambda j: (0, 0, 0, j))
    states = [(array(G, N, R, I, dtype=state.dtype), state_block) for state in (h, c)]
    message = (array(I, M), pl.BlockSpec((B, MP), lambda j: (j, 0)))
    inputs = [*(whole(*shape) for shape in weights), *states, message]
    outputs = [*states, part(O, NP), (array(I, NP), pl.BlockSpec((B, NP), lambda j: (j, 0)))]
    return inputs, outputs, [*(part(*shape) for shape in weights), *states, message]


def _call(
    plan: Plan, kernel: Callable[..., None], inputs: list[Operand], outputs: list[Operand]
) -> Callable[..., tuple[Array, ...]]:
    return pl.pallas_call(
        functools.partial(kernel, plan),
        grid=(plan.blocks,),
        in_specs=[spec for _, spec in inputs],
        out_specs=tuple(spec for _, spec in outputs),
        out_shape=tuple(array for array, _ in outputs),
        compiler_params=triton.CompilerParams(num_warps=max(1, plan.block // 16), num_stages=1),
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
    dot, tile = _dot(plan), _Tile(plan)
    message_BxM = tile.load_message(message_ref)
    from_input = [dot(message_BxM, forward_ref[k].T) for k in range(GATES)]

    def visit_output(b: Array, sum_BxN: Array) -> Array:
        h, c = tile.load(h_ref, b), tile.load(c_ref, b)
        messages = [from_input[k] + from_output_ref[b, k, :][None, :] for k in range(GATES)]
        for _ in range(plan.micro_ticks):
            gates = [_logistic(dot(h, hidden_ref[k].T) + messages[k]) for k in range(GATES)]
            h, c, _ = _cell(gates, c)
        tile.store(new_h_ref, b, h)
        tile.store(new_c_ref, b, c)
        h = tile.inside(h)
        sum_over_inputs_ref[b, :] = h.sum(0)
        return sum_BxN + h

    zeros = jnp.zeros((plan.block, plan.padded_state), jnp.float32)
    sum_BxN = lax.fori_loop(0, plan.outputs, visit_output, zeros)
    tile.store_rows(sum_over_outputs_ref, sum_BxN)


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
    """Let the same synapses tick again, and go back through their ticks."""
    dot, tile = _dot(plan), _Tile(plan)
    message_BxM = tile.load_message(message_ref)
    from_input = [dot(message_BxM, forward_ref[k].T) for k in range(GATES)]
    d_sum_BxN = tile.load_rows(d_sum_over_outputs_ref)

    def visit_output(b: Array, sums: tuple[list[Array], list[Array]]) -> tuple[list[Array], list[Array]]:
        d_hidden, d_from_input = sums
        h, c = tile.load(h_ref, b), tile.load(c_ref, b)
        messages = [from_input[k] + from_output_ref[b, k, :][None, :] for k in range(GATES)]
        ticks = []
        for _ in range(plan.micro_ticks):
            gates = [_logistic(dot(h, hidden_ref[k].T) + messages[k]) for k in range(GATES)]
            new_h, new_c, tanh_c = _cell(gates, c)
            ticks.append((h, c, gates, tanh_c))
            h, c = new_h, new_c

        d_h = tile.load(d_new_h_ref, b)
        d_h = d_h + tile.inside(d_sum_BxN + d_sum_over_inputs_ref[b, :][None, :])
        d_c = tile.load(d_new_c_ref, b)
        d_messages = [jnp.zeros_like(d_h)] * GATES
        for h, c, gates, tanh_c in reversed(ticks):
            d_gates, d_c = _cell_gradient(gates, c, tanh_c, d_h, d_c)
            d_hidden = [d_hidden[k] + dot(d_gates[k].T, h) for k in range(GATES)]
            d_messages = [d_messages[k] + d_gates[k] for k in range(GATES)]
            d_h = sum(dot(d_gates[k], hidden_ref[k]) for k in range(GATES))
        tile.store(d_h_ref, b, d_h)
        tile.store(d_c_ref, b, d_c)
        for k in range(GATES):
            d_from_output_ref[b, k, :] = d_messages[k].sum(0)
        return d_hidden, [d_from_input[k] + d_messages[k] for k in range(GATES)]

    NP = plan.padded_state
    zeros = [jnp.zeros((NP, NP), jnp.float32)] * GATES, [jnp.zeros((plan.block, NP), jnp.float32)] * GATES
    d_hidden, d_from_input = lax.fori_loop(0, plan.outputs, visit_output, zeros)
    for k in range(GATES):
        d_hidden_ref[k] = d_hidden[k]
        d_forward_ref[k] = dot(d_from_input[k].T, message_BxM)
    d_message_BxM = sum(dot(d_from_input[k], forward_ref[k]) for k in range(GATES))
    tile.store_message(d_message_ref, d_message_BxM)


def _dot(plan: Plan) -> Callable[[Array, Array], Array]:
    return functools.partial(jnp.dot, precision=plan.precision, preferred_element_type=jnp.float32)


MINUS_TWO_LOG2_E = -2.8853900817779268


def _logistic(z: Array) -> Array:
    """Return `(1 + tanh(z)) / 2`: the logistic function of 2 z."""
    return 1.0 / (1.0 + jnp.exp2(MINUS_TWO_LOG2_E * z))


def _cell(gates: list[Array], c: Array) -> tuple[Array, Array, Array]:
    """Return the new h, c and the tanh of the latter."""
    i, g, f, o = gates
    c = f * c + i * (2.0 * g - 1.0)
    tanh_c = 2.0 * _logistic(c) - 1.0
    return o * tanh_c, c, tanh_c


def _cell_gradient(
    gates: list[Array], c: Array, tanh_c: Array, d_h: Array, d_c: Array
) -> tuple[list[Array], Array]:
    """Return the gradients with respect to what the gates are computed from and to c."""
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


class _Tile:
    """The synapses of one program and one output unit: loads and stores [B, N], masked where need be."""

    def __init__(self, plan: Plan):
        _, N, self.R, I = plan.shape
        B = plan.block
        input_B = pl.program_id(0) * B + jnp.arange(B)
        self.input = None if I % B == 0 else input_B < I
        self.state = None if plan.padded_state == N else jnp.arange(plan.padded_state) < N
        M, MP = plan.channels, plan.padded_channels
        self.channel = None if M == MP else jnp.arange(MP) < M
        self.plan = plan

    def _at(self, ref: Any, b: Array) -> Any:
        return ref.at[lax.div(b, self.R), :, lax.rem(b, self.R), :]

    def load(self, ref: Any, b: Array) -> Array:
        return _load(self._at(ref, b), self.state, self.input).astype(jnp.float32).T

    def store(self, ref: Any, b: Array, tile_BxN: Array) -> None:
        _store(self._at(ref, b), tile_BxN.T.astype(ref.dtype), self.state, self.input)

    def load_message(self, ref: Any) -> Array:
        return _load(ref.at[...], self.input, self.channel)

    def store_message(self, ref: Any, message_BxM: Array) -> None:
        _store(ref.at[...], message_BxM, self.input, self.channel)

    def load_rows(self, ref: Any) -> Array:
        return _load(ref.at[...], self.input, None)

    def store_rows(self, ref: Any, rows_BxN: Array) -> None:
        _store(ref.at[...], rows_BxN, self.input, None)

    def inside(self, tile_BxN: Array) -> Array:
        return tile_BxN if self.input is None else jnp.where(self.input[:, None], tile_BxN, 0.0)


def _mask(shape: tuple[int, ...], rows: Array | None, columns: Array | None) -> Array | None:
    masks = [
        m
        for m in (None if rows is None else rows[:, None], None if columns is None else columns)
        if m is not None
    ]
    if not masks:
        return None
    return jnp.broadcast_to(functools.reduce(jnp.logical_and, masks), shape)


def _load(ref: Any, rows: Array | None, columns: Array | None) -> Array:
    mask = _mask(_shape(ref), rows, columns)
    return triton.load(ref, mask=mask, other=None if mask is None else 0.0)


def _store(ref: Any, value: Array, rows: Array | None, columns: Array | None) -> None:
    triton.store(ref, value, mask=_mask(value.shape, rows, columns))


def _shape(ref: Any) -> tuple[int, ...]:
    return ref.shape

"""Layers: synapses between input and output units, their state and one visit; the dense layer."""

from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
from flax import nnx, struct
from jax.typing import DTypeLike

from vsml.networks.cells.lstm import Synapse, weights_of
from vsml.networks.kernels import Kernel, chosen, native, reference, tick_of, tiled
from vsml.networks.kernels.tiled import NORM_EPSILON
from vsml.types import Array


@struct.dataclass
class SynapseState:
    """What the synapses of one layer have learned in an episode, in G tiles of R output units.

    Attributes:
        h: hidden states [G, N, R, I], of a floating-point type that is no more than how they are kept; output
            unit b is number `b % R` of tile `b // R`.
        c: cell states, likewise.
    """

    h: Array
    c: Array

    @staticmethod
    def fresh(c_IxOxN: Array) -> "SynapseState":
        """Return the state with the given cells and a hidden state of 0."""
        c_GNRI = to_tiles(c_IxOxN)
        return SynapseState(h=jnp.zeros_like(c_GNRI), c=c_GNRI)

    def kept_as(self, dtype: DTypeLike) -> "SynapseState":
        """Return the state rounded to another floating-point type."""
        return SynapseState(h=self.h.astype(dtype), c=self.c.astype(dtype))


def to_tiles(array_IxOxN: Array) -> Array:
    """Return states [I, O, N] as `SynapseState` lays them out, [G, N, R, I]."""
    fan_in, fan_out, state_size = array_IxOxN.shape
    rows = tiled.tile_rows(fan_in, fan_out)
    return array_IxOxN.reshape(fan_in, fan_out // rows, rows, state_size).transpose(1, 3, 2, 0)


def from_tiles(array_GNRI: Array) -> Array:
    """Return states [G, N, R, I] as [I, O, N]."""
    tiles, state_size, rows, fan_in = array_GNRI.shape
    return array_GNRI.transpose(3, 0, 2, 1).reshape(fan_in, tiles * rows, state_size)


class Layer(Protocol):
    """Synapses between input units and output units. Everything is for one example; batch with `jax.vmap`."""

    @property
    def fan_in(self) -> int:
        """Input units."""

    @property
    def fan_out(self) -> int:
        """Output units."""

    def init_state(self, key: Array, state_size: int, random_fraction: float) -> SynapseState:
        """Draw a fresh state, in which only noise in the cells tells one synapse from another."""

    def with_cells(self, cells: Array) -> SynapseState:
        """Return the state with the given cells and a hidden state of 0."""

    def visit(
        self, synapse: Synapse, state: SynapseState, forward_IxM: Array, backward_OxM: Array, micro_ticks: int
    ) -> tuple[SynapseState, Array, Array]:
        """Let the synapses tick on the messages they receive, and average what they send.

        Args:
            synapse: the shared meta-parameters.
            state: of this layer.
            forward_IxM: the message that arrives at each input unit.
            backward_OxM: the message that arrives at each output unit.
            micro_ticks: ticks of this visit; the messages sent are those of the last.

        Returns:
            The new state, the forward messages [fan_out, M] and the backward messages [fan_in, M].
        """


@dataclass(frozen=True)
class DenseLayer:
    """A synapse between each of `fan_in` input and each of `fan_out` output units.

    A unit sends the mean of what its synapses send: over I forward, over O backward.

    Attributes:
        fan_in: I.
        fan_out: O.
        kernel: what makes the synapses tick.
    """

    fan_in: int
    fan_out: int
    kernel: Kernel = "auto"

    def init_state(self, key: Array, state_size: int, random_fraction: float) -> SynapseState:
        """Draw a fresh state, with noise of variance 1 / I; see `draw_cells`."""
        shape = (self.fan_in, self.fan_out)
        return self.with_cells(draw_cells(key, shape, self.fan_in, state_size, random_fraction))

    def with_cells(self, c_IxOxN: Array) -> SynapseState:
        """Return the state with the given cells and a hidden state of 0."""
        return SynapseState.fresh(c_IxOxN)

    def visit(
        self, synapse: Synapse, state: SynapseState, forward_IxM: Array, backward_OxM: Array, micro_ticks: int
    ) -> tuple[SynapseState, Array, Array]:
        """Let the synapses tick on the messages they receive, and average what they send; see `Layer`."""
        normed = synapse.forward_norm is not None
        kernel = chosen(self.kernel, state.h.shape[1], forward_IxM.shape[1] if normed else 0)
        if kernel == "reference":
            state, forward_1xOxM, backward_1xIxM = visit_reference(
                synapse, state, forward_IxM[None], backward_OxM[None], micro_ticks
            )
            return state, forward_1xOxM[0], backward_1xIxM[0]
        weights, messages = synapse.cell_weights(), (forward_IxM, backward_OxM)
        norms = (synapse.forward_norm, synapse.backward_norm)
        if normed and kernel == "native":
            senders = synapse.senders()
            ticked = native.tick(weights, state.h, state.c, *messages, micro_ticks, senders)
            sent = [
                rescale(norm, mean)
                for norm, mean in zip(norms, (ticked.forward, ticked.backward), strict=True)
            ]
            return SynapseState(h=ticked.h, c=ticked.c), sent[0], sent[1]
        ticked = tick_of(kernel)(weights, state.h, state.c, *messages, micro_ticks)
        state = SynapseState(h=ticked.h, c=ticked.c)
        if not normed:  # all is linear: of the mean
            return state, synapse.forward_message(ticked.forward), synapse.backward_message(ticked.backward)
        forward_GxRxM = mean_message(synapse.forward_message, norms[0], state.h, axes=(3,))
        backward_IxM = mean_message(synapse.backward_message, norms[1], state.h, axes=(0, 2))
        return state, forward_GxRxM.reshape(self.fan_out, -1), backward_IxM


def draw_cells(
    key: Array, shape: tuple[int, ...], fan: int, state_size: int, random_fraction: float
) -> Array:
    """Draw the cells [*shape, N] of fresh synapses.

    The first `int(N * random_fraction)` entries are standard normal, cut at +-2, times `1 / sqrt(fan)`,
    independently for each synapse; all others are 0.

    Args:
        key: for the draw.
        shape: of the synapses.
        fan: what the noise is scaled by; for a dense layer its fan-in.
        state_size: N.
        random_fraction: share of the entries that are random.
    """
    random = int(state_size * random_fraction)
    noise = jax.random.truncated_normal(key, -2.0, 2.0, (*shape, random)) / fan**0.5
    return jnp.pad(noise, ((0, 0),) * len(shape) + ((0, state_size - random),))


def visit_reference(
    synapse: Synapse, state: SynapseState, forward_PxIxM: Array, backward_PxOxM: Array, micro_ticks: int
) -> tuple[SynapseState, Array, Array]:
    """Visit by nested vmap: the new state and the messages of each position; see `reference.visit`."""
    h, c, forward, backward = reference.visit(
        synapse,
        synapse.messages,
        from_tiles(state.h.astype(jnp.float32)),
        from_tiles(state.c.astype(jnp.float32)),
        forward_PxIxM,
        backward_PxOxM,
        micro_ticks,
    )
    return SynapseState(h=to_tiles(h), c=to_tiles(c)).kept_as(state.h.dtype), forward, backward


def mean_message(
    linear: nnx.Linear, norm: nnx.LayerNorm | None, h_GNRI: Array, axes: tuple[int, ...]
) -> Array:
    """Return the mean of `norm(linear(h))` over axes: [G, R, M] for the input side (3), [I, M] for (0, 2)."""
    if norm is None:  # all is linear: take the mean first
        return linear(h_GNRI.mean(axes).swapaxes(-1, -2))

    h_GNRI = h_GNRI.astype(jnp.float32)

    @jax.checkpoint  # messages of single synapses are not worth their memory
    def mean_normed(kernel: Array, bias: Array, h_GNRI: Array) -> Array:
        message_GMRI = jnp.einsum("nm,gnri->gmri", kernel, h_GNRI) + bias[:, None, None]
        centred = message_GMRI - message_GMRI.mean(1, keepdims=True)
        variance = jnp.square(centred).mean(1, keepdims=True)
        return (centred * jax.lax.rsqrt(variance + NORM_EPSILON)).mean(axes).swapaxes(-1, -2)

    return rescale(norm, mean_normed(*weights_of(linear), h_GNRI))


def rescale(norm: nnx.LayerNorm | None, mean: Array) -> Array:
    """Return normalised messages, or means of them, with the scale and the offset of a layer norm."""
    assert norm is not None and norm.scale is not None and norm.bias is not None  # none here is made without
    return mean * norm.scale[...] + norm.bias[...]

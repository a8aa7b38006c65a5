"""Layers: synapses wired densely between I input and O output units, their state and one visit."""

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx, struct

from vsml.kernels import reference, tiled
from vsml.synapse import NORM_EPSILON, Synapse, weights_of
from vsml.types import Array

Kernel = Literal["tiled", "reference"]


@struct.dataclass
class SynapseState:
    """What the synapses of one layer have learned in an episode, in G tiles of R output units.

    Attributes:
        h: hidden states, float32 [G, N, R, I]; output unit b is number `b % R` of tile `b // R`.
        c: cell states, likewise.
    """

    h: Array
    c: Array


@dataclass(frozen=True)
class DenseLayer:
    """A synapse between each of `fan_in` input and each of `fan_out` output units.

    Everything here is for one example; batch with `jax.vmap`.

    Attributes:
        fan_in: I.
        fan_out: O.
        kernel: "tiled" (fast) or "reference" (nested vmap).
    """

    fan_in: int
    fan_out: int
    kernel: Kernel = "tiled"

    def init_state(self, key: Array, state_size: int, random_fraction: float) -> SynapseState:
        """Draw a fresh state, in which only noise in the cells tells one synapse from another.

        The first `int(state_size * random_fraction)` cell entries are standard normal, cut at +-2, times
        `1 / sqrt(I)`, independently for each synapse; all else is 0.
        """
        random = int(state_size * random_fraction)
        shape = (self.fan_in, self.fan_out, random)
        noise = jax.random.truncated_normal(key, -2.0, 2.0, shape) / self.fan_in**0.5
        return self.with_cells(jnp.pad(noise, ((0, 0), (0, 0), (0, state_size - random))))

    def with_cells(self, c_IxOxN: Array) -> SynapseState:
        """Return the state with the given cells and a hidden state of 0."""
        c_GNRI = self._to_tiles(c_IxOxN)
        return SynapseState(h=jnp.zeros_like(c_GNRI), c=c_GNRI)

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
            The new state, the forward messages [O, M] (mean over I) and the backward messages [I, M]
            (mean over O).
        """
        if self.kernel == "reference":
            h, c, forward, backward = reference.visit(
                synapse,
                synapse.messages,
                self._from_tiles(state.h),
                self._from_tiles(state.c),
                forward_IxM,
                backward_OxM,
                micro_ticks,
            )
            return SynapseState(h=self._to_tiles(h), c=self._to_tiles(c)), forward, backward
        weights = synapse.cell_weights()
        h_GNRI, c_GNRI = tiled.tick(weights, state.h, state.c, forward_IxM, backward_OxM, micro_ticks)
        forward_GxRxM = _mean_message(synapse.forward_message, synapse.forward_norm, h_GNRI, axes=(3,))
        backward_IxM = _mean_message(synapse.backward_message, synapse.backward_norm, h_GNRI, axes=(0, 2))
        forward_OxM = forward_GxRxM.reshape(self.fan_out, -1)
        return SynapseState(h=h_GNRI, c=c_GNRI), forward_OxM, backward_IxM

    def _to_tiles(self, array_IxOxN: Array) -> Array:
        rows = tiled.tile_rows(self.fan_in, self.fan_out)
        tiles = array_IxOxN.reshape(self.fan_in, self.fan_out // rows, rows, -1)
        return tiles.transpose(1, 3, 2, 0)

    def _from_tiles(self, array_GNRI: Array) -> Array:
        return array_GNRI.transpose(3, 0, 2, 1).reshape(self.fan_in, self.fan_out, -1)


def _mean_message(
    linear: nnx.Linear, norm: nnx.LayerNorm | None, h_GNRI: Array, axes: tuple[int, ...]
) -> Array:
    """Return the mean of `norm(linear(h))` over axes: [G, R, M] for the input side (3), [I, M] for (0, 2)."""
    if norm is None:  # all is linear: take the mean first
        return linear(h_GNRI.mean(axes).swapaxes(-1, -2))

    @jax.checkpoint  # messages of single synapses are not worth their memory
    def mean_normed(kernel: Array, bias: Array, h_GNRI: Array) -> Array:
        message_GMRI = jnp.einsum("nm,gnri->gmri", kernel, h_GNRI) + bias[:, None, None]
        centred = message_GMRI - message_GMRI.mean(1, keepdims=True)
        variance = jnp.square(centred).mean(1, keepdims=True)
        return (centred * jax.lax.rsqrt(variance + NORM_EPSILON)).mean(axes).swapaxes(-1, -2)

    return mean_normed(*weights_of(linear), h_GNRI) * norm.scale[...] + norm.bias[...]  # type: ignore[index]

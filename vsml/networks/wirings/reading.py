"""A dense layer whose input units are the slots of a memory: what it sends on is read by similarity."""

import dataclasses
import math
from dataclasses import dataclass

import jax.numpy as jnp

from vsml.networks.cells.lstm import Synapse, weights_of
from vsml.networks.episodic import NEAREST, RIDGE, SMOOTH
from vsml.networks.wirings.base import Extent, ImageShape, SynapseState, draw_cells
from vsml.networks.wirings.dense import DenseLayer
from vsml.types import Array


@dataclass(frozen=True)
class ReadingLayer:
    """Synapses between each slot of an episodic memory and each output unit.

    The plain mean over slots would drown the few that matter. An output unit sends in channels 0 and 1

        smooth_gain sum_s m_s[0] y_s[0] + nearest_gain sum_s m_s[1] y_s[1] + ridge_gain sum_s m_s[5] y_s[5],

    m_s what the memory sends to slot s (`vsml.networks.episodic`) and y_s what the synapse of the slot sends:
    the same in both, as a unit of other layers that do back-propagation. All other channels are means.

    Attributes:
        dense: the synapses.
        smooth_gain, nearest_gain: factors on the first two readings.
        ridge_gain: on the third; None for a memory without a ridge.
    """

    dense: DenseLayer
    smooth_gain: float
    nearest_gain: float
    ridge_gain: float | None = None

    @property
    def readings(self) -> dict[int, float]:
        """Gains of readings by their channel: of what weighs slots, and of what synapses send."""
        gains = {SMOOTH: self.smooth_gain, NEAREST: self.nearest_gain}
        if self.ridge_gain is not None:
            gains[RIDGE] = self.ridge_gain
        return gains

    @property
    def fan_in(self) -> int:
        """Slots K."""
        return self.dense.fan_in

    @property
    def fan_out(self) -> int:
        """Output units O."""
        return self.dense.fan_out

    @property
    def output_shape(self) -> ImageShape:
        """Output units form a row."""
        return self.dense.output_shape

    @property
    def extent(self) -> Extent:
        """K O synapses, each used once."""
        return self.dense.extent

    def init_state(
        self,
        key: Array,
        state_size: int,
        random_fraction: float,
    ) -> SynapseState:
        """Draw a fresh state; see `DenseLayer`."""
        return self.dense.init_state(key, state_size, random_fraction)

    def with_cells(self, cells: Array) -> SynapseState:
        """Return the state with the given cells [K, O, N] and a hidden state of 0."""
        return self.dense.with_cells(cells)

    def renewed(
        self,
        state: SynapseState,
        slot: Array,
        key: Array,
        random_fraction: float,
    ) -> SynapseState:
        """Return the state with fresh synapses in one slot, int []."""
        tiles, state_size, rows, _ = state.c.shape
        cells_OxN = draw_cells(key, (self.fan_out,), self.fan_in, state_size, random_fraction)
        cells_GNR = cells_OxN.reshape(tiles, rows, state_size).swapaxes(1, 2)
        h = state.h.at[..., slot].set(0)
        c = state.c.at[..., slot].set(cells_GNR.astype(state.c.dtype))
        return dataclasses.replace(state, h=h, c=c)

    def visit(
        self,
        synapse: Synapse,
        state: SynapseState,
        forward_IxM: Array,
        backward_OxM: Array,
        micro_ticks: int,
    ) -> tuple[SynapseState, Array, Array]:
        """Let the synapses tick on the messages they receive, and read what they send; see `Layer`."""
        state, forward_OxM, backward_IxM = self.dense.visit(
            synapse, state, forward_IxM, backward_OxM, micro_ticks
        )
        read_O = self._reading(synapse, state, forward_IxM)
        for channel in (SMOOTH, NEAREST):
            forward_OxM = forward_OxM.at[:, channel].set(read_O)
        return state, forward_OxM, backward_IxM

    def _reading(
        self,
        synapse: Synapse,
        state: SynapseState,
        forward_IxM: Array,
    ) -> Array:
        """Return the sum of all readings for each output unit [O]."""
        kernel, bias = weights_of(synapse.forward_message)
        channels = jnp.array(list(self.readings))
        gains = jnp.array(list(self.readings.values()))
        weights_IxK = forward_IxM[:, channels] * gains[None]
        h = state.h.astype(jnp.float32)
        # Everything is linear: slots are summed first, channels then.
        h_GNRxK = jnp.einsum("gnri,ik->gnrk", h, weights_IxK)
        sent_GR = jnp.einsum("gnrk,nk->gr", h_GNRxK, kernel[:, channels])
        offset = (weights_IxK.sum(0) * bias[channels]).sum()
        return sent_GR.reshape(math.prod(sent_GR.shape)) + offset

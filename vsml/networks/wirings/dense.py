"""Dense layers: a synapse between each input unit and each output unit."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field

from vsml.networks.cells.lstm import Synapse
from vsml.networks.kernels import Kernel, chosen, native, tick_of
from vsml.networks.wirings.base import (
    Extent,
    ImageShape,
    LayerSection,
    SynapseState,
    draw_cells,
    mean_message,
    rescale,
    visit_reference,
)
from vsml.settings import Positive, Problem
from vsml.types import Array


class DenseConfig(LayerSection):
    """A dense layer: a synapse between each of its input units and each of its output units."""

    type: Literal["dense"] = Field(default="dense", description="kind of layer")
    out_size: Positive | None = Field(
        default=None,
        description="units that the layer feeds; null, for the last layer only: the number of outputs",
    )

    holds_weights: ClassVar[bool] = True

    def problems(self, last: bool) -> Iterator[Problem]:
        """Yield what is wrong with `out_size`, which all layers but the last need."""
        if last and self.out_size is not None:
            expected = "null, as the last layer feeds the classes"
            yield Problem("out_size", self.out_size, expected)
        if not last and self.out_size is None:
            expected = "a number of units, as only the last layer feeds the classes"
            yield Problem("out_size", None, expected)


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

    @classmethod
    def build(
        cls,
        input_shape: ImageShape,
        config: DenseConfig,
        outputs: int,
        kernel: Kernel,
    ) -> "DenseLayer":
        """Build the layer that a configuration describes; see `vsml.networks.wirings.WIRINGS`."""
        fan_out = outputs if config.out_size is None else config.out_size
        return cls(math.prod(input_shape), fan_out, kernel)

    @property
    def output_shape(self) -> ImageShape:
        """Output units form a row."""
        return 1, self.fan_out, 1

    @property
    def extent(self) -> Extent:
        """I O synapses, each used once."""
        return Extent(self.fan_in * self.fan_out, self.fan_in, self.fan_out)

    def init_state(
        self,
        key: Array,
        state_size: int,
        random_fraction: float,
    ) -> SynapseState:
        """Draw a fresh state, with noise of variance 1 / I; see `draw_cells`."""
        shape = (self.fan_in, self.fan_out)
        return self.with_cells(draw_cells(key, shape, self.fan_in, state_size, random_fraction))

    def with_cells(self, c_IxOxN: Array) -> SynapseState:
        """Return the state with the given cells and a hidden state of 0."""
        return SynapseState.fresh(c_IxOxN)

    def visit(
        self,
        synapse: Synapse,
        state: SynapseState,
        forward_IxM: Array,
        backward_OxM: Array,
        micro_ticks: int,
    ) -> tuple[SynapseState, Array, Array]:
        """Let the synapses tick on the messages they receive, and average what they send; see `Layer`."""
        normed = synapse.forward_norm is not None
        normed_channels = forward_IxM.shape[1] if normed else 0
        kernel = chosen(self.kernel, state.h.shape[1], normed_channels, synapse.product_dtype)
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

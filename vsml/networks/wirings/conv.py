"""Convolutional layers: one grid of synapses, used at every position of an image."""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import jax
import jax.numpy as jnp
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from vsml.networks.cells.lstm import Synapse
from vsml.networks.kernels import Kernel, native_at_positions, native_positions, positions
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


def _odd(size: int) -> int:
    if size % 2 == 0:
        raise PydanticCustomError("odd", "Input should be an odd number")
    return size


class ConvConfig(LayerSection):
    """A convolutional layer: the same synapses at every position of an image."""

    type: Literal["conv", "conv1d"] = Field(
        description="kind of layer; conv: over height and width, conv1d: along the width, every row alike"
    )
    kernel_size: Annotated[Positive, AfterValidator(_odd)] = Field(
        default=3, description="pixels along an axis that an output unit reads; odd"
    )
    stride: Positive = Field(default=1, description="pixels from one output unit to the next")
    out_channels: Positive = Field(description="channels of the output")

    needs_image: ClassVar[bool] = True

    @property
    def axes(self) -> int:
        """Over how many axes the kernel reaches: 2, or 1 along the width only."""
        return 1 if self.type == "conv1d" else 2

    @property
    def kernel_shape(self) -> tuple[int, int]:
        """Rows and columns of the patch of an output unit."""
        rows = 1 if self.axes == 1 else self.kernel_size
        return rows, self.kernel_size

    @property
    def strides(self) -> tuple[int, int]:
        """Pixels between the patches of neighbouring output units, down and across."""
        down = 1 if self.axes == 1 else self.stride
        return down, self.stride

    def problems(self, last: bool) -> Iterator[Problem]:
        """Yield that it cannot be the last."""
        if last:
            yield Problem("type", self.type, "dense, as the last layer feeds the classes")


def Conv(  # noqa: N802
    channels: int,
    kernel_size: int = 3,
    stride: int = 1,
    axes: int = 2,
) -> ConvConfig:
    """Return the settings of a convolution; the form of version 0.1, which goes with version 0.3."""
    kind: Literal["conv", "conv1d"] = "conv1d" if axes == 1 else "conv"
    return ConvConfig(type=kind, out_channels=channels, kernel_size=kernel_size, stride=stride)


@dataclass(frozen=True)
class ConvLayer:
    """A synapse between each pixel and channel of a patch and each output channel, shared by all positions.

    Output o of an axis of n pixels reads the K pixels around `o * s`, where pixels beyond the border send
    the zero message; there are `ceil(n / s)` outputs. Units are numbered by height, width, channel.

    At every tick each position starts from the shared state and goes on with the messages of its own patch
    and output units; the mean of their new states is the shared state from then on. Messages are sent by each
    position's own h: an output unit sends the mean over its patch, borders included; a pixel sends back the
    sum, over the positions that read it, of the mean over output channels, divided by the pixels of a patch.

    Attributes:
        input_shape: (H, W, channels).
        config: the convolution.
        kernel: "reference" (nested vmap); where it stands for "native", `kernels.native_positions`; any
            other for `kernels.positions`.
    """

    input_shape: ImageShape
    config: ConvConfig
    kernel: Kernel = "auto"

    @classmethod
    def build(
        cls,
        input_shape: ImageShape,
        config: ConvConfig,
        outputs: int,
        kernel: Kernel,
    ) -> "ConvLayer":
        """Build the layer that a configuration describes; see `vsml.networks.wirings.WIRINGS`."""
        return cls(input_shape, config, kernel)

    @property
    def fan_in(self) -> int:
        """Input units: pixels times channels."""
        return math.prod(self.input_shape)

    @property
    def fan_out(self) -> int:
        """Output units: positions times channels."""
        return math.prod(self.output_shape)

    @property
    def output_shape(self) -> ImageShape:
        """Height, width and channels of the output."""
        H, W, _ = self.input_shape
        down, across = self.config.strides
        return math.ceil(H / down), math.ceil(W / across), self.config.out_channels

    @property
    def extent(self) -> Extent:
        """The synapses of one patch, used at every position."""
        fan_in = math.prod(self.config.kernel_shape) * self.input_shape[-1]
        channels = self.config.out_channels
        places = math.prod(self.output_shape[:2])
        return Extent(fan_in * channels, fan_in, channels, places, shared=True)

    @property
    def _cells_shape(self) -> tuple[int, ...]:
        return (
            *self.config.kernel_shape[-self.config.axes :],
            self.input_shape[-1],
            self.config.out_channels,
        )

    def init_state(
        self,
        key: Array,
        state_size: int,
        random_fraction: float,
    ) -> SynapseState:
        """Draw a fresh state, with noise of variance 1 / K; see `draw_cells`.

        K is all of the fan-in that the 2021 code divides by.
        """
        fan = self.config.kernel_size
        return self.with_cells(draw_cells(key, self._cells_shape, fan, state_size, random_fraction))

    def with_cells(self, cells: Array) -> SynapseState:
        """Return the state with the given cells, [K, K, in, out, N] or [K, in, out, N], and h = 0."""
        return SynapseState.fresh(cells.reshape(-1, *cells.shape[-2:]))

    def visit(
        self,
        synapse: Synapse,
        state: SynapseState,
        forward_IxM: Array,
        backward_OxM: Array,
        micro_ticks: int,
    ) -> tuple[SynapseState, Array, Array]:
        """Let the synapses tick at every position, and average what they send; see `Layer`."""
        patches_PxKxM = self._patches(forward_IxM)
        backward_PxOxM = backward_OxM.reshape(len(patches_PxKxM), self.config.out_channels, -1)
        normed_channels = forward_IxM.shape[1] if synapse.forward_norm is not None else 0
        messages = patches_PxKxM, backward_PxOxM
        if self.kernel == "reference":
            visited = visit_reference(synapse, state, *messages, micro_ticks)
        elif native_at_positions(self.kernel, state.h.shape[1], normed_channels, synapse.product_dtype):
            visited = _visit_natively(synapse, state, *messages, micro_ticks)
        else:
            visited = _visit_by_xla(synapse, state, *messages, micro_ticks)
        state, out_PxOxM, back_PxKxM = visited
        # What a position sends back goes where it reads from: the transpose of reading, whatever K and s are.
        (back_IxM,) = jax.linear_transpose(self._patches, forward_IxM)(back_PxKxM)
        return state, out_PxOxM.reshape(self.fan_out, -1), back_IxM / math.prod(self.config.kernel_shape)

    def _patches(self, units_IxM: Array) -> Array:
        """Return what each position reads, [P, rows * columns * in, M]; linear."""
        H, W, channels = self.input_shape
        rows, columns = self.config.kernel_shape
        steps = self.config.strides
        outputs = self.output_shape[:2]
        ends = [(count - 1) * step + 1 for count, step in zip(outputs, steps, strict=True)]
        padding = [
            ((size - 1) // 2, max(0, end - 1 + size - (size - 1) // 2 - n))
            for size, end, n in zip((rows, columns), ends, (H, W), strict=True)
        ]
        image_HxWxCxM = jnp.pad(units_IxM.reshape(H, W, channels, -1), (*padding, (0, 0), (0, 0)))
        down, across = steps
        shifted = [
            image_HxWxCxM[y : y + ends[0] : down, x : x + ends[1] : across]
            for y in range(rows)
            for x in range(columns)
        ]
        return jnp.stack(shifted, axis=2).reshape(math.prod(outputs), rows * columns * channels, -1)


def _visit_natively(
    synapse: Synapse,
    state: SynapseState,
    patches_PxKxM: Array,
    backward_PxOxM: Array,
    micro_ticks: int,
) -> tuple[SynapseState, Array, Array]:
    """Visit by the compiled kernel: the new state and the messages of each position."""
    normed = synapse.forward_norm is not None
    senders = synapse.senders() if normed else None
    h, c, out_PxOxS, back_PxKxS = native_positions.tick(
        synapse.cell_weights(), state.h, state.c, patches_PxKxM, backward_PxOxM, micro_ticks, senders
    )
    state = SynapseState(h=h, c=c)
    if normed:
        return state, rescale(synapse.forward_norm, out_PxOxS), rescale(synapse.backward_norm, back_PxKxS)
    # Messages are linear in h: those of the mean.
    return state, synapse.forward_message(out_PxOxS), synapse.backward_message(back_PxKxS)


def _visit_by_xla(
    synapse: Synapse,
    state: SynapseState,
    patches_PxKxM: Array,
    backward_PxOxM: Array,
    micro_ticks: int,
) -> tuple[SynapseState, Array, Array]:
    """Visit by the kernel in plain JAX: the new state and the messages of each position."""
    h_GNRI, c_GNRI, out_PxOxM, back_PxKxM = positions.tick(
        synapse.cell_weights(),
        functools.partial(_send, synapse),
        state.h.astype(jnp.float32),
        state.c.astype(jnp.float32),
        patches_PxKxM,
        backward_PxOxM,
        micro_ticks,
    )
    return SynapseState(h=h_GNRI, c=c_GNRI).kept_as(state.h.dtype), out_PxOxM, back_PxKxM


def _send(
    synapse: Synapse,
    h_QNRI: Array,
) -> tuple[Array, Array]:
    """Return the messages [Q, R, M] and [Q, I, M] of the synapses at Q positions."""
    return (
        mean_message(synapse.forward_message, synapse.forward_norm, h_QNRI, axes=(3,)),
        mean_message(synapse.backward_message, synapse.backward_norm, h_QNRI, axes=(2,)),
    )

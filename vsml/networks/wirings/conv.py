"""Convolutional layers: one grid of synapses, used at every position of an image."""

import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from vsml.networks.cells.lstm import Synapse
from vsml.networks.kernels import Kernel, positions
from vsml.networks.wirings.dense import SynapseState, draw_cells, mean_message, visit_reference
from vsml.types import Array


@dataclass(frozen=True)
class Conv:
    """A convolution: what it does to images of any size.

    Attributes:
        channels: of its output.
        kernel_size: K, pixels along each axis that an output unit reads; odd.
        stride: s, pixels from one output unit to the next.
        axes: 2 (height and width), or 1: along the width only, every row alike.

    Raises:
        ValueError: a number out of its range.
    """

    channels: int
    kernel_size: int = 3
    stride: int = 1
    axes: int = 2

    def __post_init__(self) -> None:
        for name in ("channels", "kernel_size", "stride"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected at least 1")
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size: got {self.kernel_size}, expected an odd number")
        if self.axes not in (1, 2):
            raise ValueError(f"axes: got {self.axes}, expected 1 or 2")

    @property
    def kernel_shape(self) -> tuple[int, ...]:
        """Rows and columns of the patch of an output unit."""
        return (1, self.kernel_size) if self.axes == 1 else (self.kernel_size, self.kernel_size)

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels between the patches of neighbouring output units, down and across."""
        return (1, self.stride) if self.axes == 1 else (self.stride, self.stride)


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
        conv: the convolution.
        kernel: "reference" (nested vmap), or any other for `kernels.positions` (fast).
    """

    input_shape: tuple[int, int, int]
    conv: Conv
    kernel: Kernel = "auto"

    @property
    def fan_in(self) -> int:
        """Input units: pixels times channels."""
        return math.prod(self.input_shape)

    @property
    def fan_out(self) -> int:
        """Output units: positions times channels."""
        return math.prod(self.output_shape)

    @property
    def output_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of the output."""
        H, W, _ = self.input_shape
        down, across = self.conv.strides
        return math.ceil(H / down), math.ceil(W / across), self.conv.channels

    @property
    def _cells_shape(self) -> tuple[int, ...]:
        return (*self.conv.kernel_shape[-self.conv.axes :], self.input_shape[-1], self.conv.channels)

    def init_state(self, key: Array, state_size: int, random_fraction: float) -> SynapseState:
        """Draw a fresh state, with noise of variance 1 / K; see `draw_cells`.

        K is all of the fan-in that the 2021 code divides by.
        """
        fan = self.conv.kernel_size
        return self.with_cells(draw_cells(key, self._cells_shape, fan, state_size, random_fraction))

    def with_cells(self, cells: Array) -> SynapseState:
        """Return the state with the given cells, [K, K, in, out, N] or [K, in, out, N], and h = 0."""
        return SynapseState.fresh(cells.reshape(-1, *cells.shape[-2:]))

    def visit(
        self, synapse: Synapse, state: SynapseState, forward_IxM: Array, backward_OxM: Array, micro_ticks: int
    ) -> tuple[SynapseState, Array, Array]:
        """Let the synapses tick at every position, and average what they send; see `Layer`."""
        patches_PxKxM = self._patches(forward_IxM)
        backward_PxOxM = backward_OxM.reshape(len(patches_PxKxM), self.conv.channels, -1)
        if self.kernel == "reference":
            state, out_PxOxM, back_PxKxM = visit_reference(
                synapse, state, patches_PxKxM, backward_PxOxM, micro_ticks
            )
        else:
            h_GNRI, c_GNRI, out_PxOxM, back_PxKxM = positions.tick(
                synapse.cell_weights(),
                functools.partial(_send, synapse),
                state.h.astype(jnp.float32),
                state.c.astype(jnp.float32),
                patches_PxKxM,
                backward_PxOxM,
                micro_ticks,
            )
            state = SynapseState(h=h_GNRI, c=c_GNRI).kept_as(state.h.dtype)
        # What a position sends back goes where it reads from: the transpose of reading, whatever K and s are.
        (back_IxM,) = jax.linear_transpose(self._patches, forward_IxM)(back_PxKxM)
        return state, out_PxOxM.reshape(self.fan_out, -1), back_IxM / math.prod(self.conv.kernel_shape)

    def _patches(self, units_IxM: Array) -> Array:
        """Return what each position reads, [P, rows * columns * in, M]; linear."""
        H, W, channels = self.input_shape
        rows, columns = self.conv.kernel_shape
        steps = self.conv.strides
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


def _send(synapse: Synapse, h_QNRI: Array) -> tuple[Array, Array]:
    """Return the messages [Q, R, M] and [Q, I, M] of the synapses at Q positions."""
    return (
        mean_message(synapse.forward_message, synapse.forward_norm, h_QNRI, axes=(3,)),
        mean_message(synapse.backward_message, synapse.backward_norm, h_QNRI, axes=(2,)),
    )

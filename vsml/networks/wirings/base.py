"""What a wiring is: how the synapses of a layer connect its units, their state, and what they send."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol

import jax
import jax.numpy as jnp
from flax import nnx, struct
from jax.typing import DTypeLike

from vsml.networks.cells.lstm import Synapse, weights_of
from vsml.networks.kernels import reference, tiled
from vsml.networks.kernels.tiled import NORM_EPSILON
from vsml.settings import Problem, Section
from vsml.types import Array

ImageShape = tuple[int, int, int]
"""Height, width and channels of what a layer's units form; a row of n units is (1, n, 1)."""


class LayerSection(Section):
    """Base of the settings of one layer; a wiring of this library adds its `type`, a Literal.

    Attributes:
        needs_image: units of the input have to form an image, which random features do not.
        holds_weights: there is one synapse for each pair of an input and an output unit, so that a fresh
            state can hold the weights that `synapse.init_weights` asks for.
    """

    needs_image: ClassVar[bool] = False
    holds_weights: ClassVar[bool] = False

    def problems(self, last: bool) -> Iterator[Problem]:
        """Yield what this layer cannot be, by its place: whether it is the last, which feeds the outputs."""
        yield from ()


@dataclass(frozen=True)
class Extent:
    """How many synapses a layer has and how often each is used: all that its cost depends on.

    Attributes:
        synapses: S, each counted once.
        fan_in: I, input units that the synapses at one position read.
        fan_out: O, output units that they feed there.
        positions: P, places at which the same synapses are used.
        shared: the positions share one state, which is averaged over them at every tick.
    """

    synapses: int
    fan_in: int
    fan_out: int
    positions: int = 1
    shared: bool = False


class HasExtent(Protocol):
    """What has a cost: a layer, or a graph."""

    @property
    def extent(self) -> Extent:
        """How many synapses there are, and how often each is used."""


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

    @property
    def output_shape(self) -> ImageShape:
        """What the output units form: height, width and channels; their product is `fan_out`."""

    @property
    def extent(self) -> Extent:
        """How many synapses there are, and how often each is used."""

    def init_state(
        self,
        key: Array,
        state_size: int,
        random_fraction: float,
    ) -> SynapseState:
        """Draw a fresh state, in which only noise in the cells tells one synapse from another."""

    def with_cells(self, cells: Array) -> SynapseState:
        """Return the state with the given cells and a hidden state of 0."""

    def visit(
        self,
        synapse: Synapse,
        state: SynapseState,
        forward_IxM: Array,
        backward_OxM: Array,
        micro_ticks: int,
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


def draw_cells(
    key: Array,
    shape: tuple[int, ...],
    fan: int | Array,
    state_size: int,
    random_fraction: float,
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
    synapse: Synapse,
    state: SynapseState,
    forward_PxIxM: Array,
    backward_PxOxM: Array,
    micro_ticks: int,
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
    linear: nnx.Linear,
    norm: nnx.LayerNorm | None,
    h_GNRI: Array,
    axes: tuple[int, ...],
) -> Array:
    """Return the mean of `norm(linear(h))` over axes: [G, R, M] for the input side (3), [I, M] for (0, 2)."""
    if norm is None:  # all is linear: take the mean first
        return linear(h_GNRI.mean(axes).swapaxes(-1, -2))

    h_GNRI = h_GNRI.astype(jnp.float32)

    @jax.checkpoint  # messages of single synapses are not worth their memory
    def mean_normed(
        kernel: Array,
        bias: Array,
        h_GNRI: Array,
    ) -> Array:
        message_GMRI = jnp.einsum("nm,gnri->gmri", kernel, h_GNRI) + bias[None, :, None, None]
        centred = message_GMRI - message_GMRI.mean(1, keepdims=True)
        variance = jnp.square(centred).mean(1, keepdims=True)
        return (centred * jax.lax.rsqrt(variance + NORM_EPSILON)).mean(axes).swapaxes(-1, -2)

    return rescale(norm, mean_normed(*weights_of(linear), h_GNRI))


def rescale(
    norm: nnx.LayerNorm | None,
    mean: Array,
) -> Array:
    """Return normalised messages, or means of them, with the scale and the offset of a layer norm."""
    assert norm is not None and norm.scale is not None and norm.bias is not None  # none here is made without
    scale = jnp.broadcast_to(norm.scale[...], mean.shape)
    offset = jnp.broadcast_to(norm.bias[...], mean.shape)
    return mean * scale + offset

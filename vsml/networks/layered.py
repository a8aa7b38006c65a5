"""A network of synapses: layers in sequence, its synapses' meta-parameters, and sweeps over the layers."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx, struct

from vsml.networks.cells.lstm import Synapse
from vsml.networks.kernels.products import ProductType
from vsml.networks.wirings.base import HasExtent, Layer, SynapseState
from vsml.types import Array


@struct.dataclass
class NetworkState:
    """What a network has learned in an episode, and the messages under way.

    Attributes:
        layers: the state of each layer's synapses, first to last.
        backward: the message [O, M] that arrives at the output side of each layer but the last.
    """

    layers: tuple[SynapseState, ...]
    backward: tuple[Array, ...]


@dataclass(frozen=True, kw_only=True)
class SynapseSizes:
    """Sizes and ways of synapses, whatever they form.

    Attributes:
        state_size: N.
        message_size: M.
        random_fraction: share of a fresh synapse's N cell entries that are random.
        micro_ticks: ticks of a synapse at each visit.
        separate_backward: backward sweeps have meta-parameters of their own.
        layer_norm: messages are normalised.
        init_scale: factor on the initial kernels of the meta-parameters.
        state_dtype: floating-point type that h and c are kept as; arithmetic is in float32.
        product_dtype: floating-point type of the operands of the cell's products; sums are in float32.
    """

    state_size: int = 16
    message_size: int = 8
    random_fraction: float = 0.5
    micro_ticks: int = 2
    separate_backward: bool = False
    layer_norm: bool = False
    init_scale: float = 1.0
    state_dtype: str = "float32"
    product_dtype: ProductType = "float32"

    def make_synapses(self, count: int, rngs: nnx.Rngs) -> nnx.List:
        """Make so many sets of meta-parameters."""
        sizes = (self.state_size, self.message_size, self.layer_norm, self.init_scale)
        return nnx.List([Synapse(*sizes, rngs, self.product_dtype) for _ in range(count)])


@dataclass(frozen=True)
class Network(SynapseSizes):
    """Layers in sequence. Everything here is for one example; batch with `jax.vmap`.

    Attributes:
        layers: first to last; the fan-out of one is the fan-in of the next.
        layerwise: each layer has meta-parameters of its own; else all share one synapse.
    """

    layers: tuple[Layer, ...]
    layerwise: bool = False

    @property
    def unit_axis(self) -> int:
        """Axis of h and c that numbers the input units of a layer."""
        return -1

    def visits(self, backward_pass: bool) -> list[tuple[HasExtent, int]]:
        """Return the parts that an example visits, and how often."""
        sweeps = 2 if backward_pass else 1
        return [(layer, sweeps) for layer in self.layers]

    def init_synapses(self, rngs: nnx.Rngs) -> nnx.List:
        """Make the meta-parameters: forward ones in layer order, then separate backward ones in layer order.

        Each distinct synapse is stored once; `synapse_of` says who uses which.
        """
        count = (len(self.layers) if self.layerwise else 1) * (2 if self.separate_backward else 1)
        return self.make_synapses(count, rngs)

    def synapse_of(self, synapses: nnx.List, layer: int, backward_sweep: bool = False) -> Synapse:
        """Return the synapse that a layer uses in a sweep."""
        index = layer if self.layerwise else 0
        if backward_sweep and self.separate_backward:
            index += len(self.layers) if self.layerwise else 1
        return synapses[index]

    def init_state(self, key: Array) -> NetworkState:
        """Draw a fresh state; all messages start at 0."""
        keys = jax.random.split(key, len(self.layers))
        return self.with_layers(
            tuple(
                layer.init_state(layer_key, self.state_size, self.random_fraction)
                for layer, layer_key in zip(self.layers, keys, strict=True)
            )
        )

    def with_layers(self, layers: tuple[SynapseState, ...]) -> NetworkState:
        """Return the state with the given synapse states and all messages 0."""
        zeros = tuple(jnp.zeros((layer.fan_out, self.message_size)) for layer in self.layers[:-1])
        kept = tuple(layer.kept_as(self.state_dtype) for layer in layers)
        return NetworkState(layers=kept, backward=zeros)

    def forward_sweep(
        self, synapses: nnx.List, state: NetworkState, x_IxM: Array, feedback_OxM: Array
    ) -> tuple[NetworkState, tuple[Array, ...]]:
        """Visit the layers first to last.

        Args:
            synapses: from `init_synapses`.
            state: of the network.
            x_IxM: message that enters the first layer.
            feedback_OxM: message that enters the last layer from behind.

        Returns:
            The new state, and the forward messages: those that entered each layer and, last, those that left
            the network.
        """
        states, backward = list(state.layers), [*state.backward, feedback_OxM]
        forward = [x_IxM]
        for k, layer in enumerate(self.layers):
            synapse = self.synapse_of(synapses, k)
            states[k], message, back = layer.visit(
                synapse, states[k], forward[k], backward[k], self.micro_ticks
            )
            forward.append(message)
            if k > 0:
                backward[k - 1] = back
        return NetworkState(layers=tuple(states), backward=tuple(backward[:-1])), tuple(forward)

    def backward_sweep(
        self, synapses: nnx.List, state: NetworkState, forward: tuple[Array, ...], feedback_OxM: Array
    ) -> NetworkState:
        """Visit the layers last to first, with the forward messages that the sweep before left.

        Args:
            synapses: from `init_synapses`.
            state: of the network.
            forward: what `forward_sweep` returned.
            feedback_OxM: message that enters the last layer from behind.

        Returns:
            The new state.
        """
        states, backward = list(state.layers), [*state.backward, feedback_OxM]
        for k in reversed(range(len(self.layers))):
            synapse = self.synapse_of(synapses, k, backward_sweep=True)
            states[k], _, back = self.layers[k].visit(
                synapse, states[k], forward[k], backward[k], self.micro_ticks
            )
            if k > 0:
                backward[k - 1] = back
        return NetworkState(layers=tuple(states), backward=tuple(backward[:-1]))

"""Weights that synapses hold in the cells of back-propagation: drawn for a fresh network, and read out."""

import dataclasses

import jax
import jax.numpy as jnp

from vsml.learners.vsml_config import SynapseConfig
from vsml.networks.graph import GraphNetwork
from vsml.networks.layered import Network, NetworkState
from vsml.networks.wirings.base import Layer, SynapseState, from_tiles
from vsml.networks.wirings.reading import ReadingLayer
from vsml.networks.written import cells_of, decode, encode
from vsml.types import Array


def with_random_weights(
    network: Network | GraphNetwork,
    state: NetworkState,
    settings: SynapseConfig,
    key: Array,
) -> NetworkState:
    """Return a fresh network state whose synapses hold random weights.

    Args:
        network: what the synapses form.
        state: fresh, of one element of the inner batch.
        settings: with `init_weights`, their deviation where the fan-in is 1.
        key: of the weights.
    """
    if isinstance(network, GraphNetwork):
        return _edges_with_random_weights(network, state, settings, key)

    def holding(
        number: int,
        layer: Layer,
        own: SynapseState,
    ) -> SynapseState:
        if isinstance(layer, ReadingLayer):
            return own
        tiles, _, *rest = own.c.shape
        normal = jax.random.normal(jax.random.fold_in(key, number), (tiles, *rest))
        w = settings.init_weights * layer.fan_in**0.5 * normal
        cells = encode(w, jnp.zeros_like(w), settings.init_activation, settings.init_max_weight)
        others = own.c[:, : settings.state_size - cells.shape[-1]]
        c = jnp.concatenate([others, jnp.moveaxis(cells, -1, 1).astype(others.dtype)], axis=1)
        return dataclasses.replace(own, c=c)

    layers = enumerate(zip(network.layers, state.layers, strict=True))
    held = tuple(holding(number, layer, own) for number, (layer, own) in layers)
    return dataclasses.replace(state, layers=held)


def _edges_with_random_weights(
    graph: GraphNetwork,
    state: NetworkState,
    settings: SynapseConfig,
    key: Array,
) -> NetworkState:
    """Return a fresh state of a graph whose synapses hold random weights, each from its own number."""
    (edges,) = state.layers
    numbers = jnp.arange(len(edges.c))
    normal = jax.vmap(lambda number: jax.random.normal(jax.random.fold_in(key, number)))(numbers)
    w = settings.init_weights * jnp.sqrt(graph.fan_in_of_edges(state)) * normal
    cells = encode(w, jnp.zeros_like(w), settings.init_activation, settings.init_max_weight)
    others = edges.c[:, : settings.state_size - cells.shape[-1]]
    held = cells[:, :, None, None].astype(others.dtype)
    c = jnp.concatenate([others, held], axis=1)
    return dataclasses.replace(state, layers=(dataclasses.replace(edges, c=c),))


def held_weights(
    state: NetworkState,
    settings: SynapseConfig,
) -> list[tuple[Array, Array]]:
    """Return what the cells of back-propagation hold: weights and biases [B, I, O] of each layer.

    Args:
        state: of each element of the inner batch, leading axis B.
        settings: how weights are written.
    """
    cells = cells_of(settings.init_activation)
    held = [jax.vmap(from_tiles)(layer.c)[..., -cells:] for layer in state.layers]
    return [decode(c, settings.init_activation, settings.init_max_weight) for c in held]

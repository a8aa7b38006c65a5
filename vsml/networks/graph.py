"""A network of synapses on a graph: one synapse for each edge, from its lower to its higher node.

A node sends on, along its higher edges, the mean of what its synapses from lower nodes send forward; and it
sends back, along its lower edges, the mean of what its synapses to higher nodes send backward. So a layered
graph is a stack of dense layers. When which synapses tick is the schedule:

    sweep   edges are grouped by the longest ascending path to their higher node; a forward pass visits the
            groups in that order, a backward pass in the reverse one. Each synapse is visited once a pass.
    sync    all synapses at once, `ticks` times a pass. News travels one edge a tick, so loops do no harm.
    async   as sync, but at each tick a synapse is visited with probability `rate` only.
"""

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, struct

from vsml.networks.cells.lstm import Synapse
from vsml.networks.edges import AnyArray, Edges, Group, Wires
from vsml.networks.kernels.activations import tanh
from vsml.networks.kernels.tiled import CellWeights
from vsml.networks.layered import NetworkState, SynapseSizes
from vsml.networks.wirings.base import Extent, HasExtent, Layer, SynapseState, draw_cells
from vsml.types import Array

Schedule = Literal["sweep", "sync", "async"]

_GRAPH = 11
"""What the key of a fresh state is folded with for the graph that it is on."""

_TICKS = 12
"""What it is folded with for the synapses that an asynchronous tick visits."""


@struct.dataclass
class GraphState(NetworkState):
    """What a network on a graph has learned in an episode, and the messages under way.

    Attributes:
        layers: one `SynapseState`, h and c [E, N, 1, 1].
        backward: two messages of each node [V, M], those that it sends on and those that it sends back.
        number: which of the graphs it is on, int32.
        ticks: how many ticks there were, int32, and the key of what is drawn in them, uint32 [2].
    """

    number: Array
    ticks: tuple[Array, Array]


@dataclass(frozen=True, eq=False)
class GraphNetwork(SynapseSizes):
    """Synapses on the edges of a graph, or of one of several graphs, drawn with every fresh state.

    Everything here is for one example; batch with `jax.vmap`. It has what `Network` has.

    Attributes:
        graphs: one or more, all with as many inputs and as many outputs.
        schedule: when synapses tick.
        ticks: of all synapses in a forward pass, with sync and async.
        backward_ticks: of all synapses in a backward pass, likewise.
        rate: probability that a synapse is visited at a tick, with async.
    """

    graphs: tuple[Edges, ...]
    schedule: Schedule = "sweep"
    ticks: int = 1
    backward_ticks: int = 1
    rate: float = 0.5

    @property
    def unit_axis(self) -> int:
        """Axis of h and c [B, E, N, 1, 1] that numbers synapses: a unit of this memory is one of them."""
        return 1

    @property
    def layers(self) -> tuple[Layer, ...]:
        """It has none."""
        return ()

    def __post_init__(self) -> None:
        for graph in self.graphs:
            count = len(graph.inputs)
            if graph.inputs != tuple(range(count)):
                raise ValueError(f"inputs: got nodes {graph.inputs}, expected the lowest, 0 to {count - 1}")
        if self.schedule == "sweep" and len(self.graphs) > 1:
            expected = "sync or async for several graphs, as each of them has groups of its own"
            raise ValueError(f"schedule: got sweep, expected {expected}")

    @functools.cached_property
    def nodes(self) -> int:
        """How many nodes the largest graph has."""
        return max(graph.nodes for graph in self.graphs)

    @functools.cached_property
    def places(self) -> int:
        """How many edges the graph with the most of them has."""
        return max(len(graph.pairs) for graph in self.graphs)

    @functools.cached_property
    def wires(self) -> Wires:
        """The edges of each graph as arrays, stacked."""
        each = [Wires.of(graph, self.places, self.nodes) for graph in self.graphs]
        return jax.tree.map(lambda *arrays: np.stack(arrays), *each)

    @property
    def largest_fan_in(self) -> int:
        """The most edges from lower nodes that a node of any graph has."""
        return int(self.wires.fan_in[:, : self.nodes].max())

    def fan_in_of_edges(self, state: NetworkState) -> Array:
        """Return how many edges from lower nodes the higher node of each edge has, [E]."""
        assert isinstance(state, GraphState)
        wires = self._wires(state.number)
        return jnp.asarray(wires.fan_in[wires.target])

    @property
    def extent(self) -> Extent:
        """All edges, padding included, between all nodes."""
        return Extent(self.places, self.nodes, self.nodes)

    def visits(self, backward_pass: bool) -> list[tuple[HasExtent, int]]:
        """Return the parts that an example visits, and how often: all edges at once."""
        forward = backward = 1
        if self.schedule != "sweep":
            forward, backward = self.ticks, self.backward_ticks
        return [(self, forward + backward if backward_pass else forward)]

    def init_synapses(self, rngs: nnx.Rngs) -> nnx.List:
        """Make the meta-parameters: those of forward passes, then separate ones of backward passes."""
        count = 2 if self.separate_backward else 1
        return self.make_synapses(count, rngs)

    def synapse_of(self, synapses: nnx.List, layer: int, backward_sweep: bool = False) -> Synapse:
        """Return the synapse that a pass uses; there are no layers."""
        del layer
        return synapses[1] if backward_sweep and self.separate_backward else synapses[0]

    def init_state(self, key: Array) -> GraphState:
        """Draw a graph and a fresh state, whose noise has variance 1 / fan-in; all messages start at 0."""
        number = jax.random.randint(jax.random.fold_in(key, _GRAPH), (), 0, len(self.graphs))
        wires = self._wires(number)
        fan_in = wires.fan_in[wires.target]

        def cells_of_edge(place: Array, fan: AnyArray) -> Array:
            """Draw those of one edge by its number, so that padding changes nothing."""
            own_key = jax.random.fold_in(key, place)
            return draw_cells(own_key, (), jnp.asarray(fan), self.state_size, self.random_fraction)

        cells = jax.vmap(cells_of_edge)(jnp.arange(self.places), fan_in)
        return self.with_cells(cells, number, key)

    def with_cells(
        self,
        c_ExN: Array,
        number: Array | int = 0,
        key: Array | None = None,
    ) -> GraphState:
        """Return the state with the given cells, a hidden state of 0 and all messages 0.

        Args:
            c_ExN: cells, in the order of `Edges.pairs`.
            number: of the graph.
            key: for asynchronous ticks.
        """
        key = jax.random.key(0) if key is None else key
        c = c_ExN[:, :, None, None]
        synapses = SynapseState(h=jnp.zeros_like(c), c=c)
        silent = jnp.zeros((self.nodes + 1, self.message_size))
        drawn = jax.random.key_data(jax.random.fold_in(key, _TICKS))
        return GraphState(
            layers=(synapses.kept_as(self.state_dtype),),
            backward=(silent, silent),
            number=jnp.asarray(number, jnp.int32),
            ticks=(jnp.int32(0), drawn),
        )

    def forward_sweep(
        self,
        synapses: nnx.List,
        state: NetworkState,
        x_IxM: Array,
        feedback_OxM: Array,
    ) -> tuple[GraphState, tuple[Array, ...]]:
        """Make a forward pass.

        Args:
            synapses: from `init_synapses`.
            state: of the network.
            x_IxM: message that enters at the inputs.
            feedback_OxM: message that enters at the outputs from behind.

        Returns:
            The new state, and the messages that entered and, last, those that leave at the outputs.
        """
        assert isinstance(state, GraphState)  # from init_state
        wires = self._wires(state.number)
        onward, back = state.backward
        onward = onward.at[np.array(self.graphs[0].inputs)].set(x_IxM)
        back = back.at[wires.outputs].set(feedback_OxM)
        state = dataclasses.replace(state, backward=(onward, back))
        state = self._pass(self.synapse_of(synapses, 0), state, wires, backward=False)
        onward, _ = state.backward
        return state, (x_IxM, onward[wires.outputs])

    def backward_sweep(
        self,
        synapses: nnx.List,
        state: NetworkState,
        forward: tuple[Array, ...],
        feedback_OxM: Array,
    ) -> GraphState:
        """Make a backward pass, with the messages that the forward pass left.

        Args:
            synapses: from `init_synapses`.
            state: of the network.
            forward: what `forward_sweep` returned.
            feedback_OxM: message that enters at the outputs from behind.

        Returns:
            The new state.
        """
        del forward  # nodes keep what they send on
        assert isinstance(state, GraphState)
        wires = self._wires(state.number)
        onward, back = state.backward
        back = back.at[wires.outputs].set(feedback_OxM)
        state = dataclasses.replace(state, backward=(onward, back))
        return self._pass(self.synapse_of(synapses, 0, True), state, wires, backward=True)

    def _wires(self, number: Array) -> Wires:
        """Return the arrays of one graph."""
        if len(self.graphs) == 1:
            return jax.tree.map(lambda array: array[0], self.wires)
        return jax.tree.map(lambda array: jnp.asarray(array)[number], self.wires)

    def _pass(
        self,
        synapse: Synapse,
        state: GraphState,
        wires: Wires,
        backward: bool,
    ) -> GraphState:
        """Visit synapses as the schedule says."""
        visit = _Visit(synapse, wires, self.micro_ticks, len(self.graphs[0].inputs))
        if self.schedule == "sweep":
            return visit.sweep(state, self.graphs[0].groups, backward)
        ticks = self.backward_ticks if backward else self.ticks
        rate = self.rate if self.schedule == "async" else None
        return visit.ticks(state, ticks, rate)


@dataclass(frozen=True, eq=False)
class _Visit:
    """Visits of synapses with the same meta-parameters.

    Attributes:
        synapse: their meta-parameters.
        wires: the edges.
        micro_ticks: ticks at each visit.
        inputs: how many nodes are inputs; they are the lowest, and what they send on is given.
    """

    synapse: Synapse
    wires: Wires
    micro_ticks: int
    inputs: int

    @functools.cached_property
    def weights(self) -> CellWeights:
        """The shared LSTM."""
        return self.synapse.cell_weights()

    def sweep(
        self,
        state: GraphState,
        groups: Sequence[Group],
        backward: bool,
    ) -> GraphState:
        """Visit group after group; nodes send as soon as all that they hear of the pass is there."""
        (kept,) = state.layers
        h = kept.h[:, :, 0, 0].astype(jnp.float32)
        c = kept.c[:, :, 0, 0].astype(jnp.float32)
        onward, back = state.backward
        for group in reversed(groups) if backward else groups:
            if backward:
                back = self._send_back(h, back, group)
            here = slice(group.start, group.end)
            new_h, new_c = self._tick(h[here], c[here], onward, back, here)
            h = h.at[here].set(new_h)
            c = c.at[here].set(new_c)
            if not backward:
                onward = self._send_on(new_h, onward, group)
        if not backward:
            back = self._sent_back(h, back)
        return dataclasses.replace(state, layers=_kept(h, c, kept), backward=(onward, back))

    def _send_on(self, h_ExN: Array, onward_VxM: Array, group: Group) -> Array:
        """Let the higher nodes of a group send on the mean of their edges, which are all in it."""
        sender, norm = self.synapse.forward_message, self.synapse.forward_norm
        mean = _mean(sender, norm, h_ExN, group.target, group.fan_in)
        return onward_VxM.at[group.nodes].set(mean)

    def _send_back(self, h_ExN: Array, back_VxM: Array, group: Group) -> Array:
        """Let the higher nodes of a group send back the mean of their own higher edges."""
        if not len(group.leaving):
            return back_VxM
        sender, norm = self.synapse.backward_message, self.synapse.backward_norm
        mean = _mean(sender, norm, h_ExN[group.leaving], group.source, group.fan_out)
        return back_VxM.at[group.senders].set(mean)

    def ticks(
        self,
        state: GraphState,
        count: int,
        rate: float | None,
    ) -> GraphState:
        """Visit all synapses at once so many times, or at each tick each with a probability."""
        everywhere = slice(None)
        (kept,) = state.layers
        done, key_data = state.ticks
        key = jax.random.wrap_key_data(key_data)

        def tick(number: Array, carried: tuple[Array, ...]) -> tuple[Array, ...]:
            h, c, onward, back = carried
            new_h, new_c = self._tick(h, c, onward, back, everywhere)
            if rate is not None:
                visited = jax.random.bernoulli(jax.random.fold_in(key, done + number), rate, (len(h), 1))
                new_h = jnp.where(visited, new_h, h)
                new_c = jnp.where(visited, new_c, c)
            return new_h, new_c, self._sent_on(new_h, onward), self._sent_back(new_h, back)

        h = kept.h[:, :, 0, 0].astype(jnp.float32)
        c = kept.c[:, :, 0, 0].astype(jnp.float32)
        carried = (h, c, *state.backward)
        h, c, onward, back = jax.lax.fori_loop(0, count, tick, carried)
        return dataclasses.replace(
            state,
            layers=_kept(h, c, kept),
            backward=(onward, back),
            ticks=(done + count, key_data),
        )

    def _tick(
        self,
        h_ExN: Array,
        c_ExN: Array,
        onward_VxM: Array,
        back_VxM: Array,
        here: slice,
    ) -> tuple[Array, Array]:
        """Return the new h and c of some edges, with the messages of their nodes held fixed."""
        weights = self.weights
        # Once a node, and not once an edge.
        from_source = onward_VxM @ weights.forward.T + weights.bias[None]
        from_target = back_VxM @ weights.backward.T
        messages = from_source[self.wires.source[here]] + from_target[self.wires.target[here]]
        for _ in range(self.micro_ticks):
            gates = tanh(h_ExN @ weights.hidden.T + messages)
            i, g, f, o = jnp.split(gates, 4, axis=1)
            c_ExN = (0.5 + 0.5 * f) * c_ExN + (0.5 + 0.5 * i) * g
            h_ExN = (0.5 + 0.5 * o) * tanh(c_ExN)
        return h_ExN, c_ExN

    def _sent_on(self, h_ExN: Array, onward_VxM: Array) -> Array:
        """Return what nodes send on: the mean of their lower edges; inputs and lone nodes as before."""
        wires = self.wires
        sender, norm = self.synapse.forward_message, self.synapse.forward_norm
        mean = _mean(sender, norm, h_ExN, wires.target, wires.fan_in)
        given = jnp.arange(len(mean)) < self.inputs
        return jnp.where(given[:, None], onward_VxM, mean)

    def _sent_back(self, h_ExN: Array, back_VxM: Array) -> Array:
        """Return what nodes send back: the mean of their higher edges; at outputs what was fed."""
        wires = self.wires
        sender, norm = self.synapse.backward_message, self.synapse.backward_norm
        in_order = wires.by_source
        mean = _mean(sender, norm, h_ExN[in_order], wires.source[in_order], wires.fan_out)
        return mean.at[wires.outputs].set(back_VxM[wires.outputs])


def _mean(
    sender: nnx.Linear,
    norm: nnx.LayerNorm | None,
    h_ExN: Array,
    node_E: AnyArray,
    fan_V: AnyArray,
) -> Array:
    """Return the mean message [V, M] of the edges of each node, which are in the order of their nodes."""
    sent = h_ExN if norm is None else norm(sender(h_ExN))
    total = jax.ops.segment_sum(sent, node_E, num_segments=len(fan_V), indices_are_sorted=True)
    mean = total / fan_V[:, None]
    # All is linear without a norm: of the mean.
    return sender(mean) if norm is None else mean


def _kept(h_ExN: Array, c_ExN: Array, before: SynapseState) -> tuple[SynapseState]:
    """Return h and c as a state keeps them."""
    state = SynapseState(h=h_ExN[:, :, None, None], c=c_ExN[:, :, None, None])
    return (state.kept_as(before.h.dtype),)

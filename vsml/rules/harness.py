"""The harness: what a rule is told in each tick of a stream of examples, and when its answer is read."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import jax
import jax.numpy as jnp
from flax import struct

from vsml.graphs.arrays import GraphArrays
from vsml.losses import loss
from vsml.rules.machine import Machine, Ports, draw_at
from vsml.rules.settings import Settings
from vsml.types import Array, Classes, Values

Kept = TypeVar("Kept")
"""What is kept of a tick."""

READY_THRESHOLD = 0.5
"""The ready node gives its sign when it rises above this."""


@struct.dataclass
class Teaching:
    """What teaching adds to the ports while it stands: x, x_on, t, t_on, each [N]."""

    x: Array
    x_on: Array
    t: Array
    t_on: Array

    @staticmethod
    def nothing(
        graph: GraphArrays,
        dtype: jnp.dtype,
    ) -> "Teaching":
        """Return no teaching."""
        zeros = jnp.zeros(graph.num_nodes, dtype)
        return Teaching(zeros, zeros, zeros, zeros)

    def where(self, condition: Array) -> "Teaching":
        """Return the teaching where a condition [] holds, else none."""
        return jax.tree.map(lambda port: jnp.where(condition, port, 0), self)


@struct.dataclass
class StreamState:
    """A graph between two examples. Letters: N nodes, H half-edges, S slots, O answers.

    Attributes:
        memory: of the rule, [S, H].
        pending: teaching of the example before, which may still stand.
        tick: ticks since the beginning, int32 [].
        key: of the noise of all ticks.
        start: memory at the beginning, [S, H]; None unless `reset` is `all`.
        feedback: how errors reach each node, [N, O]; None unless `teach` is `broadcast_error`.
    """

    memory: Array
    pending: Teaching
    tick: Array
    key: Array
    start: Array | None = None
    feedback: Array | None = None


@struct.dataclass
class Record:
    """What happened in each tick of an example.

    Attributes:
        memory: after each tick, [K, S, H].
        ports: in each tick, with a leading axis K.
    """

    memory: Array
    ports: Ports


@dataclass(frozen=True)
class Harness:
    """Runs a rule on a graph, one example after the other. All is for one stream; batch with `jax.vmap`.

    Attributes:
        settings: timing and teaching.
    """

    settings: Settings

    def num_answers(self, graph: GraphArrays) -> int:
        """Return O: the number of outputs, less the ready node if there is one."""
        num_outputs = graph.outputs.shape[-1]
        return num_outputs - 1 if self.settings.read == "ready" else num_outputs

    def begin(
        self,
        machine: Machine,
        graph: GraphArrays,
        key: Array,
        dtype: jnp.dtype = jnp.float32,
    ) -> StreamState:
        """Return the state before the first example.

        Args:
            machine: the rule.
            graph: the graph.
            key: of the initial memory, of noise and of feedback; draws do not depend on padding.
            dtype: of the memory, in which everything is computed.
        """
        memory = machine.initial(graph, jax.random.fold_in(key, 0), dtype)
        start = memory if self.settings.reset == "all" else None
        feedback = None
        if self.settings.teach == "broadcast_error":
            feedback = self.draw_feedback(graph, jax.random.fold_in(key, 2), dtype)
        return StreamState(
            memory=memory,
            pending=Teaching.nothing(graph, dtype),
            tick=jnp.zeros((), jnp.int32),
            key=jax.random.fold_in(key, 1),
            start=start,
            feedback=feedback,
        )

    def draw_feedback(
        self,
        graph: GraphArrays,
        key: Array,
        dtype: jnp.dtype,
    ) -> Array:
        """Return how errors reach each node, normal with variance 1 / O, [N, O]."""
        num_answers = self.num_answers(graph)
        place = jnp.arange(graph.num_nodes * num_answers)
        draws = draw_at("normal", key, place, dtype).reshape(-1, num_answers)
        return draws / jnp.sqrt(jnp.asarray(num_answers, dtype))

    def example(
        self,
        machine: Machine,
        graph: GraphArrays,
        state: StreamState,
        x: Array,
        target: Array,
        taught: Array | None = None,
    ) -> tuple[StreamState, Array]:
        """Run the K ticks of one example.

        Args:
            machine: the rule.
            graph: the graph.
            state: the state before.
            x: numbers for the inputs [I].
            target: a label int [], below 0 for none; or target numbers [O].
            taught: 1 where the target is told, 0 where it is not, []; None: it is told.

        Returns:
            The state after, and the answers [O].
        """
        # Memory after each tick is not kept: writing it takes longer than the tick.
        state, answer, _ = self._example(machine, graph, state, x, target, taught, None, _nothing)
        return state, answer

    def recorded(
        self,
        machine: Machine,
        graph: GraphArrays,
        state: StreamState,
        x: Array,
        target: Array,
        taught: Array | None = None,
        noise: tuple[Array, Array] | None = None,
    ) -> tuple[StreamState, Array, Record]:
        """Run the K ticks of one example, and tell what happened in each; see `example`.

        Args:
            machine: the rule.
            graph: the graph.
            state: the state before.
            x: numbers for the inputs [I].
            target: as `example` takes it.
            taught: as `example` takes it.
            noise: node_noise [K, N] and edge_noise [K, H] to be used; None: they are drawn.
        """
        return self._example(machine, graph, state, x, target, taught, noise, Record)

    def _example(
        self,
        machine: Machine,
        graph: GraphArrays,
        state: StreamState,
        x: Array,
        target: Array,
        taught: Array | None,
        noise: tuple[Array, Array] | None,
        keep: Callable[[Array, Ports], Kept],
    ) -> tuple[StreamState, Array, Kept]:
        """Run the K ticks of one example; see `recorded`. What `keep` makes of each tick gets an axis K."""
        settings = self.settings
        memory = self.reset(machine, state)
        nothing = Teaching.nothing(graph, memory.dtype)
        early = jnp.arange(settings.read_tick + 1)
        before = machine.out(graph, memory)
        memory, outs, first = self._run(machine, graph, state, memory, early, x, nothing, noise, keep)
        answer = self.read(graph, before, outs)
        teaching = self.teaching(graph, state, answer, target, taught)
        late = jnp.arange(settings.read_tick + 1, settings.ticks)
        memory, _, second = self._run(machine, graph, state, memory, late, x, teaching, noise, keep)
        kept = jax.tree.map(lambda *parts: jnp.concatenate(parts), first, second)
        after = replace(state, memory=memory, pending=teaching, tick=state.tick + settings.ticks)
        return after, answer, kept

    def answer(
        self,
        machine: Machine,
        graph: GraphArrays,
        state: StreamState,
        x: Array,
    ) -> Array:
        """Return what `example` would answer to x [I], [O]; nothing is kept."""
        memory = self.reset(machine, state)
        nothing = Teaching.nothing(graph, memory.dtype)
        early = jnp.arange(self.settings.read_tick + 1)
        before = machine.out(graph, memory)
        _, outs, _ = self._run(machine, graph, state, memory, early, x, nothing, None, _nothing)
        return self.read(graph, before, outs)

    def reset(
        self,
        machine: Machine,
        state: StreamState,
    ) -> Array:
        """Return the memory [S, H] with which an example begins."""
        if self.settings.reset == "signals":
            return machine.without_signals(state.memory)
        if self.settings.reset == "all":
            assert state.start is not None
            return state.start
        return state.memory

    def ports(
        self,
        machine: Machine,
        graph: GraphArrays,
        state: StreamState,
        number: Array,
        x: Array,
        teaching: Teaching,
    ) -> Ports:
        """Return what stands on the ports in a tick of an example.

        Args:
            machine: the rule; it says which noise is read.
            graph: the graph.
            state: the state before the example.
            number: of the tick in its example, int [].
            x: numbers for the inputs [I].
            teaching: of this example, all 0 as long as it is not known.
        """
        settings = self.settings
        dtype = state.memory.dtype
        zeros = jnp.zeros(graph.num_nodes, dtype)
        has_input = number < settings.x_ticks
        given = jnp.where(has_input, x.astype(dtype), 0)
        input_x = zeros.at[graph.inputs].set(given)
        input_on = zeros.at[graph.inputs].set(has_input.astype(dtype))
        # Teaching of the example before counts its ticks on: its tick K is tick 0 of this one.
        told_before = state.pending.where(self._stands(number + settings.ticks))
        told_now = teaching.where(self._stands(number))
        key = jax.random.fold_in(state.key, state.tick + number)
        node_noise, edge_noise = machine.noise(graph, key, dtype)
        return Ports(
            x=input_x + told_before.x + told_now.x,
            x_on=jnp.maximum(input_on, jnp.maximum(told_before.x_on, told_now.x_on)),
            t=told_before.t + told_now.t,
            t_on=jnp.maximum(told_before.t_on, told_now.t_on),
            node_noise=node_noise,
            edge_noise=edge_noise,
        )

    def _stands(self, number: Array) -> Array:
        """Return whether teaching stands in a tick counted from the beginning of its own example."""
        is_begun = number >= self.settings.first_teach_tick
        return is_begun & (number < self.settings.end_of_teaching)

    def tick(
        self,
        machine: Machine,
        graph: GraphArrays,
        state: StreamState,
        memory: Array,
        number: Array,
        x: Array,
        teaching: Teaching,
        noise: tuple[Array, Array] | None = None,
    ) -> tuple[Array, Ports]:
        """Run one tick of an example; see `ports`.

        Args:
            machine: the rule.
            graph: the graph.
            state: the state before the example.
            memory: before this tick, [S, H].
            number: of the tick in its example.
            x: numbers for the inputs [I].
            teaching: of this example.
            noise: of all its ticks, or None to draw it.

        Returns:
            The memory after the tick, and what stood on the ports.
        """
        ports = self.ports(machine, graph, state, number, x, teaching)
        if noise is not None:
            ports = replace(ports, node_noise=noise[0][number], edge_noise=noise[1][number])
        return machine.tick(graph, memory, ports), ports

    def _run(
        self,
        machine: Machine,
        graph: GraphArrays,
        state: StreamState,
        memory: Array,
        numbers: Array,
        x: Array,
        teaching: Teaching,
        noise: tuple[Array, Array] | None,
        keep: Callable[[Array, Ports], Kept],
    ) -> tuple[Array, Array, Kept]:
        """Run ticks; return the memory after them, the slot that is read [ticks, N], and what is kept."""

        def step(
            memory: Array,
            number: Array,
        ) -> tuple[Array, tuple[Array, Kept]]:
            memory, ports = self.tick(machine, graph, state, memory, number, x, teaching, noise)
            return memory, (machine.out(graph, memory), keep(memory, ports))

        memory, (outs, kept) = jax.lax.scan(step, memory, numbers)
        return memory, outs, kept

    def read(
        self,
        graph: GraphArrays,
        before: Array,
        outs: Array,
    ) -> Array:
        """Return the answers [O].

        Args:
            graph: the graph.
            before: the slot that is read as it was when the example began, [N].
            outs: the same after each of the ticks 0 to R, [R + 1, N].
        """
        outputs = outs[:, graph.outputs]
        if self.settings.read == "tick":
            return outputs[-1]
        if self.settings.read == "mean":
            return outputs[-self.settings.read_mean :].mean(0)
        ready = outputs[:, -1]
        last = jnp.concatenate([before[graph.outputs[-1:]], ready[:-1]])
        rises = (ready > READY_THRESHOLD) & (last <= READY_THRESHOLD)
        chosen = jnp.where(rises.any(), rises.argmax(), self.settings.read_tick)
        return outputs[chosen, :-1]

    def teaching(
        self,
        graph: GraphArrays,
        state: StreamState,
        answer: Array,
        target: Array,
        taught: Array | None = None,
    ) -> Teaching:
        """Return what is told of an answer [O]; nothing if there is no target, or it is not taught."""
        settings = self.settings
        dtype = answer.dtype
        nothing = Teaching.nothing(graph, dtype)
        if settings.teach == "none":
            return nothing
        goal, error, reward = self._judge(answer, target)
        answering = graph.outputs[: answer.shape[0]]
        zeros, ones = nothing.t, jnp.ones_like(nothing.t)
        told = {"target": goal, "target_as_input": goal}.get(settings.teach, error)
        numbers = zeros.at[answering].set(told)
        switches = zeros.at[answering].set(1)
        if settings.teach == "broadcast_error":
            assert state.feedback is not None
            numbers = (state.feedback @ error).at[answering].set(error)
            switches = ones
        if settings.teach == "reward":
            numbers = ones * reward
            switches = ones
        if settings.announce:
            switches = ones
        told_anything = Teaching(zeros, zeros, numbers, switches)
        if settings.teach == "target_as_input":
            told_anything = Teaching(numbers, switches, zeros, zeros)
        is_taught = jnp.array(True) if taught is None else taught > 0
        if settings.loss == "classes":
            is_taught &= target >= 0
        return told_anything.where(is_taught)

    def _judge(
        self,
        answer: Array,
        target: Array,
    ) -> tuple[Array, Array, Array]:
        """Return the target [O], the derivative of the loss [O] and the reward [] of an answer [O]."""
        if self.settings.loss == "regression":
            goal = target.astype(answer.dtype)
            return goal, answer - goal, -loss(Values(answer.shape[0]), answer, goal)
        label = jnp.maximum(target, 0)
        goal = jax.nn.one_hot(label, answer.shape[0], dtype=answer.dtype)
        error = jax.nn.softmax(answer) - goal
        if self.settings.reward == "correct":
            return goal, error, (answer.argmax() == label).astype(answer.dtype)
        return goal, error, -loss(Classes(answer.shape[0]), answer, label)


def _nothing(
    memory: Array,
    ports: Ports,
) -> None:
    """Keep nothing of a tick."""

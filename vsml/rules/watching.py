"""Streams of examples with all that happened in them: answers alone, or every tick."""

import functools
from dataclasses import dataclass

import jax
import numpy as np

from vsml.graphs.arrays import GraphArrays, to_arrays
from vsml.graphs.graph import Graph
from vsml.rules.compiled import CompiledRule, compile_rule
from vsml.rules.harness import Harness, StreamState
from vsml.rules.memory import slots_of
from vsml.rules.rule import PORTS, Rule
from vsml.rules.settings import Settings
from vsml.types import Array

Numbers = dict[str, np.ndarray]
"""Numbers by name: [N] of what nodes have, [H] of what half-edges have."""


@dataclass(frozen=True)
class Tick:
    """What happened in a tick. Letters: N nodes, H half-edges.

    Attributes:
        example: place of its example in the stream, from 0.
        number: of the tick in its example, from 0.
        ports: what stood on each port, by its name.
        before: what each slot held before, by its name.
        after: what each slot holds after.
        fires: where each slot was stored to, bool, by its name; see `CompiledRule.fires`.
    """

    example: int
    number: int
    ports: Numbers
    before: Numbers
    after: Numbers
    fires: Numbers

    def changed(self, slot: str) -> np.ndarray:
        """Return where a slot holds another number than before, bool [N] or [H]."""
        return self.before[slot] != self.after[slot]


@dataclass(frozen=True)
class Example:
    """An example of a stream.

    Attributes:
        place: in the stream, from 0.
        x: numbers of the inputs [I].
        target: numbers that are right [O].
        answer: numbers that were answered [O].
    """

    place: int
    x: np.ndarray
    target: np.ndarray
    answer: np.ndarray


@dataclass(frozen=True)
class Watched:
    """A rule that was watched on a graph.

    Attributes:
        rule: the rule.
        graph: the graph.
        settings: timing and teaching.
        examples: those that were watched.
        ticks: all their ticks, in order.
    """

    rule: Rule
    graph: Graph
    settings: Settings
    examples: tuple[Example, ...]
    ticks: tuple[Tick, ...]


@functools.partial(jax.jit, static_argnums=0)
def run_stream(
    harness: Harness,
    machine: CompiledRule,
    graph: GraphArrays,
    state: StreamState,
    x: Array,
    targets: Array,
) -> tuple[StreamState, Array]:
    """Run examples one after the other; return the state after them and the answers [T, O].

    Args:
        harness: what shows the examples.
        machine: the rule.
        graph: the graph.
        state: the state before.
        x: numbers of the inputs [T, I].
        targets: numbers that are right [T, O].
    """

    def step(
        state: StreamState,
        shown: tuple[Array, Array],
    ) -> tuple[StreamState, Array]:
        return harness.example(machine, graph, state, *shown)

    return jax.lax.scan(step, state, (x, targets))


def learn(
    rule: Rule,
    graph: Graph,
    settings: Settings,
    x: Array,
    targets: Array,
    keys: Array,
) -> np.ndarray:
    """Return the answers of several fresh starts, [starts, T, O].

    Args:
        rule: the rule.
        graph: the graph, the same for all starts.
        settings: timing and teaching; `loss` is `regression`.
        x: numbers of the inputs [starts, T, I].
        targets: numbers that are right [starts, T, O].
        keys: of what each start draws, [starts].
    """
    machine, arrays, harness = compile_rule(rule), to_arrays(graph), Harness(settings)

    def one_start(
        key: Array,
        x: Array,
        targets: Array,
    ) -> Array:
        state = harness.begin(machine, arrays, key)
        _, answers = run_stream(harness, machine, arrays, state, x, targets)
        return answers

    return np.asarray(jax.jit(jax.vmap(one_start))(keys, x, targets))


def watch(
    rule: Rule,
    graph: Graph,
    settings: Settings,
    x: Array,
    targets: Array,
    key: Array,
    skip: int = 0,
) -> Watched:
    """Run examples, and return what happened in every tick.

    Args:
        rule: the rule.
        graph: the graph.
        settings: timing and teaching; `loss` is `regression`.
        x: numbers of the inputs [T, I].
        targets: numbers that are right [T, O].
        key: of what is drawn.
        skip: how many examples are run before the first one that is watched.
    """
    machine, arrays, harness = compile_rule(rule), to_arrays(graph), Harness(settings)
    state = harness.begin(machine, arrays, key)
    if skip:
        state, _ = run_stream(harness, machine, arrays, state, x[:skip], targets[:skip])
    recorded = jax.jit(harness.recorded)
    fires = jax.jit(jax.vmap(machine.fires, (None, 0, 0)))
    examples: list[Example] = []
    ticks: list[Tick] = []
    for place in range(skip, len(x)):
        first = harness.reset(machine, state)
        state, answer, record = recorded(machine, arrays, state, x[place], targets[place])
        memories = np.concatenate([np.asarray(first)[None], np.asarray(record.memory)])
        fired = jax.device_get(fires(arrays, memories[:-1], record.ports))
        ports = {name: np.asarray(getattr(record.ports, name)) for name in PORTS}
        held = [_held(rule, arrays, memory) for memory in memories]
        examples.append(Example(place, np.asarray(x[place]), np.asarray(targets[place]), np.asarray(answer)))
        for number in range(settings.ticks):
            ticks.append(
                Tick(
                    example=place,
                    number=number,
                    ports=_at(ports, number),
                    before=held[number],
                    after=held[number + 1],
                    fires=_at(fired, number),
                )
            )
    return Watched(rule, graph, settings, tuple(examples), tuple(ticks))


def _held(
    rule: Rule,
    graph: GraphArrays,
    memory: np.ndarray,
) -> Numbers:
    """Return what each slot holds, by its name."""
    slots = slots_of(rule, graph, jax.numpy.asarray(memory))
    return {name: np.asarray(values) for name, values in slots.items()}


def _at(
    numbers: Numbers,
    tick: int,
) -> Numbers:
    """Return what numbers with a leading axis of ticks are in one."""
    return {name: values[tick] for name, values in numbers.items()}

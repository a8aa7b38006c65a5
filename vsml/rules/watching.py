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


class Watcher:
    """Runs the examples of a stream one after the other, those that are watched with all that happens.

    Args:
        rule: the rule.
        graph: the graph.
        settings: timing and teaching; `loss` is `regression`.
        key: of what is drawn.

    Attributes:
        state: after the examples so far.
        place: how many there were.
    """

    def __init__(
        self,
        rule: Rule,
        graph: Graph,
        settings: Settings,
        key: Array,
    ) -> None:
        self.rule, self.graph, self.settings, self.key = rule, graph, settings, key
        self._machine, self._arrays = compile_rule(rule), to_arrays(graph)
        self._harness = Harness(settings)
        self._recorded = jax.jit(self._harness.recorded)
        self._fires = jax.jit(jax.vmap(self._machine.fires, (None, 0, 0)))
        self.restart()

    def restart(self) -> None:
        """Go back to before the first example."""
        self.state = self._harness.begin(self._machine, self._arrays, self.key)
        self.place = 0

    def skip(
        self,
        x: Array,
        targets: Array,
    ) -> np.ndarray:
        """Run examples without a look at their ticks, and return the answers [T, O].

        Args:
            x: numbers of the inputs [T, I]; each T is compiled anew.
            targets: numbers that are right [T, O].
        """
        self.state, answers = run_stream(self._harness, self._machine, self._arrays, self.state, x, targets)
        self.place += len(x)
        return np.asarray(answers)

    def example(
        self,
        x: Array,
        target: Array,
    ) -> tuple[Example, list[Tick]]:
        """Run an example, and return it with all its ticks.

        Args:
            x: numbers of the inputs [I].
            target: numbers that are right [O].
        """
        first = self._harness.reset(self._machine, self.state)
        self.state, answer, record = self._recorded(self._machine, self._arrays, self.state, x, target)
        memories = np.concatenate([np.asarray(first)[None], np.asarray(record.memory)])
        fired = jax.device_get(self._fires(self._arrays, memories[:-1], record.ports))
        ports = {name: np.asarray(getattr(record.ports, name)) for name in PORTS}
        held = [_held(self.rule, self._arrays, memory) for memory in memories]
        ticks: list[Tick] = []
        for number in range(self.settings.ticks):
            ticks.append(
                Tick(
                    example=self.place,
                    number=number,
                    ports=_at(ports, number),
                    before=held[number],
                    after=held[number + 1],
                    fires=_at(fired, number),
                )
            )
        found = Example(self.place, np.asarray(x), np.asarray(target), np.asarray(answer))
        self.place += 1
        return found, ticks


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
    watcher = Watcher(rule, graph, settings, key)
    if skip:
        watcher.skip(x[:skip], targets[:skip])
    examples: list[Example] = []
    ticks: list[Tick] = []
    for place in range(skip, len(x)):
        example, its_ticks = watcher.example(x[place], targets[place])
        examples.append(example)
        ticks += its_ticks
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

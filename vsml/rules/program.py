"""Rules as data: one format of arrays for all rules, and the interpreter that runs it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from vsml.graphs.arrays import GraphArrays, round_up
from vsml.rules.canonical import instruction_array
from vsml.rules.machine import (
    NUM_KINDS,
    TICK_OPERATORS,
    Index,
    Ports,
    apply,
    begin,
    draw,
    edge_noise,
    graph_registers,
    node_noise,
    passing,
    port_registers,
    store,
)
from vsml.rules.operators import OPERATORS, repair
from vsml.rules.rule import (
    FIRST_CONSTANT,
    FIRST_INSTRUCTION,
    FIRST_PORT,
    GRAPH_VALUES,
    MAX_CONSTANTS,
    MAX_INITIAL_OPERATORS,
    MAX_OPERATORS,
    MAX_SLOTS,
    NODE,
    PORTS,
    Instruction,
    Rule,
    draw_streams,
)
from vsml.types import Array

NUM_GIVEN = len(PORTS) + len(GRAPH_VALUES)


@dataclass(frozen=True)
class Capacity:
    """How much a program has room for. Rules of one capacity share a compiled function.

    Attributes:
        slots: room for slots.
        constants: room for constants.
        initial: room for instructions of initialisations.
        tick: room for instructions of a tick.
    """

    slots: int = MAX_SLOTS
    constants: int = MAX_CONSTANTS
    initial: int = MAX_INITIAL_OPERATORS
    tick: int = MAX_OPERATORS

    @staticmethod
    def of(rules: Sequence[Rule]) -> "Capacity":
        """Return a capacity, in coarse steps, that some rules fit into."""
        return Capacity(
            slots=round_up(max(len(rule.slots) for rule in rules)),
            constants=round_up(max(1, *(len(rule.constants) for rule in rules))),
            initial=round_up(max(1, *(len(rule.initial) for rule in rules))),
            tick=round_up(max(1, *(len(rule.tick) for rule in rules))),
        )

    @property
    def first_constant(self) -> int:
        """The register of the first constant; slots, ports and graph values are before it."""
        return self.slots + NUM_GIVEN

    @property
    def first_instruction(self) -> int:
        """The register of the first instruction."""
        return self.first_constant + self.constants

    def register(self, register: int) -> int:
        """Return where a register of a `Rule` is in a program of this capacity."""
        if register < FIRST_PORT:
            return register
        if register < FIRST_CONSTANT:
            return register - FIRST_PORT + self.slots
        if register < FIRST_INSTRUCTION:
            return register - FIRST_CONSTANT + self.first_constant
        return register - FIRST_INSTRUCTION + self.first_instruction

    def check_holds(self, rule: Rule) -> None:
        """Refuse a rule that is larger.

        Raises:
            ValueError: it is, and in what.
        """
        for name, size, room in (
            ("slots", len(rule.slots), self.slots),
            ("constants", len(rule.constants), self.constants),
            ("initial", len(rule.initial), self.initial),
            ("tick", len(rule.tick), self.tick),
        ):
            if size > room:
                raise ValueError(f"capacity: got a rule of {size} {name}, expected at most {room}")


FULL = Capacity()
"""Room for every rule."""


@struct.dataclass
class Program:
    """A rule as arrays: a `Machine` whose instructions are data, so that another rule compiles nothing.

    Map over constants, seeds and graphs with `jax.vmap`, and over rules with `jax.lax.map`: then each
    instruction is one branch. `vmap` over rules works, and computes every operator for every instruction.
    The trip counts are data, so that only forward-mode derivatives exist: `compile_rule` has both.

    Attributes:
        constants: float [C].
        slots: kind, stream of draws, initialisation, value and guard of each slot, int16 [S, 5].
        initial: operator and operands of initialisations, int16 [I, 4]. Draws have as operands the stream,
            the number of the call, and 1 for a node slot.
        instructions: operator and operands of a tick, int16 [L, 4].
        sizes: how many slots, initialisation and tick instructions there are, int32 [3].
        out_slot: number of the slot that is read, int32 [].
        reads_noise: whether a tick reads node_noise and edge_noise, bool [2].
    """

    constants: Array
    slots: Array
    initial_instructions: Array
    instructions: Array
    sizes: Array
    out_slot: Array
    reads_noise: Array

    @property
    def first_constant(self) -> int:
        """The register of the first constant."""
        return self.slots.shape[0] + NUM_GIVEN

    @property
    def first_instruction(self) -> int:
        """The register of the first instruction."""
        return self.first_constant + self.constants.shape[0]

    def initial(
        self,
        graph: GraphArrays,
        key: Array,
        dtype: jnp.dtype,
    ) -> Array:
        """Return the memory before the first tick; see `Machine.initial`."""
        half_edges = graph.num_half_edges
        nothing = jnp.zeros((self.slots.shape[0], half_edges), dtype)
        ports = jnp.zeros((len(PORTS), half_edges), dtype)
        registers = self._registers(graph, nothing, ports, len(self.initial_instructions))
        tick_branches = [_branch(operator, graph) for operator in TICK_OPERATORS]
        draw_branches = [
            partial(_draw_branch, operator, graph, key) for operator in OPERATORS[len(TICK_OPERATORS) :]
        ]
        registers = self._run(
            registers, self.initial_instructions, self.sizes[1], [*tick_branches, *draw_branches]
        )
        begins = [partial(begin, kind, graph) for kind in range(NUM_KINDS)]

        def begin_slot(
            number: Array,
            memory: Array,
        ) -> Array:
            kind, _, register, _, _ = self.slots[number].astype(jnp.int32)
            value = jax.lax.switch(kind, begins, registers[jnp.maximum(register, 0)])
            return memory.at[number].set(jnp.where(register >= 0, value, 0))

        return jax.lax.fori_loop(0, self.sizes[0], begin_slot, nothing)

    def tick(
        self,
        graph: GraphArrays,
        memory: Array,
        ports: Ports,
    ) -> Array:
        """Return the memory after a tick; see `Machine.tick`."""
        memory = repair(memory)
        at_half_edges = port_registers(graph, ports, memory.dtype)
        registers = self._registers(graph, memory, at_half_edges, len(self.instructions))
        branches = [_branch(operator, graph) for operator in TICK_OPERATORS]
        registers = self._run(registers, self.instructions, self.sizes[2], branches)
        stores = [partial(store, kind, graph) for kind in range(NUM_KINDS)]

        def store_slot(
            number: Array,
            new: Array,
        ) -> Array:
            kind, _, _, value, guard = self.slots[number].astype(jnp.int32)
            # Without a store nothing passes, and the old number stays.
            passes = passing(lambda register: registers[register], guard) & (value >= 0)
            proposal = registers[jnp.maximum(value, 0)]
            return new.at[number].set(jax.lax.switch(kind, stores, memory[number], proposal, passes))

        return jax.lax.fori_loop(0, self.sizes[0], store_slot, memory)

    def out(
        self,
        graph: GraphArrays,
        memory: Array,
    ) -> Array:
        """Return the slot that is read, [N]."""
        return graph.to_nodes(memory[self.out_slot])

    def without_signals(self, memory: Array) -> Array:
        """Return the memory with 0 in the slots that have no initialisation."""
        has_initial = self.slots[:, 2] >= 0
        return jnp.where(has_initial[:, None], memory, 0)

    def noise(
        self,
        graph: GraphArrays,
        key: Array,
        dtype: jnp.dtype,
    ) -> tuple[Array, Array]:
        """Return draws for the ports of a tick; see `Machine.noise`."""
        nodes = jnp.zeros(graph.num_nodes, dtype)
        edges = jnp.zeros(graph.num_half_edges, dtype)
        on_nodes = jax.lax.cond(self.reads_noise[0], lambda: node_noise(graph, key, dtype), lambda: nodes)
        on_edges = jax.lax.cond(self.reads_noise[1], lambda: edge_noise(graph, key, dtype), lambda: edges)
        return on_nodes, on_edges

    def _registers(
        self,
        graph: GraphArrays,
        memory: Array,
        ports: Array,
        length: int,
    ) -> Array:
        """Return all registers [R, H], those of instructions still 0."""
        dtype = memory.dtype
        half_edges = graph.num_half_edges
        constants = repair(self.constants.astype(dtype))
        return jnp.concatenate(
            [
                memory,
                ports,
                graph_registers(graph, dtype),
                jnp.broadcast_to(constants[:, None], (len(constants), half_edges)),
                jnp.zeros((length, half_edges), dtype),
            ]
        )

    def _run(
        self,
        registers: Array,
        program: Array,
        length: Array,
        branches: list,
    ) -> Array:
        """Return the registers with the results of a program's instructions."""

        def step(
            number: Array,
            registers: Array,
        ) -> Array:
            operator, a, b, c = program[number].astype(jnp.int32)
            result = jax.lax.switch(operator, branches, registers, a, b, c)
            return registers.at[self.first_instruction + number].set(result)

        return jax.lax.fori_loop(0, length, step, registers)


def _branch(operator, graph: GraphArrays):  # type: ignore[no-untyped-def]  # a branch of `lax.switch`
    def run(
        registers: Array,
        a: Index,
        b: Index,
        c: Index,
    ) -> Array:
        return apply(operator, graph, lambda register: registers[register], (a, b, c))

    return run


def _draw_branch(  # type: ignore[no-untyped-def]  # a branch of `lax.switch`
    operator,
    graph: GraphArrays,
    key: Array,
    registers: Array,
    stream: Array,
    call: Array,
    is_node: Array,
) -> Array:
    return draw(operator, graph, key, stream, call, is_node, registers.dtype)


def initial_program(rule: Rule) -> tuple[Instruction, ...]:
    """Return the instructions of initialisations, draws with the operands that `Program.initial` has."""
    streams = draw_streams(rule)
    program = list(rule.initial)
    for number, slot in enumerate(rule.slots):
        is_node = int(slot.kind == NODE)
        for call, place in enumerate(_draws_below(rule, slot.initial)):
            operands = (streams[number], call, is_node)
            program[place] = Instruction(program[place].operator, operands)
    return tuple(program)


def _draws_below(
    rule: Rule,
    register: int,
) -> list[int]:
    """Return the places of the draws that an initialisation uses, in their order."""
    places: list[int] = []
    pending = [register]
    while pending:
        place = pending.pop() - FIRST_INSTRUCTION
        if place < 0:
            continue
        instruction = rule.initial[place]
        if OPERATORS[instruction.operator].family == "draw":
            places.append(place)
        pending += instruction.operands
    return sorted(places)


def pack(
    rule: Rule,
    capacity: Capacity = FULL,
) -> Program:
    """Return a rule as data.

    Args:
        rule: the rule.
        capacity: the room of the arrays; results do not depend on it.

    Raises:
        ValueError: the rule has no room in it.
    """
    arrays = _host_arrays(rule, capacity)
    return Program(**{name: jnp.asarray(array) for name, array in arrays.items()})


def pack_all(
    rules: Sequence[Rule],
    capacity: Capacity | None = None,
) -> Program:
    """Return rules as data with a leading axis, for `jax.lax.map`.

    Args:
        rules: at least one.
        capacity: the room of the arrays; by default the smallest step that all fit into.

    Raises:
        ValueError: a rule has no room in it.
    """
    capacity = Capacity.of(rules) if capacity is None else capacity
    hosts = [_host_arrays(rule, capacity) for rule in rules]
    stacked = {name: np.stack([host[name] for host in hosts]) for name in hosts[0]}
    return Program(**{name: jnp.asarray(array) for name, array in stacked.items()})


def _host_arrays(
    rule: Rule,
    capacity: Capacity,
) -> dict[str, np.ndarray]:
    """Return the fields of a `Program` as arrays of numpy."""
    capacity.check_holds(rule)
    streams = draw_streams(rule)
    slots = np.full((capacity.slots, 5), -1, np.int16)
    for number, slot in enumerate(rule.slots):
        registers = [capacity.register(old) for old in (slot.initial, slot.value, slot.guard)]
        slots[number] = (slot.kind, streams[number], *registers)
    constants = np.zeros(capacity.constants)
    constants[: len(rule.constants)] = [constant.value for constant in rule.constants]
    sizes = [len(rule.slots), len(rule.initial), len(rule.tick)]
    return {
        "constants": constants,
        "slots": slots,
        "initial_instructions": _instructions(initial_program(rule), capacity, capacity.initial),
        "instructions": _instructions(rule.tick, capacity, capacity.tick),
        "sizes": np.array(sizes, np.int32),
        "out_slot": np.array(rule.out, np.int32),
        "reads_noise": np.array([rule.uses("node_noise"), rule.uses("edge_noise")]),
    }


def _instructions(
    program: Sequence[Instruction],
    capacity: Capacity,
    room: int,
) -> np.ndarray:
    """Return instructions as int16 [room, 4], their registers where they are in a capacity."""
    moved: list[Instruction] = []
    for entry in program:
        is_draw = OPERATORS[entry.operator].family == "draw"
        operands = entry.operands if is_draw else tuple(map(capacity.register, entry.operands))
        moved.append(Instruction(entry.operator, operands))
    array = np.full((room, 4), -1, np.int16)
    array[: len(moved)] = instruction_array(tuple(moved))
    return array

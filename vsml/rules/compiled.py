"""One rule compiled by itself: for long runs, and for gradients."""

from dataclasses import dataclass, field

import jax.numpy as jnp
import numpy as np
from flax import struct

from vsml.graphs.arrays import GraphArrays
from vsml.rules.machine import (
    Ports,
    begin,
    draw,
    edge_noise,
    graph_registers,
    node_noise,
    reduce,
    store,
)
from vsml.rules.operators import OPERATORS, Operator, repair
from vsml.rules.program import initial_program
from vsml.rules.rule import (
    EDGE_TYPE,
    FIRST_CONSTANT,
    FIRST_GRAPH_VALUE,
    FIRST_INSTRUCTION,
    FIRST_PORT,
    FLOAT_TYPE,
    GRAPH_VALUES,
    NAMED_TYPES,
    NO_REGISTER,
    NODE,
    NODE_TYPE,
    PORTS,
    Instruction,
    Rule,
    Slot,
)
from vsml.types import Array


@dataclass(frozen=True)
class Typed:
    """A value of a tick.

    Attributes:
        type: float, node or edge.
        array: [], [N] or [H].
    """

    type: int
    array: Array


@dataclass
class Registers:
    """The values of a rule's registers, each as small as its type allows.

    Attributes:
        graph: the graph.
        values: by register.
    """

    graph: GraphArrays
    values: dict[int, Typed] = field(default_factory=dict)

    def at(
        self,
        register: int,
        wanted: int,
    ) -> Array:
        """Return the value of a register as one of a type that is as high or higher."""
        value = self.values[register]
        if value.type == wanted:
            return value.array
        if value.type == NODE_TYPE:
            return self.graph.to_half_edges(value.array)
        size = self.graph.num_nodes if wanted == NODE_TYPE else self.graph.num_half_edges
        return jnp.broadcast_to(value.array, (size,))

    def run(
        self,
        place: int,
        instruction: Instruction,
    ) -> None:
        """Compute the result of an instruction that is no draw."""
        operator = OPERATORS[instruction.operator]
        operands = instruction.operands
        if operator.family == "elementwise":
            result = self._elementwise(operator, operands)
        elif operator.family == "rev":
            result = Typed(EDGE_TYPE, self.graph.rev(self.at(operands[0], EDGE_TYPE)))
        else:
            result = self._reduced(operator, operands)
        self.values[FIRST_INSTRUCTION + place] = result

    def _elementwise(
        self,
        operator: Operator,
        operands: tuple[int, ...],
    ) -> Typed:
        highest = max(self.values[register].type for register in operands)
        assert operator.compute is not None
        arrays = [self.at(register, highest) for register in operands]
        return Typed(highest, repair(operator.compute(*arrays)))

    def _reduced(
        self,
        operator: Operator,
        operands: tuple[int, ...],
    ) -> Typed:
        value = self.at(operands[0], EDGE_TYPE)
        filters = operands if operator.family == "count" else operands[1:]
        passes = self.at(filters[0], EDGE_TYPE) > 0 if filters else jnp.array(True)
        return Typed(NODE_TYPE, reduce(operator, self.graph, value, passes))


@struct.dataclass
class CompiledRule:
    """A rule whose instructions are unrolled into the compiled function: a `Machine`.

    It computes what `Program` does; values of nodes are computed once a node, and not at every half-edge. It
    can be differentiated in reverse mode with respect to constants, memory and ports: through values, while
    comparisons, guards and filters have derivative 0.

    Attributes:
        constants: float [C].
        rule: the rule; another one is compiled anew.
    """

    constants: Array
    rule: Rule = struct.field(pytree_node=False)

    def initial(
        self,
        graph: GraphArrays,
        key: Array,
        dtype: jnp.dtype,
    ) -> Array:
        """Return the memory before the first tick; see `Machine.initial`."""
        registers = self._registers(graph, dtype)
        for number, entry in enumerate(initial_program(self.rule)):
            operator = OPERATORS[entry.operator]
            if operator.family != "draw":
                registers.run(number, entry)
                continue
            stream, call, is_node = entry.operands
            drawn = draw(operator, graph, key, stream, call, is_node, dtype)
            value = Typed(NODE_TYPE, graph.to_nodes(drawn)) if is_node else Typed(EDGE_TYPE, drawn)
            registers.values[FIRST_INSTRUCTION + number] = value
        rows = [self._begin(slot, registers, dtype) for slot in self.rule.slots]
        return jnp.stack(rows)

    def _begin(
        self,
        slot: Slot,
        registers: Registers,
        dtype: jnp.dtype,
    ) -> Array:
        """Return what a slot holds before the first tick, [H]."""
        if slot.is_signal:
            return jnp.zeros(registers.graph.num_half_edges, dtype)
        return begin(slot.kind, registers.graph, registers.at(slot.initial, EDGE_TYPE))

    def tick(
        self,
        graph: GraphArrays,
        memory: Array,
        ports: Ports,
    ) -> Array:
        """Return the memory after a tick; see `Machine.tick`."""
        memory = repair(memory)
        registers = self._run_tick(graph, memory, ports)
        rows = [self._store(number, registers, memory[number]) for number in range(len(self.rule.slots))]
        return jnp.stack(rows)

    def fires(
        self,
        graph: GraphArrays,
        memory: Array,
        ports: Ports,
    ) -> dict[str, Array]:
        """Return where each slot is stored to in a tick: where its guard is true, or everywhere without one.

        Args:
            graph: the graph.
            memory: before the tick, [S, H].
            ports: what stands on them.

        Returns:
            By the slot's name, bool [N] of node slots and [H] of others; slots without a store are left out.
        """
        registers = self._run_tick(graph, repair(memory), ports)
        found: dict[str, Array] = {}
        for slot in self.rule.slots:
            if slot.value == NO_REGISTER:
                continue
            is_node = slot.kind == NODE
            size = graph.num_nodes if is_node else graph.num_half_edges
            passes = self._passes(slot, registers, NODE_TYPE if is_node else EDGE_TYPE)
            found[slot.name] = jnp.broadcast_to(passes, (size,))
        return found

    def _run_tick(
        self,
        graph: GraphArrays,
        memory: Array,
        ports: Ports,
    ) -> Registers:
        """Return all values of a tick, from the memory before it, repaired, [S, H]."""
        dtype = memory.dtype
        registers = self._registers(graph, dtype)
        for number, slot in enumerate(self.rule.slots):
            held = memory[number]
            value = Typed(NODE_TYPE, graph.to_nodes(held)) if slot.kind == NODE else Typed(EDGE_TYPE, held)
            registers.values[number] = value
        for number, name in enumerate(PORTS):
            port = repair(getattr(ports, name).astype(dtype))
            registers.values[FIRST_PORT + number] = Typed(NAMED_TYPES[name], port)
        for number, entry in enumerate(self.rule.tick):
            registers.run(number, entry)
        return registers

    def _passes(
        self,
        slot: Slot,
        registers: Registers,
        wanted: int,
    ) -> Array:
        """Return where the guard of a slot is true, bool of the type that is wanted; [] without a guard."""
        has_guard = slot.guard != NO_REGISTER
        return registers.at(slot.guard, wanted) > 0 if has_guard else jnp.array(True)

    def _store(
        self,
        number: int,
        registers: Registers,
        row: Array,
    ) -> Array:
        """Return what a slot holds after the tick, [H], from what it held before, [H]."""
        slot = self.rule.slots[number]
        graph = registers.graph
        if slot.value == NO_REGISTER:
            return row
        wanted = NODE_TYPE if slot.kind == NODE else EDGE_TYPE
        value = registers.at(slot.value, wanted)
        passes = self._passes(slot, registers, wanted)
        if slot.kind == NODE:
            old = registers.at(number, NODE_TYPE)
            return graph.to_half_edges(repair(jnp.where(passes, value, old)))
        return store(slot.kind, graph, row, value, passes)

    def out(
        self,
        graph: GraphArrays,
        memory: Array,
    ) -> Array:
        """Return the slot that is read, [N]."""
        return graph.to_nodes(memory[self.rule.out])

    def without_signals(self, memory: Array) -> Array:
        """Return the memory with 0 in the slots that have no initialisation."""
        has_initial = np.array([not slot.is_signal for slot in self.rule.slots])
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
        if self.rule.uses("node_noise"):
            nodes = node_noise(graph, key, dtype)
        if self.rule.uses("edge_noise"):
            edges = edge_noise(graph, key, dtype)
        return nodes, edges

    def _registers(
        self,
        graph: GraphArrays,
        dtype: jnp.dtype,
    ) -> Registers:
        """Return registers with the values of the graph and of constants."""
        registers = Registers(graph)
        for number, name in enumerate(GRAPH_VALUES):
            at_half_edges = graph_registers(graph, dtype)[number]
            is_node = NAMED_TYPES[name] == NODE_TYPE
            value = graph.degree.astype(dtype) if is_node else at_half_edges
            registers.values[FIRST_GRAPH_VALUE + number] = Typed(NAMED_TYPES[name], value)
        constants = repair(self.constants.astype(dtype))
        for number in range(len(self.rule.constants)):
            registers.values[FIRST_CONSTANT + number] = Typed(FLOAT_TYPE, constants[number])
        return registers


def compile_rule(rule: Rule) -> CompiledRule:
    """Return a rule as a machine that is compiled for it alone."""
    values = [constant.value for constant in rule.constants]
    return CompiledRule(jnp.asarray(np.array(values, float)), rule)

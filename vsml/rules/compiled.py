"""One rule compiled by itself: for long runs, and for gradients."""

import jax.numpy as jnp
import numpy as np
from flax import struct

from vsml.graphs.arrays import GraphArrays
from vsml.rules.machine import (
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
from vsml.rules.program import initial_program
from vsml.rules.rule import FIRST_CONSTANT, FIRST_GRAPH_VALUE, FIRST_INSTRUCTION, FIRST_PORT, PORTS, Rule
from vsml.types import Array


@struct.dataclass
class CompiledRule:
    """A rule whose instructions are unrolled into the compiled function: a `Machine`.

    It computes what `Program` does. It can be differentiated in reverse mode with respect to constants,
    memory and ports: through values, while comparisons, guards and filters have derivative 0.

    Attributes:
        constants: float [C].
        rule: the rule; another one is compiled anew.
    """

    constants: Array
    rule: Rule = struct.field(pytree_node=False)

    def initial(self, graph: GraphArrays, key: Array, dtype: jnp.dtype) -> Array:
        """Return the memory before the first tick; see `Machine.initial`."""
        nothing = jnp.zeros(graph.num_half_edges, dtype)
        ports = jnp.zeros((len(PORTS), graph.num_half_edges), dtype)
        registers = self._registers(graph, jnp.zeros((len(self.rule.slots), 1), dtype), ports)
        for number, entry in enumerate(initial_program(self.rule)):
            operator = OPERATORS[entry.operator]
            if operator.family == "draw":
                stream, call, is_node = entry.operands
                result = draw(operator, graph, key, stream, call, is_node, dtype)
            else:
                result = apply(operator, graph, registers.__getitem__, _three(entry.operands))
            registers[FIRST_INSTRUCTION + number] = result
        rows = [
            nothing if slot.is_signal else begin(slot.kind, graph, registers[slot.initial])
            for slot in self.rule.slots
        ]
        return jnp.stack(rows)

    def tick(self, graph: GraphArrays, memory: Array, ports: Ports) -> Array:
        """Return the memory after a tick; see `Machine.tick`."""
        memory = repair(memory)
        registers = self._registers(graph, memory, port_registers(graph, ports, memory.dtype))
        for number, entry in enumerate(self.rule.tick):
            operator = OPERATORS[entry.operator]
            result = apply(operator, graph, registers.__getitem__, _three(entry.operands))
            registers[FIRST_INSTRUCTION + number] = result
        rows: list[Array] = []
        for number, slot in enumerate(self.rule.slots):
            row = memory[number]
            if slot.value >= 0:
                passes = passing(registers.__getitem__, slot.guard)
                row = store(slot.kind, graph, row, registers[slot.value], passes)
            rows.append(row)
        return jnp.stack(rows)

    def out(self, graph: GraphArrays, memory: Array) -> Array:
        """Return the slot that is read, [N]."""
        return graph.to_nodes(memory[self.rule.out])

    def without_signals(self, memory: Array) -> Array:
        """Return the memory with 0 in the slots that have no initialisation."""
        has_initial = np.array([not slot.is_signal for slot in self.rule.slots])
        return jnp.where(has_initial[:, None], memory, 0)

    def noise(self, graph: GraphArrays, key: Array, dtype: jnp.dtype) -> tuple[Array, Array]:
        """Return draws for the ports of a tick; see `Machine.noise`."""
        nodes = jnp.zeros(graph.num_nodes, dtype)
        edges = jnp.zeros(graph.num_half_edges, dtype)
        if self.rule.uses("node_noise"):
            nodes = node_noise(graph, key, dtype)
        if self.rule.uses("edge_noise"):
            edges = edge_noise(graph, key, dtype)
        return nodes, edges

    def _registers(self, graph: GraphArrays, memory: Array, ports: Array) -> dict[int, Array]:
        """Return the values [H] of slots, ports, graph values and constants, by register."""
        dtype = memory.dtype
        registers = dict(enumerate(memory))
        registers |= {FIRST_PORT + number: port for number, port in enumerate(ports)}
        given = graph_registers(graph, dtype)
        registers |= {FIRST_GRAPH_VALUE + number: value for number, value in enumerate(given)}
        constants = repair(self.constants.astype(dtype))
        for number in range(len(self.rule.constants)):
            everywhere = jnp.broadcast_to(constants[number], (graph.num_half_edges,))
            registers[FIRST_CONSTANT + number] = everywhere
        return registers


def _three(operands: tuple[int, ...]) -> tuple[int, int, int]:
    """Return operands with -1 for those that are not there."""
    a, b, c = (*operands, -1, -1, -1)[:3]
    return a, b, c


def compile_rule(rule: Rule) -> CompiledRule:
    """Return a rule as a machine that is compiled for it alone."""
    values = [constant.value for constant in rule.constants]
    return CompiledRule(jnp.asarray(np.array(values, float)), rule)

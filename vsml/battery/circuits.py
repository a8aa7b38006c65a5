"""Random Boolean circuits, with or without state: one generator for sequences, transfer and composition."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import struct

from vsml.types import Array

_FUNCTIONS = (1, 2, 4, 6, 7, 8, 9, 11, 13, 14)
"""Truth tables of gates as numbers, bit a + 2 b: all functions of two bits that need both of them."""


@struct.dataclass
class Circuit:
    """Gates in a row, each of two wires before it. Letters: I inputs, S state bits, G gates, O outputs.

    Wires are the state, the inputs, then the gates. The last O gates are the outputs, the S before them the
    next state.

    Attributes:
        sources: the two wires of each gate, int32 [G, 2].
        functions: truth table of each gate, int32 [G]: bit a + 2 b is the answer to a and b.
        inputs: I.
        state: S; 0: the outputs follow from the inputs of the same step alone.
        outputs: O.
    """

    sources: Array
    functions: Array
    inputs: int = struct.field(pytree_node=False)
    state: int = struct.field(pytree_node=False)
    outputs: int = struct.field(pytree_node=False)

    def step(self, state: Array, bits: Array) -> tuple[Array, Array]:
        """Return the next state int32 [S] and the outputs int32 [O] of input bits int32 [I]."""
        gates = len(self.functions)
        known = len(state) + len(bits)
        wires = jnp.concatenate([state, bits, jnp.zeros(gates, jnp.int32)])

        def gate(wires: Array, each: tuple[Array, Array, Array]) -> tuple[Array, None]:
            number, sources, function = each
            a, b = wires[sources]
            return wires.at[known + number].set((function >> (a + 2 * b)) & 1), None

        rows = (jnp.arange(gates), self.sources, self.functions)
        wires, _ = jax.lax.scan(gate, wires, rows)
        first_output = len(wires) - self.outputs
        return wires[first_output - self.state : first_output], wires[first_output:]

    def run(self, bits: Array) -> Array:
        """Return the outputs int32 [T, O] of input bits int32 [T, I]; the state begins with zeros."""
        if self.state == 0:
            nothing = jnp.zeros(0, jnp.int32)
            return jax.vmap(lambda each: self.step(nothing, each)[1])(bits)
        start = jnp.zeros(self.state, jnp.int32)
        _, outputs = jax.lax.scan(self.step, start, bits)
        return outputs


def draw_circuit(
    key: Array,
    inputs: int,
    gates: int,
    outputs: int = 1,
    state: int = 0,
) -> Circuit:
    """Draw a circuit: each gate has two different wires before it, and a function that needs both.

    Args:
        key: for all that is drawn.
        inputs: I.
        gates: G, at least outputs + state.
        outputs: O.
        state: S.

    Raises:
        ValueError: there are too few wires or gates.
    """
    if gates < outputs + state or inputs + state < 2:
        raise ValueError(
            f"circuit: got {inputs} inputs, {state} state bits and {gates} gates, expected two wires and "
            f"{outputs + state} gates or more"
        )
    first_key, second_key, function_key = jax.random.split(key, 3)
    before = inputs + state + jnp.arange(gates)
    first = jax.random.randint(first_key, (gates,), 0, before)
    # Another wire than the first: one of those that are left, counted on from it.
    second = (first + 1 + jax.random.randint(second_key, (gates,), 0, before - 1)) % before
    functions = jax.random.choice(function_key, jnp.array(_FUNCTIONS), (gates,))
    return Circuit(jnp.stack([first, second], axis=1), functions, inputs, state, outputs)


def changed(
    key: Array,
    circuit: Circuit,
    gates: int,
) -> Circuit:
    """Return the circuit with other functions in some of its gates.

    Args:
        key: for all that is drawn.
        circuit: the circuit.
        gates: how many of its gates change.
    """
    which_key, function_key = jax.random.split(key)
    count = len(circuit.functions)
    chosen = jax.random.permutation(which_key, count) < gates
    # Another function than before: counted on in the list.
    table = jnp.array(_FUNCTIONS)
    place = jnp.argmax(table[None, :] == circuit.functions[:, None], axis=1)
    further = jax.random.randint(function_key, (count,), 1, len(_FUNCTIONS))
    others = table[(place + further) % len(_FUNCTIONS)]
    functions = jnp.where(chosen, others, circuit.functions)
    return dataclasses.replace(circuit, functions=functions)


def as_number(bits: Array) -> Array:
    """Return bits int32 [..., O] as a number int32 [...], the first bit the lowest."""
    weights = 2 ** jnp.arange(bits.shape[-1])
    return (bits * weights).sum(-1)


def as_inputs(bits: Array) -> Array:
    """Return bits as learners are shown them: -1 and 1, float32."""
    return 2.0 * bits - 1

"""Circuit states: the next symbol of a random circuit with state."""

import jax
import jax.numpy as jnp

from vsml.battery.circuits import as_inputs, as_number, draw_circuit
from vsml.battery.episodes import stream
from vsml.battery.learning_test import LearningTest, Task
from vsml.battery.measures import accuracy
from vsml.types import Array, Classes, Episode

STEPS = 800
SCORED_FROM = 600
INPUTS = 2
OUTPUTS = 2
GATES_MORE = 6


def task(state: int) -> Task:
    """Return the task of a circuit with so many bits of state.

    An input is the two bits that enter the circuit, and the symbol that it gave before; the label is the
    symbol that it gives now.
    """
    symbols = 2**OUTPUTS

    def draw(key: Array) -> Episode:
        circuit_key, bits_key = jax.random.split(key)
        circuit = draw_circuit(circuit_key, INPUTS, state + OUTPUTS + GATES_MORE, OUTPUTS, state)
        bits = jax.random.bernoulli(bits_key, 0.5, (STEPS, INPUTS)).astype(jnp.int32)
        symbol = as_number(circuit.run(bits))
        before = jnp.concatenate([jnp.zeros(1, jnp.int32), symbol[:-1]])
        x = jnp.concatenate([as_inputs(bits), jax.nn.one_hot(before, symbols)], axis=1)
        return stream(x, symbol, weight=jnp.arange(STEPS) >= SCORED_FROM)

    return Task((INPUTS + symbols,), Classes(symbols), STEPS, draw)


CIRCUIT_STATES = LearningTest(
    name="circuit_states",
    tags=("credit in time",),
    levels=(1, 2, 4),
    task=task,
    score=accuracy,
    about="the next symbol of a random circuit with n bits of state, after 600 steps",
)

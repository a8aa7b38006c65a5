"""Transfer: a circuit is learned, then one of which some gates are other ones."""

import jax
import jax.numpy as jnp
import numpy as np

from vsml.battery.circuits import as_inputs, as_number, changed, draw_circuit
from vsml.battery.episodes import stream
from vsml.battery.learning_test import LearningTest, Outcome, Task
from vsml.battery.measures import accuracy
from vsml.types import Array, Classes, Episode

INPUTS = 6
GATES = 12
OUTPUTS = 2
LESSON = 400
LATER = 100
"""Examples at the beginning of each circuit that are compared."""


def task(gates: int) -> Task:
    """Return the task: 400 examples of a circuit, then 100 of one of which so many gates have changed."""
    steps = LESSON + LATER

    def draw(key: Array) -> Episode:
        circuit_key, change_key, bits_key = jax.random.split(key, 3)
        first = draw_circuit(circuit_key, INPUTS, GATES, OUTPUTS)
        second = changed(change_key, first, gates)
        bits = jax.random.bernoulli(bits_key, 0.5, (steps, INPUTS)).astype(jnp.int32)
        symbols = [as_number(circuit.run(bits)) for circuit in (first, second)]
        y = jnp.where(jnp.arange(steps) < LESSON, symbols[0], symbols[1])
        return stream(as_inputs(bits), y)

    return Task((INPUTS,), Classes(2**OUTPUTS), steps, draw)


def score(outcome: Outcome) -> np.ndarray:
    """Return the accuracy on the second circuit times the share of errors saved against from scratch, [S].

    From scratch: the same number of examples at the beginning of the first circuit.
    """
    scratch = 1 - accuracy(outcome, 0, LATER)
    later = accuracy(outcome, LESSON, LESSON + LATER)
    saved = np.where(later == 1, 1.0, 1 - (1 - later) / np.maximum(scratch, 1e-9))
    return later * np.clip(saved, 0, 1)


TRANSFER = LearningTest(
    name="transfer",
    tags=("transfer",),
    levels=(1, 2, 4),
    task=task,
    score=score,
    about="errors saved on a circuit with n other gates by what was learned of the first one",
)

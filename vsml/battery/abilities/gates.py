"""Gates: the label is a logical function of two bits."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from vsml.battery.episodes import stream
from vsml.battery.learning_test import LearningTest, Task
from vsml.battery.measures import accuracy
from vsml.types import Array, Classes, Episode

STEPS = 200
SCORED_FROM = 100


def gate_task(truth: int | None) -> Task:
    """Return a task whose label is a gate of two bits, each -1 or 1.

    Args:
        truth: the gate's truth table as a number: bit `2 a + b` is its value for a and b; None: each episode
            draws one of the 16.
    """

    def draw(key: Array) -> Episode:
        bits_key, gate_key = jax.random.split(key)
        bits = jax.random.bernoulli(bits_key, 0.5, (STEPS, 2)).astype(jnp.int32)
        drawn = jax.random.randint(gate_key, (), 0, 16)
        table = drawn if truth is None else truth
        label = (table >> (2 * bits[:, 0] + bits[:, 1])) & 1
        return stream(2.0 * bits - 1, label, weight=jnp.arange(STEPS) >= SCORED_FROM)

    return Task((2,), Classes(2), STEPS, draw)


def _of_truth(truth: int | None) -> Callable[[int], Task]:
    def task(level: int) -> Task:
        del level
        return gate_task(truth)

    return task


def _gate(name: str, truth: int | None, about: str) -> LearningTest:
    return LearningTest(name, ("basic",), (1,), _of_truth(truth), accuracy, about)


AND = _gate("and", 0b1000, "AND of two bits, after 100 examples")
OR = _gate("or", 0b1110, "OR of two bits, after 100 examples")
XOR = _gate("xor", 0b0110, "XOR of two bits, after 100 examples; no linear function has it")
ALL_GATES = _gate("gates", None, "any of the 16 functions of two bits, after 100 examples")

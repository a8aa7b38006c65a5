"""Exercises of the search: small tasks on graphs, and how their examples are drawn."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from vsml.graphs import Graph
from vsml.tasks.data.small_tasks import FALSE, TASKS, TRUE
from vsml.types import Array


@dataclass(frozen=True)
class Exercise:
    """A task on a graph.

    Attributes:
        name: of the task: a name of `TASKS`, or `0`, `1`, `a`, `not a`.
        graph: the graph.
    """

    name: str
    graph: Graph


_BITS = {
    "0": lambda bit: jnp.zeros_like(bit),
    "1": lambda bit: jnp.ones_like(bit),
    "a": lambda bit: bit,
    "not a": lambda bit: 1 - bit,
}
"""The functions of one bit."""

_DIFFERENCES = {"a - b": (1.0, -1.0), "b - a": (-1.0, 1.0)}

OF_NUMBERS = ("sum", *_DIFFERENCES)
"""Tasks whose targets are numbers; those of all others are two values."""

TASK_NAMES = (*TASKS, *_DIFFERENCES)
"""Tasks of two numbers, whose third input is 1."""


def draw_exercise(name: str, count: int, key: Array) -> tuple[Array, Array]:
    """Return inputs [count, I] and targets [count, 1] of a task; the last input is always 1.

    Raises:
        ValueError: there is no such task.
    """
    if name in TASKS:
        return TASKS[name].draw(count, key)
    ones = jnp.ones((count, 1))
    if name in _BITS:
        bits = jax.random.bernoulli(key, 0.5, (count, 1)).astype(jnp.float32)
        targets = FALSE + (TRUE - FALSE) * _BITS[name](bits)
        return jnp.concatenate([2 * bits - 1, ones], 1), targets
    if name in _DIFFERENCES:
        x, _ = TASKS["sum"].draw(count, key)
        return x, (x[:, :2] * jnp.array(_DIFFERENCES[name])).sum(1, keepdims=True)
    known = ", ".join([*TASKS, *_BITS, *_DIFFERENCES])
    raise ValueError(f"task: got {name!r}, expected one of {known}")


@partial(jax.jit, static_argnums=(0, 1))
def draw_exercises(name: str, count: int, keys: Array) -> tuple[Array, Array]:
    """Return the inputs [count, n, I] and targets [count, n, 1] of n instances of a task, a key for each."""
    return jax.vmap(partial(draw_exercise, name, count), out_axes=1)(keys)

"""Composition: A and B are learned, then A of B, of which half is shown."""

import jax
import jax.numpy as jnp

from vsml.battery.circuits import as_number, draw_circuit
from vsml.battery.episodes import stream
from vsml.battery.learning_test import LearningTest, Task
from vsml.battery.measures import accuracy
from vsml.types import Array, Classes, Episode

BITS = 3
SYMBOLS = 2**BITS
GATES = 10
STEPS = 450
SIGHTS = 4
"""Times that each of the shown compositions comes."""


def task(shown: int) -> Task:
    """Return the task: A and B in a mix, A of B for so many symbols, then A of B for the others.

    An input says which function is asked for, and has a symbol. The other compositions are asked for without
    lessons: who takes "A of B" for a third function cannot know them.
    """
    others = SYMBOLS - shown
    lesson = STEPS - SIGHTS * shown - others

    def draw(key: Array) -> Episode:
        a_key, b_key, kind_key, symbol_key, order_key, sight_key = jax.random.split(key, 6)
        every = jnp.arange(SYMBOLS)
        bits = (every[:, None] >> jnp.arange(BITS)) & 1
        tables = [as_number(draw_circuit(own, BITS, GATES, BITS).run(bits)) for own in (a_key, b_key)]
        a_of_b = tables[0][tables[1]]
        table = jnp.stack([*tables, a_of_b])
        kinds = jax.random.randint(kind_key, (lesson,), 0, 2)
        symbols = jax.random.randint(symbol_key, (lesson,), 0, SYMBOLS)
        order = jax.random.permutation(order_key, SYMBOLS)
        sights = jax.random.permutation(sight_key, jnp.repeat(order[:shown], SIGHTS))
        kinds = jnp.concatenate([kinds, jnp.full(STEPS - lesson, 2)])
        symbols = jnp.concatenate([symbols, sights, order[shown:]])
        x = jnp.concatenate([jax.nn.one_hot(kinds, 3), jax.nn.one_hot(symbols, SYMBOLS)], axis=1)
        asked = jnp.arange(STEPS) >= STEPS - others
        return stream(x, table[kinds, symbols], weight=asked, taught=~asked)

    return Task((3 + SYMBOLS,), Classes(SYMBOLS), STEPS, draw)


COMPOSITION = LearningTest(
    name="composition",
    tags=("transfer",),
    levels=(6, 4),
    task=task,
    score=accuracy,
    about="A and B are learned, then n of eight values of A of B: accuracy on the others",
)

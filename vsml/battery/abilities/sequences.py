"""Random sequences that come again and again: the next symbol."""

import jax
import jax.numpy as jnp

from vsml.battery.episodes import stream
from vsml.battery.learning_test import LearningTest, Task
from vsml.battery.measures import accuracy
from vsml.types import Array, Classes, Episode

STEPS = 600
SCORED_FROM = 500
SYMBOLS = 8


def task(length: int) -> Task:
    """Return the task: a sequence of so many symbols without end; the input is the symbol, one-hot.

    A symbol may come several times in a sequence. What follows it then depends on what came before.
    """

    def draw(key: Array) -> Episode:
        sequence = jax.random.randint(key, (length,), 0, SYMBOLS)
        symbols = sequence[jnp.arange(STEPS + 1) % length]
        x = jax.nn.one_hot(symbols[:-1], SYMBOLS)
        return stream(x, symbols[1:], weight=jnp.arange(STEPS) >= SCORED_FROM)

    return Task((SYMBOLS,), Classes(SYMBOLS), STEPS, draw)


SEQUENCES = LearningTest(
    name="sequences",
    tags=("memory",),
    levels=(2, 4, 8, 16, 32, 64),
    task=task,
    score=accuracy,
    about="the next symbol of a random sequence of n symbols that comes again and again: the largest n",
    span=True,
)

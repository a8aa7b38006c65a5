"""Key and value: pairs are shown, and a key is asked for later; the pairs are others in every round."""

import jax
import jax.numpy as jnp

from vsml.battery.episodes import stream
from vsml.battery.learning_test import LearningTest, Task
from vsml.battery.measures import accuracy
from vsml.types import Array, Classes, Episode

KEYS = 4
VALUES = 4
STEPS = 1200
SCORED_SHARE = 0.25
"""Of the rounds, the last ones."""


def task(pairs: int) -> Task:
    """Return the task: rounds in which so many pairs are shown, then as many keys are asked for.

    An input is a key, a value, and a bit that says that it is a question; a question shows no value. The
    label is told after a question only, so what is to be kept must be learned from the inputs.
    """
    rounds = STEPS // (2 * pairs)
    steps = rounds * 2 * pairs

    def draw_round(key: Array) -> tuple[Array, Array, Array, Array]:
        keys_key, values_key, order_key = jax.random.split(key, 3)
        shown_keys = jax.random.permutation(keys_key, KEYS)[:pairs]
        values = jax.random.randint(values_key, (pairs,), 0, VALUES)
        order = jax.random.permutation(order_key, pairs)
        keys = jnp.concatenate([shown_keys, shown_keys[order]])
        labels = jnp.concatenate([values, values[order]])
        asked = jnp.arange(2 * pairs) >= pairs
        return keys, labels, asked, jax.nn.one_hot(labels, VALUES) * ~asked[:, None]

    def draw(key: Array) -> Episode:
        drawn = jax.vmap(draw_round)(jax.random.split(key, rounds))
        keys, labels, asked, shown = jax.tree.map(lambda a: a.reshape(steps, *a.shape[2:]), drawn)
        x = jnp.concatenate([jax.nn.one_hot(keys, KEYS), shown, asked[:, None]], axis=1)
        late = jnp.arange(steps) >= (1 - SCORED_SHARE) * steps
        return stream(x, labels, weight=asked & late, taught=asked)

    return Task((KEYS + VALUES + 1,), Classes(VALUES), steps, draw)


KEY_VALUE = LearningTest(
    name="key_value",
    tags=("credit in time",),
    levels=(1, 2, 4),
    task=task,
    score=accuracy,
    about="n pairs of a key and a value are shown, then keys are asked for; new pairs in every round",
)

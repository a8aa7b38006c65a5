"""Language: the next character of an English text."""

import jax
import jax.numpy as jnp
import numpy as np

from vsml.battery.episodes import stream
from vsml.battery.learning_test import LearningTest, Outcome, Task
from vsml.battery.text import ALPHABET, symbols
from vsml.types import Array, Classes, Episode

SYMBOLS = len(ALPHABET)
WORST = -1.0


def scored(characters: int) -> int:
    """Return how many characters are scored after so many have been read."""
    return max(50, characters // 10)


def task(characters: int) -> Task:
    """Return the task: the text from a random place on; answers count after so many characters.

    An input is a character, one-hot; the label is the one that follows.
    """
    text = jnp.asarray(symbols())
    steps = characters + scored(characters)

    def draw(key: Array) -> Episode:
        start = jax.random.randint(key, (), 0, len(text) - steps)
        read = jax.lax.dynamic_slice(text, (start,), (steps + 1,))
        x = jax.nn.one_hot(read[:-1], SYMBOLS)
        return stream(x, read[1:], weight=jnp.arange(steps) >= characters)

    return Task((SYMBOLS,), Classes(SYMBOLS), steps, draw)


def bits(outcome: Outcome) -> np.ndarray:
    """Return the bits that a character takes, coded by the probabilities of the answers, [S]."""
    count = scored_of(outcome)
    logits = outcome.answers[:, -count:].astype(float)
    logits = logits - logits.max(-1, keepdims=True)
    log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    labels = outcome.targets[:, -count:, None]
    losses = -np.take_along_axis(log_probabilities, labels, axis=-1)[..., 0]
    return losses.mean(1) / np.log(2)


def score(outcome: Outcome) -> np.ndarray:
    """Return `1 - bits / log2(27)`, [S]: 0 for equal probabilities, at least -1."""
    share = 1 - bits(outcome) / np.log2(SYMBOLS)
    return np.maximum(np.where(np.isfinite(share), share, WORST), WORST)


def scored_of(outcome: Outcome) -> int:
    """Return how many characters of an outcome are scored."""
    return int((outcome.weight[0] > 0).sum())


LANGUAGE = LearningTest(
    name="language",
    tags=("language",),
    levels=(100, 1000, 10_000),
    task=task,
    score=score,
    about="the next character of an English text, in bits per character, after n of them",
)

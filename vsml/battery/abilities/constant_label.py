"""A constant label: what is to be learned is the bias."""

import jax
import jax.numpy as jnp

from vsml.battery.episodes import stream
from vsml.battery.learning_test import LearningTest, Task
from vsml.battery.measures import accuracy
from vsml.types import Array, Classes, Episode

STEPS = 100
SCORED_FROM = 10
INPUTS = 4
CLASSES = 10


def task(level: int) -> Task:
    """Return the task: normal inputs, and one label in all of an episode."""
    del level

    def draw(key: Array) -> Episode:
        x_key, label_key = jax.random.split(key)
        x = jax.random.normal(x_key, (STEPS, INPUTS))
        label = jax.random.randint(label_key, (), 0, CLASSES)
        labels = jnp.full(STEPS, label)
        return stream(x, labels, weight=jnp.arange(STEPS) >= SCORED_FROM)

    return Task((INPUTS,), Classes(CLASSES), STEPS, draw)


CONSTANT_LABEL = LearningTest(
    name="constant_label",
    tags=("basic",),
    levels=(1,),
    task=task,
    score=accuracy,
    about="one label in all of an episode, out of ten, after 10 examples",
    # The majority is all that there is to learn here.
    floors=("constant",),
)

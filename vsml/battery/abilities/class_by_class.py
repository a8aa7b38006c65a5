"""Class by class: all examples of a class, then all of the next; in the end all are asked for."""

import jax
import jax.numpy as jnp

from vsml.battery.episodes import stream
from vsml.battery.learning_test import LearningTest, Task
from vsml.battery.measures import accuracy
from vsml.types import Array, Classes, Episode

INPUTS = 16
NOISE = 0.7
EXAMPLES = 30
ASKED = 100


def task(classes: int) -> Task:
    """Return the task of so many classes, each of 30 examples in a row, then questions about all."""
    lesson = EXAMPLES * classes
    # In whole segments, which compile least.
    asked_for = ASKED + -lesson % 50
    steps = lesson + asked_for

    def draw(key: Array) -> Episode:
        centre_key, label_key, noise_key = jax.random.split(key, 3)
        in_turn = jnp.repeat(jnp.arange(classes), EXAMPLES)
        mixed = jax.random.randint(label_key, (asked_for,), 0, classes)
        labels = jnp.concatenate([in_turn, mixed])
        centres = jax.random.normal(centre_key, (classes, INPUTS))
        around = NOISE * jax.random.normal(noise_key, (steps, INPUTS))
        x = (centres[labels] + around) / (1 + NOISE**2) ** 0.5
        asked = jnp.arange(steps) >= lesson
        return stream(x, labels, weight=asked, taught=~asked)

    return Task((INPUTS,), Classes(classes), steps, draw)


CLASS_BY_CLASS = LearningTest(
    name="class_by_class",
    tags=("forgetting",),
    levels=(2, 5, 10),
    task=task,
    score=accuracy,
    about="n classes, one after the other, 30 examples each: accuracy on all of them in the end",
)

"""Garbage: between good examples there are some that mean nothing."""

import jax
import jax.numpy as jnp

from vsml.battery.clusters import clusters
from vsml.battery.episodes import stream
from vsml.battery.learning_test import LearningTest, Task
from vsml.battery.measures import accuracy
from vsml.types import Array, Classes, Episode

BEFORE = 150
GARBAGE = 50
AFTER = 50
STEPS = BEFORE + GARBAGE + AFTER
INPUTS = 16
CLASSES = 5
NOISE = 0.6
HUGE = 10.0


def task(form: str) -> Task:
    """Return the task: clusters, then garbage of a form, then the same clusters, where answers count.

    Args:
        form: "random": normal inputs, random labels. "zeros": inputs 0, random labels. "huge": normal inputs
            that are ten times as large, random labels. "one_class": normal inputs, always the same label.
    """

    def draw(key: Array) -> Episode:
        task_key, input_key, label_key = jax.random.split(key, 3)
        x, labels = clusters(task_key, STEPS, INPUTS, CLASSES, NOISE)
        scale = {"zeros": 0.0, "huge": HUGE}.get(form, 1.0)
        garbage_x = scale * jax.random.normal(input_key, (STEPS, INPUTS))
        garbage_labels = jax.random.randint(label_key, (STEPS,), 0, CLASSES)
        if form == "one_class":
            garbage_labels = jnp.broadcast_to(garbage_labels[0], (STEPS,))
        steps = jnp.arange(STEPS)
        is_garbage = (steps >= BEFORE) & (steps < BEFORE + GARBAGE)
        shown = jnp.where(is_garbage[:, None], garbage_x, x)
        told = jnp.where(is_garbage, garbage_labels, labels)
        return stream(shown, told, weight=steps >= BEFORE + GARBAGE)

    return Task((INPUTS,), Classes(CLASSES), STEPS, draw)


GARBAGE_TEST = LearningTest(
    name="garbage",
    tags=("noise",),
    levels=("random", "zeros", "huge", "one_class"),
    task=task,
    score=accuracy,
    about="150 examples, then 50 that mean nothing, then 50 more of the first kind, which count",
)

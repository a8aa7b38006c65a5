"""Lesions: part of the memory is lost in mid-stream; what is left at once, and what is regained."""

from collections.abc import Callable

import jax.numpy as jnp

from vsml.battery.clusters import clusters
from vsml.battery.episodes import stream
from vsml.battery.learning_test import LearningTest, Task
from vsml.battery.measures import accuracy
from vsml.battery.perturbation import Perturbation
from vsml.learners.memory import Kind
from vsml.types import Array, Classes, Episode

BEFORE = 200
ASKED = 50
"""Examples right after the lesion, of which no label is told; what is left of the skill."""
TAUGHT = 100
"""Examples after which the regained skill counts, in as many more as are asked for."""
INPUTS = 16
CLASSES = 5
NOISE = 0.6

LESIONS: dict[str, tuple[Kind, float]] = {
    "zero 0.3": ("zero", 0.3),
    "noise 1.0": ("noise", 1.0),
    "drop_units 0.3": ("drop_units", 0.3),
}
"""Kind of the perturbation and its fraction."""


def left_task(level: str) -> Task:
    """Return the task: clusters, a lesion, then answers that count and are told nothing."""
    return _task(level, taught=0)


def regained_task(level: str) -> Task:
    """Return the task: clusters, a lesion, more examples, then answers that count."""
    return _task(level, taught=TAUGHT)


def _task(level: str, taught: int) -> Task:
    """Return the task with so many examples between the lesion and the answers that count."""
    steps = BEFORE + taught + ASKED

    def draw(key: Array) -> Episode:
        x, labels = clusters(key, steps, INPUTS, CLASSES, NOISE)
        asked = jnp.arange(steps) >= BEFORE + taught
        return stream(x, labels, weight=asked, taught=~asked)

    lesion = Perturbation(BEFORE, *LESIONS[level])
    return Task((INPUTS,), Classes(CLASSES), steps, draw, (lesion,))


def _test(name: str, task: Callable[[str], Task], about: str) -> LearningTest:
    return LearningTest(name, ("lesion",), tuple(LESIONS), task, accuracy, about)


# What is left of a skill, times the skill that there was, is the accuracy afterwards.
LEFT = _test("lesion_left", left_task, "accuracy right after a part of the memory is lost, before any lesson")
REGAINED = _test("lesion_regained", regained_task, "accuracy 100 examples after a part of the memory is lost")

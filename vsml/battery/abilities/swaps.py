"""Swaps: from the middle on, labels or inputs are other ones."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from vsml.battery.clusters import clusters
from vsml.battery.episodes import stream
from vsml.battery.learning_test import LearningTest, Outcome, Task
from vsml.battery.recovery import recovery
from vsml.types import Array, Classes, Episode

INPUTS = 16
CLASSES = 4
NOISE = 0.7
CHANGE = 200
STEPS = 500

Change = Callable[[Array, Array, Array], tuple[Array, Array]]


def swap_labels(key: Array, x: Array, labels: Array) -> tuple[Array, Array]:
    """Give every class the number of another one."""
    further = jax.random.randint(key, (), 1, CLASSES)
    return x, (labels + further) % CLASSES


def permute_inputs(key: Array, x: Array, labels: Array) -> tuple[Array, Array]:
    """Change the order of the inputs."""
    return x[:, jax.random.permutation(key, INPUTS)], labels


def task(level: int, change: Change) -> Task:
    """Return the task: clusters, of which everything is changed after 200 examples."""
    del level

    def draw(key: Array) -> Episode:
        task_key, change_key = jax.random.split(key)
        x, labels = clusters(task_key, STEPS, INPUTS, CLASSES, NOISE)
        later_x, later_labels = change(change_key, x, labels)
        is_later = jnp.arange(STEPS) >= CHANGE
        x = jnp.where(is_later[:, None], later_x, x)
        return stream(x, jnp.where(is_later, later_labels, labels))

    return Task((INPUTS,), Classes(CLASSES), STEPS, draw)


def score(outcome: Outcome) -> np.ndarray:
    """Return how soon the skill is regained; see `recovery`."""
    return recovery(outcome, CHANGE)


def _test(name: str, change: Change, what: str) -> LearningTest:
    about = f"{what} after 200 examples: how soon nine tenths of the skill are regained"
    return LearningTest(name, ("shift",), (1,), partial(task, change=change), score, about)


LABELS_SWAPPED = _test("labels_swapped", swap_labels, "labels change their meaning")
INPUTS_PERMUTED = _test("inputs_permuted", permute_inputs, "inputs change their places")

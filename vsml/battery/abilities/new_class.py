"""A new class in the middle of a stream."""

import jax
import jax.numpy as jnp
import numpy as np

from vsml.battery.episodes import stream
from vsml.battery.learning_test import LearningTest, Outcome, Task
from vsml.battery.measures import right
from vsml.types import Array, Classes, Episode

INPUTS = 16
CLASSES = 4
NOISE = 0.7
BEFORE = 200
AFTER = 150
SCORED_FROM = BEFORE + 50


def task(level: int) -> Task:
    """Return the task: three clusters, and from example 200 on a fourth, all as often."""
    del level
    steps = BEFORE + AFTER

    def draw(key: Array) -> Episode:
        centre_key, old_key, new_key, noise_key = jax.random.split(key, 4)
        centres = jax.random.normal(centre_key, (CLASSES, INPUTS))
        old = jax.random.randint(old_key, (BEFORE,), 0, CLASSES - 1)
        mixed = jax.random.randint(new_key, (AFTER,), 0, CLASSES)
        labels = jnp.concatenate([old, mixed])
        around = NOISE * jax.random.normal(noise_key, (steps, INPUTS))
        x = (centres[labels] + around) / (1 + NOISE**2) ** 0.5
        return stream(x, labels, weight=jnp.arange(steps) >= SCORED_FROM)

    return Task((INPUTS,), Classes(CLASSES), steps, draw)


def score(outcome: Outcome) -> np.ndarray:
    """Return the accuracy on the new class times that on the old ones, [S]."""
    hits = right(outcome)
    is_new = outcome.targets == CLASSES - 1
    product = np.ones(len(hits))
    for group in (is_new, ~is_new):
        counted = outcome.weight * group
        product *= (hits * counted).sum(1) / np.maximum(counted.sum(1), 1e-9)
    return product


NEW_CLASS = LearningTest(
    name="new_class",
    tags=("transfer",),
    levels=(1,),
    task=task,
    score=score,
    about="a fourth class after 200 examples: accuracy on it times that on the others, 50 examples later",
)

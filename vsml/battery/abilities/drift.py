"""Drift: clusters move slowly, without an end."""

import jax
import jax.numpy as jnp

from vsml.battery.episodes import stream
from vsml.battery.learning_test import LearningTest, Task
from vsml.battery.measures import accuracy
from vsml.types import Array, Classes, Episode

INPUTS = 16
CLASSES = 4
NOISE = 0.7
STEPS = 800
SCORED_FROM = 400


def task(period: int) -> Task:
    """Return the task: every so many examples the centres of the clusters are wholly other ones.

    They turn from one draw to the next on a quarter of a circle, so that their size stays.
    """
    draws = STEPS // period + 2

    def draw(key: Array) -> Episode:
        centres_key, label_key, noise_key = jax.random.split(key, 3)
        centres = jax.random.normal(centres_key, (draws, CLASSES, INPUTS))
        labels = jax.random.randint(label_key, (STEPS,), 0, CLASSES)
        steps = jnp.arange(STEPS)
        number = steps // period
        angle = (jnp.pi / 2 * (steps % period) / period)[:, None]
        before = centres[number, labels]
        after = centres[number + 1, labels]
        centre = jnp.cos(angle) * before + jnp.sin(angle) * after
        around = NOISE * jax.random.normal(noise_key, (STEPS, INPUTS))
        x = (centre + around) / (1 + NOISE**2) ** 0.5
        return stream(x, labels, weight=steps >= SCORED_FROM)

    return Task((INPUTS,), Classes(CLASSES), STEPS, draw)


DRIFT = LearningTest(
    name="drift",
    tags=("shift",),
    levels=(400, 100, 50),
    task=task,
    score=accuracy,
    about="clusters that are at wholly other places after n examples, moving slowly: accuracy on the way",
)

"""A rare class: one example in twenty."""

import jax
import jax.numpy as jnp

from vsml.battery.episodes import stream
from vsml.battery.learning_test import LearningTest, Task
from vsml.battery.measures import accuracy
from vsml.types import Array, Classes, Episode

STEPS = 600
SCORED_FROM = 200
INPUTS = 8
SHARE = 0.05
NOISE = 1.0


def task(level: int) -> Task:
    """Return the task: two clusters, of which one is rare; each has half of the weight."""
    del level

    def draw(key: Array) -> Episode:
        centre_key, label_key, noise_key = jax.random.split(key, 3)
        centres = jax.random.normal(centre_key, (2, INPUTS))
        labels = jax.random.bernoulli(label_key, SHARE, (STEPS,)).astype(jnp.int32)
        around = NOISE * jax.random.normal(noise_key, (STEPS, INPUTS))
        x = (centres[labels] + around) / (1 + NOISE**2) ** 0.5
        scored = jnp.arange(STEPS) >= SCORED_FROM
        counts = jnp.array([jnp.sum(scored & (labels == label)) for label in range(2)])
        weight = scored / jnp.maximum(counts[labels], 1)
        return stream(x, labels, weight=weight)

    return Task((INPUTS,), Classes(2), STEPS, draw)


RARE_CLASS = LearningTest(
    name="rare_class",
    tags=("noise",),
    levels=(1,),
    task=task,
    score=accuracy,
    about="two classes, of which one is an example in twenty: the mean of their accuracies, after 200",
)

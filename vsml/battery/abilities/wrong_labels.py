"""Wrong labels: some of what a learner is told is not true."""

import jax
import jax.numpy as jnp

from vsml.battery.clusters import clusters
from vsml.battery.episodes import stream
from vsml.battery.learning_test import LearningTest, Task
from vsml.battery.measures import accuracy
from vsml.types import Array, Classes, Episode

STEPS = 300
SCORED_FROM = 200
INPUTS = 16
CLASSES = 5
NOISE = 1.0


def task(share: float) -> Task:
    """Return the task: clusters, of whose labels a share is another one; answers to these do not count."""

    def draw(key: Array) -> Episode:
        task_key, wrong_key, other_key = jax.random.split(key, 3)
        x, labels = clusters(task_key, STEPS, INPUTS, CLASSES, NOISE)
        wrong = jax.random.bernoulli(wrong_key, share, (STEPS,))
        others = jax.random.randint(other_key, (STEPS,), 1, CLASSES)
        told = jnp.where(wrong, (labels + others) % CLASSES, labels)
        counts = (jnp.arange(STEPS) >= SCORED_FROM) & ~wrong
        return stream(x, told, weight=counts)

    return Task((INPUTS,), Classes(CLASSES), STEPS, draw)


WRONG_LABELS = LearningTest(
    name="wrong_labels",
    tags=("noise",),
    levels=(0.1, 0.3),
    task=task,
    score=accuracy,
    about="a share of the labels is wrong; right answers to the others, after 200 examples",
)

"""Calibration: probabilities that are worth something."""

import jax.numpy as jnp
import numpy as np

from vsml.battery.clusters import clusters
from vsml.battery.episodes import stream
from vsml.battery.learning_test import LearningTest, Outcome, Task
from vsml.battery.measures import accuracy, right
from vsml.types import Array, Classes, Episode

STEPS = 600
SCORED_FROM = 200
INPUTS = 8
CLASSES = 4
NOISE = 1.5
BINS = 10
WORST = -1.0


def task(level: int) -> Task:
    """Return the task: clusters that overlap, so that nobody can be sure."""
    del level

    def draw(key: Array) -> Episode:
        x, labels = clusters(key, STEPS, INPUTS, CLASSES, NOISE)
        return stream(x, labels, weight=jnp.arange(STEPS) >= SCORED_FROM)

    return Task((INPUTS,), Classes(CLASSES), STEPS, draw)


def information(outcome: Outcome) -> np.ndarray:
    """Return `1 - NLL / log C` of the answers that count, [S]: 0 for equal probabilities, at least -1."""
    log_probabilities = _log_probabilities(outcome.answers[:, SCORED_FROM:])
    labels = outcome.targets[:, SCORED_FROM:, None]
    losses = -np.take_along_axis(log_probabilities, labels, axis=-1)[..., 0]
    share = 1 - losses.mean(1) / np.log(CLASSES)
    return np.maximum(np.where(np.isfinite(share), share, WORST), WORST)


def honest_skill(outcome: Outcome) -> np.ndarray:
    """Return `(1 - ECE) kappa`, [S], where kappa is the accuracy above chance as a share of what there is.

    ECE, the expected calibration error, is the mean distance between confidence and accuracy, in ten bins of
    confidence. Equal probabilities are calibrated, and know nothing: therefore the factor.
    """
    confidence = np.exp(_log_probabilities(outcome.answers[:, SCORED_FROM:])).max(-1)
    hits = right(outcome)[:, SCORED_FROM:]
    bins = np.minimum(np.nan_to_num(confidence * BINS), BINS - 1).astype(int)
    error = np.zeros(len(hits))
    for number in range(BINS):
        inside = bins == number
        distance = np.where(inside, hits - np.nan_to_num(confidence), 0).sum(1)
        error += np.abs(distance) / hits.shape[1]
    chance = 1 / CLASSES
    kappa = (accuracy(outcome) - chance) / (1 - chance)
    return np.maximum(kappa, 0) * (1 - error)


def _log_probabilities(logits: np.ndarray) -> np.ndarray:
    """Return the logarithm of the softmax over the last axis."""
    shifted = logits.astype(float) - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


LIKELIHOOD = LearningTest(
    name="likelihood",
    tags=("calibration",),
    levels=(1,),
    task=task,
    score=information,
    about="negative log-likelihood of classes that overlap, after 200 examples",
)
CALIBRATION = LearningTest(
    name="calibration",
    tags=("calibration",),
    levels=(1,),
    task=task,
    score=honest_skill,
    about="accuracy above chance, less the share by which confidence is not the accuracy",
)

"""Raw scores of answers, one for each episode: what the tests of the battery are judged by."""

import numpy as np

from vsml.battery.learning_test import Outcome
from vsml.types import Values

WORST = -1.0
"""The share of explained variance of answers that are further off than this, or not finite."""


def right(outcome: Outcome) -> np.ndarray:
    """Return whether the largest logit is that of the label, [S, T]; never where one is not finite."""
    finite = np.isfinite(outcome.answers).all(-1)
    return (outcome.answers.argmax(-1) == outcome.targets) & finite


def accuracy(outcome: Outcome, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Return the weighted share of right answers in steps start to stop, [S]."""
    weight = outcome.weight[:, start:stop]
    hits = right(outcome)[:, start:stop]
    return (hits * weight).sum(1) / np.maximum(weight.sum(1), 1e-9)


def explained(outcome: Outcome, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Return `1 - sum |answer - y|^2 / sum |mean so far - y|^2` over steps start to stop, [S].

    0 is no better than the mean of the targets that were told so far, 1 is perfect, `WORST` is the least.
    """
    weight = outcome.weight[:, start:stop]
    of_mean = np.square(mean_so_far(outcome) - outcome.targets).sum(-1)[:, start:stop]
    # Answers that have run away overflow; their share is the worst one.
    with np.errstate(all="ignore"):
        distance = outcome.answers.astype(float) - outcome.targets
        error = np.square(distance).sum(-1)[:, start:stop]
        share = 1 - (error * weight).sum(1) / np.maximum((of_mean * weight).sum(1), 1e-9)
    return np.maximum(np.where(np.isfinite(share), share, WORST), WORST)


def skill(outcome: Outcome, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Return the accuracy of classes, or the explained share of values, in steps start to stop, [S]."""
    measure = explained if isinstance(outcome.outputs, Values) else accuracy
    return measure(outcome, start, stop)


def mean_so_far(outcome: Outcome) -> np.ndarray:
    """Return for each step the mean of the targets [S, T, D] that were told before it; 0 before the first."""
    told = outcome.taught[..., None]
    values = np.where(told > 0, outcome.targets, 0)
    sums_before = np.cumsum(values, axis=1) - values
    counts_before = np.cumsum(told, axis=1) - told
    return sums_before / np.maximum(counts_before, 1)

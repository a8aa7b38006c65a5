"""Intervals of means over episodes."""

import math

import numpy as np
from scipy import stats

CONFIDENCE = 0.95

_TINY = 1e-12  # keeps ratios finite where all weights are 0


def half_width(values: np.ndarray) -> np.ndarray:
    """Return the half width of the 95 % interval of the mean over episodes.

    `t s / sqrt(n)` with the standard deviation s between n episodes and the quantile t of Student's
    distribution with n - 1 degrees of freedom: 12.7 for two episodes, 3.2 for four, 1.96 for very many.

    Args:
        values: [episodes, ...], two episodes at least.

    Returns:
        [...].

    Raises:
        ValueError: there are fewer than two episodes.
    """
    episodes = len(values)
    if episodes < 2:
        raise ValueError(f"half_width: got {episodes} episode(s), expected at least 2")
    deviation = values.std(axis=0, ddof=1)
    return student_t(episodes) * deviation / math.sqrt(episodes)


def ratios(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return what each episode gives to the ratio of two sums over episodes.

    Their mean is the ratio R of the sums; the interval of that mean is the ratio's own, to first order. An
    episode gives `R + (v - R w) / mean(w)`. A mean of each episode's `v / w` would be whatever the
    episode with the smallest `w` says, which may be next to nothing.

    Args:
        values: v [episodes, ...].
        weights: w, likewise, at least 0.

    Returns:
        [episodes, ...].

    Source: W. G. Cochran, Sampling Techniques, 1977, chapter 6 (ratio estimators).
    """
    values, weights = np.asarray(values, float), np.asarray(weights, float)
    mean_weight = np.maximum(weights.mean(0), _TINY)
    ratio = values.mean(0) / mean_weight
    return ratio + (values - ratio * weights) / mean_weight


def student_t(episodes: int) -> float:
    """Return how many standard errors of a mean over episodes a 95 % interval reaches to each side."""
    upper = (1 + CONFIDENCE) / 2
    return float(stats.t.ppf(upper, episodes - 1))


def ends(
    mean: float,
    half: float,
    most: float = math.inf,
) -> tuple[float, float]:
    """Return the ends of an interval, cut at 0 and at `most`: 1 for accuracies."""
    return max(0.0, mean - half), min(most, mean + half)

"""How relevant each feature is: features that do not tell classes apart count less.

A random projection mixes all features. Where many of them are noise, they drown those that matter. So
standardised features are multiplied by weights, taken from the share of a feature's variance that lies
between classes (the correlation ratio eta^2; Fisher, Statistical Methods for Research Workers, 1925), less
what chance alone makes of it in n examples of K classes, (K - 1) / (n - 1):

    r_j = max(0, (eta_j^2 - chance) / (1 - chance)),    w_j ~ sqrt(r_j + (0.1 + 1 / n) max r),

scaled so that the mean of w^2 is 1. Where no feature alone tells anything, all weigh the same. None is left
out: a feature may matter together with others, or later.
"""

import numpy as np

_FLOOR = 0.1
"""Of the largest relevance each feature has so much at least, and 1 / n more after n examples."""

_TINY = 1e-12


def relevance_of(
    x: np.ndarray,
    classes: np.ndarray,
    counts: np.ndarray,
) -> np.ndarray:
    """Return the weights of features, float32 [d], the mean of whose squares is 1.

    Features that have not changed are not part of that mean, and weigh 1.

    Args:
        x: standardised inputs [n, d].
        classes: numbers of their classes, int [n].
        counts: how much each example counts, above 0, [n].
    """
    counts = np.asarray(counts, np.float64)
    n = counts.sum()
    known, inverse = np.unique(classes, return_inverse=True)
    of_class_KxN = (inverse == np.arange(len(known))[:, None]) * counts
    size_K = of_class_KxN.sum(1)
    centred = x - counts @ x / n
    variance_d = counts @ np.square(centred) / n
    means_Kxd = of_class_KxN @ centred / size_K[:, None]
    between_d = size_K @ np.square(means_Kxd) / n
    varies_d = variance_d > _TINY
    ratio_d = np.divide(between_d, variance_d, out=np.zeros_like(between_d), where=varies_d)
    chance = (len(known) - 1) / max(n - 1, 1)
    weights = np.ones(len(varies_d), np.float32)
    if chance >= 1 or not varies_d.any():
        return weights
    relevance_d = np.maximum((ratio_d - chance) / (1 - chance), 0.0)
    squares_d = relevance_d + (_FLOOR + 1 / n) * relevance_d.max() + _TINY
    mean = squares_d[varies_d].mean()
    weights[varies_d] = np.sqrt(squares_d[varies_d] / mean)
    return weights

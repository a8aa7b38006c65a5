"""How relevant each feature is: features that do not tell classes apart count less.

A random projection mixes all features. Where many of them are noise, they drown those that matter. So
standardised features are multiplied by weights, taken from the share of a feature's variance that lies
between classes (the correlation ratio eta^2; Fisher, Statistical Methods for Research Workers, 1925), less
what chance alone makes of it in n examples of K classes, (K - 1) / (n - 1):

    r_j = max(0, (eta_j^2 - chance) / (1 - chance)),    w_j ~ sqrt(r_j + (0.1 + 1 / n) max r),

scaled so that the mean of w^2 is 1. Of a feature with missing values n and K are of the values that are
there. Examples that count twice are two, and those that count for little say little. Where no feature alone
tells anything, all weigh the same. None is left out: a feature may matter together with others, or later.
"""

import numpy as np

_FLOOR = 0.1
"""Of the largest relevance each feature has so much at least, and 1 / n more after n examples."""

_TINY = 1e-12


def relevance_of(
    x: np.ndarray,
    classes: np.ndarray,
    counts: np.ndarray,
    missing: np.ndarray | None = None,
) -> np.ndarray:
    """Return the weights of features, float32 [d], the mean of whose squares is 1.

    Features that have not changed are not part of that mean, and weigh 1.

    Args:
        x: standardised inputs [n, d].
        classes: numbers of their classes, int [n].
        counts: how many examples each is, above 0, [n].
        missing: which values are missing and count for nothing, bool [n, d]; None: none.
    """
    present_nxd = np.ones(x.shape) if missing is None else 1.0 - missing
    counts_nxd = np.asarray(counts, np.float64)[:, None] * present_nxd
    size_d = np.maximum(counts_nxd.sum(0), _TINY)
    centred_nxd = x - (counts_nxd * x).sum(0) / size_d
    variance_d = (counts_nxd * np.square(centred_nxd)).sum(0) / size_d

    known, inverse = np.unique(classes, return_inverse=True)
    is_of_Kxn = (inverse == np.arange(len(known))[:, None]).astype(float)
    of_class_Kxd = is_of_Kxn @ counts_nxd
    sums_Kxd = is_of_Kxn @ (counts_nxd * centred_nxd)
    between_d = (np.square(sums_Kxd) / np.maximum(of_class_Kxd, _TINY)).sum(0) / size_d

    varies_d = variance_d > _TINY
    chance_d = ((of_class_Kxd > 0).sum(0) - 1) / np.maximum(size_d - 1, 1)
    says_d = varies_d & (chance_d < 1)
    relevance_d = np.zeros(x.shape[1])
    ratio_d = between_d[says_d] / variance_d[says_d]
    relevance_d[says_d] = np.maximum((ratio_d - chance_d[says_d]) / (1 - chance_d[says_d]), 0.0)

    weights = np.ones(x.shape[1], np.float32)
    if says_d.any():
        n = float(np.sum(counts))
        squares_d = relevance_d + (_FLOOR + 1 / n) * relevance_d.max() + _TINY
        weights[varies_d] = np.sqrt(squares_d[varies_d] / squares_d[varies_d].mean())
    return weights

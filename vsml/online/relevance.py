"""How relevant each feature is: features that tell nothing of the targets count less.

A random projection mixes all features. Where many of them are noise, they drown those that matter. So
standardised features are multiplied by weights, taken from the share of variance that feature and target have
in common. For classes it is the share of a feature's variance that lies between K classes (the correlation
ratio eta^2; Fisher, Statistical Methods for Research Workers, 1925), of which chance alone makes
(K - 1) / (n - 1) in n examples. For values it is the square of the correlation, of which chance makes
1 / (n - 1); of several values the mean counts. With share s and chance c,

    r_j = max(0, (s_j - c) / (1 - c)),    w_j ~ sqrt(r_j + (0.1 + 1 / n) max r),

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
    targets: np.ndarray,
    counts: np.ndarray,
    missing: np.ndarray | None = None,
) -> np.ndarray:
    """Return the weights of features, float32 [d], the mean of whose squares is 1.

    Features that have not changed are not part of that mean, and weigh 1.

    Args:
        x: standardised inputs [n, d].
        targets: numbers of classes, int [n], or values, float [n, D].
        counts: how many examples each is, above 0, [n].
        missing: which inputs are missing and count for nothing, bool [n, d]; None: none.
    """
    present_nxd = np.ones(x.shape) if missing is None else 1.0 - missing
    counts_nxd = np.asarray(counts, np.float64)[:, None] * present_nxd
    size_d = np.maximum(counts_nxd.sum(0), _TINY)
    centred_nxd = x - (counts_nxd * x).sum(0) / size_d
    variance_d = (counts_nxd * np.square(centred_nxd)).sum(0) / size_d

    share_of = _share_with_values if targets.dtype.kind == "f" else _share_between_classes
    share_d, told_d = share_of(centred_nxd, variance_d, targets, counts_nxd)
    chance_d = told_d / np.maximum(size_d - 1, 1)
    varies_d = variance_d > _TINY
    says_d = varies_d & (chance_d < 1)
    excess_d = share_d[says_d] - chance_d[says_d]
    relevance_d = np.zeros(x.shape[1])
    relevance_d[says_d] = np.maximum(excess_d / (1 - chance_d[says_d]), 0.0)

    weights = np.ones(x.shape[1], np.float32)
    if says_d.any():
        n = float(np.sum(counts))
        squares_d = relevance_d + (_FLOOR + 1 / n) * relevance_d.max() + _TINY
        weights[varies_d] = np.sqrt(squares_d[varies_d] / squares_d[varies_d].mean())
    return weights


def _share_between_classes(
    centred_nxd: np.ndarray,
    variance_d: np.ndarray,
    classes: np.ndarray,
    counts_nxd: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the share of each feature's variance that lies between classes, and classes less one, [d]."""
    known, inverse = np.unique(classes, return_inverse=True)
    is_of_Kxn = (inverse == np.arange(len(known))[:, None]).astype(float)
    of_class_Kxd = is_of_Kxn @ counts_nxd
    sums_Kxd = is_of_Kxn @ (counts_nxd * centred_nxd)
    size_d = np.maximum(of_class_Kxd.sum(0), _TINY)
    between_d = (np.square(sums_Kxd) / np.maximum(of_class_Kxd, _TINY)).sum(0) / size_d
    return between_d / np.maximum(variance_d, _TINY), (of_class_Kxd > 0).sum(0) - 1


def _share_with_values(
    centred_nxd: np.ndarray,
    variance_d: np.ndarray,
    values_nxD: np.ndarray,
    counts_nxd: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the squared correlation of each feature with values, their mean, and ones, [d].

    Means and variances of values are over the examples that have the feature.
    """
    size_1xd = np.maximum(counts_nxd.sum(0), _TINY)[None]
    mean_Dxd = values_nxD.T @ counts_nxd / size_1xd
    square_Dxd = np.square(values_nxD).T @ counts_nxd / size_1xd
    common_Dxd = values_nxD.T @ (counts_nxd * centred_nxd) / size_1xd
    variance_Dxd = np.maximum(square_Dxd - np.square(mean_Dxd), _TINY)
    squared_Dxd = np.square(common_Dxd) / (variance_Dxd * np.maximum(variance_d, _TINY))
    return squared_Dxd.mean(0), np.ones(len(variance_d))

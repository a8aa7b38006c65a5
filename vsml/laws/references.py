"""References of the inner law: classifiers that are fitted to n examples until there is nothing more to gain.

Each is fitted with several settings, and its scores become probabilities by a temperature and a share of
doubt. Of all these the combination with the least loss is taken, for each n its own. It is chosen on other
episodes than it is judged on, so that it is no luckier than a learner.
"""

import itertools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special
from scipy.spatial.distance import pdist

from vsml.types import Episode

Scores = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]
"""From inputs [n, D], labels [n], queries [Q, D] and the number of classes C to scores [Q, C]."""

TEMPERATURES = (0.05, 0.1, 0.2, 0.35, 0.6, 1.0, 1.6, 2.5, 4.0)
"""What scores are divided by before they become probabilities."""

DOUBTS = (0.003, 0.02, 0.1, 0.3)
"""Shares of probability that are spread evenly over all classes."""

RIDGE = 0.1
KERNEL_WIDTH = 2.0
"""Of kernel ridge regression: the kernel is exp(-width d / median d), d = 1 - cosine of centred inputs."""

HIDDEN = 64
"""Hidden units of the network."""

_NETWORK_STEPS = 300
_UNSEEN = 6.0  # by how much classes that were not seen are below the least score of those that were


def _logistic_regression(penalty: float) -> Scores:
    def scores(x: np.ndarray, y: np.ndarray, asked: np.ndarray, size: int) -> np.ndarray:
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=1 / penalty, max_iter=300).fit(x, y)
        return _of_all_classes(model.predict_log_proba(asked), model.classes_, size)

    return scores


def _svc(x: np.ndarray, y: np.ndarray, asked: np.ndarray, size: int) -> np.ndarray:
    from sklearn.svm import SVC

    model = SVC(C=10).fit(x, y)
    found = model.decision_function(asked)
    if found.ndim == 1:  # of two classes, the margin of the second
        found = np.stack([-found, found], axis=1)
    return _of_all_classes(found, model.classes_, size)


def _network(penalty: float) -> Scores:
    def scores(x: np.ndarray, y: np.ndarray, asked: np.ndarray, size: int) -> np.ndarray:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPClassifier

        model = MLPClassifier(
            (HIDDEN,), solver="lbfgs", alpha=penalty, max_iter=_NETWORK_STEPS, random_state=0
        )
        with warnings.catch_warnings():
            # The last steps gain nothing that could be seen in a loss.
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(x, y)
        return _of_all_classes(np.log(model.predict_proba(asked) + 1e-12), model.classes_, size)

    return scores


def _kernel_ridge(x: np.ndarray, y: np.ndarray, asked: np.ndarray, size: int) -> np.ndarray:
    kept, queries = _directions(x), _directions(asked)
    between = 1 - kept @ kept.T
    median = max(float(np.median(pdist(kept, "sqeuclidean"))) / 2, 1e-6) if len(kept) > 1 else 1.0
    kernel = np.exp(-KERNEL_WIDTH * between / median)
    targets = np.eye(size)[y] - 1 / size
    weights = np.linalg.solve(kernel + RIDGE * np.eye(len(kept)), targets)
    return np.exp(-KERNEL_WIDTH * (1 - queries @ kept.T) / median) @ weights


def _directions(x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)


def _of_all_classes(scores: np.ndarray, classes: np.ndarray, size: int) -> np.ndarray:
    """Return scores [Q, C] of all classes from those [Q, seen] of the ones that were seen."""
    least = scores.min(axis=1, keepdims=True) - _UNSEEN
    found = np.repeat(least, size, axis=1)
    found[:, classes] = scores
    return found


REFERENCES: dict[str, tuple[Scores, ...]] = {
    "logistic regression": tuple(_logistic_regression(penalty) for penalty in (1.0, 10.0, 100.0)),
    "SVC": (_svc,),
    "kernel ridge": (_kernel_ridge,),
    "network": tuple(_network(penalty) for penalty in (0.3, 3.0)),
}
"""Classifiers by name, each with the settings that are tried."""


@dataclass(frozen=True, eq=False)
class Best:
    """What the best reference reached after n examples.

    Attributes:
        name: of the classifier.
        loss: in nats, of each episode [E].
        accuracy: likewise.
    """

    name: str
    loss: np.ndarray
    accuracy: np.ndarray


def best_reference(
    judged: Episode,
    tuning: Episode,
    count: int,
    queries: int,
    size: int,
    names: Sequence[str] = tuple(REFERENCES),
) -> Best:
    """Return the best reference after `count` examples.

    Args:
        judged: episodes [E, T, 1, ...], whose last `queries` examples are asked.
        tuning: other episodes, on which the classifier, its settings and its calibration are chosen.
        count: n, examples of each episode that it is fitted to, the first ones.
        queries: Q.
        size: number of classes C.
        names: of REFERENCES, those to be tried.
    """
    best: tuple[float, str, Scores, float, float] | None = None
    for name in names:
        for scores in REFERENCES[name]:
            found = [_scores_of(scores, tuning, each, count, queries, size) for each in range(len(tuning.y))]
            labels = [np.asarray(tuning.y[each])[-queries:, 0] for each in range(len(tuning.y))]
            for temperature, doubt in itertools.product(TEMPERATURES, DOUBTS):
                pairs = zip(found, labels, strict=True)
                loss = float(np.mean([_loss(each, y, temperature, doubt) for each, y in pairs]))
                if best is None or loss < best[0]:
                    best = loss, name, scores, temperature, doubt
    assert best is not None
    _, name, scores, temperature, doubt = best
    losses, accuracies = [], []
    for each in range(len(judged.y)):
        found_QxC = _scores_of(scores, judged, each, count, queries, size)
        y = np.asarray(judged.y[each])[-queries:, 0]
        losses.append(_loss(found_QxC, y, temperature, doubt))
        accuracies.append(float((found_QxC.argmax(axis=1) == y).mean()))
    return Best(name, np.array(losses), np.array(accuracies))


def _scores_of(
    scores: Scores,
    episodes: Episode,
    number: int,
    count: int,
    queries: int,
    size: int,
) -> np.ndarray:
    """Return the scores [Q, C] of the queries of an episode, after a fit to its first `count` examples."""
    x = np.asarray(episodes.x[number], np.float64)
    x = x.reshape(len(x), -1)
    y = np.asarray(episodes.y[number])[:, 0]
    seen = y[:count]
    if len(np.unique(seen)) == 1:
        return np.tile(np.eye(size)[seen[0]], (queries, 1))
    return scores(x[:count], seen, x[-queries:], size)


def _loss(scores_QxC: np.ndarray, y: np.ndarray, temperature: float, doubt: float) -> float:
    """Return the mean loss (nats) of calibrated scores."""
    shares_QxC = special.softmax(scores_QxC / temperature, axis=1)
    of_label = shares_QxC[np.arange(len(y)), y]
    return float(-np.log((1 - doubt) * of_label + doubt / scores_QxC.shape[1]).mean())

"""Learning online with any classifier, and how it did: prequential evaluation (Dawid, 1984)."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.exceptions import NotFittedError
from sklearn.utils import _safe_indexing, indexable, shuffle

from vsml.online.inputs import check_labels


@dataclass(frozen=True, eq=False)
class OnlineResult:
    """How a classifier did on a stream, each answer given before its label was seen. Printing shows a table.

    Attributes:
        predictions: the answers, [n].
        correct: whether each was right, bool [n].
    """

    predictions: np.ndarray
    correct: np.ndarray

    @property
    def accuracy(self) -> np.ndarray:
        """Share of right answers up to and with each example, [n]."""
        return np.cumsum(self.correct) / np.arange(1, len(self.correct) + 1)

    @property
    def accuracy_last(self) -> float:
        """Share of right answers on the last fifth of the examples."""
        return self.accuracy_last_at(len(self.correct))

    def accuracy_last_at(self, count: int) -> float:
        """Return the share of right answers on the last fifth of the first `count` examples."""
        return float(self.correct[count - math.ceil(count / 5) : count].mean())

    def __str__(self) -> str:
        n = len(self.correct)
        marks = [mark * 10**power for power in range(1, 9) for mark in (1, 2, 5)]
        counts = [*(count for count in marks if count < n), n]
        lines = ["examples  accuracy so far  on the last fifth of them"]
        lines += [f"{c:8,}  {self.accuracy[c - 1]:15.3f}  {self.accuracy_last_at(c):25.3f}" for c in counts]
        return "\n".join(lines)


def learn_online(
    classifier: Any, X: Any, y: Any, *, classes: Any = None, shuffle_seed: int | None = None
) -> OnlineResult:
    """Let a classifier predict each example and then learn it: prequential evaluation (Dawid, 1984).

    Nothing is held out, and yet no answer is given on an example that was learned. The classifier is taught:
    afterwards it knows the examples, on top of what it knew before.

    Args:
        classifier: any with `partial_fit` and `predict`, such as `VSMLClassifier` or SGDClassifier. Where one
            cannot answer before it has learned anything, its first answer counts as wrong.
        X: inputs [n, d]: an array, a DataFrame, or for classifiers that take one a sparse matrix; it reaches
            the classifier as it is, with the names of its columns.
        y: labels [n], none missing.
        classes: all labels that will ever come; None: those of y.
        shuffle_seed: shuffle the examples with this seed; None keeps their order. Data sets that are sorted
            by class need it.

    Raises:
        ValueError: there are no examples, X and y differ in length, or what the classifier raises.
    """
    labels = check_labels(y)
    count = len(labels)
    # X stays what it is, such as a table with named columns, which the classifier is to see.
    given = X.shape[0] if hasattr(X, "shape") and len(X.shape) else len(X)
    if given != count or not count:
        raise ValueError(f"learn_online: got {given} inputs and {count} labels, expected as many, 1 or more")
    (x,) = indexable(X)
    if shuffle_seed is not None:
        x, labels = shuffle(x, labels, random_state=shuffle_seed)
    classes = np.unique(labels) if classes is None else check_labels(classes)
    if hasattr(classifier, "partial_fit_predict"):
        predictions = classifier.partial_fit_predict(x, labels, classes)
        return OnlineResult(predictions, predictions == labels)
    predictions, correct = labels.copy(), np.zeros(count, bool)
    for t in range(count):
        example = _safe_indexing(x, [t])
        label = labels[t : t + 1]
        try:
            (predictions[t],) = classifier.predict(example)
            correct[t] = predictions[t] == labels[t]
        except NotFittedError:
            predictions[t] = np.unique(labels)[0]
        classifier.partial_fit(example, label, classes=classes)
    return OnlineResult(predictions, correct)

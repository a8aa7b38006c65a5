"""The classifier that learns online."""

import os
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from vsml.online.estimator import OnlineEstimator, Scale, unchanged_by_errors
from vsml.online.inputs import check_dense, check_labels
from vsml.types import Classes, Outputs


class VSMLClassifier(ClassifierMixin, OnlineEstimator):
    """A classifier that learns online by a meta-learned learning algorithm: no gradient, no learning rate.

    Each example is standardised by running statistics of what has been seen, multiplied by one random matrix
    (`x R`, R [d, units] normal with variance 1 / d) and shown to the learner, which answers and is then told
    the label. Random projections are what learning algorithms meet in meta-training: they bring any number of
    features to units and statistics that are known there. Appended zeros, for one, would dilute what units
    send (measured by benchmarks/tables.py). Predicting never changes what has been learned, the statistics
    included.

    Args:
        learner: name of a learning algorithm that comes with the library, path of a file such as
            learner.safetensors, or of a run's folder.
        scale: "feature": each feature is standardised by itself, for tables; "all": all by one mean and
            variance, for images and spectra, whose inputs are of one kind; "none": they are of mean 0 and
            variance 1 already.
        units: input units; None: the power of two that is at least the number of features and 256, at most
            2,048, with a warning where that is less than the number of features.
        epochs: passes of `fit` over the data in the same order. Meta-training is on streams of new examples,
            and never on the same again, so more than one pass is outside of what it was made for.
        model: settings of the learner that differ from those of its file, as of `vsml.load_learner`: for
            instance {"vsml": {"random_features": {"count": 512}}}. None: none.
        random_state: of the projection and of the learner's first state; an int, a RandomState, or None for
            numpy's global one.

    Attributes:
        classes_: labels, sorted, [C].
        n_features_in_: d.
        learned_: all that has been learned, and what the next step needs: the learner's `state`, its meta-
            parameters `params`, the `projection` and the `statistics`. Numpy arrays, replaced and never
            changed.
        model_: settings of the learner, as in a run's configuration.
    """

    _SAVED_AS = "classifier"

    def __init__(
        self,
        learner: str | os.PathLike[str] = "general",
        *,
        scale: Scale = "feature",
        units: int | None = None,
        epochs: int = 1,
        model: Mapping[str, Any] | None = None,
        random_state: Any = 0,
    ) -> None:
        self.learner = learner
        self.scale = scale
        self.units = units
        self.epochs = epochs
        self.model = model
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Forget everything, then learn the examples X [n, d] with labels y [n], in the order given.

        The order matters: examples sorted by class should be shuffled first.

        Raises:
            ValueError: input of another form, fewer than 2 classes, or a parameter out of range.
            FileNotFoundError: there is no such learning algorithm; other errors as `load_learner` raises.
        """
        with unchanged_by_errors(self):
            self._check_epochs()
            x, labels = self._check(X, y, reset=True)
            self._start_with(np.unique(labels))
            numbers = self._numbers(labels)
            for _ in range(self.epochs):
                self._learn(x, numbers)
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Self:
        """Learn the examples X [n, d] with labels y [n] on top of what has been learned.

        Args:
            X: inputs.
            y: labels.
            classes: all labels that will ever come; needed at the first call.

        Raises:
            ValueError: input of another form, `classes` missing or not those of the first call, or a label
                that is not among them; at the first call as `fit`.
        """
        self.partial_fit_predict(X, y, classes)
        return self

    def partial_fit_predict(self, X: Any, y: Any, classes: Any = None) -> np.ndarray:
        """Answer each example and then learn it; see `partial_fit`.

        Returns:
            Labels [n], each given before its example was learned: those of alternating `predict` and
            `partial_fit`, in one compiled call.
        """
        with unchanged_by_errors(self):
            return self._answer_and_learn(X, y, classes)

    def _answer_and_learn(self, X: Any, y: Any, classes: Any) -> np.ndarray:
        """Do what `partial_fit_predict` does; errors may leave anything."""
        first = not hasattr(self, "classes_")
        x, labels = self._check(X, y, reset=first)
        known = self._classes(classes, first)
        if not np.isin(labels, known).all():
            unknown = sorted(set(labels.tolist()) - set(known.tolist()), key=str)
            raise ValueError(f"y: got labels {unknown[:5]}, expected some of classes, {known.tolist()[:20]}")
        if first:
            self._start_with(known)
        logits = self._learn(x, self._numbers(labels))
        return self.classes_[logits.argmax(1)]

    def predict(self, X: Any) -> np.ndarray:
        """Return the most likely labels [n] of X [n, d]."""
        answers = self._answers(X).argmax(1)
        return self.classes_[answers]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability [n, C] of each class in the order of `classes_`: the softmax of logits."""
        logits = self._answers(X)
        likelihood = np.exp(logits - logits.max(1, keepdims=True))
        return likelihood / likelihood.sum(1, keepdims=True)

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the logits [n, C]; with two classes, that of the second minus that of the first, [n]."""
        logits = self._answers(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def _check(self, X: Any, y: Any, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        check_dense(X)
        checked = y if y is None else check_labels(y)
        x, labels = validate_data(self, X, checked, reset=reset, dtype=np.float64, order="C")
        check_classification_targets(labels)
        return x, labels

    def _classes(self, classes: Any, first: bool) -> np.ndarray:
        """Return the sorted labels, which the first call has to name and later ones may repeat."""
        if classes is None:
            if first:
                raise ValueError("partial_fit: got no classes, expected all labels at the first call")
            return self.classes_
        given = np.unique(check_labels(classes))
        if not first and not np.array_equal(given, self.classes_):
            raise ValueError(
                f"classes: got {given.tolist()}, expected {self.classes_.tolist()} as at the first call"
            )
        return given

    def _numbers(self, labels: np.ndarray) -> np.ndarray:
        """Return the numbers of classes, int32 [n]."""
        return np.searchsorted(self.classes_, labels).astype(np.int32)

    def _start_with(self, classes: np.ndarray) -> None:
        """Become a learner of these classes that has seen nothing."""
        if len(classes) < 2:
            raise ValueError(f"y: got {len(classes)} class, expected at least 2 classes")
        self._start(Classes(len(classes)))
        self.classes_ = classes

    def _outputs(self) -> Outputs:
        return Classes(len(self.classes_))

    def _described(self) -> dict[str, Any]:
        return {"classes": self.classes_.tolist(), "classes_dtype": self.classes_.dtype.str}

    def _restore(self, described: Mapping[str, Any]) -> None:
        self.classes_ = np.array(described["classes"], dtype=described["classes_dtype"])

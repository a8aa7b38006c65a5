"""The classifier that learns online, and its classes, which may become more."""

import json
import os
from collections.abc import Mapping
from typing import Any, Self

import jax
import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from vsml.online import steps
from vsml.online.estimator import OnlineEstimator, Scale, unchanged_by_errors
from vsml.online.inputs import (
    check_any_weight,
    check_dense,
    check_labels,
    check_weights,
    plain_labels,
)
from vsml.types import Classes, Outputs

_NEW_CLASS = 1000
"""The key of an estimator is folded with this and the number of classes for synapses of new classes."""


class VSMLClassifier(ClassifierMixin, OnlineEstimator):
    """A classifier that learns online by a meta-learned learning algorithm: no gradient, no learning rate.

    Each example is standardised by running statistics of what has been seen, multiplied by one random matrix
    (`x R`, R [d, units] normal with variance 1 / d) and shown to the learner, which answers and is then told
    the label. Random projections are what learning algorithms meet in meta-training: they bring any number of
    features to units and statistics that are known there. Appended zeros, for one, would dilute what units
    send (measured by benchmarks/tables.py). Predicting never changes what has been learned, the statistics
    included.

    The first 256 examples are kept. When 2, 4, 8, ... and 256 have been seen, a fresh learner learns them
    anew, standardised by what is known then (`vsml.online.first`); not with `scale="none"`. With
    `scale="feature"` features are weighed then, too, by how well they tell classes apart: those that are
    noise count about a third as much, and more while few examples are known (`vsml.online.relevance`).

    A value that is missing, NaN, is 0 once standardised: at the mean. From the first one on, each feature has
    an indicator beside it (`vsml.online.missing`), with random rows of its own in the projection.

    Classes may become more. A class that is new gets an output whose synapses are fresh, and what the
    others have learned stays. Outputs are doubled where there are too few, so there may be some that no
    class has yet; these learn never to be right, and start afresh for their class. Learning algorithms with
    a fixed number of outputs refuse new classes.

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
        classes_: labels that are known, sorted, [C].
        n_features_in_: d.
        learned_: all that has been learned, and what the next step needs: the learner's `state`, its meta-
            parameters `params`, the `projection`, the `statistics`, up to 255 `first` examples, the
            `relevance` of features, and from the first missing value on what is known of `missing` ones.
            Numpy arrays, replaced and never changed.
        model_: settings of the learner, as in a run's configuration.
    """

    _SAVED_AS = "classifier"

    classes_: np.ndarray
    _places: np.ndarray
    """The output of each class, int [C]."""
    _room: int
    """Outputs, C or more."""

    def __init__(
        self,
        learner: str | os.PathLike[str] = "combined",
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

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Forget everything, then learn the examples X [n, d] with labels y [n], in the order given.

        The order matters: examples sorted by class should be shuffled first.

        Args:
            X: inputs; NaN where a value is missing.
            y: labels.
            sample_weight: how often each example is learned, [n]; see `partial_fit`.

        Raises:
            ValueError: input of another form, fewer than 2 classes, or a parameter out of range.
            FileNotFoundError: there is no such learning algorithm; other errors as `load_learner` raises.
        """
        with unchanged_by_errors(self):
            self._check_epochs()
            x, labels = self._check(X, y, reset=True)
            weights = check_weights(sample_weight, len(x))
            check_any_weight(weights)
            known = np.unique(labels)
            if len(known) < 2:
                raise ValueError(f"y: got {len(known)} class, expected at least 2 classes")
            self._start_with(known, len(known))
            for _ in range(self.epochs):
                self._learn_weighted(self._learn, x, self._numbers(labels), weights)
        return self

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Learn the examples X [n, d] with labels y [n] on top of what has been learned.

        Args:
            X: inputs; NaN where a value is missing.
            y: labels. Those of a call are known from its start.
            classes: at the first call, all labels that will ever come, if they are known: the network then
                has just that many outputs. Later, all labels known so far, and perhaps more. None: labels
                that are new become classes.
            sample_weight: how often each example is learned, [n], 0 to 1,000. An integer is as many repeats
                in a row. Of another number the rest is one more time, with the feedback multiplied by it. An
                example of weight 0 leaves no trace, but that its label is known. None: once each.

        Raises:
            ValueError: input of another form, `classes` without some that are known, a label that is not
                among `classes`, or one that is new to a learner whose outputs are fixed; at the first call
                as `fit`.
        """
        self.partial_fit_predict(X, y, classes, sample_weight)
        return self

    def partial_fit_predict(
        self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None
    ) -> np.ndarray:
        """Answer each example and then learn it; see `partial_fit`.

        Returns:
            Labels [n], each given before its example was learned: those of alternating `predict` and
            `partial_fit`, in few compiled calls.
        """
        with unchanged_by_errors(self):
            first = not hasattr(self, "classes_")
            x, labels = self._check(X, y, reset=first)
            weights = check_weights(sample_weight, len(x))
            self._know(labels, classes, first)
            logits = self._learn_weighted(self._learn, x, self._numbers(labels), weights)
            return self.classes_[logits[:, self._places].argmax(1)]

    def predict(self, X: Any) -> np.ndarray:
        """Return the most likely labels [n] of X [n, d]."""
        answers = self._logits(X).argmax(1)
        return self.classes_[answers]

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return the probability [n, C] of each class in the order of `classes_`: the softmax of logits."""
        logits = self._logits(X)
        likelihood = np.exp(logits - logits.max(1, keepdims=True))
        return likelihood / likelihood.sum(1, keepdims=True)

    def decision_function(self, X: Any) -> np.ndarray:
        """Return the logits [n, C]; with two classes, that of the second minus that of the first, [n]."""
        logits = self._logits(X)
        return logits[:, 1] - logits[:, 0] if len(self.classes_) == 2 else logits

    def _logits(self, X: Any) -> np.ndarray:
        """Return the logits [n, C] of the known classes in the order of `classes_`."""
        answers = self._answers(X)
        return answers[:, self._places]

    def _check(self, X: Any, y: Any, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        if not reset and self._needs_no_check(X):
            plain = plain_labels(y, len(X))
            if plain is not None and self._all_known(plain):
                return X, plain
        check_dense(X)
        checked = y if y is None else check_labels(y)
        x, labels = validate_data(
            self, X, checked, reset=reset, dtype=np.float64, order="C", ensure_all_finite="allow-nan"
        )
        if reset or not self._all_known(labels):
            check_classification_targets(labels)
        return x, labels

    def _all_known(self, labels: np.ndarray) -> bool:
        """Return whether all labels are those of classes: quick, for one example at a time."""
        if labels.dtype.kind != self.classes_.dtype.kind:
            return False
        nearest = np.searchsorted(self.classes_, labels).clip(max=len(self.classes_) - 1)
        return bool((self.classes_[nearest] == labels).all())

    def _know(self, labels: np.ndarray, classes: Any, first: bool) -> None:
        """Make classes of what a call of `partial_fit` is given."""
        if classes is None and not first and self._all_known(labels):
            return
        if classes is None:
            given = np.unique(labels)
            room = outputs_for(len(given))
        else:
            given = np.unique(check_labels(classes))
            room = len(given)
            if not np.isin(labels, given).all():
                unknown = sorted(set(labels.tolist()) - set(given.tolist()), key=str)
                raise ValueError(
                    f"y: got labels {unknown[:5]}, expected some of classes, {given.tolist()[:20]}"
                )
        if first:
            if len(given) < 2 and classes is not None:
                raise ValueError(f"classes: got {len(given)} class, expected at least 2 classes")
            self._start_with(given, room)
            return
        if classes is not None and not np.isin(self.classes_, given).all():
            raise ValueError(
                f"classes: got {given.tolist()}, expected {self.classes_.tolist()}, which are known, and "
                "perhaps more"
            )
        # A label of another kind would be no member of either array.
        check_labels(np.array([*self.classes_.tolist(), *given.tolist()], object))
        new = given[~np.isin(given, self.classes_)]
        if len(new):
            self._grow(new)

    def _grow(self, new: np.ndarray) -> None:
        """Give outputs with fresh synapses to classes that are new."""
        classes = np.union1d(self.classes_, new)
        places = dict(zip(self.classes_.tolist(), self._places.tolist(), strict=True))
        kept = np.ones(self._room, bool)
        # What has no class yet comes next, in the order in which labels are sorted.
        for place, label in enumerate(new.tolist(), start=len(places)):
            places[label] = place
            kept[place : place + 1] = False
        room = max(self._room, outputs_for(len(classes)))
        units = self.learned_["projection"].shape[1]
        learner = steps.build_learner(json.dumps(self.model_), units, Classes(room))
        key = jax.random.fold_in(jax.random.key(self._seed), _NEW_CLASS + len(classes))
        state = steps.grow(learner, self.learned_["params"], self.learned_["state"], kept, key)
        self.learned_ = {**self.learned_, "state": jax.tree.map(np.asarray, state)}
        self.classes_ = classes
        self._places = np.array([places[label] for label in classes.tolist()])
        self._room = room
        self._built = (units, Classes(room), learner)

    def _numbers(self, labels: np.ndarray) -> np.ndarray:
        """Return the outputs of labels, int32 [n]."""
        return self._places[np.searchsorted(self.classes_, labels)].astype(np.int32)

    def _start_with(self, classes: np.ndarray, room: int) -> None:
        """Become a learner of these classes that has seen nothing, with room for so many."""
        self._start(Classes(room))
        self.classes_ = classes
        self._places = np.arange(len(classes))
        self._room = room

    def _outputs(self) -> Outputs:
        return Classes(self._room)

    def _described(self) -> dict[str, Any]:
        return {
            "classes": self.classes_.tolist(),
            "classes_dtype": self.classes_.dtype.str,
            "places": self._places.tolist(),
            "room": self._room,
        }

    def _restore(self, described: Mapping[str, Any]) -> None:
        self.classes_ = np.array(described["classes"], dtype=described["classes_dtype"])
        self._places = np.array(described.get("places", range(len(self.classes_))))
        self._room = described.get("room", len(self.classes_))

    def _update_old(self) -> None:
        super()._update_old()
        if not hasattr(self, "_room"):
            self._places = np.arange(len(self.classes_))
            self._room = len(self.classes_)


def outputs_for(classes: int) -> int:
    """Return for how many outputs a network is built that so many classes have come to: a power of 2."""
    return max(2, 1 << (classes - 1).bit_length())

"""VSML for scikit-learn: a classifier and a regressor that learn online, and a test of such classifiers.

from sklearn.datasets import load_wine
from vsml.sklearn import VSMLClassifier, learn_online
print(learn_online(VSMLClassifier(), *load_wine(return_X_y=True), shuffle_seed=0))
"""

import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from numbers import Integral, Number
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils import _safe_indexing, check_random_state, indexable, shuffle
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from vsml.config.model import ModelConfig
from vsml.learners import Learner, make_learner
from vsml.pretrained import load_learner
from vsml.runs import checkpoint
from vsml.runs.checkpoint import CheckpointError
from vsml.settings import deep_merge
from vsml.standardise import CLIP, RunningStatistics
from vsml.system.numerics import standard_numerics
from vsml.types import Array, Classes, Outputs, Params, State, Values

Scale = Literal["feature", "all", "none"]
"""What has a mean and a variance of its own: each feature, or all together; or inputs stay as they are."""

MIN_UNITS = 256
"""Input units at least: few features are spread over more units than there are features."""

MAX_UNITS = 2048
"""Input units at most, where their number is not given: as many as features would make memory quadratic."""

_ROWS = (16, 1024)
"""Examples that a compiled call has room for; fewer cost no more than they are."""

_SETTINGS = ("learner", "scale", "units", "epochs", "model", "random_state")

GRADIENT_DESCENT: Mapping[str, Any] = {
    "type": "vsml",
    "vsml": {
        "backward_pass": True,
        "micro_ticks": 1,
        "synapse": {
            "init": "backprop",
            "init_rate": 0.4,
            "init_max_weight": 160.0,
            "state_size": 9,
            "random_fraction": 0.0,
        },
    },
}
"""A network whose synapses do gradient descent and nothing else: what `VSMLRegressor` learns by."""


class _OnlineEstimator(BaseEstimator):
    """What classifier and regressor share: standardised and projected inputs, compiled steps, and files.

    A subclass says what its outputs are, in `_outputs`, and how a file describes it.
    """

    _SAVED_AS: ClassVar[str]

    learner: str | os.PathLike[str] | None
    scale: Scale
    units: int | None
    epochs: int
    model: Mapping[str, Any] | None
    random_state: Any
    learned_: dict[str, Any]
    model_: dict[str, Any]
    scale_: Scale
    n_features_in_: int

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file from which `load` goes on bit for bit: what was learned, and the learning algorithm.

        Raises:
            NotFittedError: nothing has been learned.
            ValueError: labels or `random_state` are of a kind that JSON cannot hold.
            OSError: the file cannot be written; an older one of that name is untouched.
        """
        check_is_fitted(self)
        settings = {}
        for name in _SETTINGS:
            value = getattr(self, name)
            settings[name] = int(value) if isinstance(value, Integral) else value
        if self.learner is not None:
            settings["learner"] = str(self.learner)
        described = {
            "settings": settings,
            "model": self.model_,
            "scale": self.scale_,
            "features": self.n_features_in_,
            "units": self.learned_["projection"].shape[1],
            "groups": len(self.learned_["statistics"]["shift"]),
            "early": self._early(),
            "feature_names": getattr(self, "feature_names_in_", np.array([])).tolist(),
            **self._described(),
        }
        try:
            json.dumps(described)
        except TypeError as error:
            raise ValueError(
                f"save: got {error}, expected labels of text or numbers and random_state an int or None"
            ) from error
        checkpoint.save(path, self.learned_, {self._SAVED_AS: described})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            CheckpointError: it is damaged, of a newer format, or of another kind.
        """
        data = Path(path).read_bytes()
        described = checkpoint.from_bytes(data, str(path))[1].get(cls._SAVED_AS)
        if described is None:
            raise CheckpointError(
                f"{path}: got another kind of checkpoint, expected one of {cls.__name__}.save"
            )
        if "early" not in described:
            raise CheckpointError(
                f"{path}: got statistics of inputs as they were before version 0.2, expected a file that "
                f"{cls.__name__}.save of this version wrote: learn and save again"
            )
        estimator = cls(**described["settings"])
        estimator.model_ = described["model"]
        estimator.scale_ = described["scale"]
        estimator.n_features_in_ = described["features"]
        if described["feature_names"]:
            estimator.feature_names_in_ = np.array(described["feature_names"], dtype=object)
        estimator._restore(described)
        template = estimator._template(described["units"], described["groups"], described["early"])
        estimator.learned_ = checkpoint.from_bytes(data, str(path), template)[0]
        return estimator

    def _outputs(self) -> Outputs:
        """Return what is answered."""
        raise NotImplementedError

    def _described(self) -> dict[str, Any]:
        """Return what a file says of this kind, to be given to `_restore`."""
        raise NotImplementedError

    def _restore(self, described: Mapping[str, Any]) -> None:
        """Become what a file describes."""
        raise NotImplementedError

    def _early(self) -> dict[str, int]:
        """Return how many examples each of the running statistics keeps."""
        return {"statistics": len(self.learned_["statistics"]["early"])}

    def _template(self, units: int, groups: int, early: Mapping[str, int]) -> dict[str, Any]:
        """Return `learned_` as a file has it, with zeros."""
        learner = _learner(json.dumps(self.model_), units, self._outputs())
        draw = partial(_draw, learner, _bucket(self.n_features_in_))
        params = jax.eval_shape(learner.init_params, jax.random.key(0))
        drawn = jax.eval_shape(draw, params, self.n_features_in_, jax.random.key(0))
        zeros = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), drawn)
        statistics = _nothing_but(early["statistics"], groups, self.n_features_in_)
        return {**zeros, "statistics": statistics}

    def _check_epochs(self) -> None:
        if not isinstance(self.epochs, Integral) or self.epochs < 1:
            raise ValueError(f"epochs: got {self.epochs!r}, expected an integer of at least 1")

    def _start(self, outputs: Outputs) -> None:
        """Become a learner of these outputs that has seen nothing."""
        if self.scale not in get_args(Scale):
            raise ValueError(f"scale: got {self.scale!r}, expected one of {', '.join(get_args(Scale))}")
        if self.units is not None and (not isinstance(self.units, Integral) or self.units < 1):
            raise ValueError(f"units: got {self.units!r}, expected None or an integer of at least 1")
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        features, room = self.n_features_in_, _bucket(self.n_features_in_)
        units = _default_units(room, features) if self.units is None else int(self.units)
        learner, params, model = self._load(units, outputs)
        drawn = _draw(learner, room, params, features, jax.random.key(seed))
        groups = features if self.scale == "feature" else 1
        statistics = vars(RunningStatistics.nothing(groups, features))
        self.model_ = model
        self.scale_ = self.scale
        self.learned_ = {**jax.tree.map(np.asarray, drawn), "statistics": statistics}

    def _load(self, units: int, outputs: Outputs) -> tuple[Learner, Params, dict[str, Any]]:
        """Return the learner, its meta-parameters and its settings."""
        if self.learner is not None:
            loaded = load_learner(str(self.learner), input_shape=(units,), outputs=outputs, model=self.model)
            return loaded.learner, loaded.params, loaded.model.model_dump(mode="json")
        model = ModelConfig.model_validate(deep_merge(GRADIENT_DESCENT, self.model or {}))
        described = model.model_dump(mode="json")
        learner = _learner(json.dumps(described), units, outputs)
        return learner, learner.init_params(jax.random.key(0)), described

    def _learn(self, x: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Learn from x [n, d] and targets [n] or [n, D]; return the answers [n, C or D] before each.

        Raises:
            ValueError: the state would not be finite any more, or inputs are too large.
        """
        statistics = RunningStatistics(**self.learned_["statistics"])
        if self.scale_ == "none":
            standard = _clipped(x)
        else:
            statistics, standard = statistics.learn(x)
        learner, state, answers = self._own_learner(), self.learned_["state"], []
        for start, rows, count in _chunks(len(x)):
            part = slice(start, start + count)
            state, answered = _learn_rows(
                learner,
                self.learned_["params"],
                self.learned_["projection"],
                state,
                self._padded(standard[part], rows),
                _with_rows(targets[part], rows),
                count,
            )
            answers.append(np.asarray(answered)[:count])
        state = jax.tree.map(np.asarray, state)
        _check_finite(state, np.concatenate(answers), type(self).__name__)
        learned = {"state": state, "statistics": vars(statistics)}
        self.learned_ = {**self.learned_, **learned}
        return np.concatenate(answers)

    def _answers(self, X: Any) -> np.ndarray:
        """Return the answers [n, C or D] to inputs, learning nothing."""
        check_is_fitted(self)
        check_dense(X)
        x = validate_data(self, X, reset=False, dtype=np.float64, order="C")
        statistics = RunningStatistics(**self.learned_["statistics"])
        standard = _clipped(x) if self.scale_ == "none" else statistics.apply(x)
        known = [self.learned_[name] for name in ("params", "projection", "state")]
        answers = []
        for start, rows, count in _chunks(len(x)):
            part = self._padded(standard[start : start + count], rows)
            answered = _answer_rows(self._own_learner(), *known, part, count)
            answers.append(np.asarray(answered)[:count])
        return np.concatenate(answers)

    def _padded(self, standard: np.ndarray, rows: int) -> np.ndarray:
        """Return inputs [n, d] with zeros up to the shape that is compiled for."""
        features = len(self.learned_["projection"])
        return _with_rows(np.pad(standard, ((0, 0), (0, features - standard.shape[1]))), rows)

    def _own_learner(self) -> Learner:
        units = self.learned_["projection"].shape[1]
        return _learner(json.dumps(self.model_), units, self._outputs())


def _clipped(x: np.ndarray) -> np.ndarray:
    """Return inputs that are standardised already, float32, none beyond `CLIP`."""
    return np.clip(x, -CLIP, CLIP).astype(np.float32)


def _check_finite(state: State, answers: np.ndarray, name: str) -> None:
    """Raise a ValueError where an example has spoiled a state for good.

    A state may have infinities from its start on only where answers are finite all the same.
    """
    if np.isfinite(answers).all() and not any(np.isnan(leaf).any() for leaf in _floats(state)):
        return
    raise ValueError(
        f"{name}: got examples after which the state is not finite, expected ones that can be learned; "
        "nothing was learned from this call. A learning algorithm that diverges needs smaller steps, or was "
        "meta-trained on other outputs"
    )


def _floats(state: State) -> list[np.ndarray]:
    """Return the floating arrays of a state."""
    return [leaf for leaf in jax.tree.leaves(state) if np.issubdtype(leaf.dtype, np.floating)]


@contextmanager
def _unchanged_by_errors(estimator: Any) -> Iterator[None]:
    """Give an estimator all its attributes back if what is done with it fails.

    What is learned is replaced and never changed, so that a shallow copy is enough.
    """
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise


def check_dense(X: Any) -> None:
    """Raise a ValueError for inputs that are a sparse matrix."""
    if issparse(X):
        raise ValueError(
            f"X: got a sparse matrix of shape {X.shape}, expected a dense array [n, d], as X.toarray() makes"
        )


def check_labels(y: Any) -> np.ndarray:
    """Return labels as an array [n].

    Raises:
        ValueError: they are no column, one is missing (None, NaN, NA), or text and numbers are mixed.
    """
    labels = column_or_1d(np.asarray(y), warn=True)
    for place, label in enumerate(labels.tolist() if labels.dtype.kind in "fO" else ()):
        if _is_missing(label):
            raise ValueError(
                f"y: got the missing label {label} at example {place} (counted from 0), expected a label for "
                "each example; leave out those without"
            )
    if labels.dtype.kind == "O":
        kinds = sorted({_kind_of_label(label) for label in labels.tolist()})
        if len(kinds) > 1:
            raise ValueError(f"y: got labels of mixed kinds, {' and '.join(kinds)}, expected one kind")
        if kinds == ["number"]:
            # Of a nullable column, whose numbers come as objects.
            labels = np.array(labels.tolist())
    return labels


def _is_missing(label: Any) -> bool:
    """Return whether a label is None, or not equal to itself as NaN, NaT and NA are."""
    same = label == label
    return label is None or not (isinstance(same, bool | np.bool_) and bool(same))


def _kind_of_label(label: Any) -> str:
    if isinstance(label, Number):
        return "number"
    return type(label).__name__


def _with_rows(array: np.ndarray, rows: int) -> np.ndarray:
    """Return an array [n, ...] with zeros behind it, [rows, ...]."""
    return np.pad(array, ((0, rows - len(array)), *[(0, 0)] * (array.ndim - 1)))


class VSMLClassifier(ClassifierMixin, _OnlineEstimator):
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
        with _unchanged_by_errors(self):
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
        with _unchanged_by_errors(self):
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


class VSMLRegressor(RegressorMixin, _OnlineEstimator):
    """A regressor that learns online: the network of VSML, with values as its answers.

    Inputs are treated as by `VSMLClassifier`. Targets are standardised by running statistics, too, each
    output by its own; predictions are in the units of the targets. The learning algorithms that come with
    the library were meta-trained on classes. So by default the network learns by what meta-training may
    start with: gradient descent, written into its synapses (`GRADIENT_DESCENT`). docs/using.md compares.

    Args:
        learner: None: gradient descent; or as of `VSMLClassifier`.
        scale: as of `VSMLClassifier`.
        units: likewise.
        epochs: likewise.
        model: likewise; for instance {"vsml": {"error_scale": 0.5}} halves the rate of learning.
        random_state: likewise.

    Attributes:
        n_outputs_: D.
        n_features_in_: d.
        learned_: as of `VSMLClassifier`, with the statistics of `targets`.
        model_: settings of the learner, as in a run's configuration.
    """

    _SAVED_AS = "regressor"

    def __init__(
        self,
        learner: str | os.PathLike[str] | None = None,
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

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any) -> Self:
        """Forget everything, then learn the examples X [n, d] with targets y [n] or [n, D], in their order.

        Raises:
            ValueError: input of another form, or a parameter out of range.
            FileNotFoundError: there is no such learning algorithm; other errors as `load_learner` raises.
        """
        with _unchanged_by_errors(self):
            self._check_epochs()
            x, targets = self._check(X, y, first=True)
            for _ in range(self.epochs):
                self._learn_targets(x, targets)
        return self

    def partial_fit(self, X: Any, y: Any) -> Self:
        """Learn the examples X [n, d] with targets y [n] or [n, D] on top of what has been learned.

        Raises:
            ValueError: input of another form, or another number of outputs than at the first call; at the
                first call as `fit`.
        """
        self.partial_fit_predict(X, y)
        return self

    def partial_fit_predict(self, X: Any, y: Any) -> np.ndarray:
        """Answer each example and then learn it; see `partial_fit`.

        Returns:
            Predictions [n] or [n, D], each given before its example was learned: those of alternating
            `predict` and `partial_fit`, in one compiled call. The very first is 0.
        """
        with _unchanged_by_errors(self):
            first = not hasattr(self, "learned_")
            x, targets = self._check(X, y, first)
            return self._in_shape_of_y(self._learn_targets(x, targets))

    def predict(self, X: Any) -> np.ndarray:
        """Return the predictions [n] or [n, D] for X [n, d], in the units of the targets."""
        answers = self._answers(X)
        mean, deviation = RunningStatistics(**self.learned_["targets"]).moments()
        return self._in_shape_of_y(mean + deviation * answers)

    def _check(self, X: Any, y: Any, first: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return inputs [n, d] and targets [n, D]; with the first ones, start afresh."""
        check_dense(X)
        x, y = validate_data(
            self, X, y, reset=first, dtype=np.float64, order="C", multi_output=True, y_numeric=True
        )
        targets = np.asarray(y, np.float64).reshape(len(x), -1)
        if first:
            self._start(Values(targets.shape[1]))
            self.n_outputs_ = targets.shape[1]
            self._one_column = y.ndim == 1
            self.learned_ = {**self.learned_, "targets": vars(RunningStatistics.nothing(self.n_outputs_))}
        elif targets.shape[1] != self.n_outputs_:
            raise ValueError(
                f"y: got {targets.shape[1]} outputs, expected {self.n_outputs_} as at the first call"
            )
        return x, targets

    def _learn_targets(self, x: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Learn x [n, d] and targets [n, D]; return the predictions [n, D] before each."""
        before = RunningStatistics(**self.learned_["targets"])
        statistics, standard = before.learn(targets, "y")
        # Each answer is in units of what had been seen when it was given.
        means, deviations = before.moments_before(targets)
        answers = self._learn(x, standard)
        self.learned_ = {**self.learned_, "targets": vars(statistics)}
        return means + deviations * answers

    def _in_shape_of_y(self, predictions: np.ndarray) -> np.ndarray:
        return predictions[:, 0] if self._one_column else predictions

    def _outputs(self) -> Outputs:
        return Values(self.n_outputs_)

    def _described(self) -> dict[str, Any]:
        return {"outputs": self.n_outputs_, "one_column": self._one_column}

    def _restore(self, described: Mapping[str, Any]) -> None:
        self.n_outputs_ = described["outputs"]
        self._one_column = described["one_column"]

    def _early(self) -> dict[str, int]:
        return {**super()._early(), "targets": len(self.learned_["targets"]["early"])}

    def _template(self, units: int, groups: int, early: Mapping[str, int]) -> dict[str, Any]:
        targets = _nothing_but(early["targets"], self.n_outputs_, self.n_outputs_)
        return {**super()._template(units, groups, early), "targets": targets}


@lru_cache(maxsize=64)
def _learner(model: str, units: int, outputs: Outputs) -> Learner:
    """Build the learner of model settings in JSON; for the same the same object: nothing recompiles."""
    settings = ModelConfig.model_validate(json.loads(model))
    return make_learner(settings.type, settings.settings, (units,), outputs)


def _nothing_but(early: int, groups: int, features: int) -> dict[str, np.ndarray]:
    """Return running statistics with zeros, which keep so many examples."""
    nothing = RunningStatistics.nothing(groups, features)
    _, *shape = nothing.early.shape
    return {**vars(nothing), "early": np.zeros((early, *shape))}


def _bucket(features: int) -> int:
    """Return the number of features that programs are compiled for, where there are that many."""
    return max(MIN_UNITS, 1 << (features - 1).bit_length())


def _default_units(room: int, features: int) -> int:
    """Return how many input units features are projected to; say so where there are fewer than features."""
    if room <= MAX_UNITS:
        return room
    warnings.warn(
        f"units: {features} features are projected to {MAX_UNITS} units, as one for each would take "
        f"{4 * room * room / 2**30:.1f} GiB; units={room} does so all the same",
        UserWarning,
        stacklevel=5,
    )
    return MAX_UNITS


def _chunks(count: int) -> Iterator[tuple[int, int, int]]:
    """Yield (first example, room, number of examples) of each compiled call for that many examples."""
    for start in range(0, count, _ROWS[-1]):
        number = min(count - start, _ROWS[-1])
        yield start, next(rows for rows in _ROWS if rows >= number), number


@standard_numerics()
@partial(jax.jit, static_argnames=("learner", "room"))
def _draw(learner: Learner, room: int, params: Params, features: Array | int, key: Array) -> dict[str, Any]:
    """Draw what a fresh estimator knows: the projection, of which `features` rows count, and the state."""
    projection_key, state_key = jax.random.split(key)
    shape = (room, math.prod(learner.input_shape))
    return {
        "params": params,
        "projection": jax.random.normal(projection_key, shape) / jnp.sqrt(features),
        "state": learner.init_state(params, state_key),
    }


@standard_numerics()
@partial(jax.jit, static_argnames=("learner",))
def _learn_rows(
    learner: Learner, params: Params, projection: Array, state: State, x: Array, y: Array, count: Array | int
) -> tuple[State, Array]:
    """Step through the first `count` of x [rows, d] and y [rows, ...]: the state and the answers."""

    def step(t: Array, carry: tuple[State, Array]) -> tuple[State, Array]:
        state, answers = carry
        state, answer = learner.step(params, state, (x[t] @ projection)[None], y[t][None])
        return state, answers.at[t].set(answer[0])

    return jax.lax.fori_loop(0, count, step, (state, jnp.zeros((len(x), learner.outputs.size))))


@standard_numerics()
@partial(jax.jit, static_argnames=("learner",))
def _answer_rows(
    learner: Learner, params: Params, projection: Array, state: State, x: Array, count: Array | int
) -> Array:
    """Answer the first `count` of x [rows, d], one at a time, all from the same state: [rows, C or D]."""

    def answer(t: Array, answers: Array) -> Array:
        return answers.at[t].set(learner.predict(params, state, (x[t] @ projection)[None])[0])

    return jax.lax.fori_loop(0, count, answer, jnp.zeros((len(x), learner.outputs.size)))


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

"""VSML for scikit-learn: a classifier that learns one example at a time, and a test of such classifiers.

from sklearn.datasets import load_wine
from vsml.sklearn import VSMLClassifier, learn_online
print(learn_online(VSMLClassifier(), *load_wine(return_X_y=True), shuffle_seed=0))
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from numbers import Integral
from pathlib import Path
from typing import Any, Literal, Self, get_args

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_random_state, shuffle
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from vsml.config.schema import ModelConfig
from vsml.learners import Learner, make_learner
from vsml.pretrained import load_learner
from vsml.runs import checkpoint
from vsml.runs.checkpoint import CheckpointError
from vsml.standardise import RunningStatistics
from vsml.types import Array, Params, State

Scale = Literal["feature", "all", "none"]
"""What has a mean and a variance of its own: each feature, or all together; or inputs stay as they are."""

MIN_UNITS = 256
"""Input units at least: few features are spread over more units than there are features."""

_ROWS = (16, 1024)
"""Examples that a compiled call has room for; fewer cost no more than they are."""

_SETTINGS = ("learner", "scale", "units", "epochs", "model", "random_state")
_SAVED_AS = "classifier"


class VSMLClassifier(ClassifierMixin, BaseEstimator):
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
        units: input units; None: the power of two that is at least the number of features and 256.
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
        if not isinstance(self.epochs, Integral) or self.epochs < 1:
            raise ValueError(f"epochs: got {self.epochs!r}, expected an integer of at least 1")
        x, labels = self._check(X, y, reset=True)
        classes = np.unique(labels)
        self._start(classes)
        for _ in range(self.epochs):
            self._learn(x, np.searchsorted(classes, labels))
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
        first = not hasattr(self, "classes_")
        x, labels = self._check(X, y, reset=first)
        known = self._classes(classes, first)
        if not np.isin(labels, known).all():
            unknown = sorted(set(labels.tolist()) - set(known.tolist()), key=str)
            raise ValueError(f"y: got labels {unknown[:5]}, expected some of classes, {known.tolist()[:20]}")
        if first:
            self._start(known)
        return self.classes_[self._learn(x, np.searchsorted(known, labels)).argmax(1)]

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

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file from which `load` goes on bit for bit: what was learned, and the learning algorithm.

        Raises:
            NotFittedError: nothing has been learned.
            ValueError: labels or `random_state` are of a kind that JSON cannot hold.
            OSError: the file cannot be written; an older one of that name is untouched.
        """
        check_is_fitted(self)
        settings = {name: getattr(self, name) for name in _SETTINGS} | {"learner": str(self.learner)}
        described = {
            "settings": {n: int(v) if isinstance(v, Integral) else v for n, v in settings.items()},
            "model": self.model_,
            "classes": self.classes_.tolist(),
            "classes_dtype": self.classes_.dtype.str,
            "features": self.n_features_in_,
            "units": self.learned_["projection"].shape[1],
            "groups": len(self.learned_["statistics"]["shift"]),
            "feature_names": getattr(self, "feature_names_in_", np.array([])).tolist(),
        }
        try:
            json.dumps(described)
        except TypeError as error:
            raise ValueError(
                f"save: got {error}, expected labels of text or numbers and random_state an int or None"
            ) from error
        checkpoint.save(path, self.learned_, {_SAVED_AS: described})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            CheckpointError: it is damaged, of a newer format, or not of a classifier.
        """
        data = Path(path).read_bytes()
        described = checkpoint.from_bytes(data, str(path))[1].get(_SAVED_AS)
        if described is None:
            raise CheckpointError(
                f"{path}: got another kind of checkpoint, expected one of VSMLClassifier.save"
            )
        classifier = cls(**described["settings"])
        classifier.model_ = described["model"]
        classifier.classes_ = np.array(described["classes"], dtype=described["classes_dtype"])
        classifier.n_features_in_ = described["features"]
        if described["feature_names"]:
            classifier.feature_names_in_ = np.array(described["feature_names"], dtype=object)
        learner = _learner(json.dumps(described["model"]), described["units"], len(classifier.classes_))
        draw = partial(_draw, learner, _bucket(described["features"]))
        params = jax.eval_shape(learner.init_params, jax.random.key(0))
        drawn = jax.eval_shape(draw, params, described["features"], jax.random.key(0))
        statistics = vars(RunningStatistics.nothing(described["groups"]))
        template = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), {**drawn, "statistics": statistics})
        classifier.learned_ = checkpoint.from_bytes(data, str(path), template)[0]
        return classifier

    def _check(self, X: Any, y: Any, reset: bool) -> tuple[np.ndarray, np.ndarray]:
        x, labels = validate_data(self, X, y, reset=reset, dtype=np.float64, order="C")
        check_classification_targets(labels)
        return x, labels

    def _classes(self, classes: Any, first: bool) -> np.ndarray:
        """Return the sorted labels, which the first call has to name and later ones may repeat."""
        if classes is None:
            if first:
                raise ValueError("partial_fit: got no classes, expected all labels at the first call")
            return self.classes_
        given = np.unique(column_or_1d(classes))
        if not first and not np.array_equal(given, self.classes_):
            raise ValueError(
                f"classes: got {given.tolist()}, expected {self.classes_.tolist()} as at the first call"
            )
        return given

    def _start(self, classes: np.ndarray) -> None:
        """Become a learner that has seen nothing."""
        if len(classes) < 2:
            raise ValueError(f"y: got {len(classes)} class, expected at least 2 classes")
        if self.scale not in get_args(Scale):
            raise ValueError(f"scale: got {self.scale!r}, expected one of {', '.join(get_args(Scale))}")
        if self.units is not None and (not isinstance(self.units, Integral) or self.units < 1):
            raise ValueError(f"units: got {self.units!r}, expected None or an integer of at least 1")
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        features, room = self.n_features_in_, _bucket(self.n_features_in_)
        units = room if self.units is None else int(self.units)
        loaded = load_learner(
            str(self.learner), input_shape=(units,), num_classes=len(classes), model=self.model
        )
        drawn = _draw(loaded.learner, room, loaded.params, features, jax.random.key(seed))
        statistics = vars(RunningStatistics.nothing(features if self.scale == "feature" else 1))
        self.classes_ = classes
        self.model_ = loaded.model.model_dump(mode="json")
        self.learned_ = {**jax.tree.map(np.asarray, drawn), "statistics": statistics}

    def _learn(self, x: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Learn from x [n, d] and the numbers of classes [n]; return the logits [n, C] before each."""
        statistics = RunningStatistics(**self.learned_["statistics"])
        standard = x.astype(np.float32)
        if self.scale != "none":
            statistics, standard = statistics.learn(x)
        learner, state, answers = self._own_learner(), self.learned_["state"], []
        for start, rows, count in _chunks(len(x)):
            part = slice(start, start + count)
            state, logits = _learn_rows(
                learner,
                self.learned_["params"],
                self.learned_["projection"],
                state,
                self._padded(standard[part], rows),
                np.pad(labels[part].astype(np.int32), (0, rows - count)),
                count,
            )
            answers.append(np.asarray(logits)[:count])
        learned = {"state": jax.tree.map(np.asarray, state), "statistics": vars(statistics)}
        self.learned_ = {**self.learned_, **learned}
        return np.concatenate(answers)

    def _logits(self, X: Any) -> np.ndarray:
        """Return the logits [n, C] of inputs, learning nothing."""
        check_is_fitted(self)
        x = validate_data(self, X, reset=False, dtype=np.float64, order="C")
        statistics = RunningStatistics(**self.learned_["statistics"])
        standard = x.astype(np.float32) if self.scale == "none" else statistics.apply(x)
        known = [self.learned_[name] for name in ("params", "projection", "state")]
        answers = [
            np.asarray(
                _answer_rows(
                    self._own_learner(), *known, self._padded(standard[start : start + count], rows), count
                )
            )[:count]
            for start, rows, count in _chunks(len(x))
        ]
        return np.concatenate(answers)

    def _padded(self, standard: np.ndarray, rows: int) -> np.ndarray:
        """Return inputs [n, d] with zeros up to the shape that is compiled for."""
        n, d = standard.shape
        return np.pad(standard, ((0, rows - n), (0, len(self.learned_["projection"]) - d)))

    def _own_learner(self) -> Learner:
        units = self.learned_["projection"].shape[1]
        return _learner(json.dumps(self.model_), units, len(self.classes_))


@lru_cache(maxsize=64)
def _learner(model: str, units: int, num_classes: int) -> Learner:
    """Build the learner of model settings in JSON; for the same the same object: nothing recompiles."""
    settings = ModelConfig.model_validate(json.loads(model))
    return make_learner(settings.type, settings.settings, (units,), num_classes)


def _bucket(features: int) -> int:
    """Return the number of features that programs are compiled for, where there are that many."""
    return max(MIN_UNITS, 1 << (features - 1).bit_length())


def _chunks(count: int) -> Iterator[tuple[int, int, int]]:
    """Yield (first example, room, number of examples) of each compiled call for that many examples."""
    for start in range(0, count, _ROWS[-1]):
        number = min(count - start, _ROWS[-1])
        yield start, next(rows for rows in _ROWS if rows >= number), number


@partial(jax.jit, static_argnames=("learner", "room"))
def _draw(learner: Learner, room: int, params: Params, features: Array | int, key: Array) -> dict[str, Any]:
    """Draw what a fresh classifier knows: the projection, of which `features` rows count, and the state."""
    projection_key, state_key = jax.random.split(key)
    shape = (room, math.prod(learner.input_shape))
    return {
        "params": params,
        "projection": jax.random.normal(projection_key, shape) / jnp.sqrt(features),
        "state": learner.init_state(params, state_key),
    }


@partial(jax.jit, static_argnames=("learner",))
def _learn_rows(
    learner: Learner, params: Params, projection: Array, state: State, x: Array, y: Array, count: Array | int
) -> tuple[State, Array]:
    """Step through the first `count` of x [rows, d] and y [rows]: the state and the logits [rows, C]."""

    def step(t: Array, carry: tuple[State, Array]) -> tuple[State, Array]:
        state, logits = carry
        state, answer = learner.step(params, state, (x[t] @ projection)[None], y[t][None])
        return state, logits.at[t].set(answer[0])

    return jax.lax.fori_loop(0, count, step, (state, jnp.zeros((len(x), learner.num_classes))))


@partial(jax.jit, static_argnames=("learner",))
def _answer_rows(
    learner: Learner, params: Params, projection: Array, state: State, x: Array, count: Array | int
) -> Array:
    """Answer the first `count` of x [rows, d], one at a time, all from the same state: logits [rows, C]."""

    def answer(t: Array, logits: Array) -> Array:
        return logits.at[t].set(learner.predict(params, state, (x[t] @ projection)[None])[0])

    return jax.lax.fori_loop(0, count, answer, jnp.zeros((len(x), learner.num_classes)))


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
        X: inputs [n, d].
        y: labels [n].
        classes: all labels that will ever come; None: those of y.
        shuffle_seed: shuffle the examples with this seed; None keeps their order. Data sets that are sorted
            by class need it.

    Raises:
        ValueError: there are no examples, X and y differ in length, or what the classifier raises.
    """
    x, labels = np.asarray(X), column_or_1d(y)
    if len(x) != len(labels) or not len(x):
        raise ValueError(
            f"learn_online: got {len(x)} inputs and {len(labels)} labels, expected as many, 1 or more"
        )
    if shuffle_seed is not None:
        x, labels = shuffle(x, labels, random_state=shuffle_seed)
    classes = np.unique(labels) if classes is None else classes
    if hasattr(classifier, "partial_fit_predict"):
        predictions = classifier.partial_fit_predict(x, labels, classes)
        return OnlineResult(predictions, predictions == labels)
    predictions, correct = labels.copy(), np.zeros(len(x), bool)
    for t in range(len(x)):
        example = slice(t, t + 1)
        try:
            predictions[example] = classifier.predict(x[example])
            correct[t] = predictions[t] == labels[t]
        except NotFittedError:
            predictions[t] = np.unique(labels)[0]
        classifier.partial_fit(x[example], labels[example], classes=classes)
    return OnlineResult(predictions, correct)

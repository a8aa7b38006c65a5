"""The regressor that learns online."""

import os
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils.validation import validate_data

from vsml.online.estimator import OnlineEstimator, Scale, unchanged_by_errors
from vsml.online.inputs import check_any_weight, check_dense, check_weights, plain_values
from vsml.online.saved import nothing_but
from vsml.online.standardise import RunningStatistics
from vsml.types import Outputs, Values


class VSMLRegressor(RegressorMixin, OnlineEstimator):
    """A regressor that learns online: the network of VSML, with values as its answers.

    Inputs are treated as by `VSMLClassifier`, and features weighed by their correlation with the targets.
    Targets are standardised by running statistics, too, each output by its own; predictions are in the units
    of the targets. The first 256 examples are learned anew as more is known of both. By default it learns by
    `values`: ridge regression on random features and on the inputs (docs/regression.md), beside synapses that
    do gradient descent on what it leaves. The other learning algorithms that come with the library were
    meta-trained on classes. docs/using.md compares.

    Args:
        learner: as of `VSMLClassifier`; None: a network without regression, whose synapses do gradient
            descent and nothing else (`GRADIENT_DESCENT`).
        scale: as of `VSMLClassifier`.
        units: likewise.
        epochs: likewise.
        model: likewise; for instance {"vsml": {"regression": {"ridge": 1.0}}} has one ridge.
        random_state: likewise.

    Attributes:
        n_outputs_: D.
        n_features_in_: d.
        learned_: as of `VSMLClassifier`, with the statistics of `targets`.
        model_: settings of the learner, as in a run's configuration.
    """

    _SAVED_AS = "regressor"

    _one_column: bool
    """Whether targets were [n] at the first call, and not [n, D]."""

    def __init__(
        self,
        learner: str | os.PathLike[str] | None = "values",
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

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Forget everything, then learn the examples X [n, d] with targets y [n] or [n, D], in their order.

        Missing inputs, NaN, and `sample_weight` [n] are as in `VSMLClassifier.partial_fit`.

        Raises:
            ValueError: input of another form, or a parameter out of range.
            FileNotFoundError: there is no such learning algorithm; other errors as `load_learner` raises.
        """
        with unchanged_by_errors(self):
            self._check_epochs()
            x, targets = self._check(X, y, first=True)
            weights = check_weights(sample_weight, len(x))
            check_any_weight(weights)
            for _ in range(self.epochs):
                self._learn_weighted(self._learn, x, targets, weights)
        return self

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Learn the examples X [n, d] with targets y [n] or [n, D] on top of what has been learned.

        Missing inputs, NaN, and `sample_weight` [n] are as in `VSMLClassifier.partial_fit`.

        Raises:
            ValueError: input of another form, or another number of outputs than at the first call; at the
                first call as `fit`.
        """
        self.partial_fit_predict(X, y, sample_weight)
        return self

    def partial_fit_predict(self, X: Any, y: Any, sample_weight: Any = None) -> np.ndarray:
        """Answer each example and then learn it; see `partial_fit`.

        Returns:
            Predictions [n] or [n, D], each given before its example was learned: those of alternating
            `predict` and `partial_fit`, in one compiled call. The very first is 0.
        """
        with unchanged_by_errors(self):
            first = not hasattr(self, "learned_")
            x, targets = self._check(X, y, first)
            weights = check_weights(sample_weight, len(x))
            answers = self._learn_weighted(self._learn, x, targets, weights)
            return self._in_shape_of_y(answers)

    def predict(self, X: Any) -> np.ndarray:
        """Return the predictions [n] or [n, D] for X [n, d], in the units of the targets."""
        answers = self._answers(X)
        mean, deviation = RunningStatistics(**self.learned_["targets"]).moments()
        return self._in_shape_of_y(mean + deviation * answers)

    def _check(self, X: Any, y: Any, first: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return inputs [n, d] and targets [n, D]; with the first ones, start afresh."""
        if not first and self._one_column and self._needs_no_check(X):
            plain = plain_values(y, len(X))
            if plain is not None:
                return X, plain[:, None]
        check_dense(X)
        x, y = validate_data(
            self,
            X,
            y,
            reset=first,
            dtype=np.float64,
            order="C",
            multi_output=True,
            y_numeric=True,
            ensure_all_finite="allow-nan",
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

    def _learn_part(
        self,
        x: np.ndarray,
        targets: np.ndarray,
        taught: np.ndarray | None,
    ) -> np.ndarray:
        """Learn targets [n, D], standardised; return the predictions [n, D] before each, in their units."""
        before = RunningStatistics(**self.learned_["targets"])
        counted = None if taught is None else taught > 0
        statistics, standard = before.learn(targets, "y", counted)
        # Each answer is in units of what had been seen when it was given.
        means, deviations = before.moments_before(targets, counted)
        self.learned_ = {**self.learned_, "targets": vars(statistics)}
        answers = super()._learn_part(x, standard, taught)
        return means + deviations * answers

    def _known_targets(self, targets: np.ndarray) -> np.ndarray:
        return RunningStatistics(**self.learned_["targets"]).known(targets)

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
        targets = nothing_but(early["targets"], self.n_outputs_, self.n_outputs_)
        return {**super()._template(units, groups, early), "targets": targets}

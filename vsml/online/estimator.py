"""What a classifier and a regressor that learn online share: inputs, steps, and files."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral
from typing import Any, Literal, get_args

import jax
import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from vsml.config.model import ModelConfig
from vsml.learners import Learner
from vsml.online import steps
from vsml.online.first import FirstExamples
from vsml.online.inputs import check_dense, is_checked, visits_of
from vsml.online.missing import Indicators
from vsml.online.relevance import relevance_of
from vsml.online.saved import SavedEstimator
from vsml.online.standardise import CLIP, RunningStatistics
from vsml.pretrained import load_learner
from vsml.settings import deep_merge
from vsml.types import Outputs, Params, State

Scale = Literal["feature", "all", "none"]
"""What has a mean and a variance of its own: each feature, or all together; or inputs stay as they are."""


_MISSING = 1
"""What the key of an estimator is folded with for the rows of the projection that indicators go through."""

_KNOWN = ("params", "projection", "state")
"""What of `learned_` compiled functions are given."""

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
"""A network whose synapses do gradient descent and nothing else: what `VSMLRegressor(None)` learns by."""


class OnlineEstimator(SavedEstimator):
    """What classifier and regressor share: standardised and projected inputs, and compiled steps."""

    learner: str | os.PathLike[str] | None
    scale: Scale
    units: int | None
    epochs: int
    model: Mapping[str, Any] | None
    random_state: Any
    scale_: Scale

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

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
        features, room = self.n_features_in_, steps.bucket(self.n_features_in_)
        units = steps.default_units(room, features) if self.units is None else int(self.units)
        learner, params, model = self._load(units, outputs)
        drawn = steps.draw(learner, room, params, features, jax.random.key(seed))
        groups = features if self.scale == "feature" else 1
        statistics = vars(RunningStatistics.nothing(groups, features))
        self.model_ = model
        self.scale_ = self.scale
        self._seed = seed
        self._built = (units, outputs, learner)
        self.learned_ = {**jax.tree.map(np.asarray, drawn), "statistics": statistics}
        if self.scale != "none":
            self.learned_ = {**self.learned_, "first": vars(FirstExamples.none(features, outputs))}

    def _load(self, units: int, outputs: Outputs) -> tuple[Learner, Params, dict[str, Any]]:
        """Return the learner, its meta-parameters and its settings."""
        if self.learner is not None:
            loaded = load_learner(str(self.learner), input_shape=(units,), outputs=outputs, model=self.model)
            described = loaded.model.model_dump(mode="json")
            # One object for all estimators alike, which compiled functions tell at a glance.
            return steps.build_learner(json.dumps(described), units, outputs), loaded.params, described
        model = ModelConfig.model_validate(deep_merge(GRADIENT_DESCENT, self.model or {}))
        described = model.model_dump(mode="json")
        learner = steps.build_learner(json.dumps(described), units, outputs)
        return learner, learner.init_params(jax.random.key(0)), described

    def _learn_weighted(
        self,
        learn: Callable[[np.ndarray, np.ndarray, np.ndarray | None], np.ndarray],
        x: np.ndarray,
        targets: np.ndarray,
        weights: np.ndarray | None,
    ) -> np.ndarray:
        """Learn from x and targets, each example about as often as its weight says; see `Visits`.

        Args:
            learn: learns from inputs, targets and how much each is taught; returns answers.
            x: inputs [n, d].
            targets: [n] or [n, D].
            weights: of the examples, [n]; None: each is learned once.

        Returns:
            What `learn` answered at the first visit of each example.
        """
        if weights is None:
            return learn(x, targets, None)
        answers = []
        for visits in visits_of(weights):
            answered = learn(x[visits.examples], targets[visits.examples], visits.taught)
            answers.append(answered[visits.first])
        return np.concatenate(answers)

    def _learn(
        self,
        x: np.ndarray,
        targets: np.ndarray,
        taught: np.ndarray | None = None,
    ) -> np.ndarray:
        """Learn from x [n, d] and targets [n] or [n, D]; return the answers [n, C or D] before each.

        Args:
            x: inputs; NaN where one is missing.
            targets: numbers of classes, or values in their own units, as are answers then.
            taught: factor on the feedback to each, 0 to 1; one with 0 is answered and leaves no trace.
                None: 1.

        Raises:
            ValueError: the state would not be finite any more, or inputs are too large.
        """
        if "missing" not in self.learned_:
            lacking = np.isnan(x).any(1)
            lacking = lacking if taught is None else lacking & (taught > 0)
            if lacking.any():
                return self._learn_with_first_missing(int(lacking.argmax()), x, targets, taught)
        answers = []
        start = 0
        while start < len(x):
            first = self._first_examples()
            left = slice(start, None)
            factors = np.ones(len(x[left]), np.float32) if taught is None else taught[left]
            count = len(x[left]) if first is None else first.until_due(factors > 0)
            part = slice(start, start + count)
            answers.append(self._learn_part(x[part], targets[part], None if taught is None else taught[part]))
            if first is not None:
                self._keep_first(first.with_more(x[part], targets[part], factors[:count]))
            start += count
        return np.concatenate(answers)

    def _learn_part(
        self,
        x: np.ndarray,
        targets: np.ndarray,
        taught: np.ndarray | None,
    ) -> np.ndarray:
        """Learn examples as `_learn` does, none of them anew."""
        standard = self._take_in(x, None if taught is None else taught > 0)
        return self._step_through(self.learned_["state"], standard, targets, taught)

    def _known_targets(self, targets: np.ndarray) -> np.ndarray:
        """Return targets that were met before, as the learner is told them now."""
        return targets

    def _first_examples(self) -> FirstExamples | None:
        """Return the first examples, which are learned anew now and then; None where none are kept."""
        first = self.learned_.get("first")
        return None if first is None else FirstExamples(**first)

    def _keep_first(self, first: FirstExamples) -> None:
        """Keep the first examples, and learn them anew if it is time."""
        self.learned_ = {**self.learned_, "first": vars(first)}
        if first.is_due:
            learner, key = self._own_learner(), jax.random.key(self._seed)
            fresh = steps.start_again(learner, self.learned_["params"], key)
            indicators = self.learned_.get("missing")
            standard = RunningStatistics(**self.learned_["statistics"]).known(first.x)
            targets = self._known_targets(first.targets)
            if self.scale_ == "feature":
                relevance = relevance_of(standard, targets, first.taught, np.isnan(first.x))
                self.learned_ = {**self.learned_, "relevance": relevance}
            entering = self._entering(
                standard, None if indicators is None else Indicators(**indicators).known(first.x)
            )
            kept = jax.tree.map(np.asarray, fresh)
            self._step_through(kept, entering, targets, first.factors())
        if first.is_over:
            self.learned_ = {name: known for name, known in self.learned_.items() if name != "first"}

    def _step_through(
        self,
        state: State,
        entering: np.ndarray,
        targets: np.ndarray,
        taught: np.ndarray | None,
    ) -> np.ndarray:
        """Go on from a state by what enters the projection [n, rows of it]; return answers [n, C or D]."""
        learner, answers = self._own_learner(), []
        params, projection = self.learned_["params"], self.learned_["projection"]
        for start, rows, count in steps.chunks(len(entering)):
            part = slice(start, start + count)
            state, answered = steps.learn_rows(
                learner,
                params,
                projection,
                state,
                steps.with_rows(entering[part], rows),
                steps.with_rows(targets[part], rows),
                count,
                None if taught is None else steps.with_rows(taught[part], rows),
            )
            answers.append(np.asarray(answered)[:count])
        kept = jax.tree.map(np.asarray, state)
        _check_finite(kept, np.concatenate(answers), type(self).__name__)
        self.learned_ = {**self.learned_, "state": kept}
        return np.concatenate(answers)

    def _learn_with_first_missing(
        self,
        first: int,
        x: np.ndarray,
        targets: np.ndarray,
        taught: np.ndarray | None,
    ) -> np.ndarray:
        """Learn examples of which number `first` is the first ever with a missing value."""
        before, after = slice(0, first), slice(first, None)
        parts = []
        if first:
            parts.append(self._learn(x[before], targets[before], None if taught is None else taught[before]))
        known = self.learned_["projection"]
        room, units = known.shape
        key = jax.random.fold_in(jax.random.key(self._seed), _MISSING)
        more = steps.draw_rows(units, room, self.n_features_in_, key)
        indicators = vars(Indicators.nothing(self.n_features_in_))
        self.learned_ = {
            **self.learned_,
            "projection": np.concatenate([known, np.asarray(more)]),
            "missing": indicators,
        }
        parts.append(self._learn(x[after], targets[after], None if taught is None else taught[after]))
        return np.concatenate(parts)

    def _take_in(
        self,
        x: np.ndarray,
        counted: np.ndarray | None,
    ) -> np.ndarray:
        """Take examples x [n, d] into the statistics; return what enters the projection, [n, rows of it]."""
        statistics = RunningStatistics(**self.learned_["statistics"])
        if self.scale_ == "none":
            standard = _clipped(x)
        else:
            statistics, standard = statistics.learn(x, counted=counted)
        learned = {**self.learned_, "statistics": vars(statistics)}
        indicators = None
        if "missing" in learned:
            known, indicators = Indicators(**learned["missing"]).learn(x, counted)
            learned["missing"] = vars(known)
        self.learned_ = learned
        return self._entering(standard, indicators)

    def _entering(
        self,
        standard: np.ndarray,
        indicators: np.ndarray | None,
    ) -> np.ndarray:
        """Return standardised inputs [n, d], times their relevance, and indicators behind them.

        Each part has zeros behind it, up to the room.
        """
        room = steps.bucket(self.n_features_in_)
        if "relevance" in self.learned_:
            standard = standard * self.learned_["relevance"]
        parts = [standard] if indicators is None else [standard, indicators]
        count, features = standard.shape
        entering = np.zeros((count, len(parts), room), np.float32)
        for number, part in enumerate(parts):
            entering[:, number, :features] = part
        return entering.reshape(count, -1)

    def _answers(self, X: Any) -> np.ndarray:
        """Return the answers [n, C or D] to inputs, learning nothing."""
        check_is_fitted(self)
        x = X if self._needs_no_check(X) else self._checked(X)
        statistics = RunningStatistics(**self.learned_["statistics"])
        standard = _clipped(x) if self.scale_ == "none" else statistics.apply(x)
        missing = self.learned_.get("missing")
        entering = self._entering(standard, None if missing is None else Indicators(**missing).apply(x))
        learner = self._own_learner()
        known = [self.learned_[name] for name in _KNOWN]
        answers = []
        for start, rows, count in steps.chunks(len(x)):
            part = steps.with_rows(entering[start : start + count], rows)
            answered = steps.answer_rows(learner, *known, part, count)
            answers.append(np.asarray(answered)[:count])
        return np.concatenate(answers)

    def _needs_no_check(self, X: Any) -> bool:
        """Return whether inputs are what scikit-learn's checks, which take longer, would make of them."""
        has_names = hasattr(self, "feature_names_in_")
        return not has_names and is_checked(X, self.n_features_in_)

    def _checked(self, X: Any) -> np.ndarray:
        """Return inputs as an array, float64 [n, d].

        Raises:
            ValueError: they are of another form.
        """
        check_dense(X)
        x: np.ndarray = validate_data(
            self, X, reset=False, dtype=np.float64, order="C", ensure_all_finite="allow-nan"
        )
        return x

    def _own_learner(self) -> Learner:
        """Return the learner, which is built again only after it has been in a file."""
        units, outputs = self.learned_["projection"].shape[1], self._outputs()
        built = getattr(self, "_built", None)
        if built is not None and built[:2] == (units, outputs):
            return built[2]
        return steps.build_learner(json.dumps(self.model_), units, outputs)


def _clipped(x: np.ndarray) -> np.ndarray:
    """Return inputs that are standardised already, float32, none beyond `CLIP`, 0 for missing ones."""
    return np.where(np.isnan(x), 0.0, np.clip(x, -CLIP, CLIP)).astype(np.float32)


def _check_finite(state: State, answers: np.ndarray, name: str) -> None:
    """Raise a ValueError where an example has spoiled a state for good.

    A state may have infinities from its start on only where answers are finite all the same.
    """
    if np.isfinite(answers).all() and not any(map(_has_nan, _floats(state))):
        return
    raise ValueError(
        f"{name}: got examples after which the state is not finite, expected ones that can be learned; "
        "nothing was learned from this call. A learning algorithm that diverges needs smaller steps, or was "
        "meta-trained on other outputs"
    )


def _has_nan(numbers: np.ndarray) -> bool:
    """Return whether any number is NaN. A sum, which is quick, is finite only where none is."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = numbers.sum()
    return not np.isfinite(total) and bool(np.isnan(numbers).any())


def _floats(state: State) -> list[np.ndarray]:
    """Return the floating arrays of a state."""
    return [leaf for leaf in jax.tree.leaves(state) if np.issubdtype(leaf.dtype, np.floating)]


@contextmanager
def unchanged_by_errors(estimator: Any) -> Iterator[None]:
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

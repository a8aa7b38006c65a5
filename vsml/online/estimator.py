"""What a classifier and a regressor that learn online share: inputs, steps, and files."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import jax
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from vsml.config.model import ModelConfig
from vsml.learners import Learner
from vsml.online import steps
from vsml.online.inputs import check_dense
from vsml.online.standardise import CLIP, RunningStatistics
from vsml.pretrained import load_learner
from vsml.runs import checkpoint
from vsml.runs.checkpoint import CheckpointError
from vsml.settings import deep_merge
from vsml.types import Outputs, Params, State

Scale = Literal["feature", "all", "none"]
"""What has a mean and a variance of its own: each feature, or all together; or inputs stay as they are."""


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


class OnlineEstimator(BaseEstimator):
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
        learner = steps.build_learner(json.dumps(self.model_), units, self._outputs())
        draw = partial(steps.draw, learner, steps.bucket(self.n_features_in_))
        params = jax.eval_shape(learner.init_params, jax.random.key(0))
        drawn = jax.eval_shape(draw, params, self.n_features_in_, jax.random.key(0))
        zeros = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), drawn)
        statistics = nothing_but(early["statistics"], groups, self.n_features_in_)
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
        features, room = self.n_features_in_, steps.bucket(self.n_features_in_)
        units = steps.default_units(room, features) if self.units is None else int(self.units)
        learner, params, model = self._load(units, outputs)
        drawn = steps.draw(learner, room, params, features, jax.random.key(seed))
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
        learner = steps.build_learner(json.dumps(described), units, outputs)
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
        for start, rows, count in steps.chunks(len(x)):
            part = slice(start, start + count)
            state, answered = steps.learn_rows(
                learner,
                self.learned_["params"],
                self.learned_["projection"],
                state,
                self._padded(standard[part], rows),
                steps.with_rows(targets[part], rows),
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
        for start, rows, count in steps.chunks(len(x)):
            part = self._padded(standard[start : start + count], rows)
            answered = steps.answer_rows(self._own_learner(), *known, part, count)
            answers.append(np.asarray(answered)[:count])
        return np.concatenate(answers)

    def _padded(self, standard: np.ndarray, rows: int) -> np.ndarray:
        """Return inputs [n, d] with zeros up to the shape that is compiled for."""
        features = len(self.learned_["projection"])
        return steps.with_rows(np.pad(standard, ((0, 0), (0, features - standard.shape[1]))), rows)

    def _own_learner(self) -> Learner:
        units = self.learned_["projection"].shape[1]
        return steps.build_learner(json.dumps(self.model_), units, self._outputs())


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


def nothing_but(early: int, groups: int, features: int) -> dict[str, np.ndarray]:
    """Return running statistics with zeros, which keep so many examples."""
    nothing = RunningStatistics.nothing(groups, features)
    _, *shape = nothing.early.shape
    return {**vars(nothing), "early": np.zeros((early, *shape))}

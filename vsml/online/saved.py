"""Files and pickles of online estimators: what was learned, and all that is needed to go on."""

import json
import os
from collections.abc import Mapping
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any, ClassVar, Self

import jax
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from vsml.learners import Learner
from vsml.online import steps
from vsml.online.first import FirstExamples
from vsml.online.missing import Indicators
from vsml.online.standardise import RunningStatistics
from vsml.runs import checkpoint
from vsml.runs.checkpoint import CheckpointError
from vsml.types import Outputs

_SETTINGS = ("learner", "scale", "units", "epochs", "model", "random_state")


class SavedEstimator(BaseEstimator):
    """An estimator that is written to files, and pickled.

    A subclass says what its outputs are, in `_outputs`, and how a file describes it.

    Attributes:
        learned_: all that has been learned, as arrays.
        model_: settings of the learner.
    """

    _SAVED_AS: ClassVar[str]

    learner: str | os.PathLike[str] | None
    learned_: dict[str, Any]
    model_: dict[str, Any]
    scale_: Any
    n_features_in_: int
    _seed: int
    """What is drawn later, for missing values and for new classes, is drawn from it."""
    _built: tuple[int, Outputs, Learner]
    """The learner, and the input units and outputs that it was built for; not in pickles."""

    def __getstate__(self) -> dict[str, Any]:
        """Return what a pickle holds: all but what is kept to be quick, which is of this process."""
        state = dict(super().__getstate__())
        state.pop("_built", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if hasattr(self, "learned_"):
            self._update_old()

    def _update_old(self) -> None:
        """Add what older estimators do not have."""
        if not hasattr(self, "_seed"):
            self._seed = 0
        for name in ("statistics", "targets"):
            if name in self.learned_:
                known = self.learned_[name]
                count = np.broadcast_to(known["count"], known["shift"].shape).copy()
                self.learned_ = {**self.learned_, name: {**known, "count": count}}

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
            "counts": "groups",
            "missing": "missing" in self.learned_,
            "first": len(self.learned_["first"]["x"]) if "first" in self.learned_ else None,
            "relevance": "relevance" in self.learned_,
            "seed": self._seed,
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
        estimator._seed = described.get("seed", 0)
        estimator._restore(described)
        template = estimator._template(described["units"], described["groups"], described["early"])
        if "counts" not in described:
            template = _with_single_counts(template)
        if described.get("missing"):
            template = estimator._with_missing(template)
        if described.get("first") is not None:
            first = FirstExamples.none(estimator.n_features_in_, estimator._outputs(), described["first"])
            template = {**template, "first": vars(first)}
        if described.get("relevance"):
            template = {**template, "relevance": np.zeros(estimator.n_features_in_, np.float32)}
        estimator.learned_ = checkpoint.from_bytes(data, str(path), template)[0]
        estimator._update_old()
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

    def _with_missing(self, template: Mapping[str, Any]) -> dict[str, Any]:
        """Return the template of a file with that of missing values added."""
        projection = template["projection"]
        twice = np.concatenate([projection, projection])
        return {**template, "projection": twice, "missing": vars(Indicators.nothing(self.n_features_in_))}


def _with_single_counts(template: Mapping[str, Any]) -> dict[str, Any]:
    """Return the template of an older file, whose statistics have one count for all features."""
    old = dict(template)
    for name in ("statistics", "targets"):
        if name in old:
            old[name] = {**old[name], "count": np.zeros(())}
    return old


def nothing_but(early: int, groups: int, features: int) -> dict[str, np.ndarray]:
    """Return running statistics with zeros, which keep so many examples."""
    nothing = RunningStatistics.nothing(groups, features)
    _, *shape = nothing.early.shape
    return {**vars(nothing), "early": np.zeros((early, *shape))}

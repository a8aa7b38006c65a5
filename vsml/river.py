"""VSML for river: a classifier and a regressor that learn one example at a time.

from river import datasets, evaluate, metrics
from vsml.river import RiverClassifier
print(evaluate.progressive_val_score(datasets.ImageSegments(), RiverClassifier(), metrics.Accuracy()))

Classes may be new at any time, features may come and go, and values may be missing. docs/streaming.md.
"""

import math
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from vsml.online.features import FeatureTable
from vsml.online.first import MARKS
from vsml.online.inputs import check_weights, visits_of
from vsml.online.network import OnlineNetwork
from vsml.online.standardise import RunningStatistics
from vsml.system.extras import needed_for
from vsml.types import Classes, Values

with needed_for("vsml.river's models"):
    from river import base

__all__ = ["RiverClassifier", "RiverRegressor"]

Features = Mapping[Hashable, Any]
"""An example: values by the names of features."""

First = list[tuple[Features, Any, np.float32 | None]]
"""The first examples, with the targets that came with them and what they teach."""


class RiverClassifier(base.Classifier):
    """A classifier for river that learns by a meta-learned learning algorithm: no learning rate.

    Inputs are treated as by `vsml.sklearn.VSMLClassifier`: standardised by running statistics, then
    weighed by their relevance and multiplied by a random matrix. No scaler is needed before it. What is known
    of features and of missing values is in `vsml.online.features`. The first 256 examples are learned anew as
    more is known of features (`vsml.online.first`).

    A class is known from its first label on. It gets an output of its own, whose synapses are fresh then.
    There are 2 outputs at first, and they double when there are too few. Compilation takes a second or so
    at the first example and whenever the outputs double, and else never.

    Memory is bounded: by `max_features` and `max_classes`, whatever the length of the stream. Up to 16, 32,
    64, ... features are kept with 2 rows of `units` floats each, and 2, 4, 8, ... outputs with a synapse for
    each input unit, 32 floats.

    Args:
        learner: name of a learning algorithm that comes with the library, path of a file such as
            learner.safetensors, or of a run's folder. One with fixed outputs knows 2 classes at most.
        units: input units of the network, whatever the number of features.
        max_features: features that are kept; those that come later are ignored, with one warning.
        max_classes: classes that are kept; a label beyond is refused.
        model: settings of the learner that differ from those of its file, as of `vsml.load_learner`.
        seed: of the projection and of the first state.
    """

    _first: First | None = None
    """The first examples; None: none are kept, as in older pickles."""

    def __init__(
        self,
        learner: str = "combined",
        units: int = 256,
        max_features: int = 1024,
        max_classes: int = 256,
        model: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        _check_positive(units=units, max_features=max_features, max_classes=max_classes)
        self.learner = learner
        self.units = units
        self.max_features = max_features
        self.max_classes = max_classes
        self.model = model
        self.seed = seed
        self._features = FeatureTable(units, max_features, seed)
        self._outputs: dict[base.typing.ClfTarget, int] = {}
        self._network: OnlineNetwork | None = None
        self._first = []

    @property
    def _multiclass(self) -> bool:
        return True

    def learn_one(self, x: Features, y: base.typing.ClfTarget, w: float = 1.0) -> None:
        """Learn an example.

        Args:
            x: numbers by the names of features; a feature that is not there, None or NaN is missing.
            y: its label, of any kind.
            w: how often it is learned, as `sample_weight` of `VSMLClassifier.partial_fit`; with 0 not at all.

        Raises:
            ValueError: a value is no number or infinite, the weight is out of range, or there are more
                classes than `max_classes`.
            FixedOutputsError: a third class, and the learning algorithm has a fixed number of outputs.
        """
        visits = _visits(w)
        if not visits:
            return
        if self._network is None:
            self._network = OnlineNetwork(self.learner, self.model, self.units, Classes(2), self.seed)
        output = self._outputs.get(y)
        if output is None:
            output = self._fresh_output(y, self._network)
        # If it fails, its label, where it is new, has no output yet.
        with _as_before_on_error(self._first):
            for taught in visits:
                entering = self._features.learn(x)
                self._network.learn(entering, np.int32(output), taught)
                self._keep_first(x, output, taught)
        self._outputs[y] = output

    def _keep_first(self, x: Features, output: int, taught: np.float32 | None) -> None:
        """Keep one of the first examples, and learn all of them anew if it is time (`vsml.online.first`)."""
        first = self._first
        if first is None or self._network is None:
            return
        first.append((dict(x), np.int32(output), taught))
        if len(first) in MARKS:
            outputs = np.array([number for _, number, _ in first])
            _learn_anew(self._network, self._features, first, outputs)
        if len(first) >= MARKS[-1]:
            self._first = None

    def predict_proba_one(self, x: Features, **_: Any) -> dict[base.typing.ClfTarget, float]:
        """Return the probability of each known class; nothing is learned. None is known at first."""
        if self._network is None:
            return {}
        logits = self._network.answer(self._features.apply(x))[: len(self._outputs)].astype(np.float64)
        likelihood = np.exp(logits - logits.max())
        probabilities = likelihood / likelihood.sum()
        return dict(zip(self._outputs, probabilities.tolist(), strict=True))

    def _fresh_output(self, label: base.typing.ClfTarget, network: OnlineNetwork) -> int:
        """Return the output for a new class, with fresh synapses."""
        output = len(self._outputs)
        if output >= self.max_classes:
            raise ValueError(
                f"y: got the new label {label!r} beside {output} others, expected at most max_classes of them"
            )
        network.renew(output)
        return output


class RiverRegressor(base.Regressor):
    """A regressor for river that learns online: the network of VSML, with a value as its answer.

    Inputs are treated as by `RiverClassifier`, and the target is standardised by running statistics, too. The
    first 256 examples are learned anew as more is known of both. It learns as `vsml.sklearn.VSMLRegressor`.

    Args:
        learner: as of `RiverClassifier`; None: as of `vsml.sklearn.VSMLRegressor`.
        units: as of `RiverClassifier`.
        max_features: likewise.
        model: likewise.
        seed: likewise.
    """

    _first: First | None = None
    """As of `RiverClassifier`, with targets in their own units."""

    def __init__(
        self,
        learner: str | None = "values",
        units: int = 256,
        max_features: int = 1024,
        model: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        _check_positive(units=units, max_features=max_features)
        self.learner = learner
        self.units = units
        self.max_features = max_features
        self.model = model
        self.seed = seed
        self._features = FeatureTable(units, max_features, seed)
        self._targets = RunningStatistics.nothing(1)
        self._network: OnlineNetwork | None = None
        self._first = []

    def learn_one(self, x: Features, y: base.typing.RegTarget, w: float = 1.0) -> None:
        """Learn an example; `x` and `w` are as of `RiverClassifier`.

        Raises:
            ValueError: a value is no number or infinite, or the weight is out of range.
        """
        visits = _visits(w)
        target = float(y)
        if not math.isfinite(target):
            raise ValueError(f"y: got {target}, expected a finite number")
        if not visits:
            return
        if self._network is None:
            self._network = OnlineNetwork(self.learner, self.model, self.units, Values(1), self.seed)
        with _as_before_on_error(self._first):
            for taught in visits:
                targets, standard = self._targets.learn(np.array([[target]]), "y")
                entering = self._features.learn(x)
                self._targets = targets
                self._network.learn(entering, standard[0], taught)
                self._keep_first(x, target, taught)

    def _keep_first(self, x: Features, target: float, taught: np.float32 | None) -> None:
        """Keep one of the first examples, and learn all of them anew if it is time (`vsml.online.first`)."""
        first = self._first
        if first is None or self._network is None:
            return
        first.append((dict(x), target, taught))
        if len(first) in MARKS:
            standard = self._targets.known(np.array([[value] for _, value, _ in first]))
            _learn_anew(self._network, self._features, first, standard)
        if len(first) >= MARKS[-1]:
            self._first = None

    def predict_one(self, x: Features, **_: Any) -> float:
        """Return the prediction; nothing is learned. The first is 0."""
        if self._network is None:
            return 0.0
        (answer,) = self._network.answer(self._features.apply(x)).tolist()
        (mean,), (deviation,) = self._targets.moments()
        return float(mean + deviation * answer)


@contextmanager
def _as_before_on_error(first: First | None) -> Iterator[None]:
    """Take back what is added to the first examples if what is done in this context fails."""
    kept = 0 if first is None else len(first)
    try:
        yield
    except BaseException:
        if first is not None:
            del first[kept:]
        raise


def _learn_anew(network: OnlineNetwork, features: FeatureTable, first: First, targets: np.ndarray) -> None:
    """Weigh features by the first examples, and learn these from a fresh state, by what is known now.

    Args:
        network: what learns.
        features: of the examples, which it has taken in.
        first: the examples.
        targets: what the network is told of them: numbers of outputs, int32 [n], or values, float32 [n, 1].
    """
    examples, _, factors = zip(*first, strict=True)
    counts = np.array([1.0 if factor is None else factor for factor in factors])
    with features.weighed(examples, targets, counts):
        network.learn_anew(zip(map(features.known, examples), targets, factors, strict=True))


def _check_positive(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name}: got {number}, expected at least 1")


def _visits(weight: float) -> list[np.float32 | None]:
    """Return how much each visit of an example of this weight teaches; None: in full, without a factor.

    Raises:
        ValueError: the weight is out of range.
    """
    if weight == 1:
        return [None]
    check_weights([weight], 1)
    (visits,) = visits_of(np.array([weight]))
    return [taught for taught in visits.taught if taught > 0]

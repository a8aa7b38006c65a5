"""Estimators of scikit-learn that are fitted anew every n examples: contestants outside of JAX.

They keep all examples. So they are no learners with a state of a constant size, and answer on the host.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from vsml.learners.shares import Doubt
from vsml.registry import suggestion
from vsml.settings import Positive, Section, Text


def _svc() -> Any:
    from sklearn.svm import SVC

    return SVC(C=10)


def _logistic_regression() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=0.1, max_iter=300)


def _random_forest() -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(n_estimators=200, random_state=0)


ESTIMATORS: dict[str, Callable[[], Any]] = {
    "svc": _svc,
    "logistic_regression": _logistic_regression,
    "random_forest": _random_forest,
}
"""Classifiers by name, with the only settings that they are compared with; all others are scikit-learn's."""


class Refit(Section):
    """A classifier of scikit-learn in place of a learner."""

    estimator: Text = Field(
        description="svc: SVC(C=10); logistic_regression: LogisticRegression(C=0.1); random_forest: "
        "RandomForestClassifier(200 trees)"
    )
    every: Positive = Field(
        default=1,
        description="it is fitted anew after n, 2 n, ... steps, to all examples so far; 9 is exact for the "
        "answers at examples 10 and 100",
    )
    doubt: Doubt = 0.02

    @field_validator("estimator")
    @classmethod
    def _exists(cls, name: str) -> str:
        if name not in ESTIMATORS:
            hint = suggestion(name, ESTIMATORS)
            raise PydanticCustomError(
                "estimator",
                "Input should be one of {names}{hint}",
                {"names": ", ".join(ESTIMATORS), "hint": hint},
            )
        return name


def refitted_answers(
    refit: Refit,
    x: np.ndarray,
    y: np.ndarray,
    taught: np.ndarray | None,
    size: int,
) -> np.ndarray:
    """Answer a stream: each example by the estimator as it was fitted to examples before it.

    Where one class alone is known that is the answer, and before the first example all are as likely.
    Classes not yet seen have the share `doubt / C`; so have those that an estimator without probabilities
    does not answer with.

    Args:
        refit: which estimator, and how often it is fitted.
        x: inputs [T, B, *input_shape].
        y: labels, int [T, B].
        taught: which labels are told, [T, B]; None: all.
        size: number of classes C.

    Returns:
        Logits, float32 [T, B, C].
    """
    T, B = y.shape
    inputs_TxBxD = x.reshape(T, B, -1)
    told_TxB = np.ones((T, B), bool) if taught is None else np.asarray(taught) > 0
    shares_TxBxC = np.zeros((T, B, size))
    for start in range(0, T, refit.every):
        end = min(start + refit.every, T)
        known = told_TxB[:start]
        asked_NxD = inputs_TxBxD[start:end].reshape((end - start) * B, -1)
        shares_NxC = _shares(refit, inputs_TxBxD[:start][known], y[:start][known], asked_NxD, size)
        shares_TxBxC[start:end] = shares_NxC.reshape(end - start, B, size)
    logits = np.log((1 - refit.doubt) * shares_TxBxC + refit.doubt / size)
    return logits.astype(np.float32)


def _shares(
    refit: Refit,
    x: np.ndarray,
    y: np.ndarray,
    asked: np.ndarray,
    size: int,
) -> np.ndarray:
    """Return shares [N, C] of inputs [N, D], after a fit to inputs [K, D] and labels [K]."""
    classes = np.unique(y)
    if len(classes) == 0:
        return np.full((len(asked), size), 1 / size)
    if len(classes) == 1:
        return np.tile(np.eye(size)[classes[0]], (len(asked), 1))
    estimator = ESTIMATORS[refit.estimator]()
    estimator.fit(x, y)
    if not hasattr(estimator, "predict_proba"):
        return np.eye(size)[estimator.predict(asked)]
    shares = np.zeros((len(asked), size))
    shares[:, estimator.classes_] = estimator.predict_proba(asked)
    return shares

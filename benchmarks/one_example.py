"""Time of one example at a time, predict and then learn, beside river's own models.

    python benchmarks/one_example.py [--classes 10] [--features 64] [--steps 2000]

All models take the same stream, example by example in turn, so that whatever else the machine does is shared
by all. Prints, for each, percentiles of the time of predict and learn together, the ratio of medians to
RiverClassifier's, and the accuracy of its answers. On a busy machine the 10th percentile says more: a call of
JAX waits for threads. The first fifth is not timed: it compiles, and fills what grows. About a minute.
"""

import argparse
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from river import linear_model, multiclass, naive_bayes, neighbors, preprocessing, tree
from sklearn.datasets import load_digits, make_classification
from sklearn.preprocessing import StandardScaler

from vsml.river import RiverClassifier
from vsml.sklearn import VSMLClassifier

Example = dict[Hashable, float]


@dataclass
class Contestant:
    """A model, and how long its steps took.

    Attributes:
        predict: from an example to a label.
        learn: an example and its label.
        seconds: of each step, predict and learn.
        right: whether each answer was right.
    """

    predict: Callable[[Example], Any]
    learn: Callable[[Example, int], Any]
    seconds: list[float] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)

    def step(self, x: Example, label: int) -> None:
        """Answer an example, then learn it."""
        start = time.perf_counter()
        answer = self.predict(x)
        self.learn(x, label)
        self.seconds.append(time.perf_counter() - start)
        self.right.append(answer == label)


def of_river(model: Any) -> Contestant:
    """Return a model of river as a contestant."""
    return Contestant(model.predict_one, model.learn_one)


def of_sklearn(classes: int) -> Contestant:
    """Return VSMLClassifier, which takes arrays."""
    classifier = VSMLClassifier()
    known = range(classes)

    def predict(x: Example) -> Any:
        if not hasattr(classifier, "classes_"):
            return None
        return classifier.predict(np.array([list(x.values())]))[0]

    def learn(x: Example, label: int) -> None:
        first = None if hasattr(classifier, "classes_") else known
        classifier.partial_fit(np.array([list(x.values())]), [label], classes=first)

    return Contestant(predict, learn)


def contestants(classes: int) -> dict[str, Contestant]:
    """Return all models, by name. Those that need it have a scaler before them."""
    logistic = multiclass.OneVsRestClassifier(linear_model.LogisticRegression())
    return {
        "vsml.river.RiverClassifier": of_river(RiverClassifier()),
        "vsml.sklearn.VSMLClassifier": of_sklearn(classes),
        "LogisticRegression, one vs rest": of_river(preprocessing.StandardScaler() | logistic),
        "HoeffdingTreeClassifier": of_river(tree.HoeffdingTreeClassifier()),
        "GaussianNB": of_river(naive_bayes.GaussianNB()),
        "KNNClassifier": of_river(preprocessing.StandardScaler() | neighbors.KNNClassifier()),
    }


def stream(classes: int, features: int, steps: int) -> tuple[list[Example], list[int]]:
    """Return examples and labels: digits where they have this form, and else made ones."""
    if (classes, features) == (10, 64):
        X, y = load_digits(return_X_y=True)
    else:
        X, y = make_classification(
            steps,
            features,
            n_informative=max(2, features // 2),
            n_redundant=0,
            n_classes=classes,
            random_state=0,
        )
        X = StandardScaler().fit_transform(X)
    order = np.random.default_rng(0).permutation(len(X))
    rows = np.resize(order, steps)
    names = [f"feature {number}" for number in range(features)]
    examples = [dict(zip(names, X[row].tolist(), strict=True)) for row in rows]
    return examples, [int(y[row]) for row in rows]


def main(words: list[str] | None = None) -> None:
    """Time all models, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--steps", type=int, default=1500)
    options = parser.parse_args(words)
    models = contestants(options.classes)
    for x, label in zip(*stream(options.classes, options.features, options.steps), strict=True):
        for model in models.values():
            model.step(x, label)
    timed = slice(options.steps // 5, None)
    medians = {name: np.median(model.seconds[timed]) for name, model in models.items()}
    of_vsml = medians["vsml.river.RiverClassifier"]
    print("| model | p10 ms | p50 ms | p95 ms | p50 over RiverClassifier's | accuracy |")
    print("|---|---|---|---|---|---|")
    for name, model in models.items():
        quick, tail = np.percentile(model.seconds[timed], [10, 95])
        accuracy = np.mean(model.right)
        ratio = medians[name] / of_vsml
        times = f"{1e3 * quick:.3f} | {1e3 * medians[name]:.3f} | {1e3 * tail:.3f}"
        print(f"| {name} | {times} | {ratio:.2f} | {accuracy:.3f} |")


if __name__ == "__main__":
    main()

"""Learn tables online, by a learning algorithm and by gradient descent: scikit-learn's, in several orders.

    python benchmarks/tables.py [LEARNER]

Accuracy of answers given before each label was seen: on the first 20 and 50 examples, on all, and on the last
fifth. Gradient descent (logistic regression) has a standardisation of its own, and of all its settings those
that did best on each data set, afterwards. 10 minutes on one core.
"""

import argparse
from functools import partial

import numpy as np
from sklearn import datasets
from sklearn.linear_model import SGDClassifier
from sklearn.preprocessing import StandardScaler

from vsml.reporting.tables import Table, markdown, markdown_row
from vsml.sklearn import VSMLClassifier, learn_online

DATA = ("iris", "wine", "breast_cancer", "digits")
VARIANTS = {
    "default": {},
    "scale all": {"scale": "all"},
    "64 units": {"units": 64},
    "128 units": {"units": 128},
    "512 units": {"units": 512},
    "features as they are": {"into": "same"},
    "zeros appended": {"into": "zeros"},
    "features repeated": {"into": "repeated"},
}
SGD = [
    *({"learning_rate": "optimal", "alpha": alpha} for alpha in (1e-4, 1e-3, 1e-2)),
    *({"learning_rate": "constant", "eta0": eta0} for eta0 in (0.001, 0.01, 0.1, 1.0)),
]


class Unprojected(VSMLClassifier):
    """With another matrix than a random one between features and units."""

    def __init__(
        self, learner="general", *, into="zeros", units=None, scale="feature", epochs=1, random_state=0
    ):
        super().__init__(learner, scale=scale, units=units, epochs=epochs, random_state=random_state)
        self.into = into

    def _start_with(self, classes, room):
        d = self.n_features_in_
        self.units = d if self.into == "same" else None
        super()._start_with(classes, room)
        room, units = self.learned_["projection"].shape
        numbers = np.arange(units) % d if self.into == "repeated" else np.arange(units)
        matrix = np.arange(room)[:, None] == numbers
        self.learned_ = {**self.learned_, "projection": matrix.astype(np.float32)}


class StandardisedSGD:
    """SGDClassifier on inputs that are standardised by what has been seen."""

    def __init__(self, **settings):
        self.scaler = StandardScaler()
        self.classifier = SGDClassifier(loss="log_loss", random_state=0, **settings)

    def predict(self, X):
        return self.classifier.predict(self.scaler.transform(X))

    def partial_fit(self, X, y, classes):
        self.scaler.partial_fit(X)
        self.classifier.partial_fit(self.scaler.transform(X), y, classes=classes)


def measure(make, X, y, shuffles, limit):
    """Return accuracy on the first 20, the first 50, all and the last fifth, mean over orders."""
    rows = []
    for seed in range(shuffles):
        order = np.random.default_rng(seed).permutation(len(X))[:limit]
        result = learn_online(make(), X[order], y[order], classes=np.unique(y))
        rows.append([result.accuracy[19], result.accuracy[49], result.accuracy[-1], result.accuracy_last])
    return np.mean(rows, axis=0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("learner", nargs="?", default="general", help="name or path; default: general")
    parser.add_argument("--shuffles", type=int, default=10, help="orders of each data set; default: 10")
    parser.add_argument("--limit", type=int, default=1000, help="examples at most; default: 1000")
    arguments = parser.parse_args()
    headings = ["data set", "learner", "first 20", "first 50", "all", "last fifth"]
    print(markdown(Table(headings, [])))
    for name in DATA:
        X, y = getattr(datasets, f"load_{name}")(return_X_y=True)

        def show(who, values, name=name):
            print(markdown_row([name, who, *[f"{value:.3f}" for value in values]]), flush=True)

        for variant, settings in VARIANTS.items():
            make = partial(
                Unprojected if "into" in settings else VSMLClassifier, arguments.learner, **settings
            )
            show(variant, measure(make, X, y, arguments.shuffles, arguments.limit))
        tried = [
            (measure(partial(StandardisedSGD, **s), X, y, arguments.shuffles, arguments.limit), s)
            for s in SGD
        ]
        best, settings = max(tried, key=lambda pair: pair[0][2])
        told = ", ".join(f"{key} {value:g}" for key, value in settings.items() if key != "learning_rate")
        show(f"gradient descent, {settings['learning_rate']}, {told}", best)


if __name__ == "__main__":
    main()

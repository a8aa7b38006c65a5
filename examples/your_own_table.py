"""Let a learning algorithm learn a table of yours: a CSV file with numbers, and a column of labels.

    python examples/your_own_table.py                       wine, of scikit-learn; half a minute
    python examples/your_own_table.py --csv mine.csv --label species

The rows come one after the other, in random order: each is answered first, then its label is told. Printed is
how the share of right answers grows, for a learning algorithm of VSML and, on the same rows, for logistic
regression by stochastic gradient descent at scikit-learn's settings, behind a standardisation that learns
online as well. Last, both predict rows that neither has been told the labels of.
"""

import argparse
import csv
import tempfile
import time
from pathlib import Path

from vsml.system.devices import prepare

prepare()  # before JAX is imported: what is compiled is kept for the next time

import numpy as np
from sklearn.datasets import load_wine
from sklearn.linear_model import SGDClassifier
from sklearn.preprocessing import StandardScaler

from vsml.reporting.tables import Table, plain
from vsml.sklearn import VSMLClassifier, learn_online
from vsml.system.signals import StopSignals
from vsml.tasks import DataError, read_csv


def write_wine(path: Path) -> None:
    """Write scikit-learn's wine, 178 rows of 13 measurements and a cultivar, as one's own table might be."""
    wine = load_wine()
    with open(path, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow([*wine.feature_names, "cultivar"])
        rows.writerows(
            [*row, wine.target_names[label]] for row, label in zip(wine.data, wine.target, strict=True)
        )


class OnlineSGD:
    """Logistic regression by SGD, behind a standardisation that learns from the same examples."""

    def __init__(self) -> None:
        self.scaler = StandardScaler()
        self.classifier = SGDClassifier(loss="log_loss", random_state=0)

    def partial_fit(self, x: np.ndarray, y: np.ndarray, classes: np.ndarray | None = None) -> "OnlineSGD":
        """Learn examples on top of what has been learned."""
        self.classifier.partial_fit(self.scaler.partial_fit(x).transform(x), y, classes)
        return self

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Return the labels of examples."""
        return self.classifier.predict(self.scaler.transform(x))


parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
parser.add_argument("--csv", type=Path, help="the table; its first line names the columns")
parser.add_argument("--label", default="cultivar", help="name of the column of labels")
parser.add_argument("--algorithm", default="general", help="name or file, as for vsml.load_learner")
parser.add_argument("--held_out", type=int, default=8, help="rows to predict at the end")
options = parser.parse_args()
started = time.monotonic()

with tempfile.TemporaryDirectory() as folder:
    path = options.csv or Path(folder, "wine.csv")
    if options.csv is None:
        write_wine(path)
    try:
        x, y = read_csv(path, options.label)
    except DataError as error:
        raise SystemExit(f"error: {error}") from error
if not 1 <= options.held_out < len(x):
    raise SystemExit(
        f"error: --held_out: got {options.held_out}, expected 1 to {len(x) - 1} of {len(x)} rows"
    )

order = np.random.default_rng(0).permutation(len(x))
held_out, stream = np.split(order, [options.held_out])
learners: dict[str, VSMLClassifier | OnlineSGD] = {
    f"VSML '{options.algorithm}'": VSMLClassifier(options.algorithm),
    "SGD": OnlineSGD(),
}
done = {}
with StopSignals() as stop:
    print("This takes about half a minute for some hundred rows.")
    print("Ctrl-C shows the learners that are done by then.")
    for name, learner in learners.items():
        result = learn_online(learner, x[stream], y[stream], classes=np.unique(y))
        print(f"{name}: {result.correct.mean():.3f} of {len(stream)} answers right\n{result}\n", flush=True)
        done[name] = learner
        if stop:
            print(f"stopped after {name}")
            break

print(f"{len(held_out)} rows that were held out:")
headings = ("true", *done)
predictions = [learner.predict(x[held_out]) for learner in done.values()]
rows = [list(map(str, labels)) for labels in zip(y[held_out], *predictions, strict=True)]
print(plain(Table(headings, rows, left=frozenset(headings))))
print(f"{time.monotonic() - started:.0f} seconds")

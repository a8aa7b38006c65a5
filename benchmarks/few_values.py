"""Values after a few rows: VSMLRegressor beside refitted scikit-learn, on the same rows of tables.

    python -m benchmarks.few_values --contestant "values=values" "descent=" --out RESULT
    python -m benchmarks.few_values --tables final --out RESULT

A draw is --rows rows of a table, and up to --asked others. VSML learns the former one after the other, and
references are fitted to all of them at once, standardised by scikit-learn, targets too. All contestants meet
the same draws. A contestant is NAME=SOURCE; SOURCE is what VSMLRegressor takes as its learner, nothing for
gradient descent alone, with ":KEY=VALUE" behind it for each setting of its model that is another one.
References are always there.

What is printed: the squared error on the rows that are asked over the variance of their targets, at most 2
for a draw, as a mean over tables with 95 % intervals over draws; the difference to --against; on how many
tables a contestant is ahead; and each table's own. --noise and --outliers are as of benchmarks/few_rows.py.
Errors are kept in RESULT, a JSON file, by contestant with its source; a second call goes on from there.

`--tables choices` are for choices, `--tables final` for final numbers alone (benchmarks/value_tables.py).
ISLP is installed by `pip install --no-deps ISLP`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import RidgeCV
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

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
from benchmarks.value_tables import CHOICES, FINAL, ValueTable, read
from vsml.reporting.intervals import half_width
from vsml.reporting.tables import Table, markdown
from vsml.sklearn import VSMLRegressor

REFERENCES: dict[str, Callable[[], Any]] = {
    "RidgeCV": lambda: RidgeCV(np.logspace(-2, 3, 11)),
    "RandomForest, 100 trees": lambda: RandomForestRegressor(100, random_state=0),
    "SVR(C=10)": lambda: SVR(C=10),
    "5 nearest neighbours": KNeighborsRegressor,
}
"""Regressors of scikit-learn, refitted to all rows; the ridge is chosen by leaving one out."""

TABLES = {"choices": CHOICES, "final": FINAL}

_LEAST_ASKED = 100

_MOST = 2.0
"""The largest error of a draw, so that one that is far off does not hide all others."""

Fit = Callable[[np.ndarray, np.ndarray, int], Any]
"""`(x, y, seed) -> what predicts`."""


def fit_reference(name: str, x: np.ndarray, y: np.ndarray, seed: int) -> Any:
    """Fit a reference to all rows; missing values are at the mean."""
    del seed
    model = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler(), REFERENCES[name]())
    return TransformedTargetRegressor(model, transformer=StandardScaler()).fit(x, y)


def fit_vsml(source: str, x: np.ndarray, y: np.ndarray, seed: int) -> Any:
    """Let VSMLRegressor learn row by row."""
    learner, model = settings_of(source)
    return VSMLRegressor(learner or None, model=model, random_state=seed).partial_fit(x, y)


def fits_of(contestants: Sequence[str]) -> dict[str, Fit]:
    """Return how each contestant is fitted, by name, references last; see `sources_of`."""
    fits: dict[str, Fit] = {}
    for name, source in sources_of(contestants).items():
        fits[name] = partial(fit_vsml, source)
    for name in REFERENCES:
        fits[name] = partial(fit_reference, name)
    return fits


def error_of(fit: Fit, table: ValueTable, draws: Draws, draw: int) -> float:
    """Return the relative squared error of a contestant on a draw."""
    x, shown, others = draws.inputs(table, draw)
    model = fit(x[shown], table.y[shown], draw)
    targets = table.y[others]
    squared = np.square(model.predict(x[others]) - targets).mean()
    return min(_MOST, float(squared / targets.var()))


def table_of(scores: Scores, against: str) -> Table:
    """Return means over tables, how they compare with those of one contestant, and each table's own."""
    reference = np.array(list(scores[against].values()))
    lines = []
    for who, own in scores.items():
        errors = np.array(list(own.values()))
        # A draw is one of each table: tables are fixed, and rows are what chance decides.
        means, gaps = errors.mean(0), (errors - reference).mean(0)
        ahead = int((errors.mean(1) < reference.mean(1)).sum())
        compared = (
            ["", ""]
            if who == against
            else [
                f"{gaps.mean():+.3f} ± {half_width(gaps):.3f}",
                f"{ahead} of {len(own)}",
            ]
        )
        each = [f"{np.mean(values):.2f}" for values in own.values()]
        lines.append([who, f"{means.mean():.3f} ± {half_width(means):.3f}", *compared, *each])
    return Table(("", "error", f"less {against}", "tables ahead", *scores[against]), lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = parser_of((__doc__ or "").split("\n")[0], "values=values", "RidgeCV", TABLES)
    options = parser.parse_args(arguments)
    fits = fits_of(options.contestant)
    check(parser, options, fits)
    for draws in draws_of(options):
        tables = {name: read(name) for name in TABLES[options.tables]}
        tables = with_enough_rows(parser, tables, draws, _LEAST_ASKED)
        scores = measure(fits, error_of, tables, draws, options)
        print(f"\nAfter {draws.rows} rows, {len(tables)} tables, {options.draws} draws\n")
        print(markdown(table_of(scores, options.against)))


if __name__ == "__main__":
    main()

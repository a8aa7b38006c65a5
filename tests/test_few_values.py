"""The benchmark of values after a few rows, on tables that are made here."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import few_values, value_tables

CSV = """\
"mpg","power","maker","name"
18.0,130,"a","one"
15.0,"?","b","two"
"NA",150,"c","three"
16.5,110,"a","four"
"""


def test_a_table_of_islp_is_numbers_and_what_names_the_row_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(value_tables, "_folder", lambda: tmp_path)
    (tmp_path / "Auto.csv").write_text(CSV)
    table = value_tables.read("Auto")
    # A row without a target is left out.
    assert table.y.tolist() == [18.0, 15.0, 16.5]
    expected = [[130, 1, 0, 0], [np.nan, 0, 1, 0], [110, 1, 0, 0]]
    np.testing.assert_array_equal(table.x, expected)


@pytest.mark.parametrize("name", ["diabetes", "friedman2", "TrumpApproval"])
def test_other_tables_are_those_of_scikit_learn_and_river(name):
    table = value_tables.read(name)
    assert len(table.x) == len(table.y) > 400 and table.x.ndim == 2
    assert np.isfinite(table.x).all() and table.y.std() > 0


def test_without_the_package_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(value_tables.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install --no-deps ISLP"):
        value_tables.read("Boston")


def test_tables_are_for_choices_or_for_final_numbers():
    known = {*value_tables.CHOICES, *value_tables.FINAL}
    assert len(known) == len(value_tables.CHOICES) + len(value_tables.FINAL)
    assert known == {*value_tables.ISLP, *value_tables.MADE}


def test_all_learn_the_same_draws_and_go_on_from_the_file(monkeypatch, tmp_path, capsys):
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 3))
    straight = value_tables.ValueTable("straight", x, x @ [1.0, 2.0, -1.0])
    monkeypatch.setattr(few_values, "TABLES", {"choices": ["straight"]})
    monkeypatch.setattr(few_values, "read", lambda name: straight)
    out: Path = tmp_path / "values.json"
    options = ["--rows", "30", "--asked", "50", "--draws", "2", "--out", str(out)]
    small = "small=values:regression.features=16:regression.hidden=8:random_features.count=8"
    few_values.main([*options, "--contestant", small])
    first = json.loads(out.read_text())
    monkeypatch.setattr(few_values, "error_of", lambda *_: pytest.fail("measured again"))
    few_values.main([*options, "--contestant", small])
    assert json.loads(out.read_text()) == first
    errors = {key.split(" | ")[0]: values for key, values in first.items()}
    assert max(errors["RidgeCV"]) < 1e-4 and max(errors[small]) < 0.1 < min(errors["5 nearest neighbours"])
    printed = capsys.readouterr().out
    assert "After 30 rows, 1 tables, 2 draws" in printed and "| small |" in printed


def test_differences_are_of_the_same_draws_and_errors_are_bounded():
    scores = {
        "mine": {"a": [0.125, 0.25], "b": [0.5, 0.5]},
        "theirs": {"a": [0.25, 0.375], "b": [0.25, 0.25]},
    }
    mine, theirs = few_values.table_of(scores, "theirs").rows
    assert mine[1].startswith("0.344") and mine[2] == "+0.062 ± 0.000" and mine[3] == "1 of 2"
    assert mine[4:] == ["0.19", "0.50"] and theirs[2:4] == ["", ""]
    table = value_tables.ValueTable("far", np.zeros((200, 1)), np.arange(200.0))

    class FarOff:
        def predict(self, x):
            return np.full(len(x), 1e6)

    assert few_values.error_of(lambda *_: FarOff(), table, few_values.Draws(30, 50), 0) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--draws", "1"], "got 1, expected at least 2"),
        (["--against", "nobody"], "got nobody, expected one of values, RidgeCV"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        few_values.main([*options, "--out", str(tmp_path / "out.json")])
    assert message in capsys.readouterr().err


def test_a_contestant_without_a_name_is_refused():
    with pytest.raises(ValueError, match="got 'values', expected NAME=SOURCE"):
        few_values.fits_of(["values"])

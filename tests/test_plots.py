"""Learning curves: the numbers behind them, and files that image readers accept."""

import os

import numpy as np
import pytest
from matplotlib import image

from vsml.reporting.plots import Curve, drawn, learning_curves, panels, save, trailing_accuracy


def test_the_window_ends_with_the_current_example_and_grows_from_one():
    correct = np.array([1, 0, 0, 0, 1, 1, 1, 1, 0], float)
    accuracy = trailing_accuracy(correct, window=2)
    np.testing.assert_allclose(accuracy, [1, 0, 0, 0, 0.5, 1, 1, 1, 0.5])


def test_a_full_window_is_the_mean_of_the_latest_examples():
    correct = np.random.default_rng(0).random((3, 500))
    accuracy = trailing_accuracy(correct, window=50)
    np.testing.assert_allclose(accuracy[:, -1], correct[:, -50:].mean(axis=1))
    np.testing.assert_allclose(accuracy[:, 199], correct[:, 150:200].mean(axis=1))
    np.testing.assert_allclose(accuracy[:, 99], correct[:, 75:100].mean(axis=1))


def test_later_answers_do_not_change_earlier_accuracy():
    correct = np.zeros((1, 100))
    changed = correct.copy()
    changed[:, 60:] = 1
    assert (trailing_accuracy(correct)[:, :60] == trailing_accuracy(changed)[:, :60]).all()
    assert trailing_accuracy(changed)[0, 60] > 0


@pytest.mark.parametrize("panels", [1, 2, 4, 5])
def test_a_figure_is_written_whole(tmp_path, panels):
    rng = np.random.default_rng(0)
    curves = [
        Curve(name, f"data set {panel}", rng.random((3, 30)) < 0.5, chance=0.1)
        for panel in range(panels)
        for name in ("evolved", "untrained")
    ]
    learning_curves(tmp_path / "curves.png", curves, title="probe")
    assert os.listdir(tmp_path) == ["curves.png"]
    pixels = image.imread(tmp_path / "curves.png")
    assert pixels.shape[0] > 300 and pixels.shape[1] > 500
    assert pixels[..., :3].std() > 0.01


def test_a_line_marks_where_images_come_again_if_they_do(tmp_path):
    for repeats_after, marked in ((20, True), (30, False), (None, False)):
        learning_curves(tmp_path / "a.svg", [Curve("a", "b", np.ones((1, 30)), repeats_after=repeats_after)])
        assert ("<!-- images repeat -->" in (tmp_path / "a.svg").read_text()) == marked


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 1)])
@pytest.mark.parametrize("log_x", [True, False])
def test_a_single_episode_or_example_can_be_drawn(tmp_path, shape, log_x):
    learning_curves(tmp_path / "a.svg", [Curve("evolved", "digits", np.ones(shape))], log_x=log_x)
    assert b"<svg" in (tmp_path / "a.svg").read_bytes()


@pytest.mark.parametrize("shape", [(5,), (0, 5), (5, 0), (2, 2, 2)])
def test_answers_of_the_wrong_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"evolved on digits: got shape .* expected \[episodes, T\]"):
        Curve("evolved", "digits", np.ones(shape))


def test_no_curves_are_refused(tmp_path):
    with pytest.raises(ValueError, match="got no curves"):
        learning_curves(tmp_path / "a.png", [])
    assert os.listdir(tmp_path) == []


def test_a_window_below_one_is_refused():
    with pytest.raises(ValueError, match="got 0, expected at least 1"):
        trailing_accuracy(np.ones(3), window=0)


def test_names_are_text_and_no_mathematics(tmp_path):
    names = ["ba$$in", r"$\frac{$", r"a\$b$c$", "_hidden", "\u03c3", "\udcff"]
    curves = [Curve(name, name, np.ones((2, 5))) for name in names]
    learning_curves(tmp_path / "a.svg", curves, title="$x$_$")
    content = (tmp_path / "a.svg").read_text()
    # In the title of its panel and in the legend, where matplotlib would leave out what begins with "_".
    for name in [*names[:3], "\u03c3", "?"]:
        assert content.count(f"<!-- {name} -->") == 2
    assert content.count("<!-- _hidden -->") == content.count("<!--  _hidden -->") == 1


def test_numbers_of_logarithmic_axes_keep_their_exponents(tmp_path):
    figure, (axes,) = panels(1, 1)
    axes.semilogy([1, 2], [1e-3, 1e3])
    save(figure, tmp_path / "a.svg")
    assert r"<!-- $\mathdefault{10^{3}}$ -->" in (tmp_path / "a.svg").read_text()
    assert "mathdefault" not in (tmp_path / "a.svg").read_text().replace("<!-- $\\mathdefault", "")


def test_a_figure_that_cannot_be_drawn_is_told_of_and_a_full_disk_is_not_swallowed(capsys):
    def fail(error):
        raise error

    assert drawn("a", lambda: None)
    assert not drawn("curves.png", lambda: fail(ValueError("mathematics")))
    assert (
        "curves.png could not be drawn, and is left out: ValueError('mathematics')" in capsys.readouterr().out
    )
    with pytest.raises(OSError, match="full"):
        drawn("a", lambda: fail(OSError("full")))

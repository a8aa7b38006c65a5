"""The demonstration, small: what it shows, and what it says when something is not there."""

import re

import jax
import numpy as np
import pytest
from flat_vsml import flat_vsml

from vsml import demo
from vsml.calls.evaluate import Evaluation
from vsml.evaluation.scores import Price
from vsml.runs.checkpoint import export_params

pytestmark = pytest.mark.usefixtures("hasty")


@pytest.fixture(autouse=True)
def _own_process(monkeypatch):
    monkeypatch.setattr(demo, "prepare", lambda: None)  # it is about variables of a process of its own


@pytest.fixture(scope="module")
def algorithm(tmp_path_factory):
    path = tmp_path_factory.mktemp("algorithm") / "mine.safetensors"
    params = flat_vsml((8, 8, 1), 10).init_params(jax.random.key(0))
    export_params(path, params, {"config": {"model": {"type": "vsml"}}})
    return path


def test_digits_are_learned_without_a_data_folder(algorithm, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("VSML_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "60")
    picture = tmp_path / "new" / "curves.png"
    sizes = ["--episodes", "2", "--examples", "100"]
    assert demo.main(["--algorithm", str(algorithm), "--picture", str(picture), *sizes]) == 0
    printed = capsys.readouterr().out
    vsml, adam, ridge = re.findall(
        r"^digits, held out \(8x8\) +(\d+)% +(\d+)% +(\d+)%$", printed, re.MULTILINE
    )
    assert int(adam[1]) > 30 and int(ridge[1]) > 30  # they learn: chance is 10 %
    assert max(map(len, printed.splitlines()[:-2])) <= 60  # the path of the picture is longer
    assert re.search(r"not downloaded .*: MNIST .14x14., Fashion-MNIST", printed.replace("\n", " "))
    assert vsml[1] == vsml[2] and "⠒⠒ VSML 'mine'" in printed and "\x1b" not in printed
    assert picture.read_bytes().startswith(b"\x89PNG") and str(picture) in printed


def test_rows_have_state_and_cost_where_the_terminal_is_wide_enough():
    correct = np.ones((2, 100))
    price = Price(state=20_490, flops=6.6e6)
    results = [Evaluation("VSML", "digits", 0.1, correct, correct, price=price)]
    wide, narrow = demo._tables(results, 80), demo._tables(results, 40)
    assert re.search(r"digits +100% +100% +100% +20,490 +6.6 MFLOP", wide) and "state:" in wide
    assert "20,490" not in narrow and "state" not in narrow


def test_a_picture_that_cannot_be_written_is_no_error(tmp_path, capsys):
    (tmp_path / "file").touch()
    demo._draw(tmp_path / "file" / "curves.png", [])
    assert "No picture" in capsys.readouterr().out


def test_an_unknown_algorithm_is_named(capsys):
    with pytest.raises(SystemExit, match=r"error: .*none such"):
        demo.main(["--algorithm", "none such"])


@pytest.mark.parametrize(("name", "value"), [("episodes", "0"), ("examples", "498"), ("examples", "many")])
def test_sizes_out_of_range_are_refused(name, value, capsys):
    with pytest.raises(SystemExit):
        demo.main([f"--{name}", value])
    assert f"--{name}" in capsys.readouterr().err


def test_after_ctrl_c_there_is_no_traceback(monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "_demonstrate", interrupted)
    assert demo.main([]) == 130
    assert capsys.readouterr().err.strip() == "stopped"

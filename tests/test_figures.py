"""The paper's figures: drawn from runs, and what is said of those that cannot be."""

import json
import re
import shlex
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from vsml import figures
from vsml.config.files import dump
from vsml.launching.command_line import parse, read_config
from vsml.launching.schema import load_config
from vsml.runs.directory import RunDirectory

ROOT = Path(__file__).parents[1]


def make_run(path, learners=("VSML", "SGD"), datasets=("mnist", "random")):
    run = RunDirectory(path)
    run.start(dump(load_config(overrides=["call=evaluate"])), {})
    rows = [
        {
            "learner": learner,
            "dataset": data,
            "accuracy_last": 0.1 + 0.2 * number,
            "interval_95": {"accuracy_last": 0.05},
        }
        for number, learner in enumerate(learners)
        for data in datasets
    ]
    (path / "evaluation.json").write_text(json.dumps(rows))
    run.complete.touch()
    return path


def size(path):
    return matplotlib.image.imread(path).shape[:2]


def test_every_figure_names_runs_and_commands_that_exist():
    for figure in figures.FIGURES.values():
        commands = [f"python launch.py {run}" for run in figure.runs] + list(figure.full)
        for command in commands:
            words = shlex.split(re.split(r"    ", command)[0])
            if words[1] == "launch.py" and "[...]" not in command:
                read_config(parse(words[2:]))
    assert "configs/invariances.yaml" in figures.describe()


def test_bars_and_a_matrix_are_drawn_from_evaluations(tmp_path):
    run = make_run(tmp_path / "run")
    for name in ("fig7", "fig8"):
        path = figures.make(name, tmp_path / "out", [run])
        assert path == tmp_path / "out" / f"{name}.png" and min(size(path)) > 200
    several = [
        make_run(tmp_path / name, learners)
        for name, learners in (
            ("on_mnist", ("evolved", "untrained")),  # as runs of version 0.1 have it
            ("on_all", ("meta-trained", "start: gradient descent")),
            ("on_one", ("meta-trained", "start: random")),
        )
    ]
    assert size(figures.make("fig8", tmp_path / "three", several))[0] > size(path)[0]


@pytest.mark.parametrize("name", ["trajectories.npz", "followed.npz"])
def test_clones_are_drawn_from_their_trajectories(tmp_path, name):
    run = make_run(tmp_path / "run")
    arrays = {
        "examples": np.arange(60),
        "loss": np.ones((2, 60)),
        "cosine": np.ones((60, 2)),
        "test_accuracy": [0.9, 0.8],
    }
    np.savez(run / name, **{f"mnist/{name}": value for name, value in arrays.items()})
    assert min(size(figures.make("fig4", tmp_path, [run]))) > 200


def test_what_would_be_lost_is_refused(tmp_path):
    run, again = (make_run(tmp_path / name) for name in ("run", "again"))
    with pytest.raises(ValueError, match="got VSML on mnist, VSML on random, SGD on mnist"):
        figures.make("fig7", tmp_path, [run, again])
    with pytest.raises(ValueError, match="got no evaluation that can be shown"):
        figures.make("fig8", tmp_path, [run, again])  # neither has a learner that was meta-trained
    for name in ("a", "b"):
        (run / f"answers_{name}.png").touch()
    with pytest.raises(ValueError, match=r"answers_b\.png, expected one figure"):
        figures.make("introspection", tmp_path, [run])


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("fig4", "trajectories.npz: is missing"),
        ("fig6", "has no learning_curves.png"),
        ("introspection", r"has no answers_\*"),
    ],
)
def test_runs_of_another_kind_are_refused(name, missing, tmp_path):
    with pytest.raises(ValueError, match=missing):
        figures.make(name, tmp_path, [make_run(tmp_path / "run")])


def test_a_run_that_is_not_complete_is_refused(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "complete").unlink()
    with pytest.raises(ValueError, match="is not complete"):
        figures.make("fig7", tmp_path, [run])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fig5"], "got fig5, expected some of fig4, fig6"),
        ([], "NAME: expected some of"),
        (["fig7", "fig8", "--runs", "x"], "got 2 figures, expected one"),
    ],
)
def test_wrong_command_lines_are_refused(words, message, capsys):
    with pytest.raises(SystemExit):
        figures.main(words)
    assert message in capsys.readouterr().err


def test_a_figure_makes_the_runs_it_needs_once(tmp_path, monkeypatch):
    (tmp_path / "tiny.yaml").write_text(
        "{call: evaluate, evaluation: {episode_length: 4, count: 1, datasets: [random]}, model: {type: sgd}, "
        "tracking: {wandb: {mode: disabled}}}"
    )
    run = f"--config_files {tmp_path / 'tiny.yaml'}"
    figure = figures.PaperFigure("", (run,), (), figures.draw_curves)
    monkeypatch.setitem(figures.FIGURES, "tiny", figure)
    path = figures.make("tiny", tmp_path)
    results = tmp_path / "tiny" / "evaluation.json"
    written = results.stat().st_mtime_ns
    assert figures.make("tiny", tmp_path) == path and min(size(path)) > 200
    assert results.stat().st_mtime_ns == written


def test_a_damaged_evaluation_is_named_with_its_place(tmp_path):
    run = make_run(tmp_path / "run")
    file = run / "evaluation.json"
    for content, message in (
        ("[{", "evaluation.json: got a damaged file, expected JSON"),
        ("null", "evaluation.json: got null, expected a list"),
        ('[{"dataset": "mnist"}]', "evaluation.json, row 1, learner: is missing"),
        ('[{"learner": "a", "dataset": "b"}]', "got a on b without an accuracy"),
    ):
        file.write_text(content)
        with pytest.raises(ValueError, match=message):
            figures.make("fig7", tmp_path / "out", [run])


def test_clones_on_a_data_set_with_a_slash_are_drawn_and_a_cut_file_is_named(tmp_path):
    run = make_run(tmp_path / "run")
    arrays = {
        "data/x.npz/examples": np.arange(3),
        "data/x.npz/cosine": np.ones((3, 1)),
        "data/x.npz/test_accuracy": np.ones(2),
        "data/x.npz/loss": np.ones((2, 3)),
    }
    np.savez(run / "trajectories.npz", **arrays)
    assert min(size(figures.make("fig4", tmp_path / "out", [run]))) > 200
    content = (run / "trajectories.npz").read_bytes()
    (run / "trajectories.npz").write_bytes(content[:-30])
    with pytest.raises(ValueError, match=r"trajectories\.npz: got a damaged file"):
        figures.make("fig4", tmp_path / "out", [run])

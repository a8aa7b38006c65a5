"""Inputs like those in public bug reports: each is taken as meant, or refused in one line.

Each input is made here. Where there is a folder with the original files (VSML_FAILING_DIR, or shared/failing
beside the checkout), those are tried, too.
"""

import json
import os
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest

from vsml.calls.sources import tell_sources
from vsml.runs.directory import RunDirectory
from vsml.tasks import build_task, load
from vsml.tasks.data.errors import DataError
from vsml.types import Classes

ROOT = Path(__file__).parents[1]
FOLDER = Path(os.environ.get("VSML_FAILING_DIR", ROOT.parent / "shared" / "failing"))
LABELS = np.arange(40) % 4


def images(seed=0, shape=(6, 6)):
    """Draw images whose mean says which class they are of."""
    noise = np.random.default_rng(seed).normal(size=(40, *shape))
    means = LABELS.reshape(40, *[1] * len(shape))
    return (noise + means).astype(np.float32)


def table(seed=0):
    """Draw a table whose columns are of very different units."""
    return images(seed, (8,)) * np.float32(10.0) ** np.arange(8, dtype=np.float32)


def arrays_like(name):
    """Return the arrays of a small file that has the fault of the file of that name."""
    x, y = images(), LABELS
    arrays = {"x_train": x, "y_train": y, "x_test": images(1), "y_test": y}
    letters = np.array(list("abcd"), object)[y]
    changed = {
        "gaps": {"y_train": 3 + 7 * y, "y_test": 3 + 7 * y},
        "onebased": {"y_train": 1 + y, "y_test": 1 + y},
        "oneclass": {"y_train": 0 * y, "y_test": 0 * y},
        "table": {"x_train": table(), "x_test": table(1)},
        "testonly_scale": {"x_test": 235 * x},
        "hugemax": {"y_train": np.where(y == 3, 2**31 - 2, y), "y_test": np.where(y == 3, 2**31 - 2, y)},
        "objlabels": {"y_train": letters, "y_test": letters},
        "column": {"y_train": y[:, None], "y_test": y[:, None]},
        "chw": {"x_train": x[:, None], "x_test": x[:, None]},
        "subnormal": {"x_train": x * np.float32(1e-40), "x_test": x * np.float32(1e-40)},
    }
    return {**arrays, **changed[name]}


@pytest.fixture(params=["made here", "original"])
def path_of(request, tmp_path):
    """Return a function from the name of an input to its path."""

    def find(name):
        if request.param == "original":
            path = FOLDER / f"{name}.npz"
            if not path.is_file():
                pytest.skip(f"there is no {path}; VSML_FAILING_DIR names the folder of the original files")
            return str(path)
        path = tmp_path / f"{name}.npz"
        np.savez(path, **arrays_like(name))
        return str(path)

    return find


@pytest.mark.parametrize(("name", "labels"), [("gaps", (3, 10, 17, 24)), ("onebased", (1, 2, 3, 4))])
def test_classes_are_the_labels_that_occur_and_so_is_chance(path_of, name, labels):
    path = path_of(name)
    raw = np.load(path)
    for subset in ("train", "test"):
        data = load(path, subset)
        assert data.outputs == Classes(4)
        assert data.class_labels == labels
        np.testing.assert_array_equal(np.array(labels)[data.labels], raw[f"y_{subset}"])
        assert build_task(data, 5).chance == 1 / 4
    with pytest.raises(ValueError, match=rf"expected different classes .*labels {labels[0]}, {labels[1]}, "):
        build_task(data, 5, filter_classes=[labels[-1]])


def test_columns_of_a_table_are_standardised_one_by_one(path_of):
    data = load(path_of("table"), "train")
    episode = build_task(data, len(data.labels), replacement=False).sample(jax.random.key(0))
    columns = np.asarray(episode.x, np.float64).reshape(len(data.labels), -1)
    np.testing.assert_allclose(columns.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(columns.std(axis=0), 1, rtol=1e-3)
    raw = build_task(data, 5, replacement=False, normalize=False).sample(jax.random.key(0))
    assert np.isin(np.asarray(raw.x).ravel(), np.asarray(data.images).ravel()).all()


def test_a_file_may_say_that_its_columns_share_a_mean_and_a_deviation(tmp_path):
    arrays = {"x_train": table(), "y_train": LABELS}
    np.savez(tmp_path / "own.npz", **arrays, standardise="all")
    data = load(str(tmp_path / "own.npz"), "train")
    assert data.column_std is None
    np.testing.assert_allclose([data.mean, data.std], [table().mean(), table().std()], rtol=1e-4)
    np.savez(tmp_path / "own.npz", x_train=images(), y_train=LABELS, standardise="columns")
    with pytest.raises(DataError, match=r"got standardise 'columns' and x of shape .*, expected a table"):
        load(str(tmp_path / "own.npz"), "train")


def test_a_constant_column_stays_finite(tmp_path):
    x = table()
    x[:, 3] = 7
    np.savez(tmp_path / "own.npz", x_train=x, y_train=LABELS)
    episode = build_task(load(str(tmp_path / "own.npz"), "train"), 5).sample(jax.random.key(0))
    assert np.isfinite(episode.x).all()
    assert not episode.x[:, 0, 0, 3].any()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("oneclass", "all labels are 0, expected 2 classes or more"),
        ("hugemax", r"got labels 0\.\.2147483646, expected 0\.\.1000000"),
        ("objlabels", r"could not be read .y_\w+.*labels of type object.*save y as whole numbers"),
        ("column", r"shape \(\d+, 1\).*may be classes or values"),
        ("chw", r"looks as if channels came first; expected them last"),
        ("subnormal", r"a deviation of \S+, expected at least 1\.18e-38: multiply x"),
    ],
)
def test_what_is_not_clear_is_refused_in_one_line(path_of, name, message):
    path = path_of(name)
    for subset in ("train", "test"):
        with pytest.raises(DataError, match=message) as error:
            load(path, subset)
        assert "\n" not in str(error.value)
        assert f"{name}.npz" in str(error.value)


def test_a_test_half_in_another_unit_is_told(path_of):
    path = path_of("testonly_scale")
    with pytest.warns(UserWarning, match=r"x of the test half .*are they in the same units"):
        load(path, "test")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(path, "train")


@pytest.mark.parametrize("shape", [(40, 1, 9, 1), (40, 1, 100, 6), (40, 28, 28, 3), (40, 6, 6, 8)])
def test_images_and_series_with_channels_last_are_taken(tmp_path, shape):
    x = np.random.default_rng(0).normal(size=shape)
    np.savez(tmp_path / "own.npz", x_train=x, y_train=LABELS)
    assert load(str(tmp_path / "own.npz"), "train").image_shape == shape[1:]


def test_a_run_says_and_keeps_which_labels_are_which_classes(path_of, tmp_path, capsys):
    gaps, plain = load(path_of("gaps"), "train"), load("digits", "test")
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    tell_sources(run, [gaps, gaps, plain])
    said = capsys.readouterr().out
    assert said.count("labels 3, 10, 17, 24 are the classes 0..3") == 1
    kept = json.loads((run.path / "datasets.json").read_text())
    assert list(kept) == [gaps.name]
    assert kept[gaps.name]["class_labels"] == [3, 10, 17, 24]

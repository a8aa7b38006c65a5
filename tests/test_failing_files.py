"""Small inputs like those of public bug reports: read as meant, or one line that says what and where.

They lie in the folder that VSML_FAILING_DIR names, or in ../shared/failing.
"""

import os
from pathlib import Path

import numpy as np
import pytest

import vsml
from vsml.config.files import load_config
from vsml.launching.schema import WholeConfig
from vsml.runs.checkpoint import CheckpointError, load_params
from vsml.tasks import DataError, read_csv

FOLDER = Path(os.environ.get("VSML_FAILING_DIR") or Path(__file__).parents[2] / "shared" / "failing")


def failing(name):
    """Return the path of an input, or skip where it is not there."""
    path = FOLDER / name
    if not path.is_file():
        pytest.skip(f"{FOLDER} has no {name}: VSML_FAILING_DIR names the folder")
    return path


# The first rows of eight.csv, which the others are made from.
FIRST = [6, 148, 72, 35, 0, 33.6, 0.627, 50]
SECOND = [1, 85, 66, 29, 0, 26.6, 0.351, 31]


@pytest.mark.parametrize(
    ("name", "rows"), [("bom_label_last.csv", 59), ("spaces_labels.csv", 59), ("eight.csv", 8)]
)
def test_tables_of_spreadsheets_are_read_as_meant(name, rows):
    x, y = read_csv(failing(name), "Outcome")
    assert x.shape == (rows, 8) and y.shape == (rows,)
    np.testing.assert_array_equal(x[:2], [FIRST, SECOND])
    assert set(y) == {"0", "1"}
    assert y[:2].tolist() == ["1", "0"]


def test_a_byte_order_mark_is_no_part_of_the_first_name():
    x, y = read_csv(failing("bom_label_last.csv"), "Pregnancies")
    assert (x[0, 0], y[0]) == (148, "6")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("latin1.csv", "line 1, column 1: got the byte 0xf6, expected text in UTF-8"),
        ("nan_cell.csv", "line 2, column 'BloodPressure': got 'NaN', expected a finite number"),
        ("dup_header.csv", "line 1: got the column 'a' twice, expected different names"),
        ("empty.csv", "got an empty file, expected the names of columns in its first line"),
        ("decimal_comma.csv", "line 1: got ';' between columns, expected commas, and points in numbers"),
    ],
)
def test_tables_that_could_be_misread_are_one_line_with_row_and_column(name, message):
    path = failing(name)
    with pytest.raises(DataError) as error:
        read_csv(path, "Outcome")
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value) and message in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,label\n1,x\n2\n", "line 3: got 1 cells, expected 2"),
        ("a,label\n1_000,x\n", "line 2, column 'a': got '1_000', expected a finite number"),
        ("a,label\n,x\n", "line 2, column 'a': got an empty cell"),
        ("a,label\n1, \n", "line 2, column 'label': got an empty cell, expected a label"),
        ("a,label\n1e999,x\n", "line 2, column 'a': got '1e999'"),
        (",label\n1,x\n", "line 1: column 1 has no name"),
        ("a,b\n1,x\n", "line 1: got the columns a, b, expected one named 'label'"),
        ("label\nx\n", "line 1: got the column 'label' alone"),
        ("a,label\n", "got no rows"),
        ('a,label\n"1"x,x\n', "line 2: not a CSV file"),
        ("a,label\n1," + "x" * 200_000, "line 2: not a CSV file"),
    ],
)
def test_what_is_no_table_of_numbers_is_one_line(tmp_path, content, message):
    path = tmp_path / "own.csv"
    path.write_text(content)
    with pytest.raises(DataError) as error:
        read_csv(path, "label")
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000
    assert str(path) in str(error.value) and message in str(error.value)


def test_a_configuration_with_a_byte_order_mark_is_read():
    assert load_config(WholeConfig, [failing("bom.yaml")]).seed == 3


def test_a_data_set_with_a_greek_name_is_read():
    (task,) = load_config(WholeConfig, [failing("greek.yaml")]).evaluation_specs
    assert task.name == "\N{GREEK SMALL LETTER SIGMA}=1"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lfs.safetensors", "got a pointer of Git LFS, expected the file itself; git lfs pull gets it"),
        ("fv.safetensors", "has format version 999, expected at most 1: upgrade vsml"),
        ("nometa.safetensors", "a safetensors file, but not a checkpoint of this library"),
    ],
)
@pytest.mark.parametrize(
    "read", [load_params, lambda path: vsml.load_learner(str(path), input_shape=(3,), num_classes=2)]
)
def test_files_that_are_no_checkpoint_are_one_line_that_says_what_they_are(name, message, read):
    path = failing(name)
    with pytest.raises(CheckpointError) as error:
        read(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value) and message in str(error.value)

"""Which data are there: the list of data sets, and the command that gets one."""

import pytest
from data_files import idx, noise

from vsml.tasks.__main__ import main
from vsml.tasks.data.inventory import look


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A data root with the test half of MNIST, unpacked, and the cache of this test."""
    monkeypatch.setenv("VSML_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("VSML_CACHE_DIR", str(tmp_path / "cache"))
    folder = tmp_path / "data" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(noise(3, 28, 28)))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(noise(3) % 10))
    return tmp_path / "data"


def test_missing_files_are_named_and_others_are_there(root):
    raw = root / "MNIST" / "raw"
    train, test = (look("mnist", subset) for subset in ("train", "test"))
    assert train.missing == (raw / "train-images-idx3-ubyte.gz", raw / "train-labels-idx1-ubyte.gz")
    assert train.can_be_downloaded and not train.there
    assert test.there == (raw / "t10k-images-idx3-ubyte", raw / "t10k-labels-idx1-ubyte")
    assert not test.missing


def test_an_archive_that_lacks_is_named_once(root):
    assert look("emnist", "test").missing == (root / "EMNIST" / "raw" / "gzip.zip",)


def test_files_of_a_user_are_looked_up_and_what_is_drawn_needs_none(root, tmp_path):
    assert look(str(tmp_path / "my.npz"), "train").missing == (tmp_path / "my.npz",)
    assert not look("random", "train").needs_files and not look("digits", "test").needs_files


def test_the_list_says_what_is_there_and_how_to_get_the_rest(root, capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"data root: {root}")
    (test,) = [line for line in lines if line.split()[:2] == ["mnist", "test"]]
    (svhn,) = [line for line in lines if line.split()[:2] == ["svhn", "train"]]
    assert test.endswith(f"there, in {root}/MNIST/raw") and svhn.endswith(f"missing: {root}/train_32x32.mat")
    assert "python -m vsml.tasks get" in lines[-1]
    main(["list", "digits"])
    assert "get" not in capsys.readouterr().out


def test_a_data_set_that_cannot_be_had_is_an_error_and_the_others_are_got(root, capsys, monkeypatch):
    def no_network(path, checksum, addresses):
        raise OSError("no network")

    monkeypatch.setattr("vsml.tasks.data.files.download_file", no_network)
    assert main(["get", "svhn", "digits"]) == 1
    told = capsys.readouterr()
    assert "train_32x32.mat is missing and the download failed" in told.err
    assert "digits train: there, 1,300 examples, inputs 8x8x1, 10 outputs" in told.out


def test_a_misspelt_data_set_is_told_before_anything_is_downloaded(root, capsys):
    assert main(["get", "digits", "mnsit"]) == 2
    told = capsys.readouterr()
    assert "did you mean 'mnist'?" in told.err and told.out == ""

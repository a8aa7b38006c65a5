"""What is damaged, forged or far too large: one clean line that names file and place, at once."""

import gzip
import io
import json
import lzma
import re
import struct
import tarfile
import time
import zipfile
import zlib

import numpy as np
import pytest
import yaml
from data_files import drawing, idx, noise, tarred, write_omniglot, zipped
from PIL import Image

from vsml.config.files import MAX_LINES, ConfigError, dump, load_config
from vsml.launching.schema import WholeConfig
from vsml.runs import checkpoint
from vsml.runs.checkpoint import CheckpointError
from vsml.tasks import DataError, load
from vsml.tasks.data import arrays, files
from vsml.tasks.data.sets.cifar10 import decode_cifar
from vsml.tasks.data.sets.omniglot import decode_omniglot

AT_ONCE_S = 10
"""How long any of these may take; the worst of them took minutes, or all memory."""


def one_line(error, *named):
    """Check that a message is one line of bounded length with all that it must name."""
    text = str(error.value)
    assert "\n" not in text and len(text) < 1000
    assert all(name in text for name in named), text


# YAML.


def refused(tmp_path, text):
    """Return the lines of the message that a file is refused with, at once."""
    path = tmp_path / "some.yaml"
    path.write_text(text, encoding="utf-8")
    start = time.perf_counter()
    with pytest.raises(ConfigError) as error:
        load_config(WholeConfig, [path])
    assert time.perf_counter() - start < AT_ONCE_S
    return str(error.value).splitlines()


def bomb(first, other):
    """Return a text of ten lines in which each is nine times the one before."""
    lines = [f"a0: &a0 {first}"]
    for number in range(1, 10):
        ninefold = ", ".join([f"*a{number - 1}"] * 9)
        lines.append(f"a{number}: &a{number} {other % ninefold}")
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 500 + "]" * 500, "line 1 column 50: not valid YAML: nested more than 50 deep"),
        ("\n".join("  " * depth + "a:" for depth in range(400)), "line 50 .*nested more than 50 deep"),
        (bomb("[x, x]", "[%s]"), "line .*more than 20000 values, aliases counted"),
        (bomb("{k: 1}", "{<<: [%s]}"), "line .*more than 20000 values, aliases counted"),
        ("seed: !!bool maybe", "not valid YAML: a tag .* does not fit its value"),
        ("seed: !!timestamp soon", "not valid YAML: a tag .* does not fit its value"),
        ("seed: \0", "not valid YAML: unacceptable character"),
        ("? [1, 2]\n: 3", "line 1: got a list or mapping as a key, expected text"),
        (f"seed: {'9' * 4300}", "line 1: seed: got a whole number of 4300 digits, expected at most 19"),
        (f"seed: 0x{'f' * 5000}", "line 1: seed: got a whole number of 5002 digits, expected at most 19"),
        ("x" * (1 << 21), "has more than 1048576 bytes, expected a configuration"),
        ("training: {population_size: 99999999999999}", "population_size: got 99999999999999, expected"),
    ],
)
def test_a_file_that_is_no_configuration_is_refused_at_once_in_one_line(tmp_path, text, message):
    _, line = refused(tmp_path, text)
    assert "some.yaml" in line and re.search(message, line), line


@pytest.mark.parametrize(
    ("number", "read_as"),
    [
        ("0500", "octal number, expected 500 without leading zeros"),
        ("-010", "octal number, expected 10 without leading zeros"),
        ("1:30", "to the base of sixty, expected a number without colons"),
        ("12:00:00", "to the base of sixty"),
        ("1:30.5", "to the base of sixty"),
    ],
)
def test_numbers_that_yaml_reads_in_a_way_of_its_own_are_refused(tmp_path, number, read_as):
    _, line = refused(tmp_path, f"name: x\ntraining:\n  iterations: {number}")
    assert f"some.yaml line 3: training.iterations: got {number}, which YAML reads as a" in line
    assert read_as in line
    with pytest.raises(ConfigError, match="which YAML reads as a"):
        load_config(WholeConfig, overrides=[f"training.iterations={number}"])


def test_numbers_in_quotes_are_text_and_plain_ones_are_taken(tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text('name: "0500"\nseed: 0\ntraining: {iterations: 1_000, time_limit_s: 0.5}')
    config = load_config(WholeConfig, [path])
    assert (config.name, config.seed) == ("0500", 0)
    assert (config.training.iterations, config.training.time_limit_s) == (1000, 0.5)
    again = tmp_path / "again.yaml"
    again.write_text(dump(config), encoding="utf-8")
    assert load_config(WholeConfig, [again], default=None) == config


@pytest.mark.slow
def test_thousands_of_mistakes_are_a_message_of_at_most_forty_lines(tmp_path):
    lines = refused(tmp_path, yaml.safe_dump({f"key{number}": 1 for number in range(5000)}))
    assert len(lines) == MAX_LINES
    assert lines[0].startswith("5000 mistakes") and lines[-1].strip() == "and 4962 more"


@pytest.mark.parametrize("override", [".".join(["a"] * 3000) + "=1", f"seed={'[' * 500}", "x" * 100_000])
def test_overrides_without_end_are_refused_in_one_line(override):
    with pytest.raises(ConfigError) as error:
        load_config(WholeConfig, overrides=[override])
    heading, line = str(error.value).splitlines()
    assert heading.startswith("1 mistake") and len(line) < 1000


# Arrays.


def npy(array):
    packed = io.BytesIO()
    np.save(packed, array)
    return packed.getvalue()


def forged(shape, descr="|u1"):
    """Return an array of eight bytes, whose header says something else."""
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n" + bytes(8)


def archive(x, method=zipfile.ZIP_DEFLATED):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as file:
        file.writestr("x_train.npy", x)
        file.writestr("y_train.npy", npy(np.array([0, 1, 0, 1])))
    return packed.getvalue()


def altered(content, flags=None, method=None):
    """Return an archive whose entries say that they are encrypted, or packed in another way."""
    content = bytearray(content)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = content.find(mark)
        while at >= 0:
            if flags is not None:
                content[at + offset : at + offset + 2] = struct.pack("<H", flags)
            if method is not None:
                content[at + offset + 2 : at + offset + 4] = struct.pack("<H", method)
            at = content.find(mark, at + 4)
    return bytes(content)


IMAGES = npy(noise(4, 5, 5))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (altered(archive(IMAGES), flags=1), "encrypted"),
        (altered(archive(IMAGES), method=99), "compression method"),
        (altered(archive(IMAGES), method=zipfile.ZIP_LZMA), "(x_train)"),
        (archive(b"no array at all, but text"), "(x_train)"),
        (archive(b""), "(x_train)"),
        (archive(forged((2**40, 2**20))), "claims 1152921504606846976 bytes of data, expected 8"),
        (archive(forged((2**62, 4))), "claims 18446744073709551616 bytes of data, expected 8"),
        (archive(forged((-8,))), "expected no negative size"),
        (archive(forged((1.5,))), "(x_train)"),
        (archive(forged((1,), "|O")), "pickled objects"),
        (archive(b"\x93NUMPY\x09\x00" + bytes(40)), "version (9, 0)"),
        (archive(b"\x93NUMPY\x01\x00\x10\x00" + b"(" * 16), "(x_train)"),
    ],
)
def test_an_archive_of_arrays_that_is_forged_is_one_line(tmp_path, content, message):
    path = tmp_path / "own.npz"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        load(str(path), "train")
    one_line(error, str(path), "an array could not be read", message)


def test_an_archive_packed_by_lzma_is_taken(tmp_path):
    path = tmp_path / "own.npz"
    path.write_bytes(archive(IMAGES, zipfile.ZIP_LZMA))
    assert load(str(path), "train").images.shape == (4, 5, 5, 1)
    content = bytearray(path.read_bytes())
    content[60:80] = bytes(20)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"own\.npz: an array could not be read"):
        load(str(path), "train")
    assert lzma.LZMAError in arrays.READ_ERRORS


def test_an_array_that_unpacks_to_far_more_than_its_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "MAX_UNPACKED_BYTES", 1 << 20)
    path = tmp_path / "own.npz"
    np.savez_compressed(path, x_train=np.zeros((4, 1 << 20), np.uint8), y_train=np.arange(4))
    with pytest.raises(DataError) as error:
        load(str(path), "train")
    one_line(error, str(path), "x_train", "expected at most 100 times as many")


def test_an_array_that_memory_has_no_room_for_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "_MEMORY_SHARE", 0.0)
    path = tmp_path / "own.npz"
    path.write_bytes(archive(IMAGES))
    with pytest.raises(DataError, match=r"x_train.*expected at most 0\.0 GiB of memory"):
        load(str(path), "train")


# Published files.


@pytest.mark.parametrize("sizes", [(2**31, 2**31, 1), (2**22, 2**21, 2**21), (2**32 - 1,) * 3])
def test_an_idx_file_that_claims_more_pixels_than_it_has_is_one_line(tmp_path, sizes):
    header = bytes((0, 0, 8, 3)) + b"".join(size.to_bytes(4, "big") for size in sizes)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "t10k-images-idx3-ubyte").write_bytes(header)
    (raw / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(1)))
    with pytest.raises(DataError) as error:
        load("mnist", "test", tmp_path, verify=False, download=False)
    one_line(error, "t10k-images-idx3-ubyte", "got 0 bytes, expected")


def test_a_packed_file_that_unpacks_without_end_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_BYTES", 1 << 16)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
        (raw / name).write_bytes(gzip.compress(bytes(1 << 20)))
    with pytest.raises(DataError) as error:
        load("mnist", "test", tmp_path, verify=False, download=False)
    one_line(error, "t10k-images-idx3-ubyte.gz", "unpacks to more than 65536 bytes")


def cifar_copy(path):
    form = files.Form(path.name, member="cifar-10-batches-bin/test_batch.bin")
    return files.Copy(path, form)


@pytest.mark.parametrize("kind", [b"1", b"2"])
def test_links_in_an_archive_are_not_followed(tmp_path, kind):
    path = tmp_path / "cifar.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        info.type = kind
        info.linkname = info.name if kind == b"2" else "nowhere"
        archive.addfile(info)
    with pytest.raises(DataError) as error:
        decode_cifar("test", (cifar_copy(path),))
    one_line(error, str(path), "got an archive without cifar-10-batches-bin/test_batch.bin")


def test_an_archive_that_unpacks_without_end_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_BYTES", 1 << 16)
    path = tmp_path / "cifar.tar.gz"
    path.write_bytes(tarred({"cifar-10-batches-bin/test_batch.bin": bytes(1 << 20)}))
    with pytest.raises(DataError) as error:
        decode_cifar("test", (cifar_copy(path),))
    one_line(error, str(path), "unpacks to more than 65536 bytes")
    path = tmp_path / "images_evaluation.zip"
    path.write_bytes(zipped({"images_evaluation/A/b/1.png": bytes(1 << 20)}))
    with pytest.raises(DataError, match="unpacks to more than 65536 bytes"):
        decode_omniglot("test", (files.Copy(path, files.Form(path.name)),))


@pytest.mark.parametrize("form", ["zip", "folder"])
def test_hidden_files_beside_drawings_are_no_drawings(tmp_path, form):
    drawings = {"A/character01/1.png": drawing(1), "A/character01/._1.png": b"of macOS"}
    write_omniglot(tmp_path, drawings, form)
    path = tmp_path / "omniglot-py" / ("images_evaluation.zip" if form == "zip" else "images_evaluation")
    copy = files.Copy(path, files.Form(path.name, folder=form == "folder"))
    assert decode_omniglot("test", (copy,)).images.shape == (1, 105, 105, 1)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_drawing_of_billions_of_pixels_is_one_line(tmp_path, side):
    packed = io.BytesIO()
    Image.new("1", (8, 8)).save(packed, "PNG")
    content = bytearray(packed.getvalue())
    content[16:24] = struct.pack(">II", side, side)
    header = bytes(content[12:29])
    content[29:33] = struct.pack(">I", zlib.crc32(header))
    write_omniglot(tmp_path, {"A/character01/1.png": bytes(content)}, "folder")
    path = tmp_path / "omniglot-py" / "images_evaluation"
    with pytest.raises(DataError) as error:
        decode_omniglot("test", (files.Copy(path, files.Form(path.name, folder=True)),))
    one_line(error, "A/character01/1.png")


# Checkpoints.


def stored(header=None, **metadata):
    """Return a checkpoint with a right checksum; the texts given replace those of its header."""
    tree = {"w": np.zeros(3, np.float32)}
    text = metadata.pop("text", None)
    if text is None:
        text = json.dumps({"format_version": 1, "random_keys": {}, **metadata})
    fields = {"format_version": "1", "metadata": text, "sha256": checkpoint._checksum(tree, text)}
    return checkpoint.safetensors.numpy.save(tree, fields | (header or {}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (stored(text="[1, 2]"), "got [1, 2] as its metadata, expected a JSON object"),
        (stored(text="[" * 100_000), "its metadata is nested too deep"),
        (stored(text="no JSON"), "its metadata is no JSON"),
        (stored(text='{"n": ' + "9" * 5000 + "}"), "its metadata is no JSON"),
        (stored(random_keys=[1]), "got random_keys [1] in its metadata, expected an object"),
        (stored(text="{}"), "got random_keys None"),
        (stored({"format_version": "9" * 5000}), "has format version 999999999999999999..., expected"),
        (stored({"format_version": "²"}), "not a checkpoint of this library"),
        (stored({"format_version": "999"}), "has format version 999, expected at most 1: upgrade vsml"),
        (b"version https://git-lfs.github.com/spec/v1\n", "got a pointer of Git LFS, expected the file"),
    ],
)
def test_a_forged_checkpoint_is_one_line(content, message):
    with pytest.raises(CheckpointError) as error:
        checkpoint.from_bytes(content, "some.safetensors")
    one_line(error, "some.safetensors", message)


@pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a/b/c")])
def test_names_that_contradict_each_other_are_one_line(names):
    tree = {name: np.zeros(3, np.float32) for name in names}
    text = json.dumps({"random_keys": {}})
    fields = {"format_version": "1", "metadata": text, "sha256": checkpoint._checksum(tree, text)}
    content = checkpoint.safetensors.numpy.save(tree, fields)
    with pytest.raises(CheckpointError) as error:
        checkpoint.from_bytes(content, "some.safetensors")
    one_line(error, "some.safetensors", "another array of that name")

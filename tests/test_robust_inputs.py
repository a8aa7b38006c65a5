"""Thousands of altered inputs for all that is read: refused in one clean line, or taken for what they say.

Each input is a sound one, altered by a seed. A parser then either raises the library's own error, in a few
lines, or returns something that is right in itself: the original, where the format has checksums, else what
the altered text says. Nothing else is let through. Nothing takes long, or much memory.

`make test` alters each input a few times, `make test-robust` more often.
"""

import gzip
import io
import json
import os
import resource
import shutil
import time
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from data_files import cifar, drawing, idx, noise, tarred

from vsml.config.files import ConfigError, load_config
from vsml.launching.schema import WholeConfig
from vsml.networks.kernels import libraries, native
from vsml.runs import checkpoint
from vsml.runs.checkpoint import CheckpointError
from vsml.runs.metrics import read_metrics
from vsml.tasks import DataError, load, read_csv
from vsml.tasks.data import files
from vsml.tasks.data.sets.cifar10 import decode_cifar
from vsml.tasks.data.sets.omniglot import decode_omniglot

MOST_S = 5.0
"""How long one input may take."""

MOST_BYTES = 1 << 29
"""How much memory all inputs of a parser may add to the process."""

FEW = 10
MANY = 200  # of each of 12 parsers

LABELS = np.array([0, 1, 2, 1, 0, 2])
IMAGES = noise(6, 5, 5)


@dataclass(frozen=True)
class Parser:
    """What reads a kind of file.

    Attributes:
        name: of the file.
        sound: its content, which is read without an error.
        read: reads a path; raises a clean error, or returns what was read.
        check: raises an AssertionError where what was read is not right in itself; gets the original, too.
        errors: the clean ones.
        words: what is put into it beside random bytes.
    """

    name: str
    sound: bytes
    read: Callable[[Path], object]
    check: Callable[[object, object], None]
    errors: type[Exception] | tuple[type[Exception], ...]
    words: tuple[bytes, ...] = field(default=())


def alter(content: bytes, words: tuple[bytes, ...], seed: int) -> bytes:
    """Return a content that differs by one to three random changes."""
    random = np.random.default_rng(seed)
    altered = bytearray(content)
    for _ in range(random.integers(1, 4)):
        size = len(altered)
        start = int(random.integers(0, size + 1))
        length = int(min(size - start, random.integers(1, 40)))
        kind = random.integers(0, 8)
        if kind == 0:  # a bit
            at = min(start, size - 1)
            altered[at] ^= 1 << int(random.integers(0, 8))
        elif kind == 1:  # other bytes
            altered[start : start + length] = random.integers(0, 256, length, np.uint8).tobytes()
        elif kind == 2:  # less
            del altered[start : start + length]
        elif kind == 3:  # cut
            del altered[max(1, start) :]
        elif kind == 4:  # more of the same
            altered[start:start] = altered[start : start + length] * int(random.integers(1, 60))
        elif kind == 5:  # large numbers
            altered[start : start + 4] = b"\xff\xff\xff\x7f"
        elif kind == 6:  # a line that is but a word, or an empty one
            lines = altered.split(b"\n")
            word = words[int(random.integers(0, len(words)))] if words else b""
            lines[int(random.integers(0, len(lines)))] = bytearray(word)
            altered = bytearray(b"\n".join(lines))
        elif words:
            altered[start:start] = words[int(random.integers(0, len(words)))]
        if not altered:
            altered = bytearray(b"\0")
    return bytes(altered)


# Data sets.


def npz_bytes():
    packed = io.BytesIO()
    np.savez_compressed(packed, x_train=IMAGES, y_train=LABELS)
    return packed.getvalue()


def read_half(path):
    half = load(str(path), "train")
    return np.asarray(half.images), np.asarray(half.labels)


def same(got, original):
    for one, other in zip(got, original, strict=True):
        np.testing.assert_array_equal(one, other)


def read_idx(path):
    (path.parent / "MNIST" / "raw").mkdir(parents=True, exist_ok=True)
    raw = path.parent / "MNIST" / "raw"
    (raw / "t10k-images-idx3-ubyte").write_bytes(path.read_bytes())
    (raw / "t10k-labels-idx1-ubyte").write_bytes(idx(np.arange(3)))
    half = load("mnist", "test", path.parent, verify=False, download=False)
    return np.asarray(half.images), np.asarray(half.labels)


def idx_says(got, original):
    # There is no checksum: pixels may differ, and nothing else.
    images, labels = got
    assert images.shape == original[0].shape and images.dtype == np.uint8
    np.testing.assert_array_equal(labels, original[1])


def read_drawing(path):
    folder = path.parent / "drawings"
    folder.mkdir(exist_ok=True)
    (folder / "A" / "b").mkdir(parents=True, exist_ok=True)
    (folder / "A" / "b" / "1.png").write_bytes(path.read_bytes())
    copy = files.Copy(folder, files.Form("drawings", folder=True))
    return decode_omniglot("test", (copy,)).images


def drawing_says(got, original):
    assert got.shape == original.shape and got.dtype == np.uint8


def read_tar(path):
    form = files.Form(path.name, member="cifar-10-batches-bin/test_batch.bin")
    examples = decode_cifar("test", (files.Copy(path, form),))
    return examples.images, examples.labels


def read_inner_array(path):
    """Read an altered array out of a sound archive: no checksum tells."""
    own = path.with_name("own.npz")
    with zipfile.ZipFile(own, "w") as archive:
        archive.writestr("x_train.npy", path.read_bytes())
        archive.writestr("y_train.npy", npy(LABELS))
    return read_half(own)


def npy(array):
    packed = io.BytesIO()
    np.save(packed, array)
    return packed.getvalue()


def half_says(got, original):
    images, labels = got
    assert images.ndim == 4 and len(images) == len(labels) == len(LABELS)
    assert images.dtype in (np.uint8, np.float32) and np.isfinite(images).all()


def read_inner_tar(path):
    """Read an altered archive that was packed as it should be."""
    packed = path.with_name("a.tar.gz")
    packed.write_bytes(gzip.compress(path.read_bytes(), 1))
    return read_tar(packed)


def cifar_says(got, original):
    images, labels = got
    assert images.shape == (len(labels), 32, 32, 3) and images.dtype == np.uint8


# Text.


def table_says(got, original):
    x, y = got
    assert x.ndim == 2 and len(x) == len(y) > 0 and x.dtype == np.float64
    assert np.isfinite(x).all()
    assert all(label and label == label.strip() for label in y)


CONFIG = """\
name: some
seed: 3
training: {dataset: digits, iterations: 20, episode_length: {split: [5, 10]}, time_limit_s: 1e3}
evaluation:
  datasets: [digits, {dataset: digits, name: other, preprocess: {rand_proj: true}}]
  learners: &all []
checkpoint: {frequency: 5}  # a comment
data: {filter_classes: [0, 1, 2]}
"""

YAML_WORDS = (
    b"[",
    b"{",
    b": ",
    b"*all",
    b"&all ",
    b"!!bool ",
    b"!!python/name:os.system ",
    b"0500",
    b"1:30",
    b"9" * 5000,
    b"\n",
    b"- ",
    b"<<: ",
    b".nan",
    b"null",
    b"\t",
    b"\0",
    b"'",
    b"[" * 400,
    b"split",
)


def read_config(path):
    return load_config(WholeConfig, [path])


def config_says(got, original):
    """What is taken is a configuration, which is written and read again without a difference."""
    assert isinstance(got, WholeConfig)
    assert WholeConfig.model_validate(got.model_dump(mode="json")) == got


def read_override(path):
    text = path.read_bytes().decode("utf-8", errors="replace")
    return load_config(WholeConfig, overrides=[text])


def metrics_bytes():
    lines = [json.dumps({"step": step, "loss": 1 / (1 + step), "note": "text"}) for step in range(8)]
    return "".join(f"{line}\n" for line in lines).encode()


def metrics_say(got, original):
    assert all(isinstance(line, dict) for line in got)
    json.dumps(got)


# Checkpoints.


def checkpoint_bytes():
    tree = {"params": {"w": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.zeros(2, np.int32)}}
    return checkpoint.to_bytes(tree, {"step": 3, "config": {"seed": 1}})


def read_checkpoint(path):
    params, metadata = checkpoint.load_params(path)
    return params["w"], params["b"], metadata["step"]


def read_forged_checkpoint(path):
    """Read a checkpoint whose metadata were altered, and whose checksum is right."""
    text = path.read_bytes().decode("utf-8", errors="replace")
    tensors = {"params/w": np.zeros(3, np.float32)}
    header = {"format_version": "1", "metadata": text, "sha256": checkpoint._checksum(tensors, text)}
    path.with_name("forged").write_bytes(safetensors.numpy.save(tensors, header))
    template = {"w": np.zeros(3, np.float32)}
    return checkpoint.load_params(path.with_name("forged"), template)


def checkpoint_says(got, original):
    params, metadata = got
    np.testing.assert_array_equal(params["w"], np.zeros(3))
    assert isinstance(metadata, dict)


CARRIED = tarred({"cifar-10-batches-bin/test_batch.bin": cifar(noise(2, 32, 32, 3), [1, 2])})

NESTED = b"[" * 3000

PARSERS = [
    Parser("own.npz", npz_bytes(), read_half, same, DataError, (b"PK\x03\x04", b"\x93NUMPY\x01\x00")),
    Parser("images", idx(noise(3, 28, 28)), read_idx, idx_says, DataError, (b"\0\0\x08\x03",)),
    Parser("a.png", drawing(1), read_drawing, drawing_says, DataError, (b"IHDR", b"IDAT", b"tEXt")),
    Parser("x.npy", npy(IMAGES), read_inner_array, half_says, DataError, (b"(9, 9, 9)", b"|O", b"<f8", b"-")),
    Parser("a.tar.gz", CARRIED, read_tar, same, DataError),
    Parser(
        "a.tar", gzip.decompress(CARRIED), read_inner_tar, cifar_says, DataError, (b"2", b"1", b"x", b"L")
    ),
    Parser(
        "a.csv",
        b"a,b,label\r\n1,2.5,x\r\n3,-4e2,y\r\n5,6,x\r\n",
        lambda path: read_csv(path, "label"),
        table_says,
        DataError,
        (b'"', b",", b";", b"\n", b"nan", b"1_0", b"\xef\xbb\xbf", b"\0", b"label", b" "),
    ),
    Parser("a.yaml", CONFIG.encode(), read_config, config_says, ConfigError, YAML_WORDS),
    Parser(
        "override",
        b"evaluation.datasets.0={dataset: digits, name: other}",
        read_override,
        config_says,
        ConfigError,
        (*YAML_WORDS, b".", b"=", b".0", b"training."),
    ),
    Parser(
        "a.safetensors",
        checkpoint_bytes(),
        read_checkpoint,
        same,
        CheckpointError,
        (b"{", b'"', NESTED, b'"format_version": "2"', b"\0"),
    ),
    Parser(
        "metadata",
        b'{"format_version": 1, "random_keys": {}, "config": {"seed": 1}}',
        read_forged_checkpoint,
        checkpoint_says,
        CheckpointError,
        (b"{", b'"', NESTED, b"[1]", b"null", b"9" * 5000, b'{"params/w": "threefry2x32"}'),
    ),
    Parser(
        "metrics.jsonl",
        metrics_bytes(),
        read_metrics,
        metrics_say,
        ValueError,
        (NESTED, b"null", b"3", b"\0", b"{", b"\n", b"\xff", b"9" * 5000),
    ),
]


def try_altered(parser, path, original, seed):
    """Read one altered input; return whether it was refused."""
    path.write_bytes(alter(parser.sound, parser.words, seed))
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ResourceWarning)
            got = parser.read(path)
    except parser.errors as error:
        # An error of Python's own is no clean one, though many of them are ValueErrors.
        assert type(error) is ValueError or type(error).__module__.startswith("vsml."), repr(error)
        lines = str(error).splitlines()
        assert 1 <= len(lines) <= 40 and len(str(error)) < 100_000, lines[:3]
        refused = True
    else:
        parser.check(got, original)
        refused = False
    assert time.perf_counter() - start < MOST_S
    return refused


def peak_bytes():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def attack(parser, folder, count):
    """Read altered inputs, all of whose faults are told together."""
    path = folder / parser.name
    path.write_bytes(parser.sound)
    original = parser.read(path)
    before = peak_bytes()
    seeds = range(count)
    faults = {}
    refused = 0
    for seed in seeds:
        try:
            refused += try_altered(parser, path, original, seed)
        except Exception as error:  # whatever it is, it is what is looked for
            faults[seed] = f"{type(error).__name__}: {str(error)[:300]}"
    assert not faults, f"{len(faults)} of {count} altered {parser.name}: {faults}"
    assert refused, "none was refused: they are not altered"
    assert peak_bytes() - before < MOST_BYTES


by_name = pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)


@by_name
def test_a_few_altered_inputs_are_refused_or_right(parser, tmp_path):
    attack(parser, tmp_path, FEW)


@pytest.mark.robust
@by_name
def test_hundreds_of_altered_inputs_are_refused_or_right(parser, tmp_path):
    attack(parser, tmp_path, MANY)


@pytest.fixture
def library(monkeypatch, tmp_path):
    """Return a compiled kernel of one line, in a cache of its own."""
    if os.name != "posix" or not any(map(shutil.which, libraries._COMPILERS)):
        pytest.skip("no C++ compiler")
    source = tmp_path / "small.cpp"
    source.write_text('extern "C" int answer() { return 42; }')
    monkeypatch.setitem(native.SOURCES, "dense", source)
    monkeypatch.setenv("VSML_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    return native._build.__wrapped__(5, 0)


def plant(library, seed):
    """Alter a kernel, its checksum, or who may write them."""
    sound = {path: path.read_bytes() for path in (library, libraries._checksum_file(library))}
    path = list(sound)[seed % 2]
    if seed % 10 == 0:
        path.chmod(0o602 + 8 * (seed % 3))
    elif seed % 10 == 1:
        path.unlink()
    else:
        path.write_bytes(alter(sound[path], (), seed))
    return sound


def attack_kernel(library, count):
    assert libraries._fault(library) is None
    for seed in range(count):
        sound = plant(library, seed)
        is_sound = all(path.exists() and path.read_bytes() == content for path, content in sound.items())
        taken = libraries._fault(library) is None
        assert not taken or is_sound, f"seed {seed}: an altered kernel would have been loaded"
        for path, content in sound.items():
            path.unlink(missing_ok=True)
            path.write_bytes(content)
            path.chmod(0o600)
    assert libraries._load(library).answer() == 42


def test_a_few_planted_kernels_are_not_loaded(library):
    attack_kernel(library, 2 * FEW)


@pytest.mark.robust
def test_hundreds_of_planted_kernels_are_not_loaded(library):
    attack_kernel(library, 300)


def test_the_attack_notices_a_traceback_and_what_is_let_through(tmp_path):
    def stumble(path):
        if path.read_bytes() != b"sound":
            raise KeyError("no such thing")
        return (0,)

    with pytest.raises(AssertionError, match="KeyError"):
        attack(Parser("a", b"sound", stumble, same, DataError), tmp_path, 3)
    careless = Parser("a", b"sound", lambda path: (path.read_bytes() == b"sound",), same, DataError)
    with pytest.raises(AssertionError, match="altered a"):
        attack(careless, tmp_path, 3)

"""Sources: what is loaded, from where, and how each broken file is named."""

import bz2
import gzip
import hashlib
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from data_files import idx, real_root

from vsml.tasks import DataError, Dataset, MissingDataError, available, build_task, load
from vsml.tasks.data.entry import Entry, both
from vsml.tasks.data.files import File, Form
from vsml.tasks.data.idx import decode_idx
from vsml.tasks.data.sets import DATASETS
from vsml.tasks.data.sources import shape_and_outputs, shapes_of
from vsml.types import Classes, Values


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """Keep what is converted out of the user's cache."""
    folder = tmp_path / "converted"
    monkeypatch.setenv("VSML_CACHE_DIR", str(folder))
    return folder


def md5(content):
    return "md5:" + hashlib.md5(content).hexdigest()


IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 5))
LABELS = np.array([0, 1, 2, 2, 1, 0])


ABSENT = "http://127.0.0.1:9/"  # the discard port: connections are refused


def register(monkeypatch, contents):
    """Register a data set `tiny` whose test half is two gz files with the given contents."""
    names = ("images.gz", "labels.gz")
    files = tuple(
        File(
            published=Form(f"Tiny/raw/{name}", md5(content)),
            addresses=(ABSENT + name,),
            others=(Form(f"Tiny/raw/{name[:-3]}", md5(gzip.decompress(content))),),
        )
        for name, content in zip(names, contents, strict=True)
    )
    entry = Entry({"test": files}, decode_idx, (4, 5, 1), both(3), mean=0.5, std=0.25)
    monkeypatch.setitem(DATASETS._members, "tiny", entry)
    return dict(zip(names, contents, strict=True))


def write(root, contents):
    folder = root / "Tiny" / "raw"
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


def packed(images=IMAGES, labels=LABELS):
    return gzip.compress(idx(images), mtime=0), gzip.compress(idx(labels), mtime=0)


def test_files_that_are_there_are_used_without_a_download(monkeypatch, tmp_path, cache):
    write(tmp_path, register(monkeypatch, packed()))
    data = load("tiny", "test", tmp_path)
    assert (data.images.dtype, data.labels.dtype) == (jnp.uint8, jnp.int32)
    assert (data.num_classes, data.scale, data.mean, data.std) == (3, 255.0, 0.5, 0.25)
    np.testing.assert_array_equal(data.images[..., 0], IMAGES)
    np.testing.assert_array_equal(data.labels, LABELS)
    assert not cache.exists()  # what is fast to decode is not kept twice


def test_the_data_root_is_the_environments_where_no_argument_names_one(monkeypatch, tmp_path):
    write(tmp_path, register(monkeypatch, packed()))
    monkeypatch.setenv("VSML_DATA_DIR", str(tmp_path))
    assert load("tiny", "test").image_shape == (4, 5, 1)


def test_unpacked_files_are_used_and_checked_too(monkeypatch, tmp_path):
    contents = register(monkeypatch, packed())
    folder = write(tmp_path, {name[:-3]: gzip.decompress(content) for name, content in contents.items()})
    np.testing.assert_array_equal(load("tiny", "test", tmp_path).labels, LABELS)
    (folder / "labels").write_bytes(idx(1 - LABELS % 2))
    with pytest.raises(DataError, match="labels: wrong checksum"):
        load("tiny", "test", tmp_path)


def test_a_wrong_checksum_is_an_error_unless_verify_is_off(monkeypatch, tmp_path):
    contents = register(monkeypatch, packed())
    other = packed(labels=LABELS[::-1].copy() // 2)[1]
    write(tmp_path, contents | {"labels.gz": other})
    with pytest.raises(
        DataError, match=r"labels\.gz: wrong checksum, got md5 .*data\.verify: false"
    ) as error:
        load("tiny", "test", tmp_path)
    assert md5(other)[4:] in str(error.value)
    assert md5(contents["labels.gz"])[4:] in str(error.value)
    np.testing.assert_array_equal(load("tiny", "test", tmp_path, verify=False).labels, LABELS[::-1] // 2)


def test_missing_files_are_named_with_address_folder_and_how_to_set_it(monkeypatch, tmp_path):
    register(monkeypatch, packed())
    with pytest.raises(MissingDataError) as error:
        load("tiny", "test", tmp_path, download=False)
    for part in (
        tmp_path / "Tiny/raw/images.gz",
        "http://127.0.0.1:9/images.gz",
        "data.root",
        "VSML_DATA_DIR",
    ):
        assert str(part) in str(error.value)
    assert isinstance(error.value, FileNotFoundError)
    assert isinstance(error.value, ValueError)


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ((packed()[0][:-20], packed()[1]), r"images\.gz: truncated"),
        ((idx(IMAGES), packed()[1]), r"images\.gz: truncated or not a \.gz"),
        ((gzip.compress(idx(IMAGES)[:-1]), packed()[1]), r"images\.gz: got 119 bytes, expected 120"),
        ((gzip.compress(idx(IMAGES) + b"0"), packed()[1]), r"images\.gz: got 121 bytes, expected 120"),
        ((gzip.compress(b"<html>"), packed()[1]), r"images\.gz: got the first bytes .* expected 00000803"),
        ((gzip.compress(b"\0\0\x08\x03\0"), packed()[1]), r"images\.gz: got the first bytes"),
        (packed()[::-1], r"images\.gz: got the first bytes 00000801"),
        (packed(labels=LABELS[:5]), "got 6 images and 5 labels"),
        (packed(images=IMAGES[:0], labels=LABELS[:0]), "got 0 images and 0 labels"),
        (packed(labels=LABELS + 1), r"got labels 1\.\.3, expected 0\.\.2"),
        (packed(images=IMAGES[:, :, :3]), r"shape \(4, 3, 1\), expected \(4, 5, 1\)"),
    ],
)
def test_each_kind_of_broken_file_is_a_clear_error(monkeypatch, tmp_path, contents, message):
    register(monkeypatch, packed())
    write(tmp_path, dict(zip(("images.gz", "labels.gz"), contents, strict=True)))
    with pytest.raises(DataError, match=message):
        load("tiny", "test", tmp_path, verify=False)


def test_without_a_connection_the_error_says_where_the_file_would_come_from(monkeypatch, tmp_path):
    register(monkeypatch, packed())
    expected = (
        r"the download failed\. Get images\.gz from http://127\.0\.0\.1:9/.* into the folder .*Tiny/raw"
    )
    with pytest.raises(MissingDataError, match=expected):
        load("tiny", "test", tmp_path)


def test_a_data_root_that_cannot_be_written_is_a_clear_error(monkeypatch, tmp_path):
    register(monkeypatch, packed())
    (tmp_path / "Tiny").touch()  # where a folder has to be made
    with pytest.raises(MissingDataError, match=r"the folder .*Tiny/raw cannot be written"):
        load("tiny", "test", tmp_path)


def test_unknown_names_and_subsets_are_errors_with_what_is_known():
    with pytest.raises(
        ValueError, match=r"got 'fashion-mnist'.*kmnist.*random.*did you mean 'fashion_mnist'"
    ):
        load("fashion-mnist", "test")
    with pytest.raises(ValueError, match="subset: got 'valid', expected one of train, test"):
        load("digits", "valid")


def test_every_name_is_in_the_table_of_the_docs():
    page = (Path(__file__).parents[1] / "docs" / "data.md").read_text()
    table = [line for line in page.splitlines() if line.startswith("| `")]
    assert [name for name in available() if not any(f"`{name}`" in line for line in table)] == []


def test_shapes_are_known_without_the_files(tmp_path):
    known = {name: (shapes_of(name, "train"), shapes_of(name, "test")) for name in available()}
    assert known["emnist"] == known["emnist_byclass"] == (((28, 28, 1), 62),) * 2
    assert known["omniglot"] == (((105, 105, 1), 964), ((105, 105, 1), 659))
    assert known["sum"] == (((28, 28, 1), 2),) * 2
    own = save(tmp_path / "own.npz", x_train=IMAGES, y_train=LABELS)
    assert shapes_of(own, "train") == ((4, 5, 1), 3)
    with pytest.raises(ValueError, match=r"got 'nmist'.*did you mean 'mnist'"):
        shapes_of("nmist", "train")


def table(subset, **changes):
    """Make a small data set, as a user's function does."""
    settings = {
        "images": jnp.ones((4, 1, 3, 1)),
        "labels": jnp.asarray([0, 1, 2, 0 if subset == "train" else 1], jnp.int32),
        "name": "mine",
        "outputs": Classes(3),
    }
    return Dataset(**settings | changes)


def table_of_values(subset):
    return table(subset, labels=jnp.ones((4, 2)), outputs=Values(2))


def table_with_a_wrong_label(subset):
    return table(subset, labels=jnp.asarray([0, 1, 2, 3], jnp.int32))


def table_of_other_values(subset):
    return table(subset, labels=jnp.ones((4, 2)), outputs=Values(3))


def table_of_rows(subset):
    return table(subset, images=jnp.ones((4, 3)))


def nothing(subset):
    return None


NUMBER = 3
GENERATOR = load("sum", "train")


def test_a_data_set_of_another_module_is_named_by_module_and_name():
    name = f"{__name__}:table"
    assert load(name, "test").labels.tolist() == [0, 1, 2, 1]
    assert load(name, "train").name == name
    assert load(f"{__name__}:GENERATOR", "train") is GENERATOR
    assert shape_and_outputs(name, "train") == ((1, 3, 1), Classes(3))
    assert shape_and_outputs(f"{__name__}:table_of_values", "train") == ((1, 3, 1), Values(2))
    assert shape_and_outputs(f"{__name__}:GENERATOR", "train") == ((28, 28, 1), Classes(2))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("table_with_a_wrong_label", r"train: got labels 0\.\.3, expected 0\.\.2"),
        ("table_of_other_values", r"labels float32 of shape \(4, 2\), expected float32 \[4, 3\]"),
        ("table_of_rows", r"images float32 of shape \(4, 3\), expected uint8 or float32 \[n, H, W, Ch\]"),
        ("nothing", "got a NoneType, expected a vsml.tasks.Dataset"),
        ("NUMBER", "expected a Generator, an Entry or a function .*which a int is not"),
        ("tabel", "has no tabel; did you mean .*:table?"),
    ],
)
def test_what_is_wrong_with_a_data_set_of_another_module_is_said(name, message):
    with pytest.raises(DataError, match=message):
        load(f"{__name__}:{name}", "train")


def test_a_number_of_classes_is_short_for_outputs_that_are_classes():
    labels = jnp.zeros(4, jnp.int32)
    images = jnp.ones((4, 1, 3, 1))
    by_name = Dataset(images=images, labels=labels, name="a", num_classes=5)
    in_place = Dataset(images, labels, "a", 5)
    assert by_name.outputs == in_place.outputs == Classes(5)
    assert by_name.num_classes == 5
    assert jax.tree.map(lambda leaf: leaf, by_name).outputs == Classes(5)


FLOATS = np.asarray([0.5, -1.0, 2.0, 3.5, 1.0, 7.0])
WHOLE_FLOATS = np.asarray([0.0, 1.0, 2.0, 2.0, 1.0, 0.0])


@pytest.mark.parametrize(
    ("y", "declared", "outputs"),
    [
        (LABELS, None, Classes(3)),
        (LABELS, "values", Values(1)),
        (FLOATS, None, Values(1)),
        (WHOLE_FLOATS, "classes", Classes(3)),
        (WHOLE_FLOATS, "values", Values(1)),
        (FLOATS.reshape(3, 2).repeat(2, axis=0), None, Values(2)),
        (np.column_stack([LABELS, LABELS + 1]), None, Values(2)),
        (LABELS[:, None], "classes", Classes(3)),
        (FLOATS[:, None], None, Values(1)),
    ],
)
def test_targets_of_an_npz_are_classes_or_values_by_the_documented_rule(tmp_path, y, declared, outputs):
    arrays = {"x_train": IMAGES, "y_train": y}
    if declared is not None:
        arrays["outputs"] = declared
    path = save(tmp_path / "own.npz", **arrays)
    data = load(path, "train")
    assert data.outputs == outputs and shape_and_outputs(path, "train")[1] == outputs
    expected_type = jnp.int32 if isinstance(outputs, Classes) else jnp.float32
    assert data.labels.dtype == expected_type
    np.testing.assert_array_equal(np.asarray(data.labels).reshape(-1), np.asarray(y, np.float32).reshape(-1))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y_train": WHOLE_FLOATS}, r"all of them whole numbers.*outputs='classes'"),
        ({"y_train": LABELS[:, None]}, r"got y int\d+ of shape \(6, 1\), all of them whole numbers"),
        ({"y_train": FLOATS, "outputs": "classes"}, r"got y float64 of shape \(6,\), expected whole numbers"),
        ({"y_train": FLOATS, "outputs": "value"}, "got outputs 'value', expected 'classes' or 'values'"),
        ({"y_train": np.where(FLOATS > 3, np.nan, FLOATS)}, "y has values that are not finite"),
        ({"y_train": np.full(6, 0.5)}, "all values of column 0 of y are the same, 0.5"),
        (
            {"y_train": FLOATS, "x_test": IMAGES, "y_test": np.column_stack([FLOATS, FLOATS])},
            "got train and test targets of 1 and 2 values",
        ),
    ],
)
def test_targets_of_an_npz_that_are_not_clear_are_errors(tmp_path, arrays, message):
    path = save(tmp_path / "own.npz", x_train=IMAGES, **arrays)
    with pytest.raises(DataError, match=message):
        load(path, "train")


def test_values_of_an_npz_are_standardised_by_the_train_half_unless_normalize_is_off(tmp_path):
    values = np.column_stack([FLOATS, 100 * FLOATS**2])
    path = save(tmp_path / "own.npz", x_train=IMAGES, y_train=values, x_test=IMAGES, y_test=values + 1)
    plain = build_task(load(path, "test"), 6, replacement=False, normalize=False).sample(jax.random.key(0))
    episode = build_task(load(path, "test"), 6, replacement=False).sample(jax.random.key(0))
    assert episode.y.shape == (6, 1, 2)
    np.testing.assert_allclose(np.sort(plain.y[:, 0], axis=0), np.sort(values + 1, axis=0), rtol=1e-5)
    expected = (plain.y - values.mean(axis=0)) / values.std(axis=0)
    np.testing.assert_allclose(episode.y, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"few_shot: got .*, whose targets are values"):
        build_task(load(path, "train"), 6, ways=2)


def test_digits_are_1300_and_497_that_never_change_and_do_not_overlap():
    train, test = load("digits", "train"), load("digits", "test")
    assert (train.images.shape, test.images.shape) == ((1300, 8, 8, 1), (497, 8, 8, 1))
    assert set(np.bincount(test.labels)) <= set(range(35, 65))
    # The first ten labels of each half: another split would make published results on digits meaningless.
    assert train.labels[:10].tolist() == DIGITS_TRAIN_LABELS
    assert test.labels[:10].tolist() == DIGITS_TEST_LABELS
    from sklearn.datasets import load_digits

    both = np.concatenate([train.images, test.images]).reshape(-1, 64)
    whole = load_digits().data
    assert sorted(map(bytes, both)) == sorted(map(bytes, whole.astype(np.uint8)))
    scaled = np.asarray(train.images, np.float64) / train.scale
    np.testing.assert_allclose([scaled.mean(), scaled.std()], [train.mean, train.std], atol=1e-4)


DIGITS_TRAIN_LABELS = [0, 4, 0, 7, 5, 5, 5, 7, 9, 7]
DIGITS_TEST_LABELS = [0, 9, 0, 3, 7, 5, 6, 0, 7, 2]


def test_usps_text_becomes_bytes_and_labels_from_0(monkeypatch, tmp_path):
    lines = ["10 1:-1 2:1 256:0.5", "1 " + " ".join(f"{i}:-1" for i in range(1, 257))]
    (tmp_path / "USPS").mkdir()
    (tmp_path / "USPS" / "usps.bz2").write_bytes(bz2.compress("\n".join(lines).encode()))
    data = load("usps", "train", tmp_path, verify=False)
    assert data.images.shape == (2, 16, 16, 1)
    assert data.labels.tolist() == [9, 0]
    assert data.images[0].reshape(-1)[jnp.array([0, 1, 2, 255])].tolist() == [0, 255, 128, 191]
    assert not data.images[1].any()
    for content in (b"not bzip2", bz2.compress(b"not libsvm"), bz2.compress(lines[0].encode())[:-9]):
        (tmp_path / "USPS" / "usps.bz2").write_bytes(content)
        with pytest.raises(DataError, match=r"usps\.bz2"):
            load("usps", "train", tmp_path, verify=False)


def save(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def test_an_npz_of_bytes_takes_its_statistics_from_its_train_half(tmp_path):
    path = save(
        tmp_path / "own.npz", x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:2] // 2, y_test=LABELS[:2]
    )
    data = load(path, "test")
    assert (data.images.dtype, data.images.shape) == (jnp.uint8, (2, 4, 5, 1))
    assert (data.name, data.num_classes, data.scale) == (path, 3, 255.0)
    np.testing.assert_allclose([data.mean, data.std], [IMAGES.mean() / 255, IMAGES.std() / 255])


def test_an_npz_of_floats_stays_float_and_needs_only_the_half_that_is_used(tmp_path):
    values = np.random.default_rng(1).normal(3.0, 2.0, (6, 7))
    data = load(save(tmp_path / "own.npz", x_test=values, y_test=LABELS), "test")
    assert (data.images.dtype, data.images.shape, data.scale) == (jnp.float32, (6, 1, 7, 1), 1.0)
    np.testing.assert_allclose(data.images[:, 0, :, 0], values, rtol=1e-6)
    np.testing.assert_allclose(data.column_mean, values.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(data.column_std, values.std(axis=0), rtol=1e-6)


def test_channels_of_an_npz_are_kept(tmp_path):
    path = save(tmp_path / "own.npz", x_train=np.stack([IMAGES] * 3, axis=-1), y_train=LABELS)
    assert load(path, "train").image_shape == (4, 5, 3)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_train": IMAGES}, r"got the arrays \['x_train'\], expected x_train and y_train"),
        ({"x_test": IMAGES, "y_test": LABELS}, "expected x_train and y_train"),
        ({"x_train": IMAGES[0, 0], "y_train": LABELS}, r"x of shape \(5,\)"),
        ({"x_train": IMAGES, "y_train": LABELS[:, None, None]}, r"y of shape \(6, 1, 1\)"),
        ({"x_train": IMAGES, "y_train": LABELS[:4]}, "got 6 images and 4 labels"),
        ({"x_train": IMAGES, "y_train": LABELS - 1}, r"got labels -1\.\.1"),
        ({"x_train": IMAGES, "y_train": LABELS.astype(complex)}, "y of type complex128"),
        ({"x_train": IMAGES.astype(str), "y_train": LABELS}, "x of type <U"),
        (
            {"x_train": np.array([IMAGES[0], IMAGES[1, :3]], dtype=object), "y_train": LABELS[:2]},
            "could not be read .x_train.*images of different sizes",
        ),
        ({"x_train": IMAGES * 2, "y_train": LABELS}, r"got whole numbers \d+\.\.\d+ in x, expected 0\.\.255"),
        ({"x_train": np.full((6, 7), 1e300), "y_train": LABELS}, "not finite"),
        ({"x_train": IMAGES * 0, "y_train": LABELS}, "all values of x are the same"),
        ({"x_train": IMAGES[:, :0], "y_train": LABELS}, "expected no empty axis"),
        (
            {"x_train": IMAGES, "y_train": LABELS, "x_test": IMAGES[:, 1:], "y_test": LABELS},
            r"got train and test images of uint8 \(4, 5, 1\) and uint8 \(3, 5, 1\)",
        ),
    ],
)
def test_each_kind_of_wrong_npz_is_a_clear_error(tmp_path, arrays, message):
    with pytest.raises(DataError, match=message):
        load(save(tmp_path / "own.npz", **arrays), "train")


def test_a_file_that_is_no_npz_is_a_clear_error(tmp_path):
    path = tmp_path / "own.npz"
    with pytest.raises(MissingDataError, match=r"own\.npz"):
        load(str(path), "train")
    path.write_text("x_train,y_train\n" * 100)
    with pytest.raises(DataError, match="not an npz file"):
        load(str(path), "train")
    save(path, x_train=IMAGES, y_train=LABELS)
    with zipfile.ZipFile(path) as archive:
        middle = archive.getinfo("x_train.npy").header_offset + 200
    content = bytearray(path.read_bytes())
    content[middle] ^= 255
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"own\.npz: an array could not be read"):
        load(str(path), "train")


def test_random_has_standard_normal_images_and_sum_has_the_sign_of_their_sum():
    images, labels = load("random", "train").draw(jax.random.key(0), 20, 10)
    assert images.shape == (20, 28, 28, 1)
    assert set(labels.tolist()) <= set(range(10))
    np.testing.assert_allclose([images.mean(), images.std()], [0, 1], atol=0.05)
    images, labels = load("sum", "train").draw(jax.random.key(0), 200, 2)
    np.testing.assert_array_equal(labels, images.sum(axis=(1, 2, 3)) > 0)
    assert 60 < labels.sum() < 140
    means = images.mean(axis=(1, 2, 3))
    assert jnp.abs(images - means[:, None, None, None]).max() < 2.2
    np.testing.assert_allclose(means.std(), 3**-0.5, atol=0.08)  # of U(-1, 1)


REAL = [
    ("mnist", "train", 60000, (28, 28, 1), "MNIST/raw/train-images-idx3-ubyte.gz", 33.3184),
    ("mnist", "test", 10000, (28, 28, 1), "MNIST/raw/t10k-images-idx3-ubyte.gz", 33.7912),
    ("fashion_mnist", "train", 60000, (28, 28, 1), "FashionMNIST/raw/train-images-idx3-ubyte.gz", 72.9404),
    ("fashion_mnist", "test", 10000, (28, 28, 1), "FashionMNIST/raw/t10k-images-idx3-ubyte.gz", 73.1466),
    ("kmnist", "test", 10000, (28, 28, 1), "KMNIST/raw/t10k-images-idx3-ubyte.gz", 47.0620),
    ("usps", "test", 2007, (16, 16, 1), "USPS/usps.t.bz2", 0.2613 * 255),
]


@pytest.mark.parametrize(("name", "subset", "n", "shape", "needed", "mean"), REAL)
def test_real_data_sets_load(name, subset, n, shape, needed, mean):
    data = load(name, subset, real_root(needed), download=False)
    assert data.images.shape == (n, *shape)
    assert np.bincount(data.labels, minlength=10).min() > 0
    np.testing.assert_allclose(np.asarray(data.images).mean(), mean, atol=0.01)


def test_a_half_whose_files_are_not_there_says_which_and_where_from():
    root = real_root("KMNIST/raw/train-labels-idx1-ubyte.gz")
    if (Path(root) / "KMNIST/raw/train-images-idx3-ubyte.gz").is_file():
        pytest.skip("VSML_DATA_DIR has the train images of KMNIST")
    address = r"http://codh\.rois\.ac\.jp/kmnist/dataset/kmnist/train-images-idx3-ubyte\.gz"
    with pytest.raises(
        MissingDataError, match=rf"KMNIST/raw/train-images-idx3-ubyte\.gz is missing.*{address}"
    ):
        load("kmnist", "train", root, download=False)

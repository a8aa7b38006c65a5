"""Checkpoints come back bit for bit, or not at all."""

import json
import os
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import safetensors.numpy
from evosax.algorithms import Open_ES
from flax import struct

from vsml.runs import checkpoint
from vsml.runs.checkpoint import CheckpointError, CheckpointStore, DamagedCheckpointError


class Pair(NamedTuple):
    first: jax.Array
    second: tuple


@struct.dataclass
class Inner:
    h: jax.Array
    key: jax.Array


def rich_tree():
    return {
        "params": {"kernel": jnp.arange(6, dtype=jnp.float32).reshape(2, 3) / 7, "bias": jnp.zeros(3)},
        "half": jnp.array([1.5, -0.0, jnp.nan], jnp.bfloat16),
        "raw_key": jax.random.PRNGKey(3),
        "list": [Pair(jnp.array(True), (jnp.int32(4), Inner(jnp.ones((0, 2)), jax.random.key(5))))],
        "scalar": jnp.float32(0.1),
        "numpy": np.array([2**60], np.int64),
        "transposed": np.arange(6.0).reshape(2, 3).T,
        "numbers": (3, 0.1, True),
        "empty": {},
    }


def blank(leaf):
    if not isinstance(leaf, jax.Array):
        return leaf * 0 if not isinstance(leaf, bool) else False
    return (
        jax.random.key(0) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else jnp.zeros_like(leaf)
    )


def assert_same_bits(got, expected):
    assert jax.tree.structure(got) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert isinstance(one, type(other))
        if isinstance(other, jax.Array) and jax.dtypes.issubdtype(other.dtype, jax.dtypes.prng_key):
            assert one.dtype == other.dtype
            one, other = jax.random.key_data(one), jax.random.key_data(other)
        one, other = np.asarray(one), np.asarray(other)
        assert one.dtype == other.dtype and one.shape == other.shape
        assert one.tobytes() == other.tobytes()


def test_a_tree_of_everything_comes_back_bit_for_bit(tmp_path):
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, rich_tree(), {"config": {"seed": 1}, "step": 7})
    tree, metadata = checkpoint.load(path, jax.tree.map(blank, rich_tree()))
    assert_same_bits(tree, rich_tree())
    assert metadata["config"] == {"seed": 1} and metadata["step"] == 7
    assert metadata["format_version"] == checkpoint.FORMAT_VERSION
    assert metadata["versions"]["jax"] == jax.__version__


def test_optimizer_and_evolution_states_come_back_bit_for_bit(tmp_path):
    params = {"w": jnp.linspace(0, 1, 5)}
    algorithm = Open_ES(population_size=4, solution=params, optimizer=optax.adam(0.1))
    algorithm_state = algorithm.init(jax.random.key(0), params, algorithm.default_params)
    adam_state = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1)).init(params)
    tree = {"es": algorithm_state, "adam": adam_state}
    checkpoint.save(tmp_path / "a", tree, {})
    assert_same_bits(checkpoint.load(tmp_path / "a", tree)[0], tree)


def test_without_a_template_the_tree_is_a_nested_dict_of_numpy_arrays(tmp_path):
    checkpoint.save(tmp_path / "a", {"a": [jnp.ones(2), {"b": jnp.int32(3)}], "none": None, "empty": ()}, {})
    tree, _ = checkpoint.load(tmp_path / "a")
    assert set(tree) == {"a"} and set(tree["a"]) == {"0", "1"}
    assert isinstance(tree["a"]["0"], np.ndarray) and tree["a"]["0"].flags.writeable
    assert tree["a"]["1"]["b"].shape == () and tree["a"]["1"]["b"] == 3


@pytest.mark.parametrize("tree", [{}, (), {"a": [None, ()]}])
def test_an_empty_tree_comes_back(tmp_path, tree):
    checkpoint.save(tmp_path / "a", tree, {"step": 1})
    assert checkpoint.load(tmp_path / "a", tree)[0] == tree
    assert checkpoint.load(tmp_path / "a")[0] == {}


def test_shapes_alone_are_a_template(tmp_path):
    checkpoint.save(tmp_path / "a", {"w": jnp.ones(3)}, {})
    tree, _ = checkpoint.load(tmp_path / "a", {"w": jax.ShapeDtypeStruct((3,), jnp.float32)})
    assert isinstance(tree["w"], jax.Array)


def test_every_tensor_that_does_not_fit_is_named_with_got_and_expected(tmp_path):
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, {"w": jnp.ones((2, 3)), "b": jnp.ones(3), "old": jnp.ones(1), "k": jnp.ones(2)}, {})
    template = {
        "w": jnp.ones((3, 2)),
        "b": jnp.ones(3, jnp.int32),
        "new": jnp.ones(1),
        "k": jax.random.key(0),
    }
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load(path, template)
    message = str(caught.value)
    assert str(path) in message
    assert "w: got float32 (2, 3), expected float32 (3, 2)" in message
    assert "b: got float32 (3,), expected int32 (3,)" in message
    assert "k: got float32 (2,), expected random key threefry2x32 ()" in message
    assert "old: not expected" in message and "new: missing" in message


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"layer": {"name": "dense"}}, "layer/name has dtype <U5"),
        ({"a/b": jnp.ones(1), "a": {"b": jnp.ones(1)}}, "two leaves of the tree are named a/b"),
    ],
)
def test_what_cannot_be_held_is_named_and_nothing_is_written(tmp_path, tree, message):
    with pytest.raises(ValueError, match=message):
        checkpoint.save(tmp_path / "a", tree, {})
    assert os.listdir(tmp_path) == []


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, {"w": jnp.ones(2)}, {"step": 1})

    def disk_full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", disk_full)
        with pytest.raises(OSError, match="No space left"):
            checkpoint.save(path, {"w": jnp.zeros(2)}, {"step": 2})
    assert checkpoint.load(path)[1]["step"] == 1
    assert os.listdir(tmp_path) == ["a.safetensors"]


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 40, -9, -1])
def test_a_truncated_file_is_refused_by_name(tmp_path, keep):
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, {"w": jnp.ones(5)}, {})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DamagedCheckpointError, match=str(path)):
        checkpoint.load(path)


@pytest.mark.parametrize("marker", [b'\\"step\\": 1', b'"sha256":"', b"\x00\x00\x80?"])
def test_a_flipped_bit_anywhere_is_refused(tmp_path, marker):
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, {"w": jnp.ones(5)}, {"step": 1})
    data = bytearray(path.read_bytes())
    position = data.index(marker) + len(marker) - (0 if marker.endswith(b'"') else 1)
    data[position] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedCheckpointError, match="checksum"):
        checkpoint.load(path)


def test_another_kind_of_file_is_refused_by_name(tmp_path):
    path = tmp_path / "other"
    path.write_text("x" * 100)
    with pytest.raises(DamagedCheckpointError, match="not a safetensors file"):
        checkpoint.load(path)
    path.write_bytes(safetensors.numpy.save({"w": np.ones(2)}))
    with pytest.raises(DamagedCheckpointError, match="not a checkpoint of this library"):
        checkpoint.load(path)


def test_a_newer_format_is_refused_and_not_taken_for_damage(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path, keep=3)
    store.save(1, {"w": jnp.ones(2)}, {})
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FORMAT_VERSION", 2)
        store.save(2, {"w": jnp.ones(2)}, {})
    with pytest.raises(CheckpointError, match=r"step_00000002.*format version 2, expected at most 1"):
        store.latest()


def test_metadata_is_plain_json_in_the_file(tmp_path):
    checkpoint.save(tmp_path / "a", {"w": jnp.ones(2)}, {"step": 3})
    with safetensors.safe_open(tmp_path / "a", framework="np") as file:
        assert json.loads(file.metadata()["metadata"])["step"] == 3
        assert list(file.keys()) == ["w"]


def test_the_last_few_checkpoints_stay(tmp_path):
    store = CheckpointStore(tmp_path / "checkpoints", keep=2)
    assert store.latest() is None
    for step in (5, 10, 15, 100_000_000):
        store.save(step, {"w": jnp.full(2, step)}, {})
    assert store.steps() == [15, 100_000_000]
    tree, metadata = store.latest({"w": jnp.zeros(2, jnp.int32)})
    assert metadata["step"] == 100_000_000 and tree["w"][0] == 100_000_000


def test_a_failed_save_deletes_nothing(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path, keep=1)
    store.save(1, {"w": jnp.ones(2)}, {})

    def disk_full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", disk_full)
    with pytest.raises(OSError, match="No space left"):
        store.save(2, {"w": jnp.ones(2)}, {})
    assert store.steps() == [1]


def test_a_damaged_newest_checkpoint_is_skipped_with_a_warning_and_later_replaced(tmp_path):
    store = CheckpointStore(tmp_path, keep=1)
    store.save(100, {"w": jnp.ones(2)}, {})
    good = store.path(100).read_bytes()
    store.path(200).write_bytes(good[:-3])
    with pytest.warns(UserWarning, match=r"step_00000200\.safetensors"):
        _, metadata = store.latest()
    assert metadata["step"] == 100
    store.save(150, {"w": jnp.ones(2)}, {})
    assert store.steps() == [150]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.latest()[1]["step"] == 150


def test_damage_to_all_checkpoints_is_an_error_and_not_a_fresh_start(tmp_path):
    store = CheckpointStore(tmp_path, keep=1)
    store.path(1).write_bytes(b"")
    with pytest.warns(UserWarning), pytest.raises(CheckpointError, match="all 1 checkpoints"):
        store.latest()


def test_a_checkpoint_that_does_not_fit_is_not_skipped(tmp_path):
    store = CheckpointStore(tmp_path, keep=2)
    store.save(1, {"w": jnp.ones(3)}, {})
    store.save(2, {"w": jnp.ones(2)}, {})
    with pytest.raises(CheckpointError, match="does not fit"):
        store.latest({"w": jnp.ones(3)})


def test_keeping_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 1, got 0"):
        CheckpointStore(tmp_path, keep=0)


def test_meta_parameters_of_a_run_are_the_best_else_the_latest(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"best\.safetensors"):
        checkpoint.load_params(tmp_path)
    store = CheckpointStore(tmp_path / "checkpoints", keep=3)
    store.save(1, {"params": {"w": jnp.float32(1)}, "other": jnp.ones(1)}, {})
    store.save(2, {"params": {"w": jnp.float32(2)}, "other": jnp.ones(1)}, {})
    assert checkpoint.load_params(tmp_path)[0] == {"w": 2}
    store.save_best(1, {"params": {"w": jnp.float32(1)}}, {})
    params, metadata = checkpoint.load_params(tmp_path)
    assert params == {"w": 1} and metadata["step"] == 1
    assert checkpoint.load_params(tmp_path / "checkpoints")[0] == {"w": 1}
    assert checkpoint.load_params(store.path(2))[0] == {"w": 2}


def test_an_exported_learning_algorithm_holds_the_meta_parameters_alone(tmp_path):
    params = {"synapse": {"kernel": jnp.ones((2, 3)), "scales": [jnp.ones(1)]}}
    checkpoint.export_params(tmp_path / "la.safetensors", params, {"config": {"model": "vsml"}})
    loaded, metadata = checkpoint.load_params(tmp_path / "la.safetensors", params)
    assert_same_bits(loaded, params)
    assert metadata["config"] == {"model": "vsml"}
    with pytest.raises(
        CheckpointError, match=r"synapse/kernel: got float32 \(2, 3\), expected float32 \(3,\)"
    ):
        checkpoint.load_params(
            tmp_path / "la.safetensors", {"synapse": {"kernel": jnp.ones(3), "scales": [jnp.ones(1)]}}
        )


def test_a_learner_without_meta_parameters_exports_none(tmp_path):
    checkpoint.export_params(tmp_path / "la", {}, {})
    assert checkpoint.load_params(tmp_path / "la")[0] == {}
    assert checkpoint.load_params(tmp_path / "la", {})[0] == {}


def test_bytes_that_another_rank_sent_load_like_the_file(tmp_path):
    tree = {"w": jnp.ones(2)}
    data = checkpoint.to_bytes(tree, {"step": 1})
    assert_same_bits(checkpoint.from_bytes(data, "rank 0", tree)[0], tree)
    with pytest.raises(DamagedCheckpointError, match="rank 0"):
        checkpoint.from_bytes(data[:-1], "rank 0")


def test_a_folder_with_the_exported_meta_parameters_alone_will_do(tmp_path):
    params = {"a": np.ones(2, np.float32)}
    with pytest.raises(FileNotFoundError, match=r"no checkpoint in .* or learner\.safetensors"):
        checkpoint.load_params(tmp_path)
    checkpoint.export_params(tmp_path / checkpoint.EXPORT_NAME, params, {})
    assert np.array_equal(checkpoint.load_params(tmp_path)[0]["a"], params["a"])

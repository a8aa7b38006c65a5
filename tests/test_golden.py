"""Numbers of the 2021 research code: logits, loss and gradients of recorded episodes.

The cases in tests/golden/, and those in the folder that VSML_GOLDEN_DIR names, in the same format: cases.yaml
has settings and shapes, <case>.npz the arrays. A mismatch means that this library computes another learning
algorithm than the paper's.
"""

import functools
import os
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from vsml.launching.schema import load_config
from vsml.learners import FastWeights, Learner, Sgd, Vsml, continue_episode, make_learner
from vsml.losses import cross_entropy
from vsml.types import Episode

FOLDERS = [Path(__file__).parent / "golden"]
if os.environ.get("VSML_GOLDEN_DIR"):
    FOLDERS.append(Path(os.environ["VSML_GOLDEN_DIR"]))

CASES = [
    pytest.param(folder, name, case, id=f"{name}" if folder is FOLDERS[0] else f"{folder.name}/{name}")
    for folder in FOLDERS
    for name, case in yaml.safe_load((folder / "cases.yaml").read_text()).items()
]

# Where this library keeps what the recordings call <key>/w, <key>/b and so on.
LINEAR = "lstm|output|slow|write_head|read_head|read_projection|forward_message|backward_message"
NAMES = {
    rf"({LINEAR})/w": r"\1/kernel",
    rf"({LINEAR})/b": r"\1/bias",
    r"(forward|backward)_norm/offset": r"\1_norm/bias",
    r"synapse/(.*)": r"\1",
    r"conv/(\d)/w": r"conv/layers/\1/kernel",
    r"conv/(\d)/b": r"conv/layers/\1/bias",
    r"dense/(\d)/w": r"dense/\1/kernel",
    r"dense/(\d)/b": r"dense/\1/bias",
    r"hebbian/w": r"layer/slow",
    r"hebbian/coeff": r"layer/coefficient",
    r"hebbian/fw_lr": r"layer/rate_logit",
    r"hebbian/b": r"layer/bias",
}


def build(case: dict) -> Learner:
    """Build the case's learner."""
    settings = case["settings"].items()
    overrides = [f"{key}={yaml.safe_dump(value, default_flow_style=True)}" for key, value in settings]
    config = load_config(overrides=overrides, default=None)
    return make_learner(
        config.model.type, config.model.settings, tuple(case["input_shape"]), case["num_classes"]
    )


def nested(arrays: dict[str, np.ndarray], group: str) -> dict:
    """Return the arrays named <group>/... as this library's tree."""
    tree: dict = {}
    for path, array in arrays.items():
        head, _, rest = path.partition("/")
        if head == group:
            for pattern, name in NAMES.items():
                rest = re.sub(f"{pattern}$", name, rest)
            *parents, leaf = (int(key) if key.isdigit() else key for key in rest.split("/"))
            functools.reduce(lambda node, key: node.setdefault(key, {}), parents, tree)[leaf] = array
    return tree


def initial_state(learner: Learner, params: dict, arrays: dict[str, np.ndarray], batch_size: int):
    """Return the state that the recording started from."""
    if isinstance(learner, Vsml):
        layers = learner.network.layers
        cells = [jnp.asarray(arrays[f"initial_cell/{k}"]) for k in range(len(layers))]
        states = tuple(layer.with_cells(c) for layer, c in zip(layers, cells, strict=True))
        return learner.with_network(learner.network.with_layers(states), batch_size)
    if isinstance(learner, FastWeights):
        return learner.with_fast(arrays["initial_fast_weights"], batch_size)
    if isinstance(learner, Sgd):
        return learner.with_weights(nested(arrays, "initial_inner"))
    return learner.init_state(params, jax.random.key(0), batch_size)


@pytest.mark.parametrize(("folder", "name", "case"), CASES)
def test_the_2021_code_gives_the_same_numbers(folder, name, case):
    compare_with_recording(folder, name, case)


@pytest.mark.parametrize(("folder", "name", "case"), [case for case in CASES if "vsml_conv" in case.id])
def test_it_gives_those_of_convolutions_that_tick_by_xla(folder, name, case):
    """The kernel that is chosen on a CPU is another one."""
    compare_with_recording(
        folder, name, {**case, "settings": {**case["settings"], "model.vsml.kernel": "tiled"}}
    )


def compare_with_recording(folder: Path, name: str, case: dict) -> None:
    """Compare logits, loss and gradients of a case with those that the 2021 code gave."""
    learner = build(case)
    arrays = dict(np.load(folder / f"{name}.npz"))
    params = nested(arrays, "param")
    x, labels = jnp.asarray(arrays["x"]), jnp.asarray(arrays["labels"])
    episode = Episode(x=x, y=labels, weight=jnp.ones(labels.shape))
    assert jax.tree.structure(params) == jax.tree.structure(learner.init_params(jax.random.key(0)))

    def loss(params):
        state = initial_state(learner, params, arrays, case["batch_size"])
        logits = continue_episode(learner, params, state, episode)[1]
        return cross_entropy(logits, labels).mean(), logits

    (value, logits), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    np.testing.assert_allclose(logits, arrays["logits"], rtol=0, atol=2e-5)
    np.testing.assert_allclose(value, arrays["loss"], rtol=0, atol=1e-5)
    expected = nested(arrays, "grad")
    largest = max((np.abs(array).max() for array in jax.tree.leaves(expected)), default=0)
    assert jax.tree.structure(grads) == jax.tree.structure(expected)
    for (path, got), want in zip(jax.tree.leaves_with_path(grads), jax.tree.leaves(expected), strict=True):
        tolerance = 1e-4 * np.abs(want).max() + 1e-5 * largest
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance, err_msg=jax.tree_util.keystr(path))

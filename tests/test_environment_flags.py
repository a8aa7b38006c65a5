"""Settings of JAX and of Python that a user may have made for other code: the library computes as ever."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import vsml
from vsml.online.steps import MAX_UNITS, default_units

ROOT = Path(__file__).parents[1]

LEARN = """
import numpy as np, vsml
from vsml.sklearn import VSMLClassifier, VSMLRegressor
x = np.random.default_rng(0).normal(size=(6, 5))
y = np.arange(6) % 3
classifier = VSMLClassifier(random_state=0).fit(x, y)
print(classifier.predict_proba(x[:1]).round(4).tolist())
loaded = vsml.load_learner("general", input_shape=(5,), num_classes=3)
state, logits = loaded.run(loaded.start(), x[:, None], y[:, None])
print(logits.dtype, logits.round(3).tolist(), loaded.predict(state, x[:1]).round(3).tolist())
"""


def printed(*command, **variables):
    """Return what a process of its own prints with these environment variables."""
    own = {"PYTHONPATH": str(ROOT), "JAX_DISABLE_MOST_OPTIMIZATIONS": "true"}
    done = subprocess.run(
        [sys.executable, *command],
        env=os.environ | own | variables,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def ordinary():
    return printed("-c", LEARN)


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables",
    [
        {"JAX_NUMPY_DTYPE_PROMOTION": "strict", "JAX_NUMPY_RANK_PROMOTION": "raise"},
        {"JAX_ENABLE_X64": "1"},
        {"PYTHONOPTIMIZE": "2"},
    ],
    ids=["strict promotion", "64 bits", "without docstrings"],
)
def test_what_is_learned_does_not_depend_on_flags_for_other_code(ordinary, variables):
    assert printed("-c", LEARN, **variables) == ordinary


@pytest.mark.slow
@pytest.mark.parametrize("model", ["vsml", "meta_rnn"])
@pytest.mark.parametrize(
    "variables",
    [
        {"JAX_ENABLE_X64": "1"},
        {"JAX_NUMPY_DTYPE_PROMOTION": "strict", "JAX_NUMPY_RANK_PROMOTION": "raise"},
    ],
    ids=["64 bits", "strict promotion"],
)
def test_a_run_does_not_mind_flags_for_other_code(tmp_path, model, variables):
    settings = [
        f"model.type={model}",
        f"optimizer.type={'gradient' if model == 'vsml' else 'es'}",
        "training.iterations=2",
        "evaluation.count=1",
        "evaluation.episode_length=3",
    ]
    files = ["--config_files", "configs/test.yaml", "--run_dir", str(tmp_path / "run")]
    printed("launch.py", *files, "--config", *settings, **variables)
    assert (tmp_path / "run" / "complete").exists()


@pytest.mark.parametrize("module", ["vsml.report", "vsml.demo", "examples.your_own_table"])
def test_help_is_printed_without_docstrings(module):
    assert "usage" in printed("-m", module, "--help", PYTHONOPTIMIZE="2")


def test_more_features_than_memory_has_room_for_units_are_projected_to_fewer_and_it_is_said():
    assert default_units(MAX_UNITS, MAX_UNITS - 1) == MAX_UNITS
    with pytest.warns(UserWarning, match=r"units: 20531 features are projected to 2048 units.* 4\.0 GiB"):
        assert default_units(32768, 20531) == MAX_UNITS


@pytest.mark.parametrize(("shape", "classes"), [((10**9, 10**9), 2), ((10**6, 10**3), 2), ((3,), 10**9)])
def test_shapes_that_no_memory_has_room_for_are_refused(shape, classes):
    with pytest.raises(ValueError, match=r"load_learner: got input_shape \(.*expected at most 16777216"):
        vsml.load_learner("general", input_shape=shape, num_classes=classes)

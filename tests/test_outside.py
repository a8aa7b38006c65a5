"""Classes from outside of the package, named in a configuration; those of the pages of docs/ are used."""

import importlib
import json
import sys

import numpy as np
import pytest
from pages import code_after, read_page

import vsml
from vsml.config.files import ConfigError
from vsml.launching import run as launch
from vsml.launching.schema import load_config

pytestmark = pytest.mark.usefixtures("hasty")

MODULES = {
    "learner": ("learners.md", "`vsml/learners/prototypes.py`:"),
    "optimizer": ("meta_optimizers.md", "`vsml/meta/optimizers/votes.py`:"),
    "call": ("calls.md", "`vsml/calls/count.py`:"),
}
TINY = [
    "training={iterations: 2, population_size: 4, episode_length: 3, chunk_size: 4, dataset: digits}",
    "data.preprocess.resize=[4, 4]",
    "evaluation={datasets: [digits], frequency: 0, episode_length: 5, count: 2}",
    "tracking.wandb.mode=disabled",
]
LEARNER = ["model.type=my_package.learner:Prototypes", "model.options.prior_count=2"]
OPTIMIZER = ["optimizer.type=my_package.optimizer:Votes", "optimizer.options.step_size=0.5"]
CALL = ["call=my_package.call:Count", "call_options.batch_size=3"]


@pytest.fixture(scope="module", autouse=True)
def my_package(tmp_path_factory):
    """A package that can be imported, and is no part of the library."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "my_package").mkdir()
    for name, (page, words) in MODULES.items():
        (folder / "my_package" / f"{name}.py").write_text(code_after(read_page(page), words))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        importlib.invalidate_caches()
        yield
    for name in [name for name in sys.modules if name.split(".")[0] == "my_package"]:
        del sys.modules[name]


def run(folder, *settings):
    """Run the command line in this process, and return its exit code."""
    return launch.main(["--run_dir", str(folder), "--config", *TINY, *settings])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run whose learner and optimizer are both from outside."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    compared = [
        "evaluation.learners.0={name: SGD, model: {type: sgd}}",
        "evaluation.learners.1={name: sure, model: {options: {prior_count: 9}}}",
    ]
    assert run(folder, *LEARNER, *OPTIMIZER, *compared) == 0
    return folder


def test_learner_and_optimizer_from_outside_train_and_are_evaluated_beside_others(trained):
    rows = json.loads((trained / "evaluation.json").read_text())
    assert [row["learner"] for row in rows] == ["meta-trained", "start: random", "SGD", "sure"]
    assert (trained / "complete").exists()


def test_the_settings_of_a_run_load_again(trained):
    config = load_config([trained / "config.yaml"], default=None)
    assert config.model.settings.prior_count == 2
    assert dict(config.optimizer.options) == {"step_size": 0.5}
    expected = load_config(overrides=[*TINY, *LEARNER, *OPTIMIZER])
    assert config.model == expected.model and config.optimizer == expected.optimizer


def test_what_was_found_loads_again_and_learns(trained):
    loaded = vsml.load_learner(str(trained), input_shape=(16,), num_classes=3)
    assert type(loaded.learner).__name__ == "Prototypes" and loaded.learner.config.prior_count == 2
    state = loaded.start()
    x = np.eye(16)[:1]
    state, _ = loaded.step(state, x, np.array([2]))
    assert loaded.predict(state, x).argmax() == 2


def test_what_was_found_is_restored_with_the_settings_that_it_was_found_with(trained, tmp_path, capsys):
    restore = ["call=evaluate", f"checkpoint.restore={trained}"]
    assert run(tmp_path / "run", *LEARNER, *restore) == 0
    (restored, _) = json.loads((tmp_path / "run" / "evaluation.json").read_text())
    (found, *_) = json.loads((trained / "evaluation.json").read_text())
    assert restored == {**found, "learner": "restored"}

    with pytest.raises(SystemExit, match="2"):
        run(tmp_path / "other", LEARNER[0], *restore)
    assert "model.options.prior_count: got 1.0, expected 2.0 as in" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_run_is_resumed_with_classes_from_outside(trained):
    (trained / "complete").unlink()
    assert launch.main(["--resume", str(trained), "--config", "training.iterations=3"]) == 0
    assert (trained / "checkpoints" / "step_00000003.safetensors").exists()


def test_a_dry_run_says_what_a_learner_from_outside_costs(capsys):
    assert launch.main(["--dry_run", "--config", *TINY, *LEARNER, *OPTIMIZER]) == 0
    shown = capsys.readouterr().out
    assert "prior_count: 2" in shown and "train: 2 meta steps of 4 antithetic pairs" in shown


def test_a_call_from_outside_runs_with_its_options(tmp_path):
    assert run(tmp_path / "run", *LEARNER, *CALL) == 0
    (row,) = json.loads((tmp_path / "run" / "count.json").read_text())
    # One meta-parameter; a mean of 16 inputs and a count for each of 10 classes.
    assert row["meta_parameters"] == 1 and row["state"] == 16 * 10 + 10
    config = load_config([tmp_path / "run" / "config.yaml"], default=None)
    assert config.call == "my_package.call:Count" and dict(config.call_options) == {"batch_size": 3}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([LEARNER[0], "model.options.prior=2"], r"model\.options\.prior: got 2, .*mean 'prior_count'\?"),
        ([LEARNER[0], "model.options.prior_count=0"], r"model\.options\.prior_count: got 0, expected great"),
        (["model.type=my_package.learner:Prototype"], r"model\.type: .*did you mean .*:Prototypes\?"),
        (["model.type=my_package.lerner:Prototypes"], r"model\.type: .*No module named 'my_package\.lerner'"),
        (["model.type=my_package.learner:math"], r"model\.type: got .*expected a learner with a `config`"),
        (["model.options.prior_count=2"], r"model\.options: got .*none with type vsml, whose settings"),
        (
            [OPTIMIZER[0], "optimizer.options.step=1"],
            r"optimizer\.options\.step: got 1, .*mean 'step_size'\?",
        ),
        (
            [OPTIMIZER[0], "optimizer.options.step_size=-1"],
            r"optimizer\.options\.step_size: got -1, expected",
        ),
        (["optimizer.type=my_package.optimizer:Vote"], r"optimizer\.type: .*did you mean .*:Votes\?"),
        ([CALL[0], "call_options.batch=1"], r"call_options\.batch: got 1, .*mean 'batch_size'\?"),
        ([CALL[0], "call_options.batch_size=0"], r"call_options\.batch_size: got 0, expected greater"),
        (["call=my_package.call:Cont"], r"call: got .*did you mean my_package\.call:Count\?"),
        (["call_options.batch_size=1"], r"call_options: got .*expected none with call: train"),
        (["call=my_package.call:math"], r"call: got .*expected a call with a `config`"),
    ],
)
def test_mistakes_are_told_with_their_path_and_what_was_meant(settings, message):
    with pytest.raises(ConfigError, match=message):
        load_config(overrides=settings)


def test_what_a_call_from_outside_refuses_is_told():
    tuned = "evaluation.learners=[{name: SGD, model: {type: sgd}, tune: {sgd.learning_rate: [1, 2]}}]"
    with pytest.raises(ConfigError, match=r"evaluation\.learners\.0\.tune: .*nothing, with call: count"):
        load_config(overrides=[*CALL, tuned])

"""Objectives and meta-optimizers, built from settings by name: the library's own, and any module's."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vsml.config.files import ConfigError
from vsml.launching.schema import load_config
from vsml.meta import OptimizerConfig, build_objective, build_optimizer, meta_adam
from vsml.meta.objectives import CloneLoss, EpisodeLoss, EpisodeShape
from vsml.meta.objectives.base import Objective
from vsml.meta.objectives.clone import Draws
from vsml.meta.optimizers import optimizer_problems
from vsml.meta.optimizers.antithetic import AntitheticEvolution
from vsml.meta.optimizers.base import OuterLoop
from vsml.meta.optimizers.gradient import BackPropagation
from vsml.meta.schedules import Schedule, schedule
from vsml.meta.trials import Chunk, Group, Results
from vsml.options import SettingsError
from vsml.settings import Float, Section

PARAMS = {"w": np.zeros(3, np.float32)}


class StillConfig(Section):
    """Settings of a meta-optimizer that does nothing."""

    patience: Float = 1.0


@dataclass(frozen=True)
class Still:
    """Stand in for a meta-optimizer of another package."""

    config: StillConfig
    objective: Objective

    trial_members = 3
    differentiates = False

    @classmethod
    def from_config(cls, config: StillConfig, outer: OuterLoop) -> Any:
        return cls(config, outer.objective)


STILL = f"{__name__}:Still"


def build(settings, objective=None):
    return build_optimizer(OptimizerConfig(**settings), objective or EpisodeLoss(), PARAMS, 4, 10)


def test_a_meta_optimizer_is_built_for_whatever_objective_there_is():
    for objective in (EpisodeLoss(), CloneLoss()):
        pairs = build({"noise_std": 0.3}, objective)
        assert isinstance(pairs, AntitheticEvolution)
        assert (pairs.objective, pairs.noise_std, pairs.trial_members) == (objective, 0.3, 2)
        descent = build({"type": "gradient"}, objective)
        assert isinstance(descent, BackPropagation)
        assert (descent.objective, descent.trial_members) == (objective, 1)


def test_one_of_another_package_gets_its_own_settings():
    still = build({"type": STILL, "options": {"patience": 2}})
    assert isinstance(still, Still) and still.config.patience == 2
    assert load_config(overrides=[f"optimizer.type={STILL}"]).optimizer.type == STILL


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"type": STILL, "options": {"patients": 2}},
            r"^optimizer\.options\.patients: got 2, expected one of the options patience; did you mean",
        ),
        (
            {"type": STILL, "options": {"patience": "much"}},
            r"^optimizer\.options\.patience: got 'much', expected a valid number",
        ),
        (
            {"type": "es", "options": {"noise_std": 2}},
            r"^optimizer\.options\.noise_std: got 2, expected nothing here, as there are no options",
        ),
    ],
)
def test_options_that_do_not_exist_are_refused_with_their_path(settings, message):
    with pytest.raises(SettingsError, match=message):
        build(settings)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "optimizer.type=gradents",
            "optimizer.type: got 'gradents', expected one of es, gradient, or .*did you",
        ),
        ("optimizer.type=os.path:join", "a meta-optimizer with a `config`; join: got config of type None"),
        ("optimizer.type=os.pat:join", "optimizer.type: got 'os.pat:join', expected package.module:Name"),
        (f"optimizer={{type: '{STILL}', options: {{a: 1}}}}", r"optimizer\.options\.a: got 1, expected"),
        (
            "training={objective: clone, loss_type: last}",
            "training.loss_type: got 'last', expected mean, as it is about training.objective: episode",
        ),
        ("training.objective=epsode", "training.objective: got 'epsode', .*did you mean 'episode'"),
        (
            "training.objective_options={a: 1}",
            "expected nothing, as the settings of episode are training.loss",
        ),
        (
            "optimizer.truncation_length=3",
            "truncation_length: got 3, expected null, as es does not back-prop",
        ),
    ],
)
def test_a_configuration_says_what_there_is(override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(overrides=[override])


def test_a_truncated_loss_is_refused_by_what_does_not_differentiate():
    (problem,) = optimizer_problems(OptimizerConfig(type=STILL, truncation_length=3))
    assert problem.path == "optimizer.truncation_length"
    assert not list(optimizer_problems(OptimizerConfig(type="gradient", truncation_length=3)))


def test_an_objective_is_built_from_its_own_settings():
    assert build_objective("episode", {"loss_type": "last"}).config.loss_type == "last"
    assert build_objective("clone", {"samples": 3, "steps": 5}).examples(None) == 15
    assert build_objective("episode", {}).examples(EpisodeShape(steps=7, batch_size=2)) == 14
    with pytest.raises(SettingsError, match=r"objective_options\.sample: got 3, .*did you mean 'samples'"):
        build_objective("clone", {"sample": 3})


def test_evosax_is_not_imported_before_it_is_named():
    code = (
        "import sys, vsml.setup, vsml.calls.train, vsml.meta;"
        "assert 'evosax' not in sys.modules;"
        "vsml.meta.Evolution; assert 'evosax' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=True)


def test_old_names_of_trials_and_scores_warn():
    numbers = np.arange(2, dtype=np.int32)
    group = Group(None, (), numbers, 0 * numbers)
    chunk = Chunk(group, numbers, 0 * numbers, 2)
    for owner in (group, chunk):
        with pytest.warns(DeprecationWarning, match=r"\.units is \w+\.trials now"):
            assert owner.units is numbers
    results = Results(np.zeros(1), np.ones(1), np.zeros(0))
    with pytest.warns(DeprecationWarning, match=r"Results\.accuracy is Results\.score now"):
        assert results.accuracy is results.score


def test_the_old_class_of_cloning_is_a_descent_with_another_objective():
    with pytest.warns(DeprecationWarning, match=r"Cloning is vsml\.meta\.objectives\.clone\.cloning now"):
        from vsml.meta.cloning import Cloning
    descent = Cloning(BackPropagation(meta_adam(0.1)), Draws(samples=3))
    assert descent.objective == CloneLoss(Draws(samples=3))


def test_a_schedule_rises_and_falls_where_it_says():
    value = Schedule(type="cosine", init=0.4, end=0.1, warmup_steps=10)
    curve = [float(schedule(value, 110)(step)) for step in range(112)]
    assert curve[0] == 0 and curve[5] == pytest.approx(0.2)
    assert curve[10] == pytest.approx(0.4) and curve[60] == pytest.approx(0.25)
    assert curve[110] == pytest.approx(0.1) and curve[111] == pytest.approx(0.1)


@pytest.mark.parametrize("kind", ["linear", "exponential"])
def test_a_schedule_ends_at_its_end_and_stays_there(kind):
    curve = schedule(Schedule(type=kind, init=1.0, end=0.25, steps=4), 100)
    assert [float(curve(step)) for step in (0, 4, 50)] == pytest.approx([1.0, 0.25, 0.25])
    middle = 0.625 if kind == "linear" else 0.5
    assert float(curve(2)) == pytest.approx(middle)


def test_a_cooldown_falls_in_a_line_over_the_last_meta_steps():
    value = Schedule(type="constant", init=0.4, cooldown_share=0.2, warmup_steps=4)
    curve = [float(schedule(value, 50)(step)) for step in range(52)]
    assert curve[2] == pytest.approx(0.2), "the warm-up is as before"
    assert curve[4:41] == pytest.approx([0.4] * 37)
    assert curve[45] == pytest.approx(0.2) and curve[49] == pytest.approx(0.04)
    assert curve[50] == 0 and curve[51] == 0


def test_a_number_is_no_schedule():
    assert schedule(0.3, 10) == 0.3

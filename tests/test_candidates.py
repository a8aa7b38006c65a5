"""Who is compared: files of meta-parameters, their settings, padding of one learner alone."""

import json

import jax
import numpy as np
import pytest
from flat_vsml import flat_vsml

from vsml.config.checks import RESERVED_NAMES
from vsml.config.files import ConfigError
from vsml.evaluation.candidates import compared_candidates, restored_params, start_candidate
from vsml.evaluation.stored import StoredParams
from vsml.launching.schema import load_config
from vsml.learners import make_learner
from vsml.runs.checkpoint import CheckpointError, export_params
from vsml.setup import Setup
from vsml.system.comm import SerialCommunicator
from vsml.tasks import load

pytestmark = pytest.mark.usefixtures("hasty")

COMM = SerialCommunicator()
SMALL = {"state_size": 4, "message_size": 2}


def stored(tmp_path, *settings, learner=None, name="stored"):
    """Write meta-parameters with the configuration that they were found for."""
    config = load_config(overrides=list(settings))
    learner = learner or make_learner(config.model.type, config.model.settings, (8, 8, 1), 10)
    path = tmp_path / f"{name}.safetensors"
    params = learner.init_params(jax.random.key(3))
    export_params(path, params, {"config": config.model_dump(mode="json")})
    return path, params


def setup_of(*settings):
    return Setup(load_config(overrides=list(settings)))


def candidates(*settings):
    setup = setup_of("evaluation.datasets=[digits]", *settings)
    return compared_candidates(setup, {"digits": load("digits", "test")}, COMM)


def test_meta_parameters_of_another_learner_are_refused(tmp_path):
    path = tmp_path / "small.safetensors"
    export_params(path, flat_vsml((2, 2, 1), 2, **SMALL).init_params(jax.random.key(0)), {})
    setup = setup_of(f"checkpoint.restore={path}")
    with pytest.raises(CheckpointError, match=r"lstm/kernel.*expected float32 \(32, 64\)"):
        restored_params(setup, COMM).fit(flat_vsml((2, 2, 1), 2))


def test_meta_parameters_found_for_other_settings_are_refused(tmp_path):
    path, params = stored(tmp_path, "model.vsml.feed_label=true", "model.vsml.synapse.init_scale=4")
    here = f"checkpoint.restore={path}"
    with pytest.raises(ConfigError, match=r"1 mistake.*\n.*vsml.feed_label: got False, expected True"):
        restored_params(setup_of(here), COMM)
    same = setup_of(here, "model.vsml.feed_label=true")
    restored = restored_params(same, COMM).fit(flat_vsml((2, 2, 1), 2, feed_label=True))
    assert jax.tree.all(jax.tree.map(np.array_equal, restored, params))


def test_settings_of_other_types_of_learner_do_not_matter(tmp_path):
    path, _ = stored(tmp_path, "model.sgd.num_layers=2")
    restored_params(setup_of(f"checkpoint.restore={path}"), COMM)


def test_a_file_may_be_older_than_a_setting_but_not_have_unknown_ones(tmp_path):
    path = tmp_path / "old.safetensors"
    params = flat_vsml((2, 2, 1), 2).init_params(jax.random.key(0))
    export_params(path, params, {"config": {"model": {"type": "vsml", "vsml": {"micro_ticks": 2}}}})
    restored_params(setup_of(f"checkpoint.restore={path}"), COMM)
    export_params(path, params, {"config": {"model": {"type": "vsml", "vsml": {"macro_ticks": 2}}}})
    with pytest.raises(ConfigError, match=r"old\.safetensors: its model settings are unknown here"):
        StoredParams.read(str(path), COMM)


def test_a_compared_file_brings_its_model_settings_along(tmp_path):
    path, params = stored(tmp_path, "model.type=hebbian", "model.hebbian.rule=oja")
    (candidate,) = candidates(f"evaluation.learners=[{{name: Oja, restore: {path}}}]")
    ((_, model),) = candidate.choices
    assert model.type == "hebbian" and model.settings.rule == "oja"
    learner = make_learner("hebbian", model.settings, (8, 8, 1), 10)
    assert jax.tree.all(jax.tree.map(np.array_equal, candidate.params_for(learner), params))
    other = f"evaluation.learners=[{{name: Hebb, restore: {path}, model: {{hebbian: {{rule: hebb}}}}}}]"
    with pytest.raises(ConfigError, match=r"model\.hebbian\.rule: got 'hebb', expected 'oja'"):
        candidates(other)


def test_what_enters_the_synapses_of_a_compared_file_may_be_changed_but_only_there(tmp_path):
    path, _ = stored(tmp_path)
    features = "random_features: {count: 5, keep_input: true}"
    (candidate,) = candidates(
        f"evaluation.learners=[{{name: Views, restore: {path}, model: {{vsml: {{{features}}}}}}}]"
    )
    ((_, model),) = candidate.choices
    learner = make_learner("vsml", model.settings, (8, 8, 1), 10)
    state = learner.init_state(candidate.params_for(learner), jax.random.key(0))
    assert learner.features(state, np.zeros((1, 8, 8, 1))).shape == (1, 69)
    (candidate,) = candidates(
        f"evaluation.learners=[{{name: Two, restore: {path}, model: {{vsml: {{views: [{{count: 3}}]}}}}}}]"
    )
    ((_, model),) = candidate.choices
    assert [view.count for view in model.settings.views] == [3]
    setup = setup_of(f"checkpoint.restore={path}", f"model.vsml={{{features}}}")
    with pytest.raises(ConfigError, match=r"random_features\.count: got 5, expected None"):
        restored_params(setup, COMM)


def test_a_missing_file_is_an_error():
    with pytest.raises(FileNotFoundError, match="nowhere"):
        candidates("evaluation.learners=[{name: a, restore: nowhere.safetensors}]")


def test_a_learner_may_be_padded_alone_and_still_meets_the_same_examples():
    padded = "evaluation.learners=[{name: a, model: {type: meta_rnn}, pad: {input: [9, 10, 1], output: 12}}]"
    (candidate,) = candidates(padded)
    setup = setup_of("evaluation.datasets=[digits]")
    (plain,) = setup.evaluation_tasks({"digits": load("digits", "test")})
    key = jax.random.key(0)
    wide, narrow = candidate.tasks[0].task.sample(key), plain.task.sample(key)
    assert candidate.tasks[0].task.num_classes == 12 and candidate.tasks[0].task.real_classes == 10
    assert np.array_equal(wide.y, narrow.y)
    assert np.array_equal(wide.x[:, :, :8, :8], narrow.x) and wide.x.shape[2:] == (9, 10, 1)


def test_a_learner_may_be_evaluated_on_some_of_the_data_sets_alone():
    some = "evaluation.learners=[{name: a, model: {type: sgd}, datasets: [sum]}, {name: b}]"
    setup = setup_of("evaluation.datasets=[digits, sum]", some)
    sources = {name: load(name, "test") for name in ("digits", "sum")}
    tasks = [[task.name for task in each.tasks] for each in compared_candidates(setup, sources, COMM)]
    assert tasks == [["sum"], ["digits", "sum"]]


@pytest.mark.parametrize(
    ("learner", "expected"),
    [
        (
            "{name: meta-trained}",
            "evaluation.learners.0.name: got 'meta-trained', expected a name of its own",
        ),
        (
            "{name: a, model: {type: rnn}}",
            "learners.0.model: got .* type: got 'rnn', expected one of vsml",
        ),
        ("{name: a, tune: {sgd.rate: [1]}}", "evaluation.learners.0.tune: got .* but sgd.rate: Extra inputs"),
        ("{name: vsml}", "evaluation.learners.0.name: got 'vsml', expected a name of its own"),
        ("{name: a|b}", r"evaluation.learners.0.name: got 'a\|b'"),
        ("{name: a, tune: {sgd.num_layers: [1, 2]}}", "expected settings of the model's type, vsml"),
        ("{name: a, model: {type: sgd}, tune: {sgd.num_layers: [2, 2]}}", "expected distinct values"),
        (
            "{name: a, model: {type: sgd, sgd: {x: 1}}, tune: {sgd.num_layers: [2]}}",
            r"learners.0.model: .*sgd.x",
        ),
        ("{name: a, datasets: [sum]}", "learners.0.datasets: got 'sum', expected names of .*mnist"),
        ("{name: a, tune: {sgd.num_layers: []}}", "expected at least 1 in the list"),
        ("{name: a, tune: {sgd.num_layers: [1, x]}}", "sgd.num_layers: "),
    ],
)
def test_mistakes_in_the_list_of_learners_are_found_before_anything_starts(learner, expected):
    with pytest.raises(ConfigError, match=expected):
        load_config(overrides=[f"evaluation.learners=[{learner}]"])


def test_what_is_tried_can_be_written_as_json():
    (candidate,) = candidates(
        "evaluation.learners=[{name: a, model: {type: sgd}, tune: {sgd.num_layers: [1, 2]}}]"
    )
    assert json.loads(json.dumps([tried for tried, _ in candidate.choices])) == [
        {"sgd.num_layers": 1},
        {"sgd.num_layers": 2},
    ]


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (
            "{vsml: {synapse: {init: backprop, random_fraction: 0.25}, backward_pass: true, micro_ticks: 1}}",
            "gradient descent",
        ),
        (
            "{vsml: {synapse: {init: memory, random_fraction: 0.25}, backward_pass: true, feed_label: true, "
            "micro_ticks: 1, memory: {slots: 4}}}",
            "an episodic memory",
        ),
        ("{type: meta_rnn}", "random"),
        ("{type: rule}", "as written"),
    ],
)
def test_the_start_is_called_by_what_it_is(model, name):
    setup = setup_of("evaluation.datasets=[digits]", f"model={model}")
    tasks = setup.evaluation_tasks({"digits": load("digits", "test")})
    assert start_candidate(setup, tasks).name == f"start: {name}"
    # A run that goes on from a file does not start from it.
    goes_on = setup_of("evaluation.datasets=[digits]", f"model={model}", "checkpoint.restore=x.safetensors")
    assert start_candidate(goes_on, tasks).name == name
    assert {name, f"start: {name}"} <= set(RESERVED_NAMES)

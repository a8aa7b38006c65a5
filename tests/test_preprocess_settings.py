"""The configuration's sections of preprocessing: they are what the registry of transforms says."""

import dataclasses

import pytest
import yaml

from vsml.config.files import ConfigError, dump
from vsml.config.preprocess import Preprocess, PreprocessMixture
from vsml.launching.schema import load_config
from vsml.tasks import specs
from vsml.tasks.transforms import TRANSFORMS, Transform
from vsml.types import Classes, Values

SCALE = Transform(
    name="scale",
    setting=float | None,
    default=None,
    description="multiply inputs",
    act=lambda x, y, factor, context: (factor * x, y),
    words=lambda factor: f"times {factor}",
)
NAME = f"{__name__}:SCALE"


def load(*overrides):
    return load_config((), overrides, default=None)


def test_each_transform_has_a_setting_with_its_default_and_description():
    for section in (Preprocess, PreprocessMixture):
        assert list(section.model_fields) == [*TRANSFORMS, "extra"]
        for name, transform in TRANSFORMS.items():
            assert section.model_fields[name].description == transform.description
    written = load().data.preprocess.model_dump(exclude={"extra"})
    read = {name: TRANSFORMS[name].read(setting) for name, setting in written.items()}
    assert read == {name: transform.default for name, transform in TRANSFORMS.items()}


def test_transforms_of_other_modules_may_be_split_and_are_written_as_they_are_read():
    config = load(f"data.preprocess.extra={{{NAME}: {{split: [2, null], repeat: 2}}}}")
    values = [dict(spec.preprocess.extra)[NAME] for spec in config.training_specs]
    assert values == [2.0, 2.0, None, None]
    written = yaml.safe_load(dump(config))["data"]["preprocess"]["extra"]
    assert written == {NAME: {"split": [2.0, None], "repeat": 2}}
    told = [specs.describe(spec) for spec in config.training_specs]
    assert told == ["mnist, times 2.0", "mnist, times 2.0", "mnist", "mnist"]
    assert len(set(config.training_specs)) == 2


def test_an_evaluation_task_may_change_the_transforms_of_other_modules():
    config = load(
        f"data.preprocess.extra={{{NAME}: 2}}",
        f"evaluation.datasets=[digits, {{dataset: digits, preprocess: {{extra: {{{NAME}: 3}}}}}}]",
    )
    inherited, changed = config.evaluation_specs
    assert dict(inherited.task.preprocess.extra) == {NAME: 2.0}
    assert dict(changed.task.preprocess.extra) == {NAME: 3.0}
    assert changed.name == "digits+SCALE"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("3", "data.preprocess.extra: got 3, expected a mapping from transforms to their settings"),
        (f"{{{__name__}:SCALEE: 3}}", "has no SCALEE; did you mean"),
        ("{shuffle: true}", "expected other names: for 'shuffle' the key shuffle beside extra"),
        (f"{{{NAME}: big}}", "expected other settings: .*SCALE"),
        (f"{{{NAME}: {{split: []}}}}", "expected other settings: .*SCALE"),
    ],
)
def test_transforms_and_settings_that_do_not_exist_are_mistakes_of_the_configuration(extra, message):
    with pytest.raises(ConfigError, match=message):
        load(f"data.preprocess.extra={extra}")


def test_queries_that_are_not_taught_are_in_the_name_and_in_the_words():
    config = load("evaluation.datasets=[{dataset: omniglot, few_shot: {teach_queries: false}}]")
    (spec,) = config.evaluation_specs
    assert spec.name == "omniglot+5way1shot-teach_queries"
    assert specs.describe(spec.task) == "omniglot, 5-way 1-shot episodes, queries not taught"


def test_the_outputs_of_a_task_are_known_before_its_data_are():
    (spec,) = load("data.preprocess.pad.output=12").training_specs

    def outputs(**changes):
        return specs.task_shapes(dataclasses.replace(spec, **changes), "train")

    assert outputs(dataset="digits") == ((8, 8, 1), Classes(12))
    plain = Preprocess.model_validate({})
    assert outputs(dataset="linear_map", preprocess=plain) == ((1, 16, 1), Values(1))
    with pytest.raises(ValueError, match=r"pad\.output: got 12, expected null for the 1 values"):
        outputs(dataset="linear_map")
    with pytest.raises(ValueError, match=r"filter_classes: got \[0, 1\], expected null"):
        outputs(dataset="linear_map", preprocess=plain, filter_classes=(0, 1))

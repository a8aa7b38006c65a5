"""Wirings: the registry, wirings from outside of the package, and what is refused."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import numpy as np
import pytest
from pydantic import Field

from vsml.config.files import ConfigError
from vsml.cost.counts import cost_of
from vsml.launching.schema import load_config
from vsml.learners import make_learner
from vsml.learners.vsml import VsmlConfig
from vsml.networks.wirings import WIRINGS
from vsml.networks.wirings.base import LayerSection
from vsml.networks.wirings.dense import DenseLayer
from vsml.settings import Positive, Section

pytestmark = pytest.mark.usefixtures("hasty", "explicit_ranks")

HERE = __name__


class NarrowConfig(LayerSection):
    """A row of units."""

    units: Positive = Field(default=3, description="how many")

    holds_weights: ClassVar[bool] = True


def narrow(input_shape, config: NarrowConfig, outputs, kernel):
    return DenseLayer(int(np.prod(input_shape)), config.units, kernel)


@dataclass(frozen=True)
class Priceless:
    """A wiring that does not say what it costs."""

    input_shape: tuple[int, ...]
    config: NarrowConfig
    outputs: int
    kernel: str


def of_no_layer(input_shape, config: Section, outputs, kernel):
    raise AssertionError


def unset(input_shape, outputs, kernel):
    raise AssertionError


def vsml_of(*layers):
    return make_learner("vsml", VsmlConfig.model_validate({"layers": layers}), (4, 4, 1), 2)


def outside(name, **options):
    return {"type": f"{HERE}:{name}", "options": options}


def test_a_wiring_from_outside_is_named_by_its_module_and_given_its_options():
    learner = vsml_of(outside("narrow", units=5), {})
    assert [(layer.fan_in, layer.fan_out) for layer in learner.network.layers] == [(16, 5), (5, 2)]
    assert learner.network.layers == vsml_of({"out_size": 5}, {}).network.layers
    assert vsml_of(outside("narrow"), {}).network.layers[0].fan_out == 3
    assert cost_of(learner).synapses == 16 * 5 + 5 * 2


def test_a_configuration_with_one_is_written_read_and_hashed():
    config = VsmlConfig.model_validate({"layers": [outside("narrow", units=5), {}]})
    assert config.model_dump(mode="json")["layers"][0] == outside("narrow", units=5)
    again = VsmlConfig.model_validate(config.model_dump())
    assert again == config and hash(again) == hash(config)
    told = load_config(
        overrides=[f"model.vsml.layers=[{{type: '{HERE}:narrow', options: {{units: 5}}}}, {{}}]"]
    )
    assert told.model.vsml.layers == config.layers


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (f"type: '{HERE}:narow'", f"did you mean {HERE}:narrow"),
        ("type: 'no_such_module:narrow'", r"layers\.0\.type: got 'no_such_module:narrow'.*No module named"),
        ("type: dens", "did you mean 'dense'"),
        (f"type: '{HERE}:narrow', options: {{units: 0}}", r"layers\.0\.options\.units: got 0"),
        (f"type: '{HERE}:narrow', options: {{unit: 4}}", r"layers\.0\.options\.unit: unknown key"),
        (f"type: '{HERE}:narrow', units: 4", r"layers\.0\.units: unknown key"),
        (f"type: '{HERE}:of_no_layer'", "settings are a LayerSection, not Section"),
        (f"type: '{HERE}:unset'", "a wiring built with a section of settings"),
    ],
)
def test_mistakes_are_told_with_their_place(layer, message):
    with pytest.raises(ConfigError, match=message):
        load_config(overrides=[f"model.vsml.layers=[{{{layer}}}, {{}}]"])


def test_one_without_a_cost_is_refused_when_it_is_built():
    with pytest.raises(ValueError, match=r"builds a Priceless with extent None, expected .*Extent"):
        vsml_of(outside("Priceless"), {}).network  # noqa: B018


@pytest.mark.parametrize("name", WIRINGS)
def test_the_extent_of_a_layer_is_that_of_its_state(name):
    settings = {"dense": {"out_size": 6}}.get(name, {"out_channels": 3, "stride": 2})
    layer, _ = vsml_of({"type": name, **settings}, {}).network.layers
    state = jax.eval_shape(lambda key: layer.init_state(key, 8, 0.5), jax.random.key(0))
    assert state.c.size == 8 * layer.extent.synapses
    assert layer.extent.fan_out * layer.extent.positions == layer.fan_out == np.prod(layer.output_shape)

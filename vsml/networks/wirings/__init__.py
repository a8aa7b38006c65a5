"""Wirings: which units a layer connects, one kind a file. A new one is a file and a line in `WIRINGS`."""

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import (
    Discriminator,
    Field,
    SerializeAsAny,
    Tag,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from vsml.networks.kernels import Kernel
from vsml.networks.wirings.base import Extent, ImageShape, Layer, LayerSection
from vsml.networks.wirings.conv import ConvConfig, ConvLayer
from vsml.networks.wirings.dense import DenseConfig, DenseLayer
from vsml.registry import Registry, UnknownNameError, section_of
from vsml.settings import Problem, Text

WIRINGS: Registry[Callable[..., Layer]] = Registry(
    "wiring",
    "vsml.wirings",
    {
        "dense": DenseLayer.build,
        "conv": ConvLayer.build,
        "conv1d": ConvLayer.build,
    },
)
"""What `model.vsml.layers.N.type` may name, and what builds a layer of it.

It is called with the shape of its input (`ImageShape`), `config`, whose type is its section of settings, the
number of outputs of the whole network, and the kernel.
"""

__all__ = [
    "WIRINGS",
    "ConvConfig",
    "ConvLayer",
    "DenseConfig",
    "DenseLayer",
    "Extent",
    "Layer",
    "LayerConfig",
    "LayerSection",
    "OutsideConfig",
    "build_layer",
    "layer_problems",
    "type_problems",
]


class OutsideConfig(LayerSection):
    """A layer whose wiring is no part of this library."""

    type: Text = Field(
        description="package.module:Name of the wiring, or the name that an installed package gives it"
    )
    options: Annotated[SerializeAsAny[LayerSection], WithJsonSchema({"type": "object"})] = Field(
        default={}, validate_default=True, description="its settings"
    )

    @field_validator("options", mode="before")
    @classmethod
    def _read_options(cls, options: Any, info: ValidationInfo) -> Any:
        """Read the options as the section that the wiring is built with."""
        section = section_of(WIRINGS.resolve(info.data["type"]))
        return options if isinstance(options, section) else section.model_validate(options)


def _sections() -> tuple[type[LayerSection], ...]:
    """Return the sections of this library's wirings, each once."""
    sections = [section_of(wiring) for wiring in WIRINGS.values()]
    return tuple(dict.fromkeys(sections))  # type: ignore[arg-type]


def _form(layer: Any) -> str:
    """Return the tag of a layer's form: that of its section, by its `type`."""
    kind = layer.get("type", "dense") if isinstance(layer, Mapping) else getattr(layer, "type", "dense")
    known = isinstance(kind, str) and kind in WIRINGS
    return f"<{section_of(WIRINGS[kind]).__name__}>" if known else "<outside>"


if TYPE_CHECKING:
    LayerConfig = LayerSection
else:
    _FORMS = [Annotated[section, Tag(f"<{section.__name__}>")] for section in _sections()]
    LayerConfig = Annotated[
        Union[(*_FORMS, Annotated[OutsideConfig, Tag("<outside>")])],
        Discriminator(_form),
    ]
    """The settings of one layer: of a wiring of this library by its keys, of any other by `options`."""


def own_settings(layer: LayerSection) -> LayerSection:
    """Return the section that the wiring of a layer is built with."""
    return layer.options if isinstance(layer, OutsideConfig) else layer


def type_problems(layers: Any) -> Iterator[Problem]:
    """Yield layers, as read, of no known type, of which nothing else can be judged."""
    for index, layer in enumerate(layers if isinstance(layers, list | tuple) else ()):
        if not isinstance(layer, Mapping):
            continue
        path = f"layers.{index}.type"
        if "type" not in layer:
            yield from _kinds_with(path, layer)
            continue
        kind = layer["type"]
        try:
            section = section_of(WIRINGS.resolve(str(kind)))
        except UnknownNameError as error:
            yield Problem(path, kind, error.expected, ("layers",))
        except ValueError as error:
            yield Problem(path, kind, f"a wiring built with a section of settings; {error}", ("layers",))
        else:
            if not issubclass(section, LayerSection):
                expected = f"a wiring whose settings are a LayerSection, not {section.__name__}"
                yield Problem(path, kind, expected, ("layers",))


def _kinds_with(path: str, layer: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield that a layer without a type, which would be dense, has keys of other types."""
    foreign = layer.keys() - DenseConfig.model_fields.keys()
    for section in _sections():
        keys = sorted(foreign & section.model_fields.keys())
        if keys:
            names = [repr(name) for name, wiring in WIRINGS.items() if section_of(wiring) is section]
            expected = f"{' or '.join(names)} for a layer with {', '.join(keys)}"
            yield Problem(path, None, expected, ("layers",))
            return


def layer_problems(layers: tuple[LayerSection, ...]) -> Iterator[Problem]:
    """Yield what layers cannot be where they are."""
    for index, layer in enumerate(layers):
        last = index == len(layers) - 1
        where = f"layers.{index}.options" if isinstance(layer, OutsideConfig) else f"layers.{index}"
        for problem in own_settings(layer).problems(last):
            yield Problem(f"{where}.{problem.path}", problem.got, problem.expected, ("layers",))


def build_layer(config: LayerSection, input_shape: ImageShape, outputs: int, kernel: Kernel) -> Layer:
    """Build one layer.

    Args:
        config: its settings.
        input_shape: what the units that it reads form.
        outputs: of the network, for the last layer.
        kernel: what makes its synapses tick.

    Raises:
        ValueError: what is built does not say its cost.
    """
    name: str = config.type  # type: ignore[attr-defined]
    layer = WIRINGS.resolve(name)(input_shape, own_settings(config), outputs, kernel)
    extent = getattr(layer, "extent", None)
    if not isinstance(extent, Extent):
        raise ValueError(
            f"layers: type {name!r} builds a {type(layer).__name__} with extent {extent!r}, expected "
            "vsml.networks.wirings.base.Extent, which says how many synapses it has and what they cost"
        )
    return layer

"""Sections of the configuration about preprocessing, made from the registry of transforms."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from pydantic import BeforeValidator, Field, PlainSerializer, TypeAdapter, ValidationError, WithJsonSchema
from pydantic import create_model as create
from pydantic_core import PydanticCustomError, to_jsonable_python

from vsml.registry import UnknownNameError
from vsml.settings import Overrides, Section, Splittable
from vsml.tasks.preprocess import EXTRA, find_transform
from vsml.tasks.transforms import TRANSFORMS


def _splittable(kind: Any) -> Any:
    """Return the type of a value that may be split."""
    alias: Any = Splittable
    return alias[kind]


# For every section there are two kinds. A mixture of tasks has values that may be split; one task has plain
# values, of which only those that are given count.


def _fields(section: type[Section]) -> dict[str, tuple[Any, str, Any]]:
    """Return type, description and default of each field of a section."""
    types = get_type_hints(section, include_extras=True)
    return {
        name: (types[name], field.description or "", field.default)
        for name, field in section.model_fields.items()
    }


def _section(name: str, doc: str, fields: Mapping[str, tuple[Any, str, Any]]) -> type[Overrides]:
    """Return a section of plain values."""
    definitions: dict[str, Any] = {}
    for key, (kind, description, default) in fields.items():
        definitions[key] = (kind, Field(default=default, description=description))
    return create(name, __base__=Overrides, __doc__=doc, __module__=__name__, **definitions)


def _mixture(name: str, doc: str, fields: Mapping[str, tuple[Any, str, Any]]) -> type[Section]:
    """Return a section each value of which may be split."""
    definitions: dict[str, Any] = {}
    for key, (kind, description, default) in fields.items():
        definitions[key] = (_splittable(kind), Field(default=default, description=description))
    return create(name, __base__=Section, __doc__=doc, __module__=__name__, **definitions)


def _read_extra(value: Any, split: bool) -> tuple[tuple[str, Any], ...]:
    """Return names and settings of transforms that do not come with the library, as pairs."""
    if isinstance(value, Mapping):
        pairs = list(value.items())
    elif isinstance(value, tuple):
        pairs = list(value)
    else:
        raise PydanticCustomError("extra", "Input should be a mapping from transforms to their settings")
    read = []
    for name, setting in pairs:
        try:
            kind = find_transform(str(name)).setting
            adapter = TypeAdapter[Any](_splittable(kind) if split else kind)
            read.append((name, adapter.validate_python(setting)))
        except UnknownNameError as error:
            problem = f"other names: for {error.got!r} {error.expected}"
            raise PydanticCustomError("extra", "Input should be {problem}", {"problem": problem}) from error
        except ValidationError as error:
            first, *_ = error.errors()
            place = ".".join(map(str, (name, *first["loc"])))
            problem = f"other settings: {place}: {first['msg']}"
            raise PydanticCustomError("extra", "Input should be {problem}", {"problem": problem}) from error
    return tuple(read)


def _write_extra(pairs: tuple[tuple[str, Any], ...]) -> dict[str, Any]:
    """Return what `_read_extra` reads."""
    return {name: to_jsonable_python(setting) for name, setting in pairs}


def _extra(split: bool) -> Any:
    """Return the type of the setting `extra`."""

    def read(value: Any) -> tuple[tuple[str, Any], ...]:
        return _read_extra(value, split)

    pairs = tuple[tuple[str, Any], ...]
    return Annotated[
        pairs, BeforeValidator(read), PlainSerializer(_write_extra), WithJsonSchema({"type": "object"})
    ]


_EXTRA_FIELD = Field(
    default=(),
    description="transforms that do not come with the library: a mapping from package.module:Name, or from "
    "the name of an installed package's entry point, to the setting; they act after all others",
    json_schema_extra={"default": {}},
)

if TYPE_CHECKING:
    Pad = Overrides
    PadMixture = Section
    Preprocess = Overrides
    PreprocessMixture = Section
else:
    _plain, _mixed = {}, {}
    for _name, _transform in TRANSFORMS.items():
        _kind, _default = _transform.setting, _transform.default
        if isinstance(_kind, type) and issubclass(_kind, Section):
            _below = _fields(_kind)
            _one = _section(_kind.__name__, _kind.__doc__, _below)
            _many = _mixture(f"{_kind.__name__}Mixture", _kind.__doc__, _below)
            _plain[_name] = (_one, _transform.description, _one())
            _mixed[_name] = (_many, _transform.description, _many())
        else:
            _plain[_name] = (_kind, _transform.description, _default)
            _mixed[_name] = (_kind, _transform.description, _default)

    Preprocess = create(
        "Preprocess",
        __base__=_section("Preprocess", "How examples become inputs, in this order.", _plain),
        __doc__="How examples become inputs, in this order.",
        __module__=__name__,
        **{EXTRA: (_extra(split=False), _EXTRA_FIELD)},
    )
    PreprocessMixture = create(
        "PreprocessMixture",
        __base__=_mixture("PreprocessMixture", "", _mixed),
        __doc__="How examples become inputs, in this order; each value may be split.",
        __module__=__name__,
        **{EXTRA: (_extra(split=True), _EXTRA_FIELD)},
    )
    Pad = Preprocess.model_fields["pad"].annotation
    PadMixture = type(PreprocessMixture.model_fields["pad"].default)

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


_Fields = dict[str, tuple[Any, str, Any]]
"""Type, description and default of the fields of a section, by name."""

_Pairs = tuple[tuple[str, Any], ...]
"""Names and settings of transforms."""


def _fields(section: type[Section]) -> _Fields:
    """Return the fields of a section."""
    types = get_type_hints(section, include_extras=True)
    fields = {}
    for name, field in section.model_fields.items():
        description = field.description or ""
        fields[name] = (types[name], description, field.default)
    return fields


def _section(
    name: str,
    doc: str,
    fields: _Fields,
) -> type[Overrides]:
    """Return a section of plain values."""
    definitions: dict[str, Any] = {}
    for key, (kind, description, default) in fields.items():
        field = Field(default=default, description=description)
        definitions[key] = (kind, field)
    return create(name, __base__=Overrides, __doc__=doc, __module__=__name__, **definitions)


def _mixture(
    name: str,
    doc: str,
    fields: _Fields,
) -> type[Section]:
    """Return a section each value of which may be split."""
    definitions: dict[str, Any] = {}
    for key, (kind, description, default) in fields.items():
        field = Field(default=default, description=description)
        definitions[key] = (_splittable(kind), field)
    return create(name, __base__=Section, __doc__=doc, __module__=__name__, **definitions)


def _read_extra(value: Any, split: bool) -> _Pairs:
    """Return names and settings of transforms that do not come with the library, as pairs."""
    if isinstance(value, Mapping):
        pairs = list(value.items())
    elif isinstance(value, tuple):
        pairs = list(value)
    else:
        raise _unlike("a mapping from transforms to their settings")
    read = []
    for name, setting in pairs:
        try:
            kind = find_transform(str(name)).setting
            adapter = TypeAdapter[Any](_splittable(kind) if split else kind)
            read.append((name, adapter.validate_python(setting)))
        except UnknownNameError as error:
            raise _unlike(f"other names: for {error.got!r} {error.expected}") from error
        except ValidationError as error:
            first, *_ = error.errors()
            place = ".".join(map(str, (name, *first["loc"])))
            raise _unlike(f"other settings: {place}: {first['msg']}") from error
    return tuple(read)


def _unlike(expected: str) -> PydanticCustomError:
    """Return the error of a value that is not what was expected."""
    return PydanticCustomError("extra", "Input should be {expected}", {"expected": expected})


def _write_extra(pairs: _Pairs) -> dict[str, Any]:
    """Return what `_read_extra` reads."""
    return {name: to_jsonable_python(setting) for name, setting in pairs}


def _extra(split: bool) -> Any:
    """Return the type of the setting `extra`."""

    def read(value: Any) -> _Pairs:
        return _read_extra(value, split)

    return Annotated[
        _Pairs,
        BeforeValidator(read),
        PlainSerializer(_write_extra),
        WithJsonSchema({"type": "object"}),
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

"""What the schema is built from: checked scalars, the base sections, splits, and problems between values."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    StrictBool,
    Tag,
    WithJsonSchema,
    model_serializer,
    model_validator,
)
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic_core import PydanticCustomError

T = TypeVar("T")


@dataclass(frozen=True)
class Problem:
    """A value that its neighbours do not allow.

    Attributes:
        path: dotted, relative to the section that found it.
        got: the offending value.
        expected: what would be right.
        involves: other dotted paths that the judgement rests on.
    """

    path: str
    got: Any
    expected: str
    involves: tuple[str, ...] = ()


class SectionError(ValueError):
    """The problems that a section found between its own values."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        super().__init__("; ".join(f"{p.path}: got {p.got!r}, expected {p.expected}" for p in problems))


def refuse(problems: Iterable[Problem]) -> None:
    """Raise SectionError if there are problems."""
    found = tuple(problems)
    if found:
        raise SectionError(found)


def differences(one: Any, other: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield the dotted path, the value here and the value there of all that differs in two nested dicts."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys([*one, *other]):
            below = f"{path}.{key}" if path else key
            yield from differences(one.get(key), other.get(key), below)
    elif one != other:
        yield path, one, other


# Scalars. YAML has booleans, and a quoted number is a mistake; 4 and 4.0 are both the whole number 4.


def _whole_number(value: Any) -> Any:
    if isinstance(value, bool | str):
        raise PydanticCustomError("int_type", "Input should be a whole number")
    return value


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise PydanticCustomError("float_type", "Input should be a number")
    return value  # text like "1e-3", which other YAML readers give, is left to be parsed as the number


def _distinct(classes: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(classes)) < len(classes):
        raise PydanticCustomError("distinct", "Input should be distinct classes")
    return classes


def _pairs(value: Any) -> Any:
    """Return a mapping as pairs, and lists in it as tuples, so that it can be hashed."""
    if not isinstance(value, Mapping):
        return value
    return tuple((key, _without_lists(each)) for key, each in sorted(value.items()))


def _without_lists(value: Any) -> Any:
    return tuple(map(_without_lists, value)) if isinstance(value, list | tuple) else value


Bool = StrictBool
Int = Annotated[int, BeforeValidator(_whole_number)]
Float = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Positive = Annotated[Int, Field(ge=1)]
Size = tuple[Positive, Positive]
Shape = tuple[Positive, Positive, Positive]
Classes = Annotated[tuple[Annotated[Int, Field(ge=0)], ...], Field(min_length=1), AfterValidator(_distinct)]
Text = Annotated[str, Field(min_length=1)]
Options = Annotated[
    tuple[tuple[str, Any], ...],
    BeforeValidator(_pairs),
    PlainSerializer(dict),
    WithJsonSchema({"type": "object"}),
]
"""A mapping with any keys, kept as pairs, so that a section that has one can be hashed."""
LogitBound = Annotated[
    Float,
    Field(ge=0, description="logits are squashed into (-bound, bound); 0 leaves them unbounded"),
]
Name = Annotated[str, Field(pattern=r"^[^/\s]+$")]  # becomes part of folder names and metric names


class Section(BaseModel):
    """Base of all sections: frozen, and no key but the declared ones."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=False)


class NoSettings(Section):
    """The section of what has nothing to be set."""


class Plugin(Section):
    """A member of a registry, with its settings; a name alone stands for one without settings."""

    type: Text = Field(
        description="name of a built-in one or of an installed package's, or package.module:Name"
    )
    options: Options = Field(default=(), description="its own settings")

    @model_validator(mode="before")
    @classmethod
    def _take_name(cls, value: Any) -> Any:
        return {"type": value} if isinstance(value, str) else value

    @property
    def name(self) -> str:
        """The name that results go by: of `package.module:Name` the last part."""
        return self.type.rpartition(":")[-1]


class Overrides(Section):
    """Base of sections in which only the keys that are given count; only those are written out."""

    @model_serializer(mode="wrap")
    def _write_what_is_set(self, handler: Any) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if key in self.model_fields_set}


# Split values and other choices between two forms. A tag in <> marks the form; it is no part of a path.


@pydantic_dataclass(frozen=True, config=ConfigDict(extra="forbid", revalidate_instances="always"))
class Split(Generic[T]):
    """Different values for different units (antithetic pairs for es, episodes for gradient).

    Unit i takes option number `(i // repeat) % len(split)`.

    Attributes:
        split: the options, in turn.
        repeat: how many neighbouring units take the same option.
    """

    split: Annotated[tuple[T, ...], Field(min_length=1)]
    repeat: Positive = 1


def _value_or_split(value: Any) -> str:
    is_split = isinstance(value, Split) or (isinstance(value, Mapping) and "split" in value)
    return "<split>" if is_split else "<value>"


def _value_or_mapping(value: Any) -> str:
    return "<mapping>" if isinstance(value, Mapping | BaseModel) else "<value>"


Splittable = Annotated[
    Annotated[T, Tag("<value>")] | Annotated[Split[T], Tag("<split>")], Discriminator(_value_or_split)
]


Choice = Discriminator(_value_or_mapping)
"""Tells a plain value (tag <value>) from a mapping (tag <mapping>)."""


# Layers of settings.


def deep_merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the layers merged, later ones on top; the layers stay as they are."""
    merged: Any = {}
    for layer in layers:
        merged = merge(merged, layer)
    return merged


def merge(below: Any, above: Any) -> Any:
    """Return `above` on top of `below`: mappings key by key, all else replaced."""
    mappings = isinstance(below, Mapping) and isinstance(above, Mapping)
    if not mappings or "split" in below or "split" in above:
        return above
    return {**below, **{key: merge(below[key], above[key]) if key in below else above[key] for key in above}}

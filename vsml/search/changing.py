"""Settings that may change while a search runs."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from vsml.search.settings import Drawing, Leaves, Mutations
from vsml.settings import Section

_BREEDING = (
    "tournament",
    "changes",
    "elites",
    "starts",
    "rescored",
    "migration",
    "migrants",
    "patience",
    "tune",
    "tune_rounds",
)
_JUDGING = ("early_hurdle", "functions_hurdle", "gates_hurdle", "sums_hurdle", "percentile")
_WEIGHTS = [name for name, field_ in Drawing.model_fields.items() if isinstance(field_.default, float)]


def _named(section: str, names: Sequence[str]) -> list[str]:
    return [f"search.{section}.{name}" for name in names]


SETTINGS = (
    "search.generations",
    "search.solved",
    *_named("breeding", _BREEDING),
    *_named("mutations", list(Mutations.model_fields)),
    *_named("judging", _JUDGING),
    *_named("drawing", _WEIGHTS),
    *_named("drawing.leaves", list(Leaves.model_fields)),
)
"""Settings that may change while a search runs. Others say of what size arrays are, or what scores mean."""


class RefusedError(ValueError):
    """A command that cannot be done; the message says why, and what was expected."""


def changed(config: Any, name: str, value: Any) -> Any:
    """Return the settings of a search with another value for one of them.

    Args:
        config: the section `search`.
        name: dotted, one of `SETTINGS`.
        value: as YAML or JSON has it.

    Raises:
        RefusedError: the setting cannot change in a search that runs, or not to this value.
    """
    if name not in SETTINGS:
        raise RefusedError(f"set: got {name!r}, which cannot change while a search runs; {_expected(name)}")
    try:
        return with_values(config, {name: value})
    except ValidationError as error:
        told = "; ".join(problem["msg"] for problem in error.errors())
        raise RefusedError(f"set: {name}: got {value!r}: {told}") from error


def with_values(config: Any, values: Mapping[str, Any]) -> Any:
    """Return the settings of a search with other values, checked together.

    Raises:
        ValidationError: they contradict each other or the others.
    """
    settings = config.model_dump(mode="json")
    for name, value in values.items():
        *folders, last = name.split(".")[1:]
        place = settings
        for folder in folders:
            place = place[folder]
        place[last] = value
    return type(config).model_validate(settings)


def _expected(name: str) -> str:
    """Return the settings that may be meant, as a sentence."""
    section = name.rpartition(".")[0]
    near = [each for each in SETTINGS if each.rpartition(".")[0] == section]
    if near and section != "search":
        return f"expected one of {', '.join(near)}"
    sections = dict.fromkeys(each.rpartition(".")[0] for each in SETTINGS)
    return f"expected a setting of {', '.join(sections)} (docs/search.md)"


def value_of(config: Any, name: str) -> Any:
    """Return a setting by its dotted name, ready for JSON."""
    found: Any = config
    for part in name.split(".")[1:]:
        found = getattr(found, part)
    return found.model_dump(mode="json") if isinstance(found, Section) else found

"""Rows of results and facts of a run as they have to be in its files, whoever has written these."""

import reprlib
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError


class _Strict(BaseModel):
    """Nothing is taken for what it is not: text is no number."""

    model_config = ConfigDict(strict=True, extra="allow")


class EvaluationRow(_Strict):
    """A row of evaluation.json: who, on what, and numbers by the names of metrics."""

    __pydantic_extra__: dict[str, float | None]

    learner: str
    dataset: str
    metric: str = "accuracy"
    episodes: int | None = None
    examples: int | None = None
    repeats_after: int | None = None
    tried: dict[str, Any] = {}
    interval_95: dict[str, float | None] = {}


class OtherRow(_Strict):
    """A row of results of another call: whose numbers, and these or lists of them."""

    learner: str = ""
    quantity: str = ""
    dataset: str = ""


class _Git(_Strict):
    commit: str | None = None
    dirty: bool | None = None


class _Device(_Strict):
    count: int | None = None
    kind: str | None = None


class Environment(_Strict):
    """What environment.json has, as far as the page shows it."""

    git: _Git | None = None
    device: _Device | None = None
    world_size: int | None = None
    command_line: list[str] = []


def mistakes(
    kind: type[BaseModel],
    value: Any,
) -> Iterator[tuple[str, str]]:
    """Yield the key of each value that is not as it has to be, and what is wrong with it, in words.

    Args:
        kind: one of the classes above.
        value: an object of a file; another value is one mistake, with an empty key.
    """
    try:
        kind.model_validate(value)
    except ValidationError as error:
        for found in error.errors(include_url=False):
            place = ".".join(map(str, found["loc"]))
            key = place.partition(".")[0]
            # Such as "Input should be a valid dictionary or instance of _Git".
            expected = found["msg"].replace("Input should be", "expected").partition(" or instance of")[0]
            if found["type"] == "missing":
                yield key, f"{place}: is missing"
            else:
                got = reprlib.repr(found["input"])
                where = f"{place}: " if place else ""
                yield key, f"{where}got {got}, {expected}"

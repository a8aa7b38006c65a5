"""Preprocessing of a task: transforms with their settings, in the order in which they act."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from vsml.registry import UnknownNameError
from vsml.tasks.transforms import TRANSFORMS, Transform
from vsml.tasks.transforms.base import Shape
from vsml.types import Classes, Outputs

EXTRA = "extra"
"""The key of transforms that do not come with this library: a mapping from their names to settings."""


@dataclass(frozen=True)
class Applied:
    """A transform with its setting, turned on.

    Attributes:
        transform: what it is.
        setting: of the transform's own type.
    """

    transform: Transform
    setting: Any


Preprocessing = tuple[Applied, ...]
"""What acts on a task's examples, in this order."""


def find_transform(name: str) -> Transform:
    """Return a transform that does not come with this library, by its name among the entry points of
    installed packages or by `package.module:Name`.

    Raises:
        UnknownNameError: there is none.
    """
    if name in TRANSFORMS:
        raise UnknownNameError(name, f"the key {name} beside {EXTRA}, as it comes with this library")
    found = TRANSFORMS.resolve(name)
    if not isinstance(found, Transform):
        kind = type(found).__name__
        raise UnknownNameError(name, f"a vsml.tasks.transforms.Transform, which a {kind} is not")
    return found


def read_settings(settings: Mapping[str, Any]) -> Preprocessing:
    """Return the transforms that are turned on, in the order in which they act.

    Args:
        settings: by name, plain or as the transforms declare them; those that are not there have their
            default. `extra` maps names of further transforms to theirs.

    Raises:
        ValueError: a transform or its setting is unknown, or two exclude each other.
    """
    chosen = turned_on(settings)
    for one, other in conflicts(chosen):
        raise ValueError(f"preprocess: got both {one} and {other}, expected at most one of them")
    return chosen


def turned_on(settings: Mapping[str, Any]) -> Preprocessing:
    """Return the same as `read_settings`, but do not check whether two exclude each other."""
    _check_names(settings)
    found = []
    for name, transform in TRANSFORMS.items():
        setting = settings.get(name, transform.default)
        found.append(_applied(name, transform, setting))
    for name, setting in settings.get(EXTRA, {}).items():
        try:
            transform = find_transform(name)
        except UnknownNameError as error:
            raise ValueError(f"preprocess.{EXTRA}: {error}") from error
        found.append(_applied(f"{EXTRA}.{name}", transform, setting))
    return tuple(each for each in found if each.transform.is_on(each.setting))


def _check_names(settings: Mapping[str, Any]) -> None:
    """Raise a ValueError for a name that no transform has."""
    known = [*TRANSFORMS, EXTRA]
    for name in settings:
        if name in known:
            continue
        expected = f"one of {', '.join(known)}"
        close = difflib.get_close_matches(name, known, n=1)
        if close:
            expected += f"; did you mean {close[0]!r}?"
        raise ValueError(f"preprocess: got {name!r}, expected {expected}")


def _applied(
    where: str,
    transform: Transform,
    setting: Any,
) -> Applied:
    """Return a transform with a plain setting, read and checked."""
    try:
        return Applied(transform, transform.read(setting))
    except ValidationError as error:
        first, *_ = error.errors()
        expected = first["msg"].removeprefix("Input should be ")
        if first["loc"]:
            place = ".".join(map(str, first["loc"]))
            expected += f" at {place}"
        raise ValueError(f"preprocess.{where}: got {setting!r}, expected {expected}") from error


def conflicts(preprocessing: Preprocessing) -> Iterator[tuple[str, str]]:
    """Yield the names of transforms that are on and exclude each other."""
    names = [each.transform.name for each in preprocessing]
    for each in preprocessing:
        for other in each.transform.excludes:
            if other in names:
                yield each.transform.name, other


def shape_after(shape: Shape, preprocessing: Preprocessing) -> Shape:
    """Return the shape (H, W, Ch) of inputs that are made from images of a shape.

    Raises:
        ValueError: a transform does not fit the shape.
    """
    for each in preprocessing:
        shape = each.transform.shape(tuple(shape), each.setting)
    return tuple(shape)


def outputs_after(
    outputs: Outputs,
    preprocessing: Preprocessing,
    source: str,
) -> Outputs:
    """Return what a learner answers with, padded classes included.

    Args:
        outputs: what targets are.
        preprocessing: acts on them.
        source: what has those outputs, in words for messages: "the 10 classes of digits".

    Raises:
        ValueError: a transform does not fit them.
    """
    for each in preprocessing:
        transform = each.transform
        if transform.classes_only and not isinstance(outputs, Classes):
            raise ValueError(
                f"preprocess.{transform.name}: got {_show(each.setting)}, expected false for {source}"
            )
        outputs = transform.outputs(outputs, each.setting, source)
    return outputs


def check_few_shot(preprocessing: Preprocessing) -> None:
    """Raise a ValueError where a transform does not go with few-shot episodes."""
    for each in preprocessing:
        transform = each.transform
        if not transform.few_shot:
            raise ValueError(
                f"preprocess.{transform.name}: got {_show(each.setting)}, expected false with few_shot"
            )


def working_numbers(shape: Shape, preprocessing: Preprocessing) -> int:
    """Return how many numbers the transforms of images of a shape hold beside the examples, at most."""
    most = 0
    for each in preprocessing:
        transform = each.transform
        numbers = transform.working_numbers(shape, each.setting)
        most = max(most, numbers)
        shape = transform.shape(shape, each.setting)
    return most


def drawn_anew(preprocessing: Preprocessing) -> list[str]:
    """Return in words what differs between two episodes of these transforms: labels, inputs, or both."""
    drawn = [each.transform for each in preprocessing if each.transform.drawn]
    words = []
    if any(transform.classes_only for transform in drawn):
        words.append("permuted labels")
    if any(not transform.classes_only for transform in drawn):
        names = set()
        for transform in (*TRANSFORMS.values(), *drawn):
            if transform.drawn and not transform.classes_only:
                names.add(transform.name)
        words.append(" and ".join(sorted(names)))
    return words


def describe(preprocessing: Preprocessing) -> list[str]:
    """Return in words what the transforms do, one text for each that has words."""
    words = []
    for each in preprocessing:
        text = each.transform.words(each.setting)
        if text:
            words.append(text)
    return words


def name_parts(changes: Mapping[str, Any]) -> tuple[str, str]:
    """Return the parts of an evaluation task's automatic name that say what preprocessing it changes.

    Args:
        changes: plain settings by name, those alone that differ from what all tasks have.

    Returns:
        What stands right behind the data set's name, and what stands at the end.
    """
    front, flags, sections = [], [], []
    for name in sorted(TRANSFORMS):
        if name not in changes:
            continue
        setting = changes[name]
        part = _name_part(name, TRANSFORMS[name], setting)
        if part.startswith("@"):
            front.append(part)
        elif isinstance(setting, Mapping):
            sections.append(part)
        else:
            flags.append(part)
    for name, setting in changes.get(EXTRA, {}).items():
        _, _, short_name = name.rpartition(":")
        transform = find_transform(name)
        sections.append(_name_part(short_name, transform, setting))
    end = [*flags, *sections]
    return "".join(front), "".join(end)


def _name_part(
    name: str,
    transform: Transform,
    setting: Any,
) -> str:
    """Return the part of a name for one transform."""
    read = transform.read(setting)
    if transform.name_part is not None:
        return transform.name_part(read)
    sign = "+" if transform.is_on(read) else "-"
    return sign + name


def _show(setting: Any) -> str:
    """Return a setting as it is written in YAML, as far as it is a switch."""
    if isinstance(setting, bool):
        return str(setting).lower()
    return repr(setting)

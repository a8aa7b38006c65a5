"""Settings of members of a registry: options that are checked against a section of their own."""

from collections.abc import (
    Callable,
    Iterable,
    Iterator,
    Mapping,
)
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from vsml.registry import Registry, UnknownNameError, section_of
from vsml.settings import Plugin, Problem, Section, SectionError


class SettingsError(ValueError):
    """Mistakes in settings.

    Attributes:
        problems: each with the dotted path of the setting.
        mistakes: one line each.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        self.mistakes = tuple(
            f"{problem.path}: got {problem.got!r}, expected {problem.expected}" for problem in self.problems
        )
        super().__init__("; ".join(self.mistakes))


def builder_of(kind: Any) -> Callable[..., Any]:
    """Return what builds a member of a registry: its `from_config` where it has one, else the member."""
    return getattr(kind, "from_config", kind)


def read_options(
    kind: Any,
    options: Mapping[str, Any],
    path: str,
) -> Section:
    """Return options as the section of settings that a member of a registry is built with.

    Args:
        kind: the member.
        options: values by name.
        path: dotted path of the options, for messages.

    Raises:
        SettingsError: there are no such options, or they have no such values.
    """
    section = section_of(builder_of(kind))
    problems = list(_option_problems(section, options, path))
    if problems:
        raise SettingsError(problems)
    return section.model_validate(dict(options))


def member_problems(
    registry: Registry[Any],
    name: str,
    options: Mapping[str, Any],
    name_path: str,
    options_path: str,
) -> Iterator[Problem]:
    """Yield what is wrong with the name of a member, and with its options.

    Args:
        registry: where it is looked up.
        name: of the member.
        options: values by name.
        name_path: dotted path of the name, for messages.
        options_path: that of the options.
    """
    try:
        section = section_of(builder_of(registry.resolve(name)))
    except UnknownNameError as error:
        yield Problem(name_path, name, error.expected)
    except ValueError as error:  # it has no section
        yield Problem(name_path, name, f"a {registry.kind} with a `config`; {error}")
    else:
        yield from _option_problems(section, options, options_path)


def plugin_problems(registry: Registry[Any], path: str, plugin: Plugin) -> Iterator[Problem]:
    """Yield what is wrong with a plugin that a configuration names at a dotted path."""
    options = dict(plugin.options)
    yield from member_problems(registry, plugin.type, options, f"{path}.type", f"{path}.options")


def build_plugin(registry: Registry[Any], plugin: Plugin, *arguments: Any) -> Any:
    """Build a plugin: call what the registry has with the arguments, and with its settings as `config`.

    Raises:
        ValueError: it is unknown, or refuses its settings.
    """
    kind = registry.resolve(plugin.type)
    config = read_options(kind, dict(plugin.options), f"{plugin.type}.options")
    return builder_of(kind)(*arguments, config=config)


def _option_problems(
    section: type[Section],
    options: Mapping[str, Any],
    path: str,
) -> Iterator[Problem]:
    try:
        section.model_validate(dict(options))
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            yield from _problems_of(detail, section, path)


def _problems_of(
    detail: Any,
    section: type[Section],
    path: str,
) -> Iterator[Problem]:
    """Yield what pydantic found at one place."""
    # Tags in <> mark the form of a value; they are no part of its path.
    keys = [str(key) for key in detail["loc"] if not str(key).startswith("<")]
    place = ".".join([path, *keys])
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, SectionError):
        for problem in cause.problems:
            yield Problem(f"{place}.{problem.path}", problem.got, problem.expected)
    elif detail["type"] == "extra_forbidden":
        yield Problem(place, detail["input"], _known_options(keys[-1], section))
    elif detail["type"] == "missing":
        yield Problem(place, None, "a value, as it has no default")
    else:
        yield Problem(place, detail["input"], detail["msg"].removeprefix("Input should be "))


def _known_options(name: str, section: type[Section]) -> str:
    """Say which options there are."""
    names = list(section.model_fields)
    if not names:
        return "nothing here, as there are no options"
    close = get_close_matches(name, names, n=1)
    expected = f"one of the options {', '.join(names)}"
    return f"{expected}; did you mean {close[0]!r}?" if close else expected

"""Registries: what of one kind exists, by name, inside of this library and outside of it."""

import difflib
import importlib
import importlib.metadata
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar, get_type_hints

from vsml.settings import Section

T = TypeVar("T")


def suggestion(name: str, names: Iterable[str]) -> str:
    """Return "; did you mean ...?" with the closest of some names, nothing where none is close."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


class UnknownNameError(ValueError):
    """A name that nothing is registered by; the message says what there is.

    Attributes:
        got: the name.
        expected: what could have been named, as text.
    """

    def __init__(self, got: str, expected: str) -> None:
        self.got = got
        self.expected = expected
        super().__init__(f"got {got!r}, expected {expected}")


class Registry(Mapping[str, T], Generic[T]):
    """Members of one kind by name: those of this library, of installed packages, and of any module.

    Iterating, `in` and `[]` are about the members of this library. `resolve` finds the others, too.

    Args:
        kind: what a member is, in the singular, for messages: "learner".
        group: entry points of installed packages in this group are members, too: "vsml.learners".
        members: those of this library.
    """

    def __init__(self, kind: str, group: str, members: Mapping[str, T]) -> None:
        self.kind = kind
        self.group = group
        self._members = dict(members)

    def __getitem__(self, name: str) -> T:
        """Return a member of this library."""
        return self._members[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of this library's members, in the order in which they are listed."""
        return iter(self._members)

    def __len__(self) -> int:
        """Return how many members this library has."""
        return len(self._members)

    def resolve(self, name: str) -> T:
        """Return a member by its name, by that of an entry point, or by `package.module:Name`.

        Raises:
            UnknownNameError: there is none, or it cannot be imported.
        """
        if name in self._members:
            return self._members[name]
        if ":" in name:
            return self._import(name)
        for entry_point in importlib.metadata.entry_points(group=self.group):
            if entry_point.name == name:
                return self._import(entry_point.value)
        raise UnknownNameError(name, self._expected(name))

    def names(self) -> tuple[str, ...]:
        """Return the names of this library's members, then those of installed packages."""
        installed = importlib.metadata.entry_points(group=self.group)
        return (*self._members, *sorted(installed.names - self._members.keys()))

    def _expected(self, name: str) -> str:
        """Say what could have been meant."""
        names = self.names()
        expected = f"one of {', '.join(names)}, or package.module:Name of a {self.kind}"
        return expected + suggestion(name, names)

    def _import(self, path: str) -> T:
        """Return what `package.module:Name` names."""
        module_name, _, name = path.partition(":")
        what = f"package.module:Name of a {self.kind} that can be imported"
        if not module_name or not name:
            raise UnknownNameError(path, what)
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise UnknownNameError(path, f"{what}; {error}") from error
        if not hasattr(module, name):
            close = difflib.get_close_matches(name, dir(module), n=1)
            hint = f"; did you mean {module_name}:{close[0]}?" if close else ""
            raise UnknownNameError(path, f"{what}; {module_name} has no {name}{hint}")
        return getattr(module, name)


def section_of(factory: Any) -> type[Section]:
    """Return the section of settings that a member is built with: the type of its `config`.

    Args:
        factory: a class with an attribute, or a function with an argument, `config`.

    Raises:
        ValueError: it has none, or its type is no section.
    """
    section = get_type_hints(factory).get("config")
    if not (isinstance(section, type) and issubclass(section, Section)):
        name = getattr(factory, "__qualname__", factory)
        raise ValueError(
            f"{name}: got config of type {section}, expected a subclass of vsml.settings.Section"
        )
    return section

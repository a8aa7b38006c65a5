"""The parser of command lines: options by their whole names, and what could have been meant by others."""

import argparse
from collections.abc import Iterable, Sequence
from typing import Any

from vsml.registry import suggestion
from vsml.system.program import as_typed


class ArgumentParser(argparse.ArgumentParser):
    """As argparse's, but options are not shortened, and unknown ones get "did you mean" and the list."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        named = {"prog": as_typed(kwargs["prog"])} if "prog" in kwargs else {}
        super().__init__(*args, **{"allow_abbrev": False, **kwargs, **named})

    def parse_args(  # type: ignore[override]  # argparse has it in three forms
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        """Parse, or end with code 2 and a message about all that is unknown."""
        options, rest = self.parse_known_args(args, namespace)
        if rest:
            self.error(self.unknown(rest))
        return options

    def unknown(self, words: Sequence[str]) -> str:
        """Say what is unknown among words that belong to no option, and what there is."""
        names = self.option_names()
        unknown = [word.partition("=")[0] for word in words if word.startswith("--")]
        if unknown:
            said = [f"{name}: no such option{suggestion(name, names)}" for name in unknown]
        else:
            said = [f"got {word!r}, expected an option before it" for word in words]
        return f"{'; '.join(said)} (options: {', '.join(names)})"

    def option_names(self) -> list[str]:
        """Return the names of all options, also of commands; those of one letter are left out."""
        names: dict[str, None] = {}
        for action in self._actions:
            names |= dict.fromkeys(name for name in action.option_strings if name.startswith("--"))
            if isinstance(action, argparse._SubParsersAction):
                for command in action.choices.values():
                    names |= dict.fromkeys(command.option_names())
        return list(names)


def spelt_otherwise(name: str, names: Iterable[str]) -> str | None:
    """Return which option a name is but for - and _, such as --dry-run for --dry_run; None for none."""
    plain = name.replace("-", "_")
    same = (known for known in names if known != name and known.replace("-", "_") == plain)
    return next(same, None)


def positive(text: str) -> int:
    """Return a number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"got {text}, expected a whole number from 1 on")
    return number


def not_negative(text: str) -> int:
    """Return a number from 0 on."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"got {text}, expected a whole number from 0 on")
    return number

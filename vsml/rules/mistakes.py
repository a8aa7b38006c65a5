"""Mistakes in the text of a rule."""

import difflib
from collections.abc import Iterable


class RuleError(ValueError):
    """All mistakes of a text.

    Attributes:
        mistakes: pairs of a line's number, from 1, and a message, in the order of the lines.
        source: the file of the text, if there is one.
    """

    def __init__(
        self,
        mistakes: Iterable[tuple[int, str]],
        source: str = "",
    ) -> None:
        self.mistakes = tuple(mistakes)
        self.source = source
        lines = [f"{source}:"] if source else []
        lines += [f"line {line}: {message}" for line, message in self.mistakes]
        super().__init__("\n".join(lines))


def did_you_mean(
    name: str,
    known: Iterable[str],
) -> str:
    """Return a question that names the known name closest to one; empty where none is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""

"""A sample of the metrics of a run, of bounded size however long the run was."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vsml.runs.metrics import numbered_lines, parse_line

_MOST_LINES = 4000
"""Lines with the same names that are kept."""

_FEWEST_LINES = 100
"""... also where each has very many names."""

_MOST_VALUES = 400_000
"""Values that lines with the same names hold together, as far as `_FEWEST_LINES` allows."""

_MOST_GROUPS = 100
"""Sets of names that are told apart; lines with others are thinned together."""


@dataclass(frozen=True)
class MetricsSample:
    """Lines of metrics.jsonl, evenly spaced.

    Attributes:
        lines: those that are kept, in order.
        total: how many there are in the file, without those that are broken.
        every: of lines with the same names at least every so-manieth is kept; 1: all lines are.
        damage: what is broken, with file and line; empty: nothing.
    """

    lines: tuple[Mapping[str, Any], ...] = ()
    total: int = 0
    every: int = 1
    damage: tuple[str, ...] = ()


@dataclass
class _Group:
    """Lines with the same names: every `stride`-th, and the last.

    Attributes:
        most: lines that may be kept; with one more every second goes.
        stride: how many lines stand for one that is kept.
        count: lines seen so far.
        kept: numbers of lines in the file, and the lines.
        last: the latest line, likewise.
    """

    most: int
    stride: int = 1
    count: int = 0
    kept: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    last: tuple[int, dict[str, Any]] | None = None

    def add(self, number: int, values: dict[str, Any]) -> None:
        """Take a line."""
        self.last = number, values
        if self.count % self.stride == 0:
            self.kept.append(self.last)
        self.count += 1
        if len(self.kept) > self.most:
            self.kept = self.kept[::2]
            self.stride *= 2

    def lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the lines that are kept, and the last."""
        yield from self.kept
        if self.last is not None and self.kept[-1] != self.last:
            yield self.last


def sample_metrics(path: Path) -> MetricsSample:
    """Read metrics.jsonl; of many lines some, so that each number keeps its first, its last and some between.

    Lines with the same names are thinned together: numbers of rare lines, such as those of evaluations, stay.
    A broken line is left out and told of; so is, without a word, a last line that is half written.

    Args:
        path: the file.

    Raises:
        OSError: it cannot be read, or is no regular file.
    """
    groups: dict[tuple[str, ...], _Group] = {}
    total = 0
    broken = 0
    first_problem = ""
    for number, line in numbered_lines(path):
        try:
            values = parse_line(line)
        except ValueError as error:
            broken += 1
            first_problem = first_problem or f"{path}, line {number}: {error}"
            continue
        total += 1
        _group_of(groups, values).add(number, values)
    kept: dict[int, dict[str, Any]] = {}
    for group in groups.values():
        kept.update(group.lines())
    if broken > 1:
        first_problem += f" (and {broken - 1:,} more broken lines)"
    return MetricsSample(
        lines=tuple(kept[number] for number in sorted(kept)),
        total=total,
        every=max((group.stride for group in groups.values()), default=1),
        damage=(first_problem,) if broken else (),
    )


def _group_of(
    groups: dict[tuple[str, ...], _Group],
    values: Mapping[str, Any],
) -> _Group:
    """Return the group that a line belongs to, a new one if need be."""
    names = tuple(values)
    if names not in groups and len(groups) >= _MOST_GROUPS:
        names = ()
    group = groups.get(names)
    if group is None:
        fitting = _MOST_VALUES // len(values)
        most = min(_MOST_LINES, max(_FEWEST_LINES, fitting))
        group = groups[names] = _Group(most)
    return group

"""Draws of rows from tables: how contestants are named, meet the same rows and are scored, call by call."""

import argparse
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import yaml

from vsml.runs.progress import say
from vsml.system.files import write_json

_FAR_OUT = 1e4
"""What the numbers of an outlier are multiplied by."""

Scores = dict[str, dict[str, list[Any]]]
"""Score of each draw, by contestant and table; None where a draw could not be scored."""


class DrawnFrom(Protocol):
    """A table: inputs x [n, d] and targets y [n]."""

    @property
    def x(self) -> np.ndarray:
        """Inputs."""

    @property
    def y(self) -> np.ndarray:
        """Targets."""


def settings_of(source: str) -> tuple[str, dict[str, Any] | None]:
    """Return the learner of a source, and settings of its model that are other ones; None: there are none."""
    learner, *changes = source.split(":")
    model: dict[str, Any] = {}
    for change in changes:
        path, _, value = change.partition("=")
        *sections, last = path.split(".")
        section = model
        for name in sections:
            section = section.setdefault(name, {})
        section[last] = yaml.safe_load(value)
    return learner, {"vsml": model} if model else None


@dataclass(frozen=True)
class Draws:
    """How rows are drawn from a table.

    Attributes:
        rows: that are learned.
        asked: others that are asked, at most.
        noise: columns of normal noise beside those of the table.
        outliers: share of the rows that are learned that are far out, at least one; 0: none.
    """

    rows: int
    asked: int
    noise: int = 0
    outliers: float = 0.0

    def __str__(self) -> str:
        """Return what answers are kept by."""
        spoiled = f" | noise {self.noise} | outliers {self.outliers}" if self.noise or self.outliers else ""
        return f"{self.rows} | {self.asked}{spoiled}"

    def inputs(
        self,
        table: DrawnFrom,
        draw: int,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return all inputs of a table, and the numbers of the rows that are learned and that are asked."""
        order = np.random.default_rng(draw).permutation(len(table.y))
        shown, others = order[: self.rows], order[self.rows : self.rows + self.asked]
        spoiling = np.random.default_rng([draw, 1])
        x = np.concatenate([table.x, spoiling.normal(size=(len(table.x), self.noise))], axis=1)
        if self.outliers:
            count = max(1, round(self.outliers * self.rows))
            x[spoiling.choice(shown, count, replace=False)] *= _FAR_OUT
        return x, shown, others


def sources_of(contestants: Sequence[str]) -> dict[str, str]:
    """Return the source of each contestant, by name.

    Raises:
        ValueError: one is not NAME=SOURCE.
    """
    sources = {}
    for contestant in contestants:
        name, found, source = contestant.partition("=")
        if not (name and found):
            raise ValueError(f"--contestant: got {contestant!r}, expected NAME=SOURCE")
        sources[name] = source
    return sources


def parser_of(
    about: str,
    contestant: str,
    against: str,
    tables: Collection[str],
) -> argparse.ArgumentParser:
    """Return the command line of a benchmark.

    Args:
        about: what it does.
        contestant: NAME=SOURCE of who is there by default.
        against: who others are compared with by default.
        tables: names of the sets of tables, `choices` among them.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--contestant", nargs="+", default=[contestant], help="NAME=SOURCE")
    parser.add_argument("--tables", choices=list(tables), default="choices")
    parser.add_argument("--rows", type=int, nargs="+", default=[30, 100], help="rows that are learned")
    parser.add_argument("--asked", type=int, default=300, help="other rows that are asked, at most")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--noise", type=int, default=0, help="columns of noise beside those of the tables")
    parser.add_argument("--outliers", type=float, default=0.0, help="share of the learned rows far out")
    parser.add_argument("--against", default=against)
    parser.add_argument("--out", type=Path, required=True, help="JSON file, kept from call to call")
    return parser


def check(
    parser: argparse.ArgumentParser,
    options: argparse.Namespace,
    names: Collection[str],
) -> None:
    """Leave with an error where options make no sense for contestants of these names."""
    if options.against not in names:
        parser.error(f"--against: got {options.against}, expected one of {', '.join(names)}")
    if options.draws < 2:
        parser.error(f"--draws: got {options.draws}, expected at least 2, which an interval needs")
    if options.noise < 0:
        parser.error(f"--noise: got {options.noise}, expected at least 0")
    if not 0 <= options.outliers < 1:
        parser.error(f"--outliers: got {options.outliers}, expected 0 to below 1")


def draws_of(options: argparse.Namespace) -> Iterator[Draws]:
    """Yield how rows are drawn, for each number of rows."""
    for rows in options.rows:
        yield Draws(rows, options.asked, options.noise, options.outliers)


def with_enough_rows(
    parser: argparse.ArgumentParser,
    tables: Mapping[str, Any],
    draws: Draws,
    asked: int,
) -> dict[str, Any]:
    """Return the tables that leave at least so many rows to ask; leave with an error where none does."""
    enough = {name: table for name, table in tables.items() if len(table.y) >= draws.rows + asked}
    if not enough:
        parser.error(f"--rows: got {draws.rows}, expected at most {asked} fewer than a table has")
    return enough


def measure(
    fits: Mapping[str, Any],
    score: Callable[[Any, Any, Draws, int], float | None],
    tables: Mapping[str, DrawnFrom],
    draws: Draws,
    options: argparse.Namespace,
) -> Scores:
    """Score all contestants on the same draws of each table, and keep what is new in a file.

    Args:
        fits: how each contestant is fitted, by name.
        score: `(fit, table, draws, draw) -> score`; None where a draw cannot be scored.
        tables: by name.
        draws: how rows are drawn.
        options: with `contestant`, `draws` and `out`.
    """
    spelled = {contestant.partition("=")[0]: contestant for contestant in options.contestant}
    known: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    scores: Scores = {who: {} for who in fits}
    for name, table in tables.items():
        for who, fit in fits.items():
            values = known.setdefault(f"{spelled.get(who, who)} | {name} | {draws}", [])
            for draw in range(len(values), options.draws):
                values.append(score(fit, table, draws, draw))
            scores[who][name] = values[: options.draws]
        write_json(options.out, known)
        means = {who: _mean_of(own[name]) for who, own in scores.items()}
        say(f"{draws.rows} rows, {name}: {means}")
    return scores


def _mean_of(values: Sequence[float | None]) -> float:
    """Return the mean of the draws that were scored, rounded."""
    return round(float(np.mean([value for value in values if value is not None])), 3)

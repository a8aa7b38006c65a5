"""Rows of a database of rules, as they are written and read."""

import json
import math
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from vsml.rules.canonical import canonical, program_arrays, rule_hash
from vsml.rules.mistakes import RuleError
from vsml.rules.parser import parse
from vsml.rules.printer import show
from vsml.rules.rule import KINDS, Rule
from vsml.search.store.errors import DamagedError
from vsml.search.store.tables import FINAL, PENDING, WAITING
from vsml.system.files import jsonable

_HASH_DIGITS = 64


@dataclass(frozen=True)
class Row:
    """A row of one of the tables.

    Raises:
        ValueError: a text has a character that databases cannot keep, a number is not finite, or a hash is
            none; the message names the field.
    """

    table: ClassVar[str]
    hashes: ClassVar[tuple[str, ...]] = ()
    """Fields that are hashes of rules."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            where = f"{self.table}.{name}"
            if isinstance(value, str) and "\0" in value:
                raise ValueError(f"{where}: got a text with the character NUL, which databases cannot keep")
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(
                    f"{where}: got {value}, expected a finite number, or None where there is none"
                )
            if name in self.hashes and not _is_hash(value):
                raise ValueError(
                    f"{where}: got {value!r}, expected the {_HASH_DIGITS} hex digits of a rule's hash"
                )

    def values(self) -> dict[str, Any]:
        """Return the columns: texts, numbers and None; what is nested becomes JSON."""
        found: dict[str, Any] = {}
        for name, value in asdict(self).items():
            plain = jsonable(value)
            found[name] = json.dumps(plain, sort_keys=True) if isinstance(plain, dict) else plain
        return found


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and len(value) == _HASH_DIGITS and set(value) <= set("0123456789abcdef")


@dataclass(frozen=True)
class RuleRow(Row):
    """A rule; `rule_row` makes one.

    Attributes:
        hash: its hash.
        program: its canonical arrays as JSON, by name.
        text: its canonical text.
        size: its live operators in a tick.
        kinds: kinds of its live slots, in their order, with "; " between.
        origin: where it comes from, such as "drawn", "mutation", "known: backprop" or "proposed".
        run: the run that found it.
        found_s: when.
    """

    table = "rule"
    hashes = ("hash",)
    hash: str
    program: str
    text: str
    size: int
    kinds: str
    origin: str
    run: str | None = None
    found_s: float = field(default_factory=time.time)

    @property
    def rule(self) -> Rule:
        """The rule.

        Raises:
            DamagedError: the text is not that of the hash.
        """
        try:
            rule = parse(self.text)
        except RuleError as error:
            raise DamagedError(f"rule {self.hash}: its text is damaged: {error}") from error
        if (got := rule_hash(rule)) != self.hash:
            raise DamagedError(f"rule {self.hash}: its text is damaged: it has the hash {got}")
        return rule


def rule_row(rule: Rule, origin: str, run: str | None = None) -> RuleRow:
    """Return the row of a rule.

    Args:
        rule: the rule; of its text the live lines are kept, without comments.
        origin: where it comes from.
        run: the run that found it.
    """
    live = canonical(rule)
    arrays = {name: array.tolist() for name, array in program_arrays(live).items()}
    return RuleRow(
        hash=rule_hash(live),
        program=json.dumps(arrays),
        text=show(live),
        size=live.size,
        kinds="; ".join(KINDS[slot.kind] for slot in live.slots),
        origin=origin,
        run=run,
    )


@dataclass(frozen=True)
class ParentRow(Row):
    """A rule that another was made from.

    Attributes:
        child: hash of the new rule.
        parent: hash of the old one.
        mutation: what was changed.
    """

    table = "parent"
    hashes = ("child", "parent")
    child: str
    parent: str
    mutation: str


@dataclass(frozen=True)
class RunRow(Row):
    """A run of the search.

    Attributes:
        id: its name, which no other run has.
        parent_run: the run that it is a fork of.
        step: the generation at which it was forked, else 0.
        config: its settings, as text.
        git: the commit of the code.
        host: the machine on which it began.
        started_s: when.
    """

    table = "run"
    id: str
    parent_run: str | None = None
    step: int = 0
    config: str = ""
    git: str = ""
    host: str = ""
    started_s: float = field(default_factory=time.time)


@dataclass(frozen=True)
class EvaluationRow(Row):
    """What a rule reached in a test, or a test that it is to take. The first five say which test.

    Attributes:
        rule: hash of the rule.
        test: name of the test, such as "xor".
        level: stage or level of the test.
        seeds: which seeds, such as "0-7"; fresh seeds are another evaluation.
        harness: version of what runs rules and tests.
        status: "waiting" to be claimed; or how it ended: pass, fail, limit, nan, duplicate, stage.
        score: the mean; None where there is none.
        standard_error: of the mean.
        ticks: ticks that were run.
        wall_s: seconds that it took.
        run: the run that made it.
        worker: the worker that made it, or has claimed it.
        time_s: when it was made, claimed or asked for.

    Raises:
        ValueError: the status is another one.
    """

    table = "evaluation"
    hashes = ("rule",)
    rule: str
    test: str
    level: str = ""
    seeds: str = ""
    harness: str = ""
    status: str = WAITING
    score: float | None = None
    standard_error: float | None = None
    ticks: int | None = None
    wall_s: float | None = None
    run: str | None = None
    worker: str | None = None
    time_s: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.status not in (*PENDING, *FINAL):
            expected = ", ".join((*PENDING, *FINAL))
            raise ValueError(f"evaluation.status: got {self.status!r}, expected one of {expected}")


@dataclass(frozen=True)
class WorkerRow(Row):
    """A process that searches. Its newest row is kept.

    Attributes:
        id: its name, which no other worker has.
        run: the run that it works for.
        host: its machine.
        counters: all that it has counted so far: by stage, then by reason.
        started_s: when it began.
        heartbeat_s: when it last said so.
    """

    table = "worker"
    id: str
    run: str | None
    host: str
    counters: Mapping[str, Mapping[str, int]]
    started_s: float
    heartbeat_s: float = field(default_factory=time.time)


@dataclass(frozen=True)
class IslandRow(Row):
    """A population. Its newest row is kept.

    Attributes:
        run: its run.
        number: its number in the run.
        worker: who breeds it.
        step: its generation.
        detail: anything else that is to be seen, ready for JSON.
        updated_s: when this was so.
    """

    table = "island"
    run: str
    number: int
    worker: str | None
    step: int
    detail: Mapping[str, Any] = field(default_factory=dict)
    updated_s: float = field(default_factory=time.time)


@dataclass(frozen=True)
class CellRow(Row):
    """The best rule of a cell of an island's archive. The newest row is kept, as an elite's score may fall.

    Attributes:
        run: the run.
        island: number of the island.
        name: the cell, such as "size 10-20, error, layered, S4".
        rule: hash of its best rule.
        score: its mean score.
        standard_error: of the mean.
        updated_s: when this was so.
    """

    table = "cell"
    hashes = ("rule",)
    run: str
    island: int
    name: str
    rule: str
    score: float
    standard_error: float | None = None
    updated_s: float = field(default_factory=time.time)


@dataclass(frozen=True)
class EventRow(Row):
    """Something that happened, or that a person asked for.

    Attributes:
        kind: what, such as "restart", "pause" or "ban".
        run: the run that it is about.
        worker: who says so.
        detail: more about it, ready for JSON.
        time_s: when.
        id: is drawn.
    """

    table = "event"
    kind: str
    run: str | None = None
    worker: str | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)
    time_s: float = field(default_factory=time.time)
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

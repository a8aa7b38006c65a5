"""Questions to a database of rules."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vsml.rules.rule import Rule
from vsml.search.store.database import Database
from vsml.search.store.errors import StoreError
from vsml.search.store.rows import EvaluationRow, RuleRow
from vsml.search.store.tables import EVALUATION, PARENT, RULE, TABLES, is_pending
from vsml.system.extras import needed_for

with needed_for("databases of rules"):
    import sqlalchemy as sa

_MOST_HASHES = 500
"""Hashes that one statement names."""


@dataclass(frozen=True)
class Query:
    """Which rules are wanted; what is None says nothing.

    Attributes:
        hash: the first digits of the hash.
        test: a test that was taken; rules are ordered by the mean score less one standard error.
        level: of the test.
        harness: version that the test was run with.
        least: score less one standard error, at least.
        passed: with the status pass in the test.
        min_size: live operators, at least.
        max_size: live operators, at most.
        origin: how the origin begins, such as "known".
        kind: a kind of slot that it has, such as "edge shared(owner)".
        run: the run that found it.
        limit: most rules.
    """

    hash: str | None = None
    test: str | None = None
    level: str | None = None
    harness: str | None = None
    least: float | None = None
    passed: bool = False
    min_size: int | None = None
    max_size: int | None = None
    origin: str | None = None
    kind: str | None = None
    run: str | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.hash is not None and not (self.hash and set(self.hash) <= set("0123456789abcdef")):
            raise ValueError(f"hash: got {self.hash!r}, expected the first hex digits of a hash")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit: got {self.limit}, expected at least 1")
        if self.test is None:
            for name in ("level", "harness", "least"):
                if (value := getattr(self, name)) is not None:
                    raise ValueError(f"{name}: got {value!r} without a test, expected a test as well")
            if self.passed:
                raise ValueError("passed: expected a test as well")


@dataclass(frozen=True)
class Found:
    """A rule that was asked for.

    Attributes:
        row: the rule.
        score: mean over the evaluations of the test; None without a test, or where none has a score.
        standard_error: of that mean.
        evaluations: how many there are.
    """

    row: RuleRow
    score: float | None = None
    standard_error: float | None = None
    evaluations: int = 0


def find_rules(database: Database, query: Query) -> list[Found]:
    """Return the rules that are wanted: with a test the best first, without one the oldest.

    Raises:
        StoreError: the database cannot be used.
    """
    conditions = _conditions(query)
    if query.test is None:
        statement = sa.select(RULE).where(*conditions).order_by(RULE.c.found_s, RULE.c.hash)
    else:
        reached = _scores(query)
        worst_case = reached.c.mean - reached.c.error
        if query.least is not None:
            conditions.append(worst_case >= query.least)
        statement = (
            sa.select(RULE, reached.c.mean, reached.c.error, reached.c.count)
            .join(reached, reached.c.rule == RULE.c.hash)
            .where(*conditions)
            .order_by(worst_case.desc().nulls_last(), RULE.c.size, RULE.c.hash)
        )
    if query.limit is not None:
        statement = statement.limit(query.limit)
    with database.reading() as connection:
        rows = [dict(row) for row in connection.execute(statement).mappings()]
    found: list[Found] = []
    for row in rows:
        reached_here = [row.pop(name, None) for name in ("mean", "error", "count")]
        mean, error, count = reached_here
        found.append(Found(RuleRow(**row), mean, error, count or 0))
    return found


def known_rules(database: Database, query: Query) -> list[Rule]:
    """Return rules of a database to start from, as `vsml.rules.known_rule` has those of the library.

    Raises:
        DamagedError: the text of one is damaged.
        StoreError: the database cannot be used.
    """
    return [found.row.rule for found in find_rules(database, query)]


def _conditions(query: Query) -> list[Any]:
    """Return what a query says about rules, as SQL."""
    columns = RULE.c
    conditions: list[Any] = []
    if query.hash is not None:
        conditions.append(columns.hash.startswith(query.hash))
    if query.min_size is not None:
        conditions.append(columns.size >= query.min_size)
    if query.max_size is not None:
        conditions.append(columns.size <= query.max_size)
    if query.origin is not None:
        conditions.append(columns.origin.startswith(query.origin, autoescape=True))
    if query.kind is not None:
        # Whole kinds: "edge" is not "edge shared(owner)".
        in_order = sa.literal("; ") + columns.kinds + sa.literal("; ")
        conditions.append(in_order.contains(f"; {query.kind}; ", autoescape=True))
    if query.run is not None:
        conditions.append(columns.run == query.run)
    return conditions


def _scores(query: Query) -> sa.Subquery:
    """Return mean score and its standard error of each rule in a test.

    Evaluations with different seeds are independent: the error of their mean is the root of the sum of the
    squared errors, by their number. One that is not known counts as 0.
    """
    columns = EVALUATION.c
    error = sa.func.coalesce(columns.standard_error, 0.0)
    # Of the evaluations that have a score.
    scored = sa.func.nullif(sa.func.count(columns.score), 0)
    of_scored = sa.case((columns.score.is_not(None), error * error), else_=0.0)
    conditions = [columns.test == query.test, ~is_pending(columns.status)]
    if query.level is not None:
        conditions.append(columns.level == query.level)
    if query.harness is not None:
        conditions.append(columns.harness == query.harness)
    if query.passed:
        conditions.append(columns.status == "pass")
    return (
        sa.select(
            columns.rule,
            sa.func.avg(columns.score).label("mean"),
            (sa.func.sqrt(sa.func.sum(of_scored)) / scored).label("error"),
            sa.func.count().label("count"),
        )
        .where(*conditions)
        .group_by(columns.rule)
        .subquery()
    )


def known_hashes(database: Database, hashes: Iterable[str]) -> set[str]:
    """Return which of some rules the database has; see `origins_of`."""
    return set(origins_of(database, hashes))


def origins_of(database: Database, hashes: Iterable[str]) -> dict[str, str]:
    """Return the origin of each of some rules that the database has, by its hash.

    Raises:
        StoreError: the database cannot be used.
    """
    found: dict[str, str] = {}
    with database.reading() as connection:
        for some in _batches(hashes):
            query = sa.select(RULE.c.hash, RULE.c.origin).where(RULE.c.hash.in_(some))
            for rule, origin in connection.execute(query):
                found[rule] = origin
    return found


def rule_of_hash(database: Database, digits: str) -> RuleRow:
    """Return the rule whose hash begins with some digits.

    Raises:
        StoreError: there is none, or more than one; or the database cannot be used.
    """
    found = find_rules(database, Query(hash=digits, limit=3))
    if not found:
        raise StoreError(f"{database.name}: got {digits!r}, which no rule's hash begins with")
    if len(found) > 1:
        starts = ", ".join(each.row.hash[: len(digits) + 8] for each in found)
        raise StoreError(f"{database.name}: got {digits!r}, expected more digits: {starts}")
    return found[0].row


def evaluations_of(database: Database, rule: str) -> list[EvaluationRow]:
    """Return all evaluations of a rule, test by test.

    Raises:
        StoreError: the database cannot be used.
    """
    query = sa.select(EVALUATION).where(EVALUATION.c.rule == rule).order_by(*EVALUATION.primary_key)
    with database.reading() as connection:
        return [EvaluationRow(**row) for row in connection.execute(query).mappings()]


@dataclass(frozen=True)
class Family:
    """A part of the family tree.

    Attributes:
        root: hash of the rule that it is about.
        links: by hash, the next ones and the mutation between: parents of ancestors, children of descendants.
    """

    root: str
    links: dict[str, list[tuple[str, str]]]

    def walk(self) -> Iterator[tuple[int, str, str, bool]]:
        """Yield generation, hash, mutation, and whether it stood before; depth first, from the root.

        The next ones of a rule are yielded where it stands first: families of programs have circles.
        """
        seen: set[str] = set()
        pending = [(0, self.root, "")]
        while pending:
            generation, rule, mutation = pending.pop()
            yield generation, rule, mutation, rule in seen
            if rule in seen:
                continue
            seen.add(rule)
            following = [(generation + 1, other, change) for other, change in self.links.get(rule, [])]
            pending += reversed(following)


def ancestors(database: Database, rule: str, generations: int) -> Family:
    """Return what a rule was made from.

    Args:
        database: the database.
        rule: its hash.
        generations: how far to go back.

    Raises:
        StoreError: the database cannot be used.
    """
    return _family(database, rule, generations, "child", "parent")


def descendants(database: Database, rule: str, generations: int) -> Family:
    """Return what was made from a rule; see `ancestors`."""
    return _family(database, rule, generations, "parent", "child")


def _family(database: Database, root: str, generations: int, from_: str, to: str) -> Family:
    links: dict[str, list[tuple[str, str]]] = {}
    newest = {root}
    with database.reading() as connection:
        for _ in range(generations):
            following: set[str] = set()
            for some in _batches(sorted(newest)):
                query = (
                    sa.select(PARENT.c[from_], PARENT.c[to], PARENT.c.mutation)
                    .where(PARENT.c[from_].in_(some))
                    .order_by(PARENT.c[from_], PARENT.c[to])
                )
                for here, there, mutation in connection.execute(query):
                    links.setdefault(here, []).append((there, mutation))
                    following.add(there)
            newest = following - links.keys()
            if not newest:
                break
    return Family(root, links)


def sizes(database: Database) -> dict[str, int]:
    """Return how many rows each table has.

    Raises:
        StoreError: the database cannot be used.
    """
    with database.reading() as connection:
        return {
            name: connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one()
            for name, table in TABLES.items()
        }


def _batches(hashes: Iterable[str]) -> Iterator[Collection[str]]:
    everything = list(hashes)
    for first in range(0, len(everything), _MOST_HASHES):
        yield everything[first : first + _MOST_HASHES]

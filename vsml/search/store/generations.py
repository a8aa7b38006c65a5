"""Rows of a search: what each generation leaves in a database of rules."""

import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vsml.rules.canonical import rule_hash
from vsml.search.breeding import Breeder
from vsml.search.elites import Elite
from vsml.search.generation import PROPOSED, Bred, Generation, Happened
from vsml.search.genome import Genome, rule_of
from vsml.search.judge import HARNESS, Judge
from vsml.search.store.commands import Desk
from vsml.search.store.lives import RESUMED
from vsml.search.store.rows import (
    CellRow,
    EvaluationRow,
    EventRow,
    IslandRow,
    ParentRow,
    Row,
    RuleRow,
    RunRow,
    WorkerRow,
    rule_row,
)
from vsml.search.store.writer import Flush, Writer

_STAGES = ("S3", "S4")
"""Rules that passed one of these are rows; all others are counters."""


@dataclass
class GenerationRows:
    """Writes what generations bring, through the spool of a writer; of rank 0.

    Rows have keys that follow from the run and the generation, so that a run that is resumed, and does some
    of its generations again, writes none twice.

    Attributes:
        writer: of the database.
        run: id of the run. It is the worker's, too: counters are those of the whole run, wherever it goes on.
        started_s: when it would have begun had it never been stopped.
        before: counters of the run that this one was forked from, which are that one's.
    """

    writer: Writer
    run: str
    started_s: float = field(default_factory=time.time)
    before: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def desk(self) -> Desk:
        """Where the run takes its commands."""
        return Desk(self.writer, self.run, self.run)

    def begin(
        self,
        config: str,
        git: str,
        sources: Sequence[tuple[str, Genome]],
        fork_of: Mapping[str, Any] | None = None,
        resumed: Mapping[str, Any] | None = None,
    ) -> None:
        """Write the run, the rules that it starts from, and, where it was resumed, with what it goes on.

        Args:
            config: settings, as text.
            git: the commit of the code.
            sources: where each rule is from, such as "start", and the rule.
            fork_of: the `run` that it was forked from, and after which `generation`; None: from none.
            resumed: its `settings` now, ids of the `commands` that are in them, and of the events `after`
                which it goes on; None: it begins.
        """
        parent, step = (fork_of["run"], fork_of["generation"]) if fork_of else (None, 0)
        self.writer.write(RunRow(self.run, parent, step, config, git, platform.node()))
        for origin, genome in sources:
            self.writer.write(rule_row(rule_of(genome), origin, self.run))
        if resumed is not None:
            self.writer.write(EventRow(RESUMED, self.run, self.run, resumed))

    def write(self, breeder: Breeder, generation: Generation) -> Flush:
        """Write a generation, and send it in one transaction."""
        for bred in generation.bred:
            if bred.survivor.stage in _STAGES:
                self.writer.write(*self._found(bred, breeder.judge))
        for island, elite in generation.elites:
            self.writer.write(*self._elite(island, elite))
        for number, happened in enumerate(generation.events):
            event = EventRow(
                kind=happened.kind,
                run=self.run,
                worker=self.run,
                detail={"island": happened.island, "generation": generation.number, **happened.detail},
                id=_event_id(self.run, generation.number, number, happened),
            )
            self.writer.write(event)
        self.writer.write(*self._state(breeder))
        return self.writer.flush()

    def beat(self, breeder: Breeder) -> Flush:
        """Write how things are now, and so that the worker is alive."""
        self.writer.write(*self._state(breeder))
        return self.writer.flush()

    def _found(self, bred: Bred, judge: Judge) -> Iterator[Row]:
        """Yield the rows of a rule: itself, its parent and what it reached."""
        row = self._rule(bred.survivor.genome, bred.change)
        yield row
        if bred.parent is not None:
            parent = rule_hash(rule_of(bred.parent))
            if parent != row.hash:
                yield ParentRow(child=row.hash, parent=parent, mutation=bred.change)
        passed = True
        for stage in judge.stages:
            score = bred.survivor.scores.get(stage.name)
            if score is None:
                return
            # Stages are passed one after the other, up to the last one passed.
            status = "pass" if passed else "fail"
            yield EvaluationRow(
                rule=row.hash,
                test=stage.name,
                level="progress",
                seeds=f"{judge.seed}, {stage.seeds} starts",
                harness=HARNESS,
                status=status,
                score=score,
                run=self.run,
                worker=self.run,
            )
            passed = passed and stage.name != bred.survivor.stage

    def _elite(self, island: int, elite: Elite) -> Iterator[Row]:
        row = self._rule(elite.genome, "elite")
        yield row
        scores = elite.scores
        yield CellRow(self.run, island, elite.cell, row.hash, scores.mean, scores.standard_error)

    def _rule(self, genome: Genome, change: str) -> RuleRow:
        origin = change if change in ("drawn", PROPOSED) else "mutation"
        return rule_row(rule_of(genome), origin, self.run)

    def _state(self, breeder: Breeder) -> Iterator[Row]:
        """Yield how islands and the worker are now."""
        counters = _without(breeder.judge.funnel.counters(), self.before)
        yield WorkerRow(self.run, self.run, platform.node(), counters, self.started_s)
        for number, island in enumerate(breeder.islands):
            best = island.archive.best
            detail = {
                "restarts": island.restarts,
                "improved": island.improved,
                "cells": len(island.archive.elites),
                "best": None if best is None else best.scores.mean,
                "bound": None if best is None else best.scores.bound,
            }
            yield IslandRow(self.run, number, self.run, breeder.generation, detail)


def _event_id(run: str, generation: int, number: int, happened: Happened) -> str:
    """Return the id of an event: what a run does again has it again, what it does otherwise has another.

    With an exchange of elites a run that is resumed may meet other rules than before.
    """
    parts = (run, generation, number, happened.kind, happened.island, happened.detail.get("rule"))
    return " ".join(str(part) for part in parts if part is not None)


def _without(
    counters: Mapping[str, Mapping[str, int]],
    before: Mapping[str, Mapping[str, int]],
) -> dict[str, dict[str, int]]:
    """Return counters less those of another run."""
    found: dict[str, dict[str, int]] = {}
    for stage, reasons in counters.items():
        counted = before.get(stage, {})
        found[stage] = {why: count - counted.get(why, 0) for why, count in reasons.items()}
    return found

"""A search that runs: generations, checkpoints, commands and rows."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import jax

from vsml.calls.search_config import SearchConfig
from vsml.config.files import ConfigError, dump
from vsml.rules import parse, show
from vsml.runs import checkpoint
from vsml.runs.checkpoint import CheckpointStore
from vsml.runs.continuation import Continuation
from vsml.runs.directory import RunDirectory
from vsml.runs.environment import describe_environment
from vsml.runs.record import RunRecord
from vsml.runs.wandb import start_tracking
from vsml.search.breeding import Breeder
from vsml.search.changing import RefusedError
from vsml.search.elites import Elite
from vsml.search.generation import Generation
from vsml.search.genome import genome_of, rule_of
from vsml.search.judge import HARNESS, Judge
from vsml.search.sources import genomes_of
from vsml.search.steering import Steering
from vsml.setup import Setup
from vsml.system.comm import Communicator
from vsml.system.files import atomic_write, read_regular, write_json
from vsml.system.signals import StopSignals
from vsml.system.terminal import say

if TYPE_CHECKING:
    from vsml.search.store import Database
    from vsml.search.store.exchange import Exchange
    from vsml.search.store.generations import GenerationRows

DATABASE, SPOOL = "rules.db", "rules.spool"
"""Files in the folder of a run."""

_DIGITS = 8
"""Drawn digits at the end of the name of a run in the database."""

_POLL_S = 0.25
"""Seconds between two looks for commands while a search is paused."""

_BEAT_S = 30.0
"""Seconds between two signs of life of a search that is paused."""

BEST = "best.rule"
"""The best rule, as text."""


class Searching:
    """A run of the search: its breeder, its record and its database."""

    def __init__(
        self,
        config: SearchConfig,
        sources: Callable[[], list[list[str]]],
        setup: Setup,
        run: RunDirectory | None,
        comm: Communicator,
        resume: bool,
        held: contextlib.ExitStack,
    ) -> None:
        self.config, self.whole = config, setup.config
        self.run, self.comm = run, comm
        self.started = time.monotonic()
        self.wall_s = 0.0
        self.tree: dict[str, Any] | None = None
        metadata = self._load() if resume else None
        # What was read at the start is kept: files and databases may change.
        texts = metadata["texts"] if metadata else comm.bcast(sources() if run is not None else None)
        self.texts = texts
        judge = Judge(config.judging, config.teaching, config.room, self.whole.seed, comm)
        kinds = sorted({each.kind for each in config.judging.last_graphs})
        self.breeder = Breeder(
            breeding=config.breeding,
            drawing=config.drawing,
            mutations=config.mutations,
            judge=judge,
            sources=genomes_of(texts, config.room),
            key=jax.random.key(self.whole.seed),
            where=f"{config.teaching.teach}, {' '.join(kinds)}",
        )
        self.steering = Steering(self.breeder, config)
        self.fork_of: dict[str, Any] | None = None
        self.id = comm.bcast(f"{run.path.name} {uuid4().hex[:_DIGITS]}" if run is not None else None)
        if metadata is not None and self.tree is not None:
            self.breeder.restore(self.tree, metadata["breeder"])
            self.wall_s, self.id = metadata["wall_s"], metadata["run"]
            self.fork_of = metadata.get("fork_of")
            given = self.whole.model_dump(mode="json")
            try:
                self.steering.restore(metadata.get("steering"), metadata["config"], given)
            except RefusedError as error:
                raise ConfigError([f"search: {error}"]) from error
            self.config = self.steering.config
        if run is not None:
            run.complete.unlink(missing_ok=True)
            atomic_write(run.config, dump(self.whole))
        self.tracker = start_tracking(self.whole, run)
        self.record = RunRecord(run, dump(self.whole), self.whole.checkpoint.keep, self.tracker, note=say)
        self.exchange: Exchange | None = None
        self.rows: GenerationRows | None = None
        if run is not None:
            met = metadata.get("met", []) if metadata else []
            self.rows, self.exchange = self._open_rows(run, held, met, metadata is not None)
        self.desk = None if self.rows is None else self.rows.desk
        self.next_beat = 0.0

    def go_on(self, stop: StopSignals) -> bool:
        """Breed until all is done; return False where a signal or the time limit ended it."""
        breeder = self.breeder
        if self.steering.paused:
            say_of_rank(self.comm, "is paused; to breed on: vsml rules steer DATABASE resume")
        try:
            while breeder.generation < self.config.generations and not self._solution():
                if self.comm.any(self._has_to_stop(stop)):
                    self._save()
                    say_of_rank(self.comm, f"stopped after generation {breeder.generation}")
                    self.tracker.finish()
                    return False
                if self._steered():
                    self._receive()
                    self._notice(breeder.step())
            self._save()
            self._finish()
        except BaseException:
            if self.comm.size == 1:
                self.tracker.finish(exit_code=1)
            raise
        return True

    def _receive(self) -> None:
        """Let elites of other runs be judged in the next generation, if it is one that asks for them."""
        breeding, generation = self.config.breeding, self.breeder.generation
        if breeding.exchange is None or not generation or generation % breeding.exchange:
            return
        found = self.comm.bcast(self._immigrants(breeding.migrants))
        for text in found:
            try:
                genome = genome_of(parse(text), self.config.room.capacity)
            except ValueError:
                continue  # the other run has more room
            self.breeder.proposals.append(genome)
        if found:
            say_of_rank(self.comm, f"generation {generation}: {len(found)} elite(s) of other runs")

    def _immigrants(self, count: int) -> list[str]:
        """Return elites of other runs as texts; none where the database is away."""
        from vsml.search.store import AwayError

        if self.exchange is None:
            return []
        with _store_errors():
            try:
                return [each.text for each in self.exchange.immigrants(count)]
            except AwayError as error:
                say(f"no elites of other runs: {error}")
                return []

    def _solution(self) -> Elite | None:
        return None if self.config.solved is None else self.breeder.solution(self.config.solved)

    def _has_to_stop(self, stop: StopSignals) -> bool:
        limit = self.whole.training.time_limit_s
        return bool(stop) or (limit is not None and time.monotonic() - self.started > limit)

    def _steered(self) -> bool:
        """Do what commands say, wait a moment while the search is paused, and return whether to breed now."""
        steering, generation = self.steering, self.breeder.generation
        with _store_errors():
            orders = self.comm.bcast(None if self.desk is None else self.desk.orders(generation))
        known = set(steering.answers)
        steering.apply(orders)
        new = {command: told for command, told in steering.answers.items() if command not in known}
        if new:
            self.config = steering.config
            # Before they are marked: what is marked is never lost, and nothing is done twice.
            self._save()
            for told in new.values():
                say_of_rank(self.comm, f"{'done' if told['done'] else 'refused'}: {told['said']}")
            if self.desk is not None:
                with _store_errors():
                    self.desk.answer(new)
        if steering.paused:
            time.sleep(_POLL_S)
            self._beat()
        # What was done may end the search, so that is looked at first.
        return not steering.paused and not new

    def _beat(self) -> None:
        """Say that a run that is paused is alive."""
        if self.rows is not None and time.monotonic() > self.next_beat:
            self.next_beat = time.monotonic() + _BEAT_S
            with _store_errors():
                self.rows.beat(self.breeder)

    def _notice(self, generation: Generation) -> None:
        """Write what a generation has brought."""
        if self.rows is not None:
            with _store_errors():
                flush = self.rows.write(self.breeder, generation)
            if flush.reason is not None:
                say(f"{flush.waiting} entries wait for the database: {flush.reason}")
        number = generation.number
        is_last = number == self.config.generations or self._solution() is not None
        if number % self.whole.summary.frequency == 0 or is_last:
            line = self._metrics()
            self.record.log(number, {"wall_s": self._seconds(), **line})
            say_of_rank(self.comm, _told(number, line))
        if number % self.whole.checkpoint.frequency == 0:
            self._save()

    def _metrics(self) -> dict[str, Any]:
        """Return the curves of a search: what it cost, and how far it came."""
        judge, best = self.breeder.judge, self.breeder.best
        funnel = judge.funnel
        line: dict[str, Any] = {
            "proposed": funnel.proposed,
            "probed": funnel.entered("S1"),
            "learned": judge.learned,
            "cells": sum(len(island.archive.elites) for island in self.breeder.islands),
            "restarts": sum(island.restarts for island in self.breeder.islands),
        }
        for stage in ("S0", "S1", *(stage.name for stage in judge.stages)):
            line[f"passed_{stage}"] = funnel.passed.get(stage, 0)
        line["best_mean"] = None if best is None else best.scores.mean
        line["best_bound"] = None if best is None else best.scores.bound
        line["best_passes"] = 0 if best is None else best.scores.passes
        return line

    def _finish(self) -> None:
        """Write the best rule and the counters, and say so."""
        best = self._solution() or self.breeder.best
        if self.desk is not None:
            with _store_errors():
                self.desk.close(self.breeder.generation)
        if self.run is not None:
            rows = self.breeder.judge.funnel.rows()
            write_json(self.run.path / "funnel.json", [list(row) for row in rows])
            for stage, why, count in rows:
                say(f"{stage}  {count:>10,}  {why}")
            if best is not None:
                text = show(rule_of(best.genome))
                scores = best.scores
                heading = f"# {best.cell}; fitness {scores.mean:.3f} on {scores.count} seeds\n"
                atomic_write(self.run.path / BEST, heading + text)
                say(text)
            atomic_write(self.run.complete, "")
        self.tracker.finish()

    # Checkpoints.

    def _seconds(self) -> float:
        return round(self.wall_s + time.monotonic() - self.started, 3)

    def _save(self) -> None:
        metadata = {
            "config": self.whole.model_dump(mode="json"),
            "harness": HARNESS,
            "breeder": self.breeder.metadata(),
            "texts": self.texts,
            "run": self.id,
            "fork_of": self.fork_of,
            "steering": self.steering.metadata(),
            "wall_s": self._seconds(),
            "met": sorted(self.exchange.met) if self.exchange is not None else [],
        }
        self.record.save_or_rescue(self.breeder.generation, self.breeder.tree(), metadata)

    def _load(self) -> dict[str, Any] | None:
        """Read the newest undamaged checkpoint on rank 0; None, to start afresh, where there is none."""
        path = CheckpointStore(self.run.checkpoints).newest() if self.run is not None else None
        data = self.comm.bcast(read_regular(path) if path is not None else b"")
        if not data:
            if self.run is not None:
                self.run.truncate_metrics(0)
            return None
        self.tree, metadata = checkpoint.from_bytes(data, str(path))
        if self.run is not None:
            continuation = Continuation(str(path), metadata, self.whole, None)
            continuation.check(self.run)
            for name, before, now in continuation.changes():
                say(f"goes on with a changed setting: {name}: {before!r} -> {now!r}")
            harness = metadata.get("harness", "an older one")
            if harness != HARNESS:
                say(
                    f"warning: the checkpoint has scores of {harness}, and new rules get those of {HARNESS}: "
                    "they are not the same, so begin anew where that counts"
                )
            self.run.truncate_metrics(metadata["breeder"]["generation"])
            say(f"goes on from generation {metadata['breeder']['generation']}")
        return metadata

    def _open_rows(
        self,
        run: RunDirectory,
        held: contextlib.ExitStack,
        met: Sequence[str],
        is_resumed: bool,
    ) -> "tuple[GenerationRows, Exchange]":
        """Open the database, and write the run and the rules that it starts from.

        Args:
            run: its folder.
            held: what is closed at the end.
            met: hashes of the elites of other runs that it has met.
            is_resumed: the run goes on from a checkpoint.
        """
        from vsml.search.store import Database, Writer
        from vsml.search.store.exchange import Exchange
        from vsml.search.store.generations import GenerationRows

        url = self.config.database or str(run.path / DATABASE)
        try:
            database = held.enter_context(Database(url, create=True))
            writer = held.enter_context(Writer(database, run.path / SPOOL))
        except ValueError as error:
            raise ConfigError([f"search.database: {error}"]) from error
        before = self.fork_of or {}
        own_s = self.wall_s - before.get("wall_s", 0.0)
        rows = GenerationRows(writer, self.id, time.time() - own_s, before.get("counters", {}))
        git = describe_environment(self.comm.size)["git"] or {}
        starts = [("start", genome) for source in self.breeder.sources for genome in source]
        config = json.dumps(self.whole.model_dump(mode="json"))
        resumed: dict[str, Any] | None = None
        if is_resumed:
            resumed = {
                "settings": self.config.model_dump(mode="json"),
                "commands": sorted(self.steering.answers),
                "after": _events_so_far(database, self.id),
            }
        rows.begin(config, str(git.get("commit", "")), starts, self.fork_of, resumed)
        # Those of a checkpoint whose process was killed before it could mark them.
        with _store_errors():
            rows.desk.answer(self.steering.answers)
            rows.beat(self.breeder)  # so that commands find the run before its first generation
        return rows, Exchange(database, self.id, config, set(met))


def _events_so_far(database: "Database", run: str) -> list[str] | None:
    """Return the ids of what a run has said of its life; None while the database is away."""
    from vsml.search.store import AwayError
    from vsml.search.store.lives import life_of

    with _store_errors():
        try:
            return list(life_of(database, run).events)
        except AwayError:
            return None


@contextlib.contextmanager
def _store_errors() -> Iterator[None]:
    """Let a database that cannot be used end the run as a file does that cannot be written."""
    from vsml.search.store import StoreError

    try:
        yield
    except StoreError as error:
        # The spool has the rows; whoever mends the database resumes the run.
        raise OSError(str(error)) from error


def say_of_rank(comm: Communicator, text: str) -> None:
    """Say something on rank 0."""
    if comm.rank == 0:
        say(text)


def _told(number: int, line: dict[str, Any]) -> str:
    best = line["best_mean"]
    level = "no rule has passed S1" if best is None else f"best {best:.3f}, bound {line['best_bound']:.3f}"
    return f"generation {number}: {line['proposed']:,} rules, {line['learned']:,} learned; {level}"

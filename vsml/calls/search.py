"""The call `search`: rules are bred, judged and kept."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from vsml.calls.search_config import SearchConfig
from vsml.calls.searching import Searching
from vsml.config.files import ConfigError
from vsml.runs.commands import resume_command
from vsml.runs.directory import RunDirectory
from vsml.search.sources import genomes_of, texts_of
from vsml.settings import Problem
from vsml.setup import Setup
from vsml.system.comm import Communicator
from vsml.system.signals import StopSignals
from vsml.system.terminal import say


@dataclass(frozen=True)
class Search:
    """`call: search`: breed local rules.

    Attributes:
        config: its settings.
    """

    config: SearchConfig

    def problems(self, setup: Setup) -> Iterator[Problem]:
        """Yield what there is nothing to breed from."""
        del setup
        start, method = self.config.start, self.config.breeding.method
        if method in ("best_of", "constants") and start.drawn:
            expected = "false, and rules or a database, with this method"
            yield Problem("search.start.drawn", True, expected, ("search.breeding.method",))
        # A database is looked at when the run begins.
        own = start.model_copy(update={"database": None})
        try:
            genomes_of(texts_of(own), self.config.room)
        except (ValueError, OSError) as error:
            expected = f"rules that there are and that search.room holds: {error}"
            yield Problem("search.start.rules", list(start.rules), expected, ("search.room",))
        if self.config.breeding.exchange is not None and self.config.database is None:
            expected = "null without a database that runs share"
            place = "search.breeding.exchange"
            yield Problem(place, self.config.breeding.exchange, expected, ("search.database",))
        for number, last in enumerate(self.config.judging.last_graphs):
            try:
                last.graph()
            except ValueError as error:
                place = f"search.judging.last_graphs.{number}"
                yield Problem(f"{place}.hidden", last.hidden, f"as many as the kind takes: {error}")
        if self.config.teaching.reset == "all":
            yield Problem("search.teaching.reset", "all", "never or signals")
        if self.config.teaching.read == "ready":
            yield Problem("search.teaching.read", "ready", "tick or mean")

    def plan(self, setup: Setup, ranks: int) -> list[str]:
        """Return how many rules are going to be judged, and what they start from.

        Raises:
            ConfigError: there is no such rule, or no room for it.
        """
        del setup
        config, breeding = self.config, self.config.breeding
        sources = self.sources()
        judged = config.generations * breeding.islands * breeding.children
        told = ["rules drawn at random" if not source else f"{len(source)} rule(s)" for source in sources]
        return [
            f"search: {breeding.method}, {config.generations:,} generations, {judged:,} rules at most, "
            f"on {ranks} rank(s)",
            f"  {breeding.islands} island(s) of {breeding.population:,} rules, from {' and '.join(told)}",
            f"  stages S0, S1, {', '.join(config.judging.learning)}; teaching: {config.teaching.teach}",
        ]

    def run(self, setup: Setup, run: RunDirectory | None, comm: Communicator, resume: bool) -> int:
        """Search, from the newest checkpoint where the run is resumed."""
        with StopSignals() as stop, contextlib.ExitStack() as held:
            searching = Searching(self.config, self.sources, setup, run, comm, resume, held)
            complete = searching.go_on(stop)
        if run is not None and not complete:
            say(f"to go on: {resume_command(run.path)}")
        return 0

    def sources(self) -> list[list[str]]:
        """Return the texts of rules to start from, by source.

        Raises:
            ConfigError: there is no such rule, or no room for it.
        """
        try:
            texts = texts_of(self.config.start)
            genomes_of(texts, self.config.room)
        except (ValueError, OSError) as error:
            raise ConfigError([f"search.start: {error}"]) from error
        return texts

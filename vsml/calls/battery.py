"""The call `battery`: learners take tests of what they can do."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from vsml.battery.catalogue import learning_tests
from vsml.battery.contestants import Contestant, contestant
from vsml.battery.leaderboard import Leaderboard
from vsml.battery.ledger import Ledger
from vsml.battery.measuring import Measuring
from vsml.battery.page import write_report
from vsml.battery.panel import shipped_panel
from vsml.battery.report import row_of, table_of_abilities, table_of_tests
from vsml.config.files import ConfigError
from vsml.reporting.tables import print_table
from vsml.runs.directory import RunDirectory
from vsml.settings import Bool, Float, Positive, Problem, Section, Text
from vsml.setup import Setup
from vsml.system.comm import Communicator
from vsml.system.files import atomic_write
from vsml.system.terminal import say


class BatteryCallConfig(Section):
    """What `call: battery` measures; without tests and tags, all tests."""

    learners: tuple[Text, ...] = Field(
        default=("sgd",),
        description="words for learners, as of `python -m vsml.battery`: a baseline, one that comes with the "
        "library, rule:NAME, TYPE:key=value, package.module:Name, or a file",
    )
    tests: tuple[Text, ...] = Field(default=(), description="learning tests by name, or package.module:Name")
    tags: tuple[Text, ...] = Field(default=(), description="all learning tests with one of these tags")
    seeds: Positive = Field(default=32, description="episodes of each level")
    quick: Bool = Field(default=False, description="the first level of each test only")
    limit_s: Annotated[Float, Field(gt=0)] = Field(
        default=3600.0, description="seconds that a learner may take for a level; n/a above it"
    )
    compare: Bool = Field(default=True, description="show the learners of the leaderboard beside")


@dataclass(frozen=True)
class Battery:
    """`call: battery`: learners take tests, whose scores become tables and a page.

    Attributes:
        config: its settings.
    """

    config: BatteryCallConfig

    def problems(self, setup: Setup) -> Iterator[Problem]:
        """Yield tests and tags that there are none of."""
        del setup
        for name in ("tests", "tags"):
            given = getattr(self.config, name)
            try:
                learning_tests(**{name: given})
            except ValueError as error:
                yield Problem(f"battery.{name}", given, f"what there is: {error}")

    def plan(self, setup: Setup, ranks: int) -> list[str]:
        """Return how many levels there are, and who takes them.

        Raises:
            ConfigError: a word stands for no learner.
        """
        del setup, ranks
        tests = learning_tests(self.config.tests, self.config.tags)
        levels = sum(1 if self.config.quick else len(test.levels) for test in tests)
        names = ", ".join(each.name for each in self._contestants())
        return [
            f"battery: {len(tests)} tests, {levels} levels, {self.config.seeds} episodes each, of {names}"
        ]

    def run(self, setup: Setup, run: RunDirectory | None, comm: Communicator, resume: bool) -> int:
        """Measure on rank 0; a run that was stopped goes on with its ledger."""
        del comm, resume  # the ledger says what is done
        if run is None:
            return 0
        config = self.config
        tests = learning_tests(config.tests, config.tags)
        contestants = self._contestants()
        command = f"call: battery, run {setup.config.name}"
        ledger = Ledger.open(run.path / "ledger.json", config.seeds, setup.config.seed, command)
        panel = shipped_panel()
        Measuring(ledger, panel, say, config.limit_s, config.quick).measure(contestants, tests)
        rows = [row_of(ledger, panel, each.name, tests) for each in contestants]
        if config.compare:
            rows += [row for row in Leaderboard.read().rows() if row.learner not in config.learners]
        print_table(table_of_tests(rows, tests))
        print_table(table_of_abilities(rows, tests))
        write_report(run.path, rows, tests, ledger)
        atomic_write(run.complete, "")
        return 0

    def _contestants(self) -> list[Contestant]:
        """Return the learners.

        Raises:
            ConfigError: a word stands for none.
        """
        try:
            return [contestant(word) for word in self.config.learners]
        except (ValueError, OSError) as error:
            raise ConfigError([f"battery.learners: {error}"]) from error

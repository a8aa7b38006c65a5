"""The ledger of a battery: a file of what was measured, with which a battery that was stopped goes on."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import vsml
from vsml.battery.learning_test import LearningTest, Level
from vsml.system.files import write_json

EDITION = 1
"""Number of the battery: raised whenever a test changes, as results of two editions cannot be compared."""

Entry = dict[str, Any]
"""What came of a learner at a level.

Either `refused`, why there is nothing, with `limit_s` if that is for lack of time. Or `raw` [S], `floor` [S],
`oracle`, `cpu_s`, `steps`, `state`, `settings` and `curve`.
"""


@dataclass(eq=False)
class Ledger:
    """Results by learner, test and level, of certain seeds.

    Attributes:
        seeds: S, episodes of each level.
        seed: of all of them.
        command: what was typed.
        learners: by name, entries by `place`.
        tuned: settings that were chosen, by learner and test.
        path: the file, written after each result; None: nothing is written.
    """

    seeds: int
    seed: int = 0
    command: str = ""
    learners: dict[str, dict[str, Entry]] = field(default_factory=dict)
    tuned: dict[str, dict[str, Any]] = field(default_factory=dict)
    path: Path | None = None

    @classmethod
    def open(cls, path: Path, seeds: int, seed: int, command: str) -> "Ledger":
        """Go on with a file, or begin one; without a command it has that of the file.

        Raises:
            ValueError: it has another edition, or other seeds.
        """
        ledger = cls(seeds, seed, command, path=path)
        if not path.exists():
            return ledger
        content = json.loads(path.read_text(encoding="utf-8"))
        got = {name: content.get(name) for name in ("edition", "seeds", "seed")}
        expected = {"edition": EDITION, "seeds": seeds, "seed": seed}
        if got != expected:
            raise ValueError(f"{path}: got {got}, expected {expected}; choose another --out")
        ledger.learners = content["learners"]
        ledger.tuned = content["tuned"]
        ledger.command = command or content["command"]
        return ledger

    def entry(self, learner: str, test: LearningTest, level: Level) -> Entry | None:
        """Return what is known of a learner at a level, None for nothing."""
        return self.learners.get(learner, {}).get(place(test, level))

    def add(self, learner: str, test: LearningTest, level: Level, entry: Entry) -> None:
        """Keep what came of a learner at a level, and write the file."""
        self.learners.setdefault(learner, {})[place(test, level)] = entry
        self.write()

    def choose(self, learner: str, test: LearningTest, settings: Mapping[str, Any]) -> None:
        """Keep the settings that were chosen for a test, and write the file."""
        self.tuned.setdefault(learner, {})[test.name] = dict(settings)
        self.write()

    def write(self) -> None:
        """Write the file, which is there as a whole or as it was."""
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "edition": EDITION,
            "vsml": vsml.__version__,
            "seeds": self.seeds,
            "seed": self.seed,
            "command": self.command,
            "tuned": self.tuned,
            "learners": self.learners,
        }
        write_json(self.path, content)


def place(test: LearningTest, level: Level) -> str:
    """Return the name of a level in files."""
    return f"{test.name}/{level}"

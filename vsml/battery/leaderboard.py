"""The leaderboard: scores of learners that ship with the library, to set a new learner beside."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import vsml
from vsml.battery.contestants import RULE_PREFIX
from vsml.battery.learning_test import LearningTest
from vsml.battery.ledger import EDITION, Ledger
from vsml.battery.panel import Panel
from vsml.battery.report import Row, row_from_json, row_json, row_of
from vsml.runs.checkpoint import pretrained_names
from vsml.system.files import write_json

FILE = Path(__file__).parent / "leaderboard.json"
"""The leaderboard that comes with the library."""


@dataclass(frozen=True, eq=False)
class Leaderboard:
    """Scores by learner, each with the command, the seeds and the version that they are from.

    Attributes:
        learners: by name.
    """

    learners: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path = FILE) -> "Leaderboard":
        """Read a leaderboard; one of another edition, or none, is an empty one."""
        if not path.exists():
            return cls()
        content = json.loads(path.read_text(encoding="utf-8"))
        return cls(content["learners"]) if content["edition"] == EDITION else cls()

    def write(self, path: Path = FILE) -> None:
        """Write it to a file."""
        write_json(path, {"edition": EDITION, "learners": self.learners})

    def rows(self, names: Sequence[str] = ()) -> list[Row]:
        """Return learners by their names, or all.

        Raises:
            ValueError: there is none of a name.
        """
        for name in names:
            if name not in self.learners:
                raise ValueError(f"leaderboard: got {name!r}, expected some of {', '.join(self.learners)}")
        return [row_from_json(name, self.learners[name]) for name in names or self.learners]

    def with_learners(
        self, ledger: Ledger, panel: Panel, names: Sequence[str], tests: Sequence[LearningTest]
    ) -> "Leaderboard":
        """Return it with learners of a ledger, in place of what it has of them."""
        added = dict(self.learners)
        for name in names:
            row = row_json(row_of(ledger, panel, name, tests), tests)
            origin = {"seeds": ledger.seeds, "seed": ledger.seed, "vsml": vsml.__version__}
            settings = f"--seeds {ledger.seeds} --seed {ledger.seed}"
            command = f"python -m vsml.battery {shlex.quote(name)} {settings}"
            added[name] = {**origin, "command": command, **row}
        return Leaderboard({name: added[name] for name in sorted(added, key=_kind)})


def _kind(name: str) -> int:
    """Return the place of a kind of learner: what comes with the library, then rules, then the rest."""
    if name in pretrained_names():
        return 0
    return 1 if name.startswith(RULE_PREFIX) else 2

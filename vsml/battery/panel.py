"""The reference panel: what the best of some references comes to at each level, which has score 1."""

import functools
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import vsml
from vsml.battery.learning_test import LearningTest, Level
from vsml.battery.ledger import EDITION, Ledger, place
from vsml.system.files import write_json

FILE = Path(__file__).parent / "panel.json"
"""The panel that comes with the library."""

DIGITS = 5


@dataclass(frozen=True, eq=False)
class Panel:
    """References at each level.

    Attributes:
        levels: by `place`: best, best_error, by, floor, and raw scores by learner.
        tuned: settings that were chosen, by learner and test.
        seeds: episodes of each level.
        members: who is in it.
        command: what made it.
    """

    levels: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tuned: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seeds: int = 0
    members: Sequence[str] = ()
    command: str = ""

    @classmethod
    def read(cls, path: Path = FILE) -> "Panel":
        """Read a panel; one of another edition, or none, is an empty one."""
        if not path.exists():
            return cls()
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["edition"] != EDITION:
            return cls()
        names = ("levels", "tuned", "seeds", "members", "command")
        return cls(**{name: content[name] for name in names})

    def write(self, path: Path = FILE) -> None:
        """Write it to a file."""
        content = {
            "edition": EDITION,
            "vsml": vsml.__version__,
            "seeds": self.seeds,
            "command": self.command,
            "members": list(self.members),
            "tuned": self.tuned,
            "levels": self.levels,
        }
        write_json(path, content)

    def with_test(self, made: "Panel", test: LearningTest) -> "Panel":
        """Return it with what another panel has of a test."""
        levels = {name: entry for name, entry in self.levels.items() if name.split("/")[0] != test.name}
        tuned = {learner: dict(chosen) for learner, chosen in self.tuned.items()}
        for learner, chosen in made.tuned.items():
            tuned.setdefault(learner, {}).update(chosen)
        members = tuple(dict.fromkeys((*self.members, *made.members)))
        return Panel({**levels, **made.levels}, tuned, made.seeds, members, made.command)

    def entry(self, test: LearningTest, level: Level) -> Mapping[str, Any] | None:
        """Return what is known of a level, None for nothing."""
        return self.levels.get(place(test, level))

    def entries(self, test: LearningTest) -> dict[Level, Mapping[str, Any]]:
        """Return what is known of the levels of a test."""
        found = {}
        for level in test.levels:
            entry = self.entry(test, level)
            if entry is not None:
                found[level] = entry
        return found


@functools.cache
def shipped_panel() -> Panel:
    """Return the panel that comes with the library."""
    return Panel.read()


def panel_of(ledger: Ledger, tests: Sequence[LearningTest], members: Sequence[str]) -> Panel:
    """Return the panel of learners whose results are in a ledger."""
    levels = {}
    for test in tests:
        for level in test.levels:
            entry = _level(ledger, test, level, members)
            if entry is not None:
                levels[place(test, level)] = entry
    words = shlex.join(members)
    command = f"python -m vsml.battery --make_panel {words} --seeds {ledger.seeds} --seed {ledger.seed}"
    return Panel(levels, ledger.tuned, ledger.seeds, tuple(members), command)


def _level(ledger: Ledger, test: LearningTest, level: Level, members: Sequence[str]) -> dict[str, Any] | None:
    """Return what the members came to at a level; None if nobody took it."""
    raws: dict[str, float] = {}
    errors: dict[str, float] = {}
    floor = 0.0
    for member in members:
        entry = ledger.entry(member, test, level)
        if entry is None or "refused" in entry:
            continue
        raw = np.array(entry["raw"])
        above = raw - np.array(entry["floor"])
        floor = float(np.mean(entry["floor"]))
        raws[member] = round(float(raw.mean()), DIGITS)
        errors[member] = float(above.std(ddof=1) / len(raw) ** 0.5)
    if not raws:
        return None
    by = max(raws, key=lambda member: raws[member])
    return {
        "best": raws[by],
        "best_error": round(errors[by], DIGITS),
        "by": by,
        "floor": round(floor, DIGITS),
        "raw": raws,
    }

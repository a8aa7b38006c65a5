"""Known rules: learning algorithms of the literature that come with the library, as texts."""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from vsml.rules.mistakes import RuleError, did_you_mean
from vsml.rules.parser import parse
from vsml.rules.rule import Rule

HELD = "held"
"""Teaching that stands from its first tick to the end of the example."""

TEACHING: dict[str, dict[str, Any]] = {
    "backprop": {"x_hold": 1},
    "backprop_momentum": {"x_hold": 1},
    "backprop_sign": {"x_hold": 1},
    "equilibrium": {"announce": True, "teach_hold": HELD},
    "hebb": {"teach": "target_as_input"},
    "node_perturbation": {"teach": "reward"},
    "oja": {"teach": "none", "x_hold": 1},
    "predictive_coding": {"teach": "target", "announce": True, "teach_hold": HELD},
    "three_factor": {"teach": "reward"},
    "weight_perturbation": {"teach": "reward"},
}
"""How known rules are taught, where that differs from the defaults of `Settings`."""

ONE_LAYER = frozenset({"delta", "distilled", "hebb", "oja"})
"""Known rules that teach outputs alone. Hidden nodes, whose edges never change, would hide the inputs."""

FOLDER = resources.files("vsml.rules") / "known"
SUFFIX = ".rule"


@dataclass(frozen=True)
class KnownRule:
    """A rule that comes with the library.

    Attributes:
        name: as `read_rule` takes it.
        text: its text, comments included.
    """

    name: str
    text: str

    @property
    def rule(self) -> Rule:
        """The rule."""
        return parse(self.text)

    @property
    def about(self) -> str:
        """The comment at the top, as one paragraph."""
        words: list[str] = []
        for line in self.text.splitlines():
            if not line.startswith("#"):
                break
            words.append(line.removeprefix("#").strip())
        return " ".join(words)


def known_names() -> list[str]:
    """Return the names of the rules that come with the library."""
    files = [entry.name for entry in FOLDER.iterdir()]
    return sorted(name.removesuffix(SUFFIX) for name in files if name.endswith(SUFFIX))


def known_rule(name: str) -> KnownRule:
    """Return a rule that comes with the library.

    Raises:
        ValueError: there is none of that name.
    """
    names = known_names()
    if name not in names:
        expected = f"one of {', '.join(names)}{did_you_mean(name, names)}"
        raise ValueError(f"rule: got {name!r}, expected {expected}")
    return KnownRule(name, (FOLDER / f"{name}{SUFFIX}").read_text(encoding="utf-8"))


def rule_text(name_or_file: str | Path) -> str:
    """Return the text of a rule by its name, or of a file whose name ends in `.rule`.

    Raises:
        ValueError: there is no such rule.
        FileNotFoundError: there is no such file.
    """
    if str(name_or_file).endswith(SUFFIX):
        return Path(name_or_file).read_text(encoding="utf-8")
    return known_rule(str(name_or_file)).text


def read_rule(name_or_file: str | Path) -> Rule:
    """Return a rule by its name, or from a file whose name ends in `.rule`.

    Raises:
        ValueError: there is no such rule.
        FileNotFoundError: there is no such file.
        RuleError: the file has mistakes; the message begins with the file.
    """
    try:
        return parse(rule_text(name_or_file))
    except RuleError as error:
        raise RuleError(error.mistakes, str(name_or_file)) from error

"""Steering: what a search that runs can be told between two generations, and how it is done."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
from pydantic import ValidationError

from vsml.rules.canonical import rule_hash
from vsml.rules.mistakes import RuleError
from vsml.rules.parser import parse
from vsml.rules.printer import show
from vsml.search.breeding import PINNED, Breeder
from vsml.search.changing import RefusedError, changed, value_of, with_values
from vsml.search.elites import Elite, Scores, cell_of
from vsml.search.genome import Genome, genome_of, rule_of, stack_genomes, unstack_genomes
from vsml.search.judge import PROBE
from vsml.search.judging import Judging
from vsml.search.settings import Room
from vsml.search.stages import screened
from vsml.settings import differences
from vsml.system.hashes import SHOWN_DIGITS

COMMANDS = {
    "pause": "breed no further, until it is resumed",
    "resume": "breed on",
    "set": "change a setting: name and value",
    "pin": "keep a rule as an elite that never leaves, whatever is better",
    "unpin": "let it leave again",
    "ban": "remove a rule, and never let it in again",
    "unban": "let it in again",
    "paste": "judge a rule among the children of the next generation",
}
"""What a search can be told, and what it does then."""

OF_RULES = ("pin", "unpin", "ban", "unban")
"""Commands about a rule that the database has."""

ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "pause": (),
    "resume": (),
    "set": ("name", "value"),
    "paste": ("text",),
    **dict.fromkeys(OF_RULES, ("hash", "text")),
}
"""What comes with a command, by its name."""

_KEY_DIGITS = 7
"""Digits of a hash that make a number below 2^31."""

_PIN = 5
"""What the key of a generation is folded with for rules that are pinned; a generation uses 0 to 4."""


def genome_in(text: str, room: Room) -> Genome:
    """Return a rule that is proposed as text.

    Raises:
        RefusedError: the text has mistakes, or there is no room for it.
    """
    try:
        return genome_of(parse(text), room.capacity)
    except RuleError as error:
        told = "; ".join(f"line {line}: {message}" for line, message in error.mistakes)
        raise RefusedError(f"paste: {told}") from error
    except ValueError as error:
        raise RefusedError(f"paste: {error}") from error


@dataclass(eq=False)
class Steering:
    """What was done to a search, the same on every rank.

    Attributes:
        breeder: what breeds.
        config: the section `search`, with all that was set.
        paused: whether it is to breed no further.
        settings: what was set, by name.
        banned: texts of rules that are banned, by hash.
        removed: hashes of rules that were ever banned: the search starts from them no more.
        answers: outcomes by id of a command, ready for JSON: what is here is never done again.
    """

    breeder: Breeder
    config: Any
    paused: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    banned: dict[str, str] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)

    def apply(self, orders: Sequence[Mapping[str, Any]]) -> None:
        """Do commands in their order, and keep what became of each in `answers`.

        Args:
            orders: commands, each with its id, what to do, and arguments.
        """
        for order in orders:
            if order["id"] in self.answers:
                continue
            try:
                said, done = self._do(order["do"], order["arguments"]), True
            except RefusedError as error:
                said, done = str(error), False
            answer = {"done": done, "generation": self.breeder.generation, "said": said}
            self.answers[order["id"]] = answer

    def _do(self, do: str, arguments: Mapping[str, Any]) -> str:
        """Do a command, and say what was done."""
        commands: dict[str, Callable[..., str]] = {
            "pause": self._pause,
            "resume": self._resume,
            "set": self._set,
            "pin": self._pin,
            "unpin": self._unpin,
            "ban": self._ban,
            "unban": self._unban,
            "paste": self._paste,
        }
        if not isinstance(do, str) or do not in commands:
            raise RefusedError(f"command: got {do!r}, expected one of {', '.join(commands)}")
        names = ARGUMENTS[do]
        missing = [name for name in names if name not in arguments]
        if missing:
            raise RefusedError(f"{do}: got no {' and no '.join(missing)}, expected {' and '.join(names)}")
        for name in names:
            if name != "value" and not isinstance(arguments[name], str):
                raise RefusedError(f"{do}: {name}: got {arguments[name]!r}, expected text")
        return commands[do](*(arguments[name] for name in names))

    # Breeding.

    def _pause(self) -> str:
        if self.paused:
            raise RefusedError("pause: got a search that is paused already")
        self.paused = True
        return f"paused after generation {self.breeder.generation}"

    def _resume(self) -> str:
        if not self.paused:
            raise RefusedError("resume: got a search that is not paused")
        self.paused = False
        return "breeds on"

    def _set(self, name: str, value: Any) -> str:
        before = value_of(self.config, name)
        self._adopt(changed(self.config, name, value))
        now = value_of(self.config, name)
        self.settings[name] = now
        return f"{name}: {before} -> {now}"

    def _adopt(self, config: Any) -> None:
        """Go on with other settings."""
        breeder = self.breeder
        self.config = config
        breeder.breeding = config.breeding
        breeder.mutations = config.mutations
        breeder.drawing = config.drawing
        _move_hurdles(breeder, config.judging)

    # Rules.

    def _pin(self, rule: str, text: str) -> str:
        breeder = self.breeder
        if rule in self.banned:
            raise RefusedError(f"pin: {rule[:SHOWN_DIGITS]} is banned; unban it first")
        if self._pinned(rule) is not None:
            raise RefusedError(f"pin: {rule[:SHOWN_DIGITS]} is pinned already")
        genome = self._rule("pin", rule, text)
        self._check_begun("pin")
        for number, island in enumerate(breeder.islands):
            for cell, elite in list(island.archive.elites.items()):
                if _hash(elite.genome) == rule:
                    del island.archive.elites[cell]
                    return self._keep(number, rule, elite)
        for elite in breeder.hall.elites.values():
            if _hash(elite.genome) == rule:
                return self._keep(0, rule, elite)
        return self._keep(0, rule, self._scored(genome))

    def _keep(self, island: int, rule: str, elite: Elite) -> str:
        name = f"{PINNED} {rule[:SHOWN_DIGITS]}: {elite.cell}"
        self.breeder.islands[island].archive.elites[name] = replace(elite, cell=name)
        return f"pinned on island {island}, fitness {elite.scores.mean:.3f}"

    def _scored(self, genome: Genome) -> Elite:
        """Return a rule that is no elite as one, scored once on fresh seeds."""
        breeder, judge = self.breeder, self.breeder.judge
        key = jax.random.fold_in(jax.random.fold_in(breeder.key, breeder.generation), _PIN)
        # Of the rule alone: a run that does its commands again leaves out those that were refused.
        of_rule = int(_hash(genome)[:_KEY_DIGITS], 16)
        (fitness,) = judge.fresh([genome], jax.random.fold_in(key, of_rule))
        stages = [PROBE, *(stage.name for stage in judge.stages)]
        stage = stages[min(int(fitness - 2), len(stages) - 1)]
        cell = cell_of(genome, stage, breeder.where)
        return Elite(genome, Scores().plus(fitness, fitness >= judge.passing), cell, breeder.generation)

    def _pinned(self, rule: str) -> tuple[int, str] | None:
        """Return the island and the cell where a rule is pinned."""
        for number, island in enumerate(self.breeder.islands):
            for cell, elite in island.archive.elites.items():
                if cell.startswith(PINNED) and _hash(elite.genome) == rule:
                    return number, cell
        return None

    def _unpin(self, rule: str, text: str) -> str:
        del text
        place = self._pinned(rule)
        if place is None:
            raise RefusedError(f"unpin: {rule[:SHOWN_DIGITS]} is not pinned")
        number, name = place
        archive = self.breeder.islands[number].archive
        elite = archive.elites.pop(name)
        cell = name.partition(": ")[2]
        stays = archive.take(replace(elite, cell=cell))
        return "stays as an elite" if stays else f"left: the elite of {cell} is better"

    def _ban(self, rule: str, text: str) -> str:
        breeder = self.breeder
        if rule in self.banned:
            raise RefusedError(f"ban: {rule[:SHOWN_DIGITS]} is banned already")
        if self._pinned(rule) is not None:
            raise RefusedError(f"ban: {rule[:SHOWN_DIGITS]} is pinned; unpin it first")
        genome = self._rule("ban", rule, text)
        self._check_begun("ban")
        sources = _without(breeder.sources, rule)
        if any(old and not new for old, new in zip(breeder.sources, sources, strict=True)):
            raise RefusedError(f"ban: {rule[:SHOWN_DIGITS]} is all that the search starts from")
        (key,) = self._keys([genome])
        members = [self._members(number, key) for number in range(len(breeder.islands))]
        if any(is_member.all() for is_member in members):
            raise RefusedError(f"ban: a population has nothing but {rule[:SHOWN_DIGITS]}")
        for island, is_member in zip(breeder.islands, members, strict=True):
            island.replace_members(is_member)
        archives = [*(island.archive for island in breeder.islands), breeder.hall]
        elites = 0
        for archive in archives:
            for cell, elite in list(archive.elites.items()):
                if _hash(elite.genome) == rule:
                    del archive.elites[cell]
                    elites += 1
        breeder.sources = sources
        # A known program enters with its fitness; one of 0 does not, and a fitness of 0 wins no tournament.
        breeder.judge.programs[key] = 0.0
        self.banned[rule] = text
        self.removed.add(rule)
        breeder.proposals = [genome for genome in breeder.proposals if _hash(genome) != rule]
        count = int(sum(is_member.sum() for is_member in members))
        return f"banned; it left {elites} cells and {count} places of populations"

    def _unban(self, rule: str, text: str) -> str:
        del text
        if rule not in self.banned:
            raise RefusedError(f"unban: {rule[:SHOWN_DIGITS]} is not banned")
        (key,) = self._keys([self._rule("unban", rule, self.banned.pop(rule))])
        # Another banned rule may be the same program.
        self.breeder.judge.programs.pop(key, None)
        return "may enter again; what the search starts from stays without it"

    def _paste(self, text: str) -> str:
        genome = genome_in(text, self.breeder.judge.room)
        rule = _hash(genome)
        if rule in self.banned:
            raise RefusedError(f"paste: {rule[:SHOWN_DIGITS]} is banned; unban it first")
        self.breeder.proposals.append(genome)
        return f"{rule[:SHOWN_DIGITS]} is judged in generation {self.breeder.generation + 1}"

    def _rule(self, do: str, rule: str, text: str) -> Genome:
        """Return the rule that a command is about, whose text and hash belong together."""
        try:
            genome = genome_in(str(text), self.breeder.judge.room)
        except RefusedError as error:
            raise RefusedError(f"{do}{str(error).removeprefix('paste')}") from error
        if _hash(genome) != rule:
            raise RefusedError(f"{do}: got the hash {rule!r} and the text of {_hash(genome)}")
        return genome

    def _check_begun(self, do: str) -> None:
        if not self.breeder.islands:
            raise RefusedError(f"{do}: the search has no rules yet; send it after the first generation")

    def _keys(self, genomes: Sequence[Genome]) -> list[tuple[int, int]]:
        """Return the keys by which the judge knows programs, in batches of the size of a generation."""
        batch = self.breeder.breeding.islands * self.breeder.breeding.children
        found: list[tuple[int, int]] = []
        for first in range(0, len(genomes), batch):
            part = list(genomes[first : first + batch])
            filled = part + part[:1] * (batch - len(part))
            keys = np.asarray(screened(stack_genomes(filled), self.breeder.judge.teaching.teach)[1])
            found += [(int(one), int(other)) for one, other in keys[: len(part)]]
        return found

    def _members(self, island: int, key: tuple[int, int]) -> np.ndarray:
        """Return which members of a population are a program, bool [P]."""
        genomes = unstack_genomes(self.breeder.islands[island].population.genomes)
        return np.array([each == key for each in self._keys(genomes)])

    # What a run that is resumed needs.

    def metadata(self) -> dict[str, Any]:
        """Return it, ready for JSON."""
        return {
            "paused": self.paused,
            "settings": self.settings,
            "banned": self.banned,
            "removed": sorted(self.removed),
            "answers": self.answers,
            "proposals": [show(rule_of(genome)) for genome in self.breeder.proposals],
        }

    def restore(self, metadata: Mapping[str, Any] | None, saved: Any, given: Any) -> None:
        """Go on from what `metadata` returned; the breeder is restored already.

        Args:
            metadata: from the checkpoint; None: it has none, as it is of an older version.
            saved: the configuration in the checkpoint, without what was set.
            given: the configuration of this run: what a person has changed in it wins over what was set.

        Raises:
            RefusedError: what was set contradicts what a person has changed.
        """
        if metadata is None:
            return
        by_hand = {path for path, _, _ in differences(saved, given)}
        self.paused = metadata["paused"]
        self.banned = dict(metadata["banned"])
        self.answers = dict(metadata["answers"])
        self.settings = {name: value for name, value in metadata["settings"].items() if name not in by_hand}
        try:
            # All at once: one after the other, in another order than they were set, some may be refused.
            self._adopt(with_values(self.config, self.settings))
        except ValidationError as error:
            told = "; ".join(problem["msg"] for problem in error.errors())
            raise RefusedError(f"what was set in this run contradicts its settings: {told}") from error
        self.removed = set(metadata.get("removed", self.banned))
        for rule in sorted(self.removed):
            self.breeder.sources = _without(self.breeder.sources, rule)
        room = self.breeder.judge.room
        self.breeder.proposals = [genome_in(text, room) for text in metadata["proposals"]]


def _hash(genome: Genome) -> str:
    return rule_hash(rule_of(genome))


def _without(sources: Sequence[Sequence[Genome]], rule: str) -> list[list[Genome]]:
    """Return what a search starts from without a rule."""
    return [[genome for genome in source if _hash(genome) != rule] for source in sources]


def _move_hurdles(breeder: Breeder, judging: Judging) -> None:
    """Let the hurdles of a judge be those of other settings; scores that they remember stay."""
    judge = breeder.judge
    heights = {"S2": judging.functions_hurdle, "S3": judging.gates_hurdle, "S4": judging.sums_hurdle}
    judge.judging = judging
    judge.stages = [
        replace(stage, hurdle=heights[stage.name], early_hurdle=judging.early_hurdle)
        for stage in judge.stages
    ]
    for stage in judge.stages:
        for examples in stage.examples:
            hurdle = judge.hurdles[stage.name, examples]
            hurdle.fixed = stage.hurdle_at(examples)
            hurdle.percentile = judging.percentile

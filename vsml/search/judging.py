"""Rules judged stage by stage, with what is known of those met before and counters of where they end."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Self

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field, model_validator

from vsml.graphs import generate
from vsml.rules.settings import Teaching
from vsml.search.genome import Genome, genome_of, rule_of, stack_genomes, unstack_genomes
from vsml.search.interpreter import Lesson
from vsml.search.one_kernel import one_kernel
from vsml.search.settings import Room, Share
from vsml.search.stages import (
    ALIVE,
    FAILED,
    KNOWN,
    REASONS,
    TWIN,
    Exercise,
    Stage,
    probe_lesson,
    probed,
    progress,
    scale_of,
    screened,
)
from vsml.settings import Float, Positive, Problem, Section, refuse
from vsml.types import Array

STATIC, PROBE = "S0", "S1"

_CHUNK = 16
"""Rules that learn in one call: fewer are filled up, so that nothing is compiled anew."""

_WINDOW = 512
"""Scores of a hurdle that are remembered."""

_FIRST_SCORES = 32
"""Scores that a hurdle needs before it is more than the fixed one."""


class Judging(Section):
    """How rules are judged."""

    seeds: Positive = Field(default=2, description="fresh starts of each task")
    functions: Positive = Field(default=800, description="examples of the functions of one bit, S2")
    gates: Annotated[tuple[Positive, ...], Field(min_length=1)] = Field(
        default=(50, 200, 800), description="examples of AND and OR after which hurdles stand, S3"
    )
    sums: Positive = Field(default=400, description="examples of sums, differences and XOR, S4")
    functions_hurdle: Float = Field(default=0.2, description="least progress of the worst function in S2")
    gates_hurdle: Float = Field(default=0.2, description="least progress of the worst gate in S3")
    sums_hurdle: Float = Field(default=0.0, description="least progress of the worst task in S4")
    percentile: Share = Field(
        default=0.75, description="of the last scores at a hurdle; 0 leaves the fixed hurdles alone"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if list(self.gates) != sorted(set(self.gates)):
            refuse([Problem("gates", self.gates, "different numbers, the least first")])
        return self

    def stages(self) -> list[Stage]:
        """Return the stages in which rules learn."""
        beside = [generate("layered", inputs, 0, 1, seed=0) for inputs in (2, 3)]
        behind = generate("layered", 3, 4, 1, seed=0)
        loops = [generate(kind, 3, size, 1, seed=0) for kind, size in (("waxman", 6), ("small_world", 8))]
        functions = tuple(Exercise(name, beside[0]) for name in ("0", "1", "a", "not a"))
        gates = tuple(Exercise(name, beside[1]) for name in ("and", "or"))
        last = [
            Exercise(name, graph) for name in ("sum", "a - b", "b - a", "xor") for graph in (behind, *loops)
        ]
        return [
            Stage("S2", functions, (self.functions,), self.seeds, self.functions_hurdle),
            Stage("S3", gates, self.gates, self.seeds, self.gates_hurdle),
            Stage("S4", tuple(last), (self.sums,), self.seeds, self.sums_hurdle),
        ]


@dataclass
class Funnel:
    """Counters of where rules end and why.

    Attributes:
        proposed: rules that were given to be judged.
        ended: rules by stage and reason.
        passed: rules by stage.
    """

    proposed: int = 0
    ended: dict[tuple[str, str], int] = field(default_factory=dict)
    passed: dict[str, int] = field(default_factory=dict)

    def count(self, stage: str, reasons: np.ndarray) -> None:
        """Count the reasons of a stage, `ALIVE` being those that pass it."""
        for number, count in zip(*np.unique(reasons, return_counts=True), strict=True):
            if number == ALIVE:
                self.passed[stage] = self.passed.get(stage, 0) + int(count)
            else:
                place = (stage, REASONS[number])
                self.ended[place] = self.ended.get(place, 0) + int(count)

    def entered(self, stage: str) -> int:
        """Return how many rules came to a stage."""
        ended = sum(count for (name, _), count in self.ended.items() if name == stage)
        return ended + self.passed.get(stage, 0)

    def rows(self) -> list[tuple[str, str, int]]:
        """Return stage, reason and count, stage by stage, the most frequent first; who passes is last."""
        found: list[tuple[str, str, int]] = []
        for stage in sorted({name for name, _ in self.ended} | set(self.passed)):
            ends = [(stage, why, count) for (name, why), count in self.ended.items() if name == stage]
            found += sorted(ends, key=lambda row: -row[2])
            found.append((stage, "passed", self.passed.get(stage, 0)))
        return found


@dataclass
class Hurdle:
    """The progress that a rule needs at one place: a fixed one, or that of the best of those before.

    Attributes:
        fixed: the least.
        percentile: of the last scores; 0: the fixed one alone.
        scores: the last ones.
    """

    fixed: float
    percentile: float
    scores: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))

    @property
    def height(self) -> float:
        """The progress that is needed now."""
        if self.percentile == 0 or len(self.scores) < _FIRST_SCORES:
            return self.fixed
        return max(self.fixed, float(np.quantile(self.scores, self.percentile)))

    def passes(self, scores: Sequence[float]) -> np.ndarray:
        """Return which scores are high enough, bool [n]; they count for the next ones only."""
        passed = np.asarray(scores) >= self.height
        self.scores.extend(scores)
        return passed


@dataclass(frozen=True)
class Survivor:
    """A rule that has passed S1.

    Attributes:
        genome: the rule, on the host.
        fingerprint: of its answers in S1.
        stage: the last stage that it passed.
        scores: progress of the worst task, by stage.
    """

    genome: Genome
    fingerprint: tuple[int, int]
    stage: str
    scores: dict[str, float]


@dataclass
class Judge:
    """Judges rules, cheapest stage first.

    Attributes:
        judging: settings.
        teaching: how rules are taught.
        room: how large rules may be.
        seed: of tasks and starts; another seed is other tasks.
        funnel: counters.
        programs: keys of programs that were met.
        twins: the best stage of each fingerprint that was met.
        hurdles: by stage and examples.
    """

    judging: Judging
    teaching: Teaching
    room: Room
    seed: int = 0
    funnel: Funnel = field(default_factory=Funnel)
    programs: set[tuple[int, int]] = field(default_factory=set)
    twins: set[tuple[int, int]] = field(default_factory=set)
    hurdles: dict[tuple[str, int], Hurdle] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._probe = probe_lesson(self.teaching, self.room.slots)
        self._stages = self.judging.stages()
        self._lessons: dict[tuple[str, int], Lesson] = {}
        for stage in self._stages:
            for examples in stage.examples:
                # A good rule with a small learning rate has made little progress early on.
                is_last = examples == stage.examples[-1]
                hurdle = Hurdle(stage.hurdle if is_last else -1.0, self.judging.percentile)
                self.hurdles.setdefault((stage.name, examples), hurdle)

    def judge(self, genomes: Genome) -> list[Survivor]:
        """Judge rules, count where they end, and return those that pass S1, in their order.

        Args:
            genomes: with a leading axis, always as many, lest functions are compiled anew.
        """
        self.funnel.proposed += len(genomes.sizes)
        found = self.screen(genomes)
        for stage in self._stages:
            found = self._learn(stage, found)
        return found

    def screen(self, genomes: Genome) -> list[Survivor]:
        """Return the rules that pass S0 and S1 and are new, in their order."""
        reasons, keys = (np.array(part) for part in screened(genomes, self.teaching.teach))
        _mark_known(reasons, keys, self.programs, KNOWN)
        self.funnel.count(STATIC, reasons)
        seen = probed(genomes, jnp.asarray(reasons == ALIVE), self._probe)
        entered = reasons == ALIVE
        reasons, prints = np.array(seen.reason), np.asarray(seen.fingerprint)
        _mark_known(reasons, prints, self.twins, TWIN)
        self.funnel.count(PROBE, reasons[entered])
        places = np.flatnonzero(entered & (reasons == ALIVE))
        if not len(places):
            return []
        hosts = unstack_genomes(jax.device_get(genomes))
        found: list[Survivor] = []
        for place in places:
            first, second = prints[place].tolist()
            # As it is written down: draws of slots then are those of the rule that is read again.
            written = genome_of(rule_of(hosts[place]), self.room.capacity)
            found.append(Survivor(written, (first, second), PROBE, {}))
        return found

    def _learn(self, stage: Stage, rules: list[Survivor]) -> list[Survivor]:
        """Let the rules that passed the stage before learn; return all, those that pass marked."""
        before = {"S2": "S1", "S3": "S2", "S4": "S3"}[stage.name]
        entered = [place for place, rule in enumerate(rules) if rule.stage == before]
        left = list(entered)
        found = list(rules)
        for examples in stage.examples:
            if not left:
                break
            worst = self.scores(stage, examples, [rules[place].genome for place in left])
            passes = self.hurdles[stage.name, examples].passes(worst)
            for place, score in zip(left, worst, strict=True):
                rule = found[place]
                found[place] = Survivor(
                    rule.genome, rule.fingerprint, rule.stage, rule.scores | {stage.name: score}
                )
            left = [place for place, passed in zip(left, passes, strict=True) if passed]
        for place in left:
            rule = found[place]
            found[place] = Survivor(rule.genome, rule.fingerprint, stage.name, rule.scores)
        ends = np.full(len(entered), FAILED)
        ends[: len(left)] = ALIVE
        self.funnel.count(stage.name, ends)
        return found

    def scores(self, stage: Stage, examples: int, genomes: Sequence[Genome]) -> list[float]:
        """Return the progress of rules in the worst task of a stage, mean over its seeds.

        Args:
            stage: the stage.
            examples: length of the stream, one of the stage's.
            genomes: on the host.
        """
        place = (stage.name, examples)
        if place not in self._lessons:
            self._lessons[place] = stage.lesson(
                self.teaching, self.room.slots, jax.random.key(self.seed), examples
            )
        lesson = self._lessons[place]
        scale = scale_of(lesson)
        found: list[float] = []
        for first in range(0, len(genomes), _CHUNK):
            chunk = list(genomes[first : first + _CHUNK])
            filled = chunk + chunk[:1] * (_CHUNK - len(chunk))
            is_wanted = jnp.arange(_CHUNK) < len(chunk)
            by_instance = np.asarray(_progress(stack_genomes(filled), is_wanted, lesson, scale))
            by_task = by_instance.reshape(_CHUNK, -1, stage.seeds).mean(2)
            found += by_task.min(1)[: len(chunk)].tolist()
        return found


def _mark_known(
    reasons: np.ndarray,
    keys: np.ndarray,
    known: set[tuple[int, int]],
    reason: int,
) -> None:
    """Give a reason to those alive whose key is known, and know the others' keys from now on."""
    for place in np.flatnonzero(reasons == ALIVE):
        first, second = keys[place].tolist()
        if (first, second) in known:
            reasons[place] = reason
        else:
            known.add((first, second))


def _progress_all(genomes: Genome, is_wanted: Array, lesson: Lesson, scale: Array) -> Array:
    nothing = jnp.zeros(lesson.union.num_instances)

    def each(given: tuple[Genome, Array]) -> Array:
        genome, wanted = given
        return jax.lax.cond(wanted, partial(progress, genome, lesson, scale), lambda: nothing)

    return jax.lax.map(each, (genomes, is_wanted))


_progress = one_kernel(_progress_all)

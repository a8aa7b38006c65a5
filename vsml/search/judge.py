"""Rules judged stage by stage, with what is known of those met before and counters of where they end."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vsml.rules.settings import Teaching
from vsml.search.funnel import Funnel, Hurdle
from vsml.search.genome import Genome, genome_of, rule_of, stack_genomes, unstack_genomes
from vsml.search.judging import Judging
from vsml.search.lesson import Lesson
from vsml.search.one_kernel import one_kernel
from vsml.search.population import taken
from vsml.search.settings import Room
from vsml.search.stages import (
    ALIVE,
    DEAF,
    FAILED,
    KNOWN,
    TWIN,
    UNTEACHABLE,
    Stage,
    probe_lesson,
    probed,
    progress,
    scale_of,
    screened,
)
from vsml.system.comm import Communicator, SerialCommunicator
from vsml.types import Array

HARNESS = "search 3"
"""Version of what runs rules and tasks; it goes up whenever a score may change."""

STATIC, PROBE = "S0", "S1"

_CHUNK = 16
"""Rules that learn in one call: fewer are filled up, so that nothing is compiled anew."""

Lessons = Sequence[tuple[np.ndarray, Lesson]]
"""Lessons of a stage, and the places of their instances among all of it."""

Key = tuple[int, int]
"""A key of a program, or a fingerprint of answers."""


@dataclass(frozen=True)
class Survivor:
    """A rule that has passed S1.

    Attributes:
        genome: the rule, on the host.
        fingerprint: of its answers in S1.
        stage: the last stage that it passed.
        scores: progress of the worst task, by stage.
        fitness: how far it came; see `Rated`.
    """

    genome: Genome
    fingerprint: Key
    stage: str
    scores: dict[str, float]
    fitness: float = 0.0


@dataclass(frozen=True)
class Rated:
    """Rules that were judged, n of them; those that fill a batch are not among them.

    Fitness is 0 for a rule that ended in S0. For S1 it is 1, and half of its reach, unless its numbers grow
    without end: how far the input and teaching came (`Probe`). It is 2 for the first stage in which rules
    learn, and so on. To that comes the share of the stage that it came through: hurdles that it passed, and
    progress from -1 to 1, as a number from 0 to 1 (`Stage.share`), at the one that it did not. A rule that
    passes the last stage has one more than those that end in it, and half of its progress there, from 0 to 1.

    Attributes:
        fitness: float32 [n]; what is known of a program or of a twin counts for it.
        reasons: why each ended in S0 or S1, int32 [n]; `ALIVE` for those that learned.
        keys: of what each computes, [n].
        found: rules that passed S1 and are new, by their place.
    """

    fitness: np.ndarray
    reasons: np.ndarray
    keys: list[Key]
    found: dict[int, Survivor]


@dataclass
class Judge:
    """Judges rules, cheapest stage first.

    Attributes:
        judging: settings.
        teaching: how rules are taught.
        room: how large rules may be.
        seed: of tasks and starts; another seed is other tasks.
        comm: ranks among which rules are dealt; all of them judge the same rules, and know the same after it.
        funnel: counters.
        programs: fitness by key of the programs that were met.
        twins: fitness by fingerprint of those that passed S1.
        hurdles: by stage and examples.
        learned: rules that learned in S2 and later, each length of a stage counted.
    """

    judging: Judging
    teaching: Teaching
    room: Room
    seed: int = 0
    comm: Communicator = field(default_factory=SerialCommunicator)
    funnel: Funnel = field(default_factory=Funnel)
    programs: dict[Key, float] = field(default_factory=dict)
    twins: dict[Key, float] = field(default_factory=dict)
    hurdles: dict[tuple[str, int], Hurdle] = field(default_factory=dict)
    learned: int = 0

    def __post_init__(self) -> None:
        self._probe = probe_lesson(self.teaching, self.room.slots)
        self.stages = self.judging.stages()
        self._lessons: dict[str, Lessons] = {}
        for stage in self.stages:
            for examples in stage.examples:
                # A good rule with a small learning rate has made little progress early on.
                hurdle = Hurdle(stage.hurdle_at(examples), self.judging.percentile)
                self.hurdles.setdefault((stage.name, examples), hurdle)

    @property
    def passing(self) -> float:
        """The least fitness of a rule that passes the last stage."""
        return 2.0 + len(self.stages)

    def judge(self, genomes: Genome) -> list[Survivor]:
        """Judge rules, count where they end, and return those that pass S1, in their order.

        Args:
            genomes: with a leading axis, always as many, lest functions are compiled anew.
        """
        return list(self.rate(genomes).found.values())

    def rate(self, genomes: Genome, count: int | None = None) -> Rated:
        """Judge rules, count where they end, and say of each how far it came.

        Args:
            genomes: as in `judge`.
            count: how many are judged, the first ones; the others fill the batch. None: all.
        """
        size = len(genomes.sizes)
        count = size if count is None else count
        self.funnel.proposed += count
        screenings = screened(genomes, self.teaching.teach)
        reasons, keys = (np.array(part)[:count] for part in screenings)
        _mark_known(reasons, keys, self.programs, KNOWN)
        self.funnel.count(STATIC, reasons)
        entered = reasons == ALIVE
        ends, prints, reach = self._probed(genomes, np.pad(entered, (0, size - count)))
        ends, prints, reach = ends[:count], prints[:count], reach[:count]
        _mark_known(ends, prints, self.twins, TWIN)
        self.funnel.count(PROBE, ends[entered])
        reasons[entered] = ends[entered]
        found = self._learn_all(genomes, np.flatnonzero(reasons == ALIVE), prints)
        fitness = np.zeros(len(reasons), np.float32)
        fitness[entered] = 1.0
        # A rule whose numbers grow without end gets nothing for its reach.
        nearly = np.isin(reasons, (DEAF, UNTEACHABLE))
        fitness[nearly] += reach[nearly] / 2
        for place, rule in found.items():
            self.twins[_key(prints[place])] = fitness[place] = rule.fitness
        for place in np.flatnonzero(reasons == TWIN).tolist():
            fitness[place] = self.twins[_key(prints[place])]
        for place in np.flatnonzero(entered).tolist():
            self.programs[_key(keys[place])] = float(fitness[place])
        for place in np.flatnonzero(reasons == KNOWN).tolist():
            fitness[place] = self.programs[_key(keys[place])]
        return Rated(fitness, reasons, [_key(key) for key in keys], found)

    def keys_of(self, genomes: Genome) -> list[Key]:
        """Return keys of what rules compute, [n]; nothing is remembered or counted.

        Args:
            genomes: with a leading axis of n.
        """
        _, keys = screened(genomes, self.teaching.teach)
        return [_key(key) for key in np.asarray(keys)]

    def screen(self, genomes: Genome) -> list[Survivor]:
        """Return the rules that pass S0 and S1 and are new, in their order; none of them learns."""
        stages, self.stages = self.stages, []
        try:
            return self.judge(genomes)
        finally:
            self.stages = stages

    def _probed(self, genomes: Genome, entered: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Run S1 on some of the rules, and return their reasons [n], fingerprints [n, 2] and reach [n]."""
        places = np.flatnonzero(entered)
        rank_of = np.zeros(len(entered), np.int32)
        rank_of[places] = np.arange(len(places)) % self.comm.size
        own = entered & (rank_of == self.comm.rank)
        seen = probed(genomes, jnp.asarray(own), self._probe)
        everywhere = np.arange(len(entered))
        reasons = self.comm.allgather(np.asarray(seen.reason))[rank_of, everywhere]
        prints = self.comm.allgather(np.asarray(seen.fingerprint))[rank_of, everywhere]
        reach = self.comm.allgather(np.asarray(seen.reach))[rank_of, everywhere]
        return reasons, prints, reach

    def _learn_all(self, genomes: Genome, places: np.ndarray, prints: np.ndarray) -> dict[int, Survivor]:
        """Let the rules at some places learn, stage by stage."""
        if not len(places):
            return {}
        # Few are left of a batch.
        hosts = unstack_genomes(taken(jax.device_get(genomes), places))
        found: dict[int, Survivor] = {}
        for place, host in zip(places.tolist(), hosts, strict=True):
            # As it is written down: draws of slots then are those of the rule that is read again.
            written = genome_of(rule_of(host), self.room.capacity)
            found[place] = Survivor(written, _key(prints[place]), PROBE, {}, 2.0)
        left = list(found)
        for number, stage in enumerate(self.stages):
            passed = self._learn(stage, 2.0 + number, found, left)
            ends = np.full(len(left), FAILED)
            ends[: len(passed)] = ALIVE
            if len(left):
                self.funnel.count(stage.name, ends)
            left = passed
        return found

    def _learn(
        self,
        stage: Stage,
        level: float,
        found: dict[int, Survivor],
        places: list[int],
    ) -> list[int]:
        """Let rules learn in a stage, write down how far they come, and return who passes."""
        left = list(places)
        for step, examples in enumerate(stage.examples):
            if not left:
                break
            worst, shares = self._scores_in(
                self._own_lessons(stage), stage, examples, [found[place].genome for place in left]
            )
            passes = self.hurdles[stage.name, examples].passes(worst)
            is_last = step + 1 == len(stage.examples)
            for place, score, share, passed in zip(left, worst, shares, passes, strict=True):
                rule = found[place]
                fitness = _fitness(level, stage, step, share, passed)
                found[place] = Survivor(
                    genome=rule.genome,
                    fingerprint=rule.fingerprint,
                    stage=stage.name if passed and is_last else rule.stage,
                    scores=rule.scores | {stage.name: score},
                    fitness=float(np.float32(fitness)),
                )
            left = [place for place, passed in zip(left, passes, strict=True) if passed]
        return left

    def scores(self, stage: Stage, examples: int, genomes: Sequence[Genome]) -> list[float]:
        """Return the progress of rules in the worst task of each start of a stage, mean over its best starts.

        Args:
            stage: the stage.
            examples: length of the stream, one of the stage's.
            genomes: on the host.
        """
        return self._scores_in(self._own_lessons(stage), stage, examples, genomes)[0]

    def _own_lessons(self, stage: Stage) -> Lessons:
        """Return the lessons of a stage that all rules meet."""
        if stage.name not in self._lessons:
            self._lessons[stage.name] = self._lessons_of(stage, jax.random.key(self.seed))
        return self._lessons[stage.name]

    def fresh(self, genomes: Sequence[Genome], key: Array) -> list[float]:
        """Return the fitness of rules on tasks and starts of their own, against the fixed hurdles alone.

        Nothing of it is remembered or counted in the funnel. All rules of a call meet the same tasks.

        Args:
            genomes: on the host; they have passed S1.
            key: of tasks and starts.
        """
        fitness = [2.0] * len(genomes)
        left = list(range(len(genomes)))
        for number, stage in enumerate(self.stages):
            if not left:
                break
            lessons = self._lessons_of(stage, jax.random.fold_in(key, number))
            for step, examples in enumerate(stage.examples):
                worst, shares = self._scores_in(lessons, stage, examples, [genomes[place] for place in left])
                passed: list[int] = []
                for place, score, share in zip(left, worst, shares, strict=True):
                    is_passed = score >= stage.hurdle_at(examples)
                    fitness[place] = _fitness(2.0 + number, stage, step, share, is_passed)
                    if is_passed:
                        passed.append(place)
                left = passed
        return fitness

    def _lessons_of(self, stage: Stage, key: Array) -> Lessons:
        return stage.lessons(self.teaching, self.room.slots, key)

    def _scores_in(
        self,
        lessons: Lessons,
        stage: Stage,
        examples: int,
        genomes: Sequence[Genome],
    ) -> tuple[list[float], list[float]]:
        """Return the progress of rules in the worst task of lessons, and how far they came, from 0 to 1.

        Each rank runs a part of the rules.
        """
        if not genomes:
            return [], []
        self.learned += len(genomes)
        scales = [scale_of(lesson, examples) for _, lesson in lessons]
        size = self.comm.size
        found = np.zeros((len(genomes), 2), np.float32)
        own = np.arange(self.comm.rank, len(genomes), size)
        for first in range(0, len(own), _CHUNK):
            places = own[first : first + _CHUNK]
            chunk = [genomes[place] for place in places]
            filled = chunk + chunk[:1] * (_CHUNK - len(chunk))
            is_wanted = jnp.arange(_CHUNK) < len(chunk)
            stacked = stack_genomes(filled)
            by_instance = np.zeros((_CHUNK, len(stage.graphs)), np.float32)
            for (columns, lesson), scale in zip(lessons, scales, strict=True):
                learned = _progress(stacked, is_wanted, lesson, scale, jnp.int32(examples))
                by_instance[:, columns] = np.asarray(learned)
            both = np.stack([stage.score(by_instance), stage.share(by_instance)], axis=1)
            found[places] = both[: len(chunk)]
        gathered = self.comm.allgather(found)
        places = np.arange(len(genomes))
        worst, shares = gathered[places % size, places].T.tolist()
        return worst, shares

    # What a search that is resumed needs.

    def tree(self) -> dict[str, Any]:
        """Return what is known, as arrays by name."""
        hurdles = {
            f"{name} {examples}": np.array(hurdle.scores, np.float32)
            for (name, examples), hurdle in self.hurdles.items()
        }
        return {"programs": _table(self.programs), "twins": _table(self.twins), "hurdles": hurdles}

    def counters(self) -> dict[str, Any]:
        """Return what was counted, ready for JSON."""
        ended = [[stage, why, count] for (stage, why), count in self.funnel.ended.items()]
        passed = dict(self.funnel.passed)
        return {
            "proposed": self.funnel.proposed,
            "ended": ended,
            "passed": passed,
            "learned": self.learned,
        }

    def restore(self, tree: Mapping[str, Any], counters: Mapping[str, Any]) -> None:
        """Know again what `tree` and `counters` returned."""
        self.programs = _untabled(tree["programs"])
        self.twins = _untabled(tree["twins"])
        for (name, examples), hurdle in self.hurdles.items():
            hurdle.scores.clear()
            hurdle.scores.extend(np.asarray(tree["hurdles"][f"{name} {examples}"]).tolist())
        self.learned = counters["learned"]
        self.funnel.proposed = counters["proposed"]
        self.funnel.passed = dict(counters["passed"])
        self.funnel.ended = {(stage, why): count for stage, why, count in counters["ended"]}


def _fitness(
    level: float,
    stage: Stage,
    step: int,
    share: float,
    is_passed: bool,
) -> float:
    """Return the fitness of a rule after a length of a stage; see `Rated`.

    Args:
        level: what the stage begins at.
        stage: the stage.
        step: which of its lengths.
        share: how far the rule came, from 0 to 1.
        is_passed: whether it passed the hurdle there.
    """
    if is_passed and step + 1 == len(stage.examples):
        return level + 1 + share / 2
    return level + (step + share) / len(stage.examples)


def _key(pair: np.ndarray) -> Key:
    first, second = pair.tolist()
    return first, second


def _table(known: Mapping[Key, float]) -> dict[str, np.ndarray]:
    keys = np.array(list(known), np.uint32).reshape(-1, 2)
    return {"keys": keys, "fitness": np.array(list(known.values()), np.float32)}


def _untabled(table: Mapping[str, Any]) -> dict[Key, float]:
    keys = [(first, second) for first, second in np.asarray(table["keys"]).tolist()]
    return dict(zip(keys, np.asarray(table["fitness"]).tolist(), strict=True))


def _mark_known(
    reasons: np.ndarray,
    keys: np.ndarray,
    known: dict[Key, float],
    reason: int,
) -> None:
    """Give a reason to those alive whose key is known, and know the others' keys from now on."""
    for place in np.flatnonzero(reasons == ALIVE):
        key = _key(keys[place])
        if key in known:
            reasons[place] = reason
        else:
            known[key] = 0.0


def _progress_all(
    genomes: Genome,
    is_wanted: Array,
    lesson: Lesson,
    scale: Array,
    examples: Array,
) -> Array:
    nothing = jnp.zeros(lesson.union.num_instances)

    def each(given: tuple[Genome, Array]) -> Array:
        genome, wanted = given
        learn = partial(progress, genome, lesson, scale, examples)
        return jax.lax.cond(wanted, learn, lambda: nothing)

    return jax.lax.map(each, (genomes, is_wanted))


_progress = one_kernel(_progress_all)

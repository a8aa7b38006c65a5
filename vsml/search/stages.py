"""Stages that judge rules, cheapest first; a stage gets the survivors of the one before it.

S0 looks at the code alone. S1 runs a rule for 18 ticks and asks whether the answer follows the input and
changes with teaching. S2 to S4 let it learn: functions of one bit, then AND and OR, then sums, differences
and XOR.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from vsml.graphs import Graph, generate
from vsml.rules.operators import BOUND, OPCODE
from vsml.rules.rule import EDGE_TYPE
from vsml.rules.settings import Settings, Teaching
from vsml.search.analysis import live_of, port_bit, structural_key
from vsml.search.choices import both_lanes, finished, mixed
from vsml.search.exercises import OF_NUMBERS, Exercise, draw_exercises
from vsml.search.genome import Genome
from vsml.search.lesson import Lesson, answers, distances
from vsml.search.one_kernel import one_kernel
from vsml.search.union import noise_of, union_of
from vsml.tasks.data.small_tasks import FALSE, TRUE
from vsml.types import Array

# Why a rule ends where it does. The first is no death.
ALIVE, NO_INPUT, NO_TEACHING, NO_CROSSING, NO_MEMORY, KNOWN, AT_BOUND, DEAF, UNTEACHABLE, TWIN, FAILED = (
    range(11)
)

REASONS = (
    "alive",
    "the answer does not depend on the input",
    "the answer does not depend on teaching",
    "nothing crosses an edge",
    "nothing is kept from tick to tick",
    "known: the same program was met before",
    "at the bound: numbers grow without end",
    "deaf: another input changes no answer",
    "unteachable: another target changes no answer",
    "twin: another rule answers the same",
    "below the hurdle",
)
"""What the counters say, by number."""

_FEELS = 1e-6
"""An answer that changes by less does not follow."""

_ROUNDING = 1000
"""Answers are rounded to so many parts of 1 for the fingerprint."""

_LABELLED = ("target_as_input",)
_UNLABELLED = ("none",)


def static_reason(genome: Genome, teach: str) -> Array:
    """Return why a genome cannot learn, from its code alone, int32 []; `ALIVE` if nothing is against it.

    Args:
        genome: pruned.
        teach: how rules are taught; where nothing stands on t, it may be left out.
    """
    live = live_of(genome)
    reads = live.reads
    reads_input = (reads & (port_bit("x") | port_bit("x_on"))) > 0
    reads_teaching = (reads & (port_bit("t") | port_bit("t_on"))) > 0
    if teach in (*_LABELLED, *_UNLABELLED):
        reads_teaching = jnp.array(True)
    is_rev = genome.tick[:, 0] == OPCODE["rev"]
    is_shared = (genome.kind >= EDGE_TYPE) & live.slots
    crosses = (is_rev & live.tick).any() | is_shared.any()
    reason = jnp.where(live.remembers.any(), ALIVE, NO_MEMORY)
    reason = jnp.where(crosses, reason, NO_CROSSING)
    reason = jnp.where(reads_teaching, reason, NO_TEACHING)
    return jnp.where(reads_input, reason, NO_INPUT).astype(jnp.int32)


def screened(genomes: Genome, teach: str) -> tuple[Array, Array]:
    """Return the reason of S0 of each genome, int32 [n], and its key, uint32 [n, 2]."""
    return _screen(teach)(genomes)


@lru_cache(maxsize=8)
def _screen(teach: str):  # type: ignore[no-untyped-def]  # a jit-ed function
    def look(genome: Genome) -> tuple[Array, Array]:
        return static_reason(genome, teach), structural_key(genome)

    return one_kernel(partial(jax.lax.map, look))


def timing_of(graphs: Sequence[Graph], teaching: Teaching) -> Settings:
    """Return timing in which news goes from inputs to answers, and teaching back, on each of some graphs."""
    longest = max(graph.longest_path for graph in graphs)
    given = teaching.model_dump(exclude_unset=True)
    return Settings(ticks=2 * (longest + 1), read_tick=longest, loss="regression", **given)


# S1: instances that differ in one thing each.

_PLAIN, _OTHER_INPUT, _OTHER_TARGET = range(3)
_PROBE_EXAMPLES = 3


@struct.dataclass
class Probe:
    """What a rule does in S1, and a fingerprint of it.

    Attributes:
        reason: why it ends here, int32 []; `ALIVE` if it does not.
        fingerprint: of all answers, rounded, uint32 [2]; equal ones answer the same.
        reach: how far the input and teaching come, from 0 to 1: the share of half-edges whose memory another
            input changes, and that which another target changes, half of each; mean over graphs, [].
    """

    reason: Array
    fingerprint: Array
    reach: Array


@cache
def _probe_graphs() -> tuple[Graph, ...]:
    """Return the graphs of S1: an input beside the output, and 2 inputs behind 2 nodes."""
    return tuple(generate("layered", inputs, hidden, 1, seed=0) for inputs, hidden in ((1, 0), (2, 2)))


def probe_lesson(teaching: Teaching, slots: int) -> Lesson:
    """Return the lesson of S1: each of its graphs three times."""
    graphs = [graph for graph in _probe_graphs() for _ in range(3)]
    # The three of a graph draw the same, and meet the same noise.
    keys = jnp.stack([jax.random.key(place // 3) for place in range(len(graphs))])
    random = np.random.default_rng(0)
    x, targets = [], []
    for inputs in (1, 2):
        plain = random.uniform(0.3, 1.0, (_PROBE_EXAMPLES, inputs)).astype(np.float32)
        goal = random.uniform(0.3, 1.0, (_PROBE_EXAMPLES, 1)).astype(np.float32)
        x += [plain, plain + 0.5, plain]
        targets += [goal, goal, goal + 0.5]
    settings = timing_of(graphs, teaching)
    return Lesson(
        union=union_of(graphs, keys, slots),
        x=jnp.asarray(np.concatenate(x, 1)),
        targets=jnp.asarray(np.stack(targets, 1)),
        noise=noise_of(graphs, keys, _PROBE_EXAMPLES * settings.ticks),
        settings=settings,
    )


def probe(genome: Genome, lesson: Lesson) -> Probe:
    """Run S1."""
    found, course = answers(genome, lesson)
    memory = course.rows[: genome.kind.shape[0]]
    by_graph = found.reshape(_PROBE_EXAMPLES, -1, 3)
    plain = by_graph[:, :, _PLAIN]
    # One of the graphs is enough: a rule may need more than one input.
    follows = jnp.abs(by_graph[:, :, _OTHER_INPUT] - plain).max() > _FEELS
    learns = jnp.abs(by_graph[:, :, _OTHER_TARGET] - plain).max() > _FEELS
    if lesson.settings.teach in _UNLABELLED:
        learns = jnp.array(True)
    at_bound = (jnp.abs(memory) >= BOUND).any() | (jnp.abs(found) >= BOUND).any()
    reason = jnp.where(learns, ALIVE, UNTEACHABLE)
    reason = jnp.where(follows, reason, DEAF)
    reason = jnp.where(at_bound, AT_BOUND, reason)
    reach = _reach(memory, lesson.settings.teach)
    return Probe(reason.astype(jnp.int32), fingerprint(found), reach)


def _reach(memory: Array, teach: str) -> Array:
    """Return how far the input and teaching come, from the memory [S, M] that they leave, []."""
    total = jnp.float32(0)
    first = 0
    for graph in _probe_graphs():
        size = 3 * 2 * graph.num_edges
        own = memory[:, first : first + size].reshape(memory.shape[0], 3, -1)
        first += size
        plain = own[:, _PLAIN]
        for other in (_OTHER_INPUT, _OTHER_TARGET):
            differs = (jnp.abs(own[:, other] - plain) > _FEELS).any(0)
            if other == _OTHER_TARGET and teach in _UNLABELLED:
                differs = jnp.ones_like(differs)
            total += differs.mean()
    return total / (2 * len(_probe_graphs()))


def fingerprint(found: Array) -> Array:
    """Return a key of answers rounded to 3 digits, uint32 [2]."""
    whole = jnp.round(found.reshape(-1) * _ROUNDING).astype(jnp.int32)

    def step(place: Array, lanes: Array) -> Array:
        return mixed(lanes, both_lanes(whole[place]))

    return finished(jax.lax.fori_loop(0, whole.shape[0], step, jnp.full(2, 17, jnp.uint32)))


def probed(genomes: Genome, is_wanted: Array, lesson: Lesson) -> Probe:
    """Run S1 on some of the genomes; the others get `KNOWN`, and take no time.

    Args:
        genomes: with a leading axis.
        is_wanted: which of them, bool [n].
        lesson: from `probe_lesson`.
    """
    return _probe(genomes, is_wanted, lesson)


def _probe_all(genomes: Genome, is_wanted: Array, lesson: Lesson) -> Probe:
    nothing = Probe(jnp.int32(KNOWN), jnp.zeros(2, jnp.uint32), jnp.float32(0))

    def each(given: tuple[Genome, Array]) -> Probe:
        genome, wanted = given
        return jax.lax.cond(wanted, lambda: probe(genome, lesson), lambda: nothing)

    return jax.lax.map(each, (genomes, is_wanted))


_probe = one_kernel(_probe_all)


# S2 to S4: learning.


_TASKS = 2**31 - 9
"""What the key of a stage is folded with for its tasks; with lower numbers it is for starts."""

_MOST_PEERS = 2048
"""Half-edges times the largest degree that a lesson may have: of more, XLA cannot make one kernel."""


@dataclass(frozen=True)
class Stage:
    """A stage in which rules learn.

    Attributes:
        name: of the stage.
        exercises: tasks on graphs.
        examples: lengths at which a hurdle stands, ascending; the last is the length of the stream.
        seeds: fresh starts of each exercise.
        hurdle: least progress of the worst task at the end.
        early_hurdle: the least before the end.
        best_starts: share of the starts that counts, the best ones. Exercises of two values on one graph
            have the same starts, and a start is as good as it is in the worst of them: what a start answers
            by luck in one task it answers in the others, too, where it is wrong.
        is_partial: whether to learn some of the tasks is better than to learn none; else the worst alone
            counts.
    """

    name: str
    exercises: tuple[Exercise, ...]
    examples: tuple[int, ...]
    seeds: int
    hurdle: float
    early_hurdle: float = -1.0
    best_starts: float = 1.0
    is_partial: bool = False

    def hurdle_at(self, examples: int) -> float:
        """Return the fixed hurdle at a length."""
        return self.hurdle if examples == self.examples[-1] else self.early_hurdle

    def of_best_starts(self, progress: np.ndarray) -> np.ndarray:
        """Return the mean over the starts that count of progress [..., seeds]."""
        count = max(1, round(self.best_starts * self.seeds))
        return np.sort(progress, axis=-1)[..., -count:].mean(-1)

    @cached_property
    def groups(self) -> list[int]:
        """The group of each exercise: those that have their starts in common, as numbers from 0 on.

        Exercises of two values on one graph are a group. One of numbers, which no luck answers, is alone.
        """
        numbers: dict[tuple[int, str], int] = {}
        found: list[int] = []
        for exercise in self.exercises:
            kind = exercise.name if exercise.name in OF_NUMBERS else "of two values"
            found.append(numbers.setdefault((id(exercise.graph), kind), len(numbers)))
        return found

    def score(self, progress: np.ndarray) -> np.ndarray:
        """Return the score of progress in all instances, [..., instances]: that of the worst group, [...]."""
        return self._of_groups(progress, np.min)

    def share(self, progress: np.ndarray) -> np.ndarray:
        """Return how far rules came in the stage, from 0 to 1, of progress in all instances, [...].

        Where the stage is partial, it is half by the worst task of each start, and half by the mean over its
        tasks. A start that answers the same in all tasks, by luck, is wrong in most of them.
        """
        worst = self.score(progress)
        if not self.is_partial:
            return (1 + worst) / 2
        return (1 + (worst + self._of_groups(progress, np.mean)) / 2) / 2

    def _of_groups(self, progress: np.ndarray, over_tasks: Callable[..., np.ndarray]) -> np.ndarray:
        """Return the score of the worst group, where those of a start's tasks become one number, [...]."""
        by_start = progress.reshape(*progress.shape[:-1], len(self.exercises), self.seeds)
        groups = np.array(self.groups)
        scores = []
        for group in range(max(groups) + 1):
            of_starts = over_tasks(by_start[..., groups == group, :], axis=-2)
            scores.append(self.of_best_starts(of_starts))
        return np.min(scores, axis=0)

    @cached_property
    def graphs(self) -> list[Graph]:
        """The graph of each instance: exercises, each with all its seeds."""
        return [exercise.graph for exercise in self.exercises for _ in range(self.seeds)]

    def lessons(self, teaching: Teaching, slots: int, key: Array) -> list[tuple[np.ndarray, Lesson]]:
        """Return the streams of all instances, in parts that one kernel can hold, and whose each part is.

        Parts have instances of one graph, and those of a graph are of one size.

        Args:
            teaching: how rules are taught.
            slots: most slots of the rules.
            key: of tasks and starts.
        """
        graphs = self.graphs
        folded = jax.vmap(jax.random.fold_in, (None, 0))
        instances = jnp.arange(len(graphs))
        # Of the group and the start alone: exercises of a group begin alike.
        starts = jnp.repeat(jnp.array(self.groups), self.seeds) * self.seeds + instances % self.seeds
        keys = folded(key, starts)
        task_keys = folded(jax.random.fold_in(key, _TASKS), instances)
        drawn: list[tuple[np.ndarray, np.ndarray]] = []
        for place, exercise in enumerate(self.exercises):
            own = task_keys[place * self.seeds : (place + 1) * self.seeds]
            x, targets = draw_exercises(exercise.name, self.examples[-1], own)
            drawn.append((np.asarray(x), np.asarray(targets)))
        settings = timing_of(graphs, teaching)
        found: list[tuple[np.ndarray, Lesson]] = []
        for places in self._parts():
            x_parts, target_parts = [], []
            for place in places:
                x, targets = drawn[place // self.seeds]
                x_parts.append(x[:, place % self.seeds])
                target_parts.append(targets[:, place % self.seeds])
            lesson = Lesson(
                union=union_of([graphs[place] for place in places], keys[places], slots),
                x=jnp.asarray(np.concatenate(x_parts, 1)),
                targets=jnp.asarray(np.stack(target_parts, 1)),
                noise=None,
                settings=settings,
            )
            found.append((places, lesson))
        return found

    def _parts(self) -> list[np.ndarray]:
        """Return the places of the instances of each part."""
        by_graph: dict[int, list[int]] = {}
        for place, graph in enumerate(self.graphs):
            by_graph.setdefault(id(graph), []).append(place)
        found: list[np.ndarray] = []
        for places in by_graph.values():
            graph = self.graphs[places[0]]
            room = _MOST_PEERS // (2 * graph.num_edges * int(graph.degree.max()))
            # The largest size that fits and leaves no rest.
            size = max(
                size for size in range(1, len(places) + 1) if len(places) % size == 0 and size <= max(room, 1)
            )
            for first in range(0, len(places), size):
                found.append(np.array(places[first : first + size]))
        return found


def scale_of(lesson: Lesson, examples: int) -> Array:
    """Return the mean squared distance of the best constant answer to the targets of each instance, [G].

    Where the targets are all the same, it is that of a gate which is true as often as not.

    Args:
        lesson: the stream.
        examples: of which the first ones count.
    """
    variance = np.asarray(lesson.targets)[:examples].var(0).mean(1)
    usual = ((TRUE - FALSE) / 2) ** 2
    # Of targets that are all the same, rounding leaves a little.
    varies = variance > _FEELS
    return jnp.asarray(np.where(varies, variance, usual).astype(np.float32))


def progress(genome: Genome, lesson: Lesson, scale: Array, examples: Array) -> Array:
    """Return the progress of a rule in each instance of a lesson, after some examples, [G].

    It is 1 less the mean squared distance to the target over the stream, as a part of what that of the best
    constant answer is: the area under the learning curve. 1 is right from the first example on, 0 as good as
    a constant, and -1 the least. A linear node that knows AND has 2/3; by the distance itself it would be no
    better than the constant 0.

    Args:
        genome: the rule.
        lesson: what it learns.
        scale: from `scale_of`.
        examples: how many.
    """
    distance = distances(genome, lesson, 1.0, examples).mean(1)
    return jnp.clip(1 - distance / scale, -1, 1)

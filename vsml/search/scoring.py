"""Scores of many rules on the same tasks, graphs and starts, so that their differences count."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from vsml.graphs import Graph, generate
from vsml.rules.canonical import canonical
from vsml.rules.program import FULL, Capacity
from vsml.rules.rule import Rule
from vsml.rules.settings import Settings, Teaching
from vsml.search.exercises import Exercise, draw_exercises
from vsml.search.genome import NUMBERS, Genome, genome_of, stack_genomes
from vsml.search.lesson import Lesson
from vsml.search.one_kernel import one_kernel
from vsml.search.stages import progress, scale_of, timing_of
from vsml.search.union import noise_of, union_of
from vsml.tasks.data.small_tasks import NUM_INPUTS
from vsml.types import Array

_BATCH = 64
"""Rules in one call. The last call is filled up, so that nothing is compiled anew; that takes no time."""

_TASK = 0
"""The key of an instance is folded with this for its task."""

_LINEAR = ("and", "or")
"""Tasks that one layer can learn."""


def exercises_of(tasks: Sequence[str], graph: Graph | None = None) -> tuple[Exercise, ...]:
    """Return tasks on graphs.

    Args:
        tasks: names of tasks of `vsml.tasks.data.small_tasks`.
        graph: the graph of all; None: as in the stages of the search, AND and OR have their inputs beside the
            output, and other tasks have theirs behind four nodes.
    """
    found: list[Exercise] = []
    for task in tasks:
        hidden = 0 if task in _LINEAR else 4
        own = generate("layered", NUM_INPUTS, hidden, 1, seed=0) if graph is None else graph
        found.append(Exercise(task, own))
    return tuple(found)


@dataclass(frozen=True)
class Scoring:
    """How rules are scored: by progress, as in the stages of the search.

    Attributes:
        exercises: tasks on graphs, X of them.
        examples: length of each stream.
        seeds: fresh starts of each exercise, at least 2: D.
        settings: timing and teaching, `loss` being `regression`; None: the timing of the stages of the
            search, with the defaults of teaching.
        seed: of all tasks and starts.
    """

    exercises: tuple[Exercise, ...]
    examples: int = 400
    seeds: int = 8
    settings: Settings | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.exercises:
            raise ValueError("exercises: got none, expected at least one task")
        if self.seeds < 2:
            raise ValueError(f"seeds: got {self.seeds}, expected at least 2: a standard error needs them")

    @property
    def names(self) -> list[str]:
        """The name of each exercise, with a number where a task is there twice."""
        tasks = [exercise.name for exercise in self.exercises]
        if len(set(tasks)) == len(tasks):
            return tasks
        return [f"{name} {place}" for place, name in enumerate(tasks, start=1)]

    def lesson(self, capacity: Capacity, draw: int, noise: bool) -> Lesson:
        """Return what rules learn: each exercise with all its starts, D instances of it in a row.

        Args:
            capacity: the room of the rules.
            draw: number of the draw; another one has fresh tasks and starts.
            noise: whether there is noise on the ports.
        """
        graphs = [exercise.graph for exercise in self.exercises for _ in range(self.seeds)]
        own = jax.random.fold_in(jax.random.key(self.seed), draw)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(own, jnp.arange(len(graphs)))
        settings = timing_of(graphs, Teaching()) if self.settings is None else self.settings
        x: list[Array] = []
        targets: list[Array] = []
        for place, exercise in enumerate(self.exercises):
            own_keys = keys[place * self.seeds : (place + 1) * self.seeds]
            of_tasks = jax.vmap(jax.random.fold_in, (0, None))(own_keys, _TASK)
            inputs, goals = draw_exercises(exercise.name, self.examples, of_tasks)
            x.append(inputs.reshape(self.examples, -1))
            targets.append(goals)
        return Lesson(
            union=union_of(graphs, keys, capacity.slots),
            x=jnp.concatenate(x, 1),
            targets=jnp.concatenate(targets, 1),
            noise=noise_of(graphs, keys, self.examples * settings.ticks) if noise else None,
            settings=settings,
        )

    def scores(self, rules: Sequence[Rule], capacity: Capacity, draw: int) -> np.ndarray:
        """Return the progress of rules, [rules, X, D], from -1 to 1.

        It is that of the stages: 1 less the mean squared distance to the target over the stream, as a part of
        that of the best constant answer.

        Args:
            rules: none is larger than the capacity.
            capacity: see `capacity_of`; rules of one capacity share what is compiled.
            draw: as of `lesson`. Rules of one draw meet the same tasks and starts.
        """
        if not rules:
            return np.zeros((0, len(self.exercises), self.seeds))
        noise = any(rule.uses(port) for rule in rules for port in ("node_noise", "edge_noise"))
        lesson = self.lesson(capacity, draw, noise)
        scale = scale_of(lesson, self.examples)
        genomes = [genome_of(rule, capacity) for rule in rules]
        found: list[np.ndarray] = []
        for first in range(0, len(genomes), _BATCH):
            chunk = genomes[first : first + _BATCH]
            filled = chunk + chunk[:1] * (_BATCH - len(chunk))
            is_wanted = jnp.arange(_BATCH) < len(chunk)
            by_instance = _progress_of_all(stack_genomes(filled), is_wanted, lesson, scale)
            found.append(np.asarray(by_instance)[: len(chunk)])
        return np.concatenate(found).reshape(len(rules), len(self.exercises), self.seeds)


def _all_progress(genomes: Genome, is_wanted: Array, lesson: Lesson, scale: Array) -> Array:
    """Return the progress of genomes with a leading axis, [n, G]; 0 for those that are not wanted."""
    examples = jnp.int32(lesson.targets.shape[0])

    def each(given: tuple[Genome, Array]) -> Array:
        genome, wanted = given
        return jax.lax.cond(
            wanted, lambda: progress(genome, lesson, scale, examples), lambda: jnp.zeros_like(scale)
        )

    return jax.lax.map(each, (genomes, is_wanted))


_progress_of_all = one_kernel(_all_progress)


def capacity_of(rule: Rule) -> Capacity:
    """Return room for a rule and for all that is smaller; rules of one room share what is compiled.

    Raises:
        ValueError: the rule is too large for a genome.
    """
    live = canonical(rule)
    FULL.check_holds(live)
    # Genomes have the numbers 0 and 1 always; an edit may need them.
    constants = len(live.constants) + len(NUMBERS)
    return Capacity(
        slots=_at_least(len(live.slots), 4, FULL.slots),
        constants=_at_least(constants, 4, FULL.constants),
        initial=_at_least(len(live.initial), 4, FULL.initial),
        tick=_at_least(live.size, 16, FULL.tick),
    )


def _at_least(size: int, step: int, most: int) -> int:
    """Return the next multiple of a step, from one step on and at most so much."""
    steps = max(1, -(-size // step))
    return min(steps * step, most)


@dataclass(frozen=True)
class Difference:
    """How much better a rule is than another one, on the same tasks and starts.

    Attributes:
        mean: over everything.
        error: standard error of it.
        by_exercise: mean of each exercise, [X].
        errors: their standard errors, [X].
    """

    mean: float
    error: float
    by_exercise: tuple[float, ...]
    errors: tuple[float, ...]

    @property
    def is_no_fall(self) -> bool:
        """Whether no exercise falls by more than one standard error."""
        return all(mean >= -error for mean, error in zip(self.by_exercise, self.errors, strict=True))


def difference(scores: np.ndarray, than: np.ndarray) -> Difference:
    """Return how much better scores are than others, pair by pair.

    Starts are independent: the standard error of an exercise is that of a mean of paired differences, and
    that of the mean over exercises the root of the sum of their squares, by their number.

    Args:
        scores: [X, D].
        than: [X, D], of the same tasks and starts.
    """
    change = scores - than
    means = change.mean(1)
    errors = change.std(1, ddof=1) / np.sqrt(change.shape[1])
    error = float(np.sqrt((errors**2).sum()) / len(errors))
    return Difference(float(means.mean()), error, tuple(means.tolist()), tuple(errors.tolist()))

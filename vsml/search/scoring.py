"""Scores of many rules on the same tasks, graphs and starts, so that their differences count."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from vsml.graphs import Graph, generate
from vsml.rules.canonical import canonical
from vsml.rules.program import FULL, Capacity
from vsml.rules.rule import Rule
from vsml.rules.settings import Settings, Teaching
from vsml.search.genome import NUMBERS, genome_of, stack_genomes
from vsml.search.interpreter import Lesson
from vsml.search.judging import progress_of_all
from vsml.search.stages import Exercise, Stage, scale_of
from vsml.search.union import noise_of
from vsml.tasks.data.small_tasks import NUM_INPUTS

_BATCH = 64
"""Rules in one call. The last call is filled up, so that nothing is compiled anew; that takes no time."""


DEFAULT_TASKS = ("and", "or", "xor")

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
        """Return what rules learn.

        Args:
            capacity: the room of the rules.
            draw: number of the draw; another one has fresh tasks and starts.
            noise: whether there is noise on the ports.
        """
        stage = Stage("scores", self.exercises, (self.examples,), self.seeds, hurdle=-1.0)
        key = jax.random.fold_in(jax.random.key(self.seed), draw)
        lesson = stage.lesson(Teaching(), capacity.slots, key, self.examples)
        settings = lesson.settings if self.settings is None else self.settings
        drawn = None
        if noise:
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(stage.graphs)))
            drawn = noise_of(stage.graphs, keys, self.examples * settings.ticks)
        return replace(lesson, settings=settings, noise=drawn)

    def scores(self, rules: Sequence[Rule], capacity: Capacity, draw: int) -> np.ndarray:
        """Return the progress of rules, [rules, X, D]; see `vsml.search.stages.progress`.

        Args:
            rules: none is larger than the capacity.
            capacity: see `capacity_of`; rules of one capacity share what is compiled.
            draw: as of `lesson`. Rules of one draw meet the same tasks and starts.
        """
        if not rules:
            return np.zeros((0, len(self.exercises), self.seeds))
        noise = any(rule.uses(port) for rule in rules for port in ("node_noise", "edge_noise"))
        lesson = self.lesson(capacity, draw, noise)
        scale = scale_of(lesson)
        genomes = [genome_of(rule, capacity) for rule in rules]
        found: list[np.ndarray] = []
        for first in range(0, len(genomes), _BATCH):
            chunk = genomes[first : first + _BATCH]
            filled = chunk + chunk[:1] * (_BATCH - len(chunk))
            is_wanted = jnp.arange(_BATCH) < len(chunk)
            by_instance = progress_of_all(stack_genomes(filled), is_wanted, lesson, scale)
            found.append(np.asarray(by_instance)[: len(chunk)])
        return np.concatenate(found).reshape(len(rules), len(self.exercises), self.seeds)


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

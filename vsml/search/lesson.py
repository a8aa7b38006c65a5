"""Lessons of the search: streams of examples that a rule learns, on instances of graphs side by side."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from flax import struct

from vsml.rules.settings import Settings
from vsml.search.code import Code, code_of
from vsml.search.genome import Genome
from vsml.search.interpreter import started, ticked
from vsml.search.union import Union
from vsml.types import Array


@struct.dataclass
class Lesson:
    """A stream of examples on instances of graphs. Letters: E examples, G instances.

    Attributes:
        union: the instances.
        x: numbers of the inputs of all instances, one after the other, [E, ...].
        targets: numbers that are right, [E, G, O].
        noise: node_noise and edge_noise of each tick, [E * K, 2, M]; None where rules get none.
        settings: timing and teaching.
    """

    union: Union
    x: Array
    targets: Array
    noise: Array | None
    settings: Settings = struct.field(pytree_node=False)

    def __post_init__(self) -> None:
        settings = self.settings
        for name, refused in (("read", "ready"), ("reset", "all"), ("loss", "classes")):
            if getattr(settings, name) == refused:
                raise ValueError(f"{name}: got {refused}, which a lesson of the search cannot have")


@dataclass(frozen=True)
class Clock:
    """What stands on the ports in each tick.

    Attributes:
        lesson: of which stream.
    """

    lesson: Lesson

    def input(self, x: Array, number: Array) -> Array:
        """Return x and x_on of an example [...] in one of its ticks, [2, M]."""
        union, settings = self.lesson.union, self.lesson.settings
        is_given = (union.input >= 0) & (number < settings.x_ticks)
        values = x.reshape(-1)[jnp.maximum(union.input, 0)]
        dtype = union.graph_values.dtype
        return jnp.stack([jnp.where(is_given, values, 0), is_given.astype(dtype)])

    def stands(self, number: Array) -> Array:
        """Return whether teaching stands in a tick counted from the beginning of its own example."""
        settings = self.lesson.settings
        return (number >= settings.first_teach_tick) & (number < settings.end_of_teaching)

    def ports(self, x: Array, told: Array, before: Array, number: Array, total: Array) -> Array:
        """Return what stands on the ports, [6, M].

        Args:
            x: of the example, [...].
            told: teaching of the example, [4, M].
            before: teaching of the example before.
            number: of the tick in its example.
            total: of the tick in the stream.
        """
        now = jnp.where(self.stands(number), told, 0)
        late = jnp.where(self.stands(number + self.lesson.settings.ticks), before, 0)
        given = jnp.concatenate([self.input(x, number), jnp.zeros_like(now[:2])])
        added = given + now + late
        highest = jnp.maximum(given, jnp.maximum(now, late))
        noise = self.lesson.noise
        of_tick = jnp.zeros_like(now[:2]) if noise is None else noise[total]
        return jnp.concatenate([added[:1], highest[1:2], added[2:3], highest[3:], of_tick])

    def teaching(self, answer: Array, target: Array) -> Array:
        """Return what is told of answers [G, O], [4, M]."""
        union, settings = self.lesson.union, self.lesson.settings
        error = answer - target
        told = {"target": target, "target_as_input": target}.get(settings.teach, error)
        is_answer = union.answer >= 0
        numbers = jnp.where(is_answer, told.reshape(-1)[jnp.maximum(union.answer, 0)], 0)
        switches = is_answer.astype(numbers.dtype)
        everywhere = jnp.ones_like(switches)
        if settings.teach == "none":
            return jnp.zeros((4, union.num_half_edges), numbers.dtype)
        if settings.teach == "broadcast_error":
            hidden = (union.feedback * error[union.instance]).sum(1)
            numbers, switches = jnp.where(is_answer, numbers, hidden), everywhere
        if settings.teach == "reward":
            numbers = (-(error**2).sum(1) / 2)[union.instance]
            switches = everywhere
        if settings.announce:
            switches = everywhere
        nothing = jnp.zeros_like(numbers)
        if settings.teach == "target_as_input":
            return jnp.stack([numbers, switches, nothing, nothing])
        return jnp.stack([nothing, nothing, numbers, switches])


@struct.dataclass
class Course:
    """A rule between two examples of a lesson.

    Attributes:
        rows: all rows, [R, M].
        told: teaching of the example before, [4, M].
        tick: ticks since the beginning, int32 [].
    """

    rows: Array
    told: Array
    tick: Array


def begun(code: Code, lesson: Lesson) -> Course:
    """Return a rule before the first example."""
    rows = started(code, lesson.union)
    told = jnp.zeros((4, lesson.union.num_half_edges), rows.dtype)
    return Course(rows, told, jnp.int32(0))


def example(
    code: Code,
    lesson: Lesson,
    course: Course,
    x: Array,
    target: Array,
) -> tuple[Course, Array]:
    """Run the K ticks of an example; return the rule after it and the answers [G, O].

    Args:
        code: the rule.
        lesson: what it is taught.
        course: the rule before.
        x: numbers of the inputs of all instances [...].
        target: numbers that are right [G, O].
    """
    settings, union, clock = lesson.settings, lesson.union, Clock(lesson)
    rows = _reset(code, settings, course.rows)
    nothing = jnp.zeros_like(course.told)

    def early(number: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        rows, total = state
        ports = clock.ports(x, nothing, course.told, number, course.tick + number)
        rows = ticked(code, union, rows, ports)
        is_read = number > settings.read_tick - reads
        return rows, total + jnp.where(is_read, rows[0][union.read_at], 0)

    reads = settings.read_mean if settings.read == "mean" else 1
    start = (rows, jnp.zeros(union.read_at.shape[0], rows.dtype))
    rows, total = jax.lax.fori_loop(0, settings.read_tick + 1, early, start)
    answer = (total / reads).reshape(target.shape)
    told = clock.teaching(answer, target)

    def late(number: Array, rows: Array) -> Array:
        ports = clock.ports(x, told, course.told, number, course.tick + number)
        return ticked(code, union, rows, ports)

    rows = jax.lax.fori_loop(settings.read_tick + 1, settings.ticks, late, rows)
    return replace(course, rows=rows, told=told, tick=course.tick + settings.ticks), answer


def _reset(code: Code, settings: Settings, rows: Array) -> Array:
    """Return the rows with which an example begins."""
    if settings.reset != "signals":
        return rows
    slots = code.kind.shape[0]
    kept = jnp.where((code.initial >= 0)[:, None], rows[:slots], 0)
    return rows.at[:slots].set(kept)


def answers(genome: Genome, lesson: Lesson) -> tuple[Array, Course]:
    """Return what a genome answers in a lesson, [E, G, O], and the rule after it."""
    code = code_of(genome)

    def step(course: Course, shown: tuple[Array, Array]) -> tuple[Course, Array]:
        return example(code, lesson, course, *shown)

    course, found = jax.lax.scan(step, begun(code, lesson), (lesson.x, lesson.targets))
    return found, course


def distances(genome: Genome, lesson: Lesson, most: float, examples: Array | int | None = None) -> Array:
    """Return the squared distance of answers to targets, at most so much each, mean over examples, [G, O].

    It is added up from example to example: one kernel cannot have every form of a sum over many of them.

    Args:
        genome: the rule.
        lesson: what it learns.
        most: the most that an example counts.
        examples: how many of the first examples it learns, which may be traced; None for all.
    """
    code = code_of(genome)
    count = lesson.targets.shape[0] if examples is None else examples

    def step(number: Array, state: tuple[Course, Array]) -> tuple[Course, Array]:
        course, total = state
        target = lesson.targets[number]
        course, answer = example(code, lesson, course, lesson.x[number], target)
        return course, total + jnp.minimum((answer - target) ** 2, most)

    start = (begun(code, lesson), jnp.zeros_like(lesson.targets[0]))
    _, total = jax.lax.fori_loop(0, count, step, start)
    return total / count

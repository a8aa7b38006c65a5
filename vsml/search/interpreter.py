"""The interpreter of the search: rules in a loop, each instruction a real branch, instances side by side.

It computes what `vsml.rules.Program` and `vsml.rules.Harness` do. Those run one graph and are batched from
outside; here half-edges of all seeds, graphs and tasks are one axis, nothing is scattered, and random draws
are tables that all rules share. So a loop over rules compiles into one kernel.
"""

from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
from flax import struct

from vsml.rules.machine import NUM_KINDS, TICK_OPERATORS, Index, begin, passing, store
from vsml.rules.operators import OPERATORS, Operator, repair
from vsml.rules.program import NUM_GIVEN
from vsml.rules.rule import (
    FIRST_CONSTANT,
    FIRST_INSTRUCTION,
    FIRST_PORT,
    GRAPH_VALUES,
    NODE,
    PORTS,
)
from vsml.rules.settings import Settings
from vsml.search.genome import Genome
from vsml.search.union import DRAW_OPERATORS, MOST_DRAWS, PeerSummary, Union
from vsml.types import Array


@struct.dataclass
class Code:
    """A genome made ready to run: its registers are rows of one array, without gaps.

    Rows are slots, ports, graph values, constants, then instructions.

    Attributes:
        kind: of each slot, int32 [S].
        initial: row of each slot's initialisation, int32 [S].
        value, guard: rows that are stored, int32 [S].
        constants: [C].
        beginning: int32 [I, 4]; operands of draws are slot, call, and whether the slot is a node slot.
        tick: int32 [L, 4].
        sizes: as of `Genome`.
    """

    kind: Array
    initial: Array
    value: Array
    guard: Array
    constants: Array
    beginning: Array
    tick: Array
    sizes: Array

    @property
    def first_constant(self) -> int:
        """The row of the first constant."""
        return self.kind.shape[0] + NUM_GIVEN

    @property
    def first_instruction(self) -> int:
        """The row of the first instruction."""
        return self.first_constant + self.constants.shape[0]

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        longest = max(self.tick.shape[0], self.beginning.shape[0])
        return self.first_instruction + longest


def code_of(genome: Genome) -> Code:
    """Return a genome made ready to run."""
    slots, constants = genome.kind.shape[0], genome.constants.shape[0]

    def row(register: Array) -> Array:
        given = register - FIRST_PORT + slots
        constant = register - FIRST_CONSTANT + slots + NUM_GIVEN
        instruction = register - FIRST_INSTRUCTION + slots + NUM_GIVEN + constants
        found = jnp.where(register < FIRST_CONSTANT, given, constant)
        found = jnp.where(register < FIRST_INSTRUCTION, found, instruction)
        return jnp.where(register < FIRST_PORT, register, found)

    return Code(
        kind=genome.kind,
        initial=row(genome.initial),
        value=row(genome.value),
        guard=row(genome.guard),
        constants=genome.constants,
        beginning=_beginning(genome, row(genome.beginning[:, 1:])),
        tick=genome.tick.at[:, 1:].set(row(genome.tick[:, 1:])),
        sizes=genome.sizes,
    )


def _beginning(genome: Genome, operands: Array) -> Array:
    """Return the instructions of initialisations; draws get slot, call and kind for operands."""
    places = jnp.arange(genome.beginning.shape[0])
    registers = FIRST_INSTRUCTION + places
    # An initialisation is a run of instructions, the last of which is its value.
    ends = jnp.where(genome.initial >= FIRST_INSTRUCTION, genome.initial, jnp.iinfo(jnp.int32).max)
    after = jnp.where(ends >= registers[:, None], ends, jnp.iinfo(jnp.int32).max)
    own = after.min(1)
    slots = jnp.arange(genome.kind.shape[0])
    slot = jnp.where(after == own[:, None], slots, 0).max(1)
    is_draw = genome.beginning[:, 0] >= len(TICK_OPERATORS)
    earlier = (slot[:, None] == slot) & (places[:, None] > places) & is_draw
    call = jnp.minimum(earlier.sum(1), MOST_DRAWS - 1)
    is_node = (genome.kind[slot] == NODE).astype(jnp.int32)
    of_draw = jnp.stack([slot, call, is_node], 1).astype(jnp.int32)
    return genome.beginning.at[:, 1:].set(jnp.where(is_draw[:, None], of_draw, operands))


def apply(
    operator: Operator,
    union: Union,
    rows: Array,
    a: Index,
    b: Index,
    c: Index,
) -> Array:
    """Return the result [M] of an operator of a tick, repaired; see `vsml.rules.machine.apply`."""
    values = [rows[register] for register in (a, b, c)[: operator.operands]]
    if operator.family == "rev":
        return union.rev(values[0])
    assert operator.compute is not None or operator.family == "count"
    if operator.family == "elementwise":
        return repair(operator.compute(*values))  # type: ignore[misc]  # asserted above
    summary = PeerSummary(union)
    if operator.family == "count":
        return summary.count(values[0] > 0, values[0])
    passes = jnp.broadcast_to(passing(lambda register: rows[register], b), values[0].shape)
    return repair(operator.compute(values[0], passes, summary))  # type: ignore[misc]  # asserted above


def _draw(operator: Operator, union: Union, rows: Array, slot: Index, call: Index, is_node: Index) -> Array:
    del rows
    return union.draws[slot, call, is_node, DRAW_OPERATORS.index(operator)]


_TICK = [partial(apply, operator) for operator in TICK_OPERATORS]
_BEGINNING = [*_TICK, *(partial(_draw, operator) for operator in OPERATORS[len(TICK_OPERATORS) :])]


def _run(code: Code, union: Union, rows: Array, program: Array, size: Array, functions: list) -> Array:
    """Return the rows with the results of a program's instructions."""
    branches = [partial(function, union) for function in functions]

    def step(number: Array, rows: Array) -> Array:
        operator, a, b, c = program[number]
        result = jax.lax.switch(operator, branches, rows, a, b, c)
        return rows.at[code.first_instruction + number].set(result.astype(rows.dtype))

    return jax.lax.fori_loop(0, size, step, rows)


def started(code: Code, union: Union) -> Array:
    """Return all rows before the first tick, [R, M]."""
    slots, half_edges = code.kind.shape[0], union.num_half_edges
    dtype = union.graph_values.dtype
    rows = jnp.zeros((code.num_rows, half_edges), dtype)
    first = slots + len(PORTS)
    rows = rows.at[first : first + len(GRAPH_VALUES)].set(union.graph_values)
    constants = repair(code.constants.astype(dtype))
    rows = rows.at[code.first_constant : code.first_instruction].set(
        jnp.broadcast_to(constants[:, None], (len(constants), half_edges))
    )
    rows = _run(code, union, rows, code.beginning, code.sizes[2], _BEGINNING)
    begins = [lambda value, kind=kind: begin(kind, union, value) for kind in range(NUM_KINDS)]  # type: ignore[arg-type]

    def begin_slot(number: Array, memory: Array) -> Array:
        register = code.initial[number]
        value = jax.lax.switch(code.kind[number], begins, rows[jnp.maximum(register, 0)])
        return memory.at[number].set(jnp.where(register >= 0, value, 0))

    memory = jax.lax.fori_loop(0, code.sizes[0], begin_slot, jnp.zeros((slots, half_edges), dtype))
    return rows.at[:slots].set(memory)


def ticked(code: Code, union: Union, rows: Array, ports: Array) -> Array:
    """Return all rows after a tick, [R, M].

    Args:
        code: the rule.
        union: what it runs on.
        rows: before the tick; the first hold the memory.
        ports: what stands on them, [6, M].
    """
    slots = code.kind.shape[0]
    rows = rows.at[slots : slots + len(PORTS)].set(repair(ports))
    rows = _run(code, union, rows, code.tick, code.sizes[3], _TICK)
    stores = [partial(store, kind, union) for kind in range(NUM_KINDS)]  # type: ignore[arg-type]

    def store_slot(number: Array, memory: Array) -> Array:
        value, guard = code.value[number], code.guard[number]
        # Without a store nothing passes, and the old number stays.
        passes = passing(lambda register: rows[register], guard) & (value >= 0)
        passes = jnp.broadcast_to(passes, memory.shape[1:])
        proposal = rows[jnp.maximum(value, 0)]
        return memory.at[number].set(
            jax.lax.switch(code.kind[number], stores, rows[number], proposal, passes)
        )

    memory = jax.lax.fori_loop(0, code.sizes[0], store_slot, rows[:slots])
    return rows.at[:slots].set(memory)


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

"""Rules drawn at random: all of a drawn rule is live."""

from dataclasses import replace
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
from flax import struct

from vsml.rules.rule import FIRST_INSTRUCTION, FIRST_PORT, NO_REGISTER, NODE, PRIVATE
from vsml.search.analysis import pruned
from vsml.search.choices import Chances, seeds_of
from vsml.search.expressions import Expressions
from vsml.search.genome import NOTHING, NUMBERS, Genome, empty_genome
from vsml.search.growing import Growing, placed
from vsml.search.one_kernel import one_kernel
from vsml.search.settings import Drawing, Room
from vsml.search.slots import begin_slot, not_itself, roots_of
from vsml.search.tables import Tables, base_of, tables_of
from vsml.types import Array

MIN_CONSTANT, MAX_CONSTANT = 0.01, 2.0
"""Sizes of constants that are drawn, uniform in their logarithm."""

_NEGATIVE = 0.2
"""Share of drawn constants that are below 0."""


@struct.dataclass
class _Drawn:
    """A rule under construction.

    Attributes:
        turn: of the loop, int32 [].
        number: the operator whose turn it is, int32 [].
        growing: operators so far.
        roots: value and guard of each slot, int32 [S, 2].
        done: slots that have them, as bits, uint32 [].
    """

    turn: Array
    number: Array
    growing: Growing
    roots: Array
    done: Array

    @property
    def next_slot(self) -> Array:
        """The first slot that is read and not done, int32 []."""
        open_slots = self.growing.slots & ~self.done
        places = jnp.arange(self.roots.shape[0], dtype=jnp.uint32)
        is_open = ((open_slots >> places) & 1) > 0
        return jnp.where(is_open, places, FIRST_PORT).min().astype(jnp.int32)

    @property
    def is_going_on(self) -> Array:
        """Whether there is an operator or a slot left."""
        return (self.number < self.growing.count) | ((self.growing.slots & ~self.done) > 0)


def draw_one(
    tables: Tables,
    room: Room,
    seed: Array,
) -> Genome:
    """Draw a rule.

    Args:
        tables: how.
        room: how large it may become.
        seed: of all that is drawn, uint32 [2].
    """
    settings = tables.settings
    chances = Chances(seed)
    of_constants, of_slots, of_steps = (chances.part(number) for number in range(3))
    genome = jax.tree.map(jnp.asarray, empty_genome(room.capacity))
    genome = _with_constants(genome, settings, of_constants)
    genome = _with_slots(genome, tables, of_slots, chances)
    expressions = Expressions(tables, genome)
    least, most = settings.operators
    limit = least + chances.below(most - least + 1)
    base = base_of(tables, chances)
    num_operators = min(settings.operators[1], room.operators)
    growing = Growing.none(num_operators, limit, base).reading(jnp.int32(0))
    roots = jnp.full((room.slots, 2), NO_REGISTER, jnp.int32)

    # Expressions of a slot are drawn once something reads it, from the slot that is read on: so all is live.
    def step(state: _Drawn) -> _Drawn:
        chances = of_steps.part(state.turn)
        is_operator = state.number < state.growing.count
        slot = state.next_slot
        operator, holes = expressions.choose(state.growing.wanted[state.number], chances)
        value, guard = roots_of(tables, genome.kind[slot], chances)
        of_slot = jnp.stack([value, guard, jnp.int32(NOTHING)])
        after = jnp.where(is_operator, state.number, -1)
        # The slot that is read is never a leaf.
        growing = replace(state.growing, base=jnp.where(is_operator | (slot > 0), base, 0.0))
        growing, filled = expressions.fill_all(
            growing, jnp.where(is_operator, holes, of_slot), after, chances
        )
        row = expressions.row(operator, filled, chances)
        written = expressions.written(growing, state.number, row)
        growing = jax.tree.map(partial(jnp.where, is_operator), written, growing)
        pair = jnp.where(is_operator, state.roots[slot], filled[:2])
        bit = jnp.uint32(1) << slot.astype(jnp.uint32)
        return _Drawn(
            turn=state.turn + 1,
            number=state.number + is_operator,
            growing=growing,
            roots=state.roots.at[slot].set(pair),
            done=jnp.where(is_operator, state.done, state.done | bit),
        )

    start = _Drawn(jnp.int32(0), jnp.int32(0), growing, roots, jnp.uint32(0))
    drawn = jax.lax.while_loop(lambda state: state.is_going_on, step, start)
    rows, roots = drawn.growing.turned(drawn.roots)
    roots = placed(roots, jnp.int32(FIRST_INSTRUCTION))
    rows = rows.at[:, 1:].set(placed(rows[:, 1:], jnp.int32(FIRST_INSTRUCTION)))
    rows = jnp.pad(rows, ((0, room.operators - num_operators), (0, 0)), constant_values=NOTHING)
    genome = replace(
        genome,
        value=not_itself(jnp.arange(room.slots), genome.kind, roots[:, 0]),
        guard=roots[:, 1],
        tick=rows,
        sizes=genome.sizes.at[3].set(drawn.growing.count),
    )
    return pruned(genome)


def drawn_constant(chances: Chances) -> Array:
    """Return a constant that may be tuned, []."""
    size = MIN_CONSTANT * (MAX_CONSTANT / MIN_CONSTANT) ** chances.take()
    return jnp.where(chances.happens(_NEGATIVE), -size, size)


def _with_constants(
    genome: Genome,
    settings: Drawing,
    chances: Chances,
) -> Genome:
    """Return a genome with constants that a drawn rule may use."""
    room = genome.constants.shape[0]
    count = min(len(NUMBERS) + settings.constants, room)

    def draw(place: Array, constants: Array) -> Array:
        return constants.at[place].set(drawn_constant(chances.part(place)))

    places = jnp.arange(room)
    return replace(
        genome,
        constants=jax.lax.fori_loop(len(NUMBERS), count, draw, genome.constants),
        tuned=(places >= len(NUMBERS)) & (places < count),
        sizes=genome.sizes.at[1].set(count),
    )


def _with_slots(
    genome: Genome,
    tables: Tables,
    of_slots: Chances,
    chances: Chances,
) -> Genome:
    """Return a genome with slots of drawn kinds and initialisations."""
    least, most = tables.settings.slots
    count = jnp.minimum(least + chances.below(most - least + 1), genome.kind.shape[0])

    def begin(slot: Array, genome: Genome) -> Genome:
        chances = of_slots.part(slot)
        drawn = chances.one_of(tables.kinds)
        # The first is read, and the second can be seen from the other end.
        kind = jnp.where(slot == 0, NODE, jnp.where(slot == 1, PRIVATE, drawn))
        genome = replace(genome, kind=genome.kind.at[slot].set(kind))
        return begin_slot(tables, genome, slot, chances.one_of(tables.initials))

    genome = replace(genome, sizes=genome.sizes.at[0].set(count))
    return jax.lax.fori_loop(0, count, begin, genome)


def draw_genomes(
    settings: Drawing,
    room: Room,
    key: Array,
    count: int,
) -> Genome:
    """Draw rules, with a leading axis; each depends on the key and its number alone.

    Args:
        settings: how.
        room: how large they may become.
        key: of all that is drawn.
        count: how many.
    """
    return _draw(settings, room)(key, count)


@lru_cache(maxsize=32)
def _draw(settings: Drawing, room: Room):  # type: ignore[no-untyped-def]  # a jit-ed function
    tables = tables_of(settings)
    draw_all = one_kernel(lambda seeds: jax.lax.map(lambda seed: draw_one(tables, room, seed), seeds))
    return jax.jit(lambda key, count: draw_all(seeds_of(key, count)), static_argnums=1)

"""What can be said of a genome without running it: types, what is live, what it depends on, and a key.

Everything is for one genome. Loops are over filled places only, and nothing is scattered, so that
`one_kernel` can compile a loop over many genomes into one kernel.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from vsml.rules.operators import OPCODE
from vsml.rules.rule import (
    EDGE_TYPE,
    FIRST_CONSTANT,
    FIRST_GRAPH_VALUE,
    FIRST_INSTRUCTION,
    FIRST_PORT,
    FLOAT_TYPE,
    GRAPH_VALUES,
    NAMED_TYPES,
    NODE,
    NODE_TYPE,
    PORTS,
    PRIVATE,
)
from vsml.search.choices import both_lanes, mixed
from vsml.search.genome import IS_NODE_VALUED, IS_REV, NOTHING, Genome
from vsml.types import Array

_GIVEN_TYPES = np.array([NAMED_TYPES[name] for name in (*PORTS, *GRAPH_VALUES)], np.int32)

_COMMUTES = np.zeros(len(IS_REV), bool)
_COMMUTES[[OPCODE[name] for name in ("add", "mul", "minimum", "maximum")]] = True


def port_bit(name: str) -> int:
    """Return the bit of a port in a mask of what is read."""
    return 1 << (FIRST_PORT + PORTS.index(name))


def types_of(genome: Genome) -> Array:
    """Return the type of every register, int32 [50 + L]."""
    slot_types = jnp.where(genome.kind == NODE, NODE_TYPE, EDGE_TYPE)
    # Registers of slots that there is no room for are never read.
    unused = jnp.zeros(FIRST_PORT - genome.kind.shape[0], jnp.int32)
    constants = jnp.full(FIRST_INSTRUCTION - FIRST_CONSTANT, FLOAT_TYPE, jnp.int32)
    results = jnp.zeros(genome.tick.shape[0], jnp.int32)
    types = jnp.concatenate([slot_types, unused, jnp.asarray(_GIVEN_TYPES), constants, results])
    node_valued, is_rev = jnp.asarray(IS_NODE_VALUED), jnp.asarray(IS_REV)

    def step(number: Array, types: Array) -> Array:
        operator, *operands = genome.tick[number]
        highest = jnp.int32(FLOAT_TYPE)
        for operand in operands:
            of_operand = jnp.where(operand < 0, FLOAT_TYPE, types[jnp.maximum(operand, 0)])
            highest = jnp.maximum(highest, of_operand)
        result = jnp.where(node_valued[operator], NODE_TYPE, highest)
        result = jnp.where(is_rev[operator], EDGE_TYPE, result)
        return types.at[FIRST_INSTRUCTION + number].set(result)

    return jax.lax.fori_loop(0, genome.num_tick, step, types)


def is_valid(genome: Genome) -> Array:
    """Return whether the language allows a genome, bool []; its sizes are within its capacity.

    What a genome of `Genome`'s form can break is: a node slot that gets an edge value, `rev` of anything but
    a private edge slot, and a read slot that is no node slot.
    """
    types = types_of(genome)
    is_private = genome.kind == PRIVATE
    is_rev = jnp.asarray(IS_REV)

    def check(number: Array, fine: Array) -> Array:
        operator, operand = genome.tick[number, 0], genome.tick[number, 1]
        slot = jnp.minimum(operand, len(is_private) - 1)
        reads_private = (operand < FIRST_PORT) & is_private[slot]
        return fine & (reads_private | ~is_rev[operator])

    fine = jax.lax.fori_loop(0, genome.num_tick, check, genome.kind[0] == NODE)
    for registers in (genome.value, genome.guard):
        stored = jnp.where(registers < 0, FLOAT_TYPE, types[jnp.maximum(registers, 0)])
        fine &= ((genome.kind != NODE) | (stored <= NODE_TYPE)).all()
    return fine


@struct.dataclass
class Live:
    """What of a genome counts: all that the read slot depends on.

    Attributes:
        reads: what the read slot depends on, as bits by register: slots, ports, graph values, uint32 [].
        slots: which slots are live, bool [S].
        tick: which instructions of a tick are, bool [L].
        beginning: which instructions of initialisations are, bool [I].
        remembers: which slots keep something: they have a guard or depend on themselves, bool [S].
    """

    reads: Array
    slots: Array
    tick: Array
    beginning: Array
    remembers: Array


def live_of(genome: Genome) -> Live:
    """Return what of a genome counts."""
    num_slots = genome.kind.shape[0]
    below = _bits_below(genome)
    stored = below[jnp.maximum(genome.value, 0)]
    guarded = below[jnp.maximum(genome.guard, 0)]
    own = jnp.where(genome.value >= 0, stored, jnp.uint32(0))
    own |= jnp.where(genome.guard >= 0, guarded, jnp.uint32(0))
    reach = _closure(own, genome.num_slots)
    bits = jnp.uint32(1) << jnp.arange(num_slots, dtype=jnp.uint32)
    reads = reach[0] | jnp.uint32(1)
    slots = (reads & bits) > 0
    remembers = slots & ((genome.guard >= 0) | ((reach & bits) > 0))
    roots = [jnp.where(slots, registers, NOTHING) for registers in (genome.value, genome.guard)]
    return Live(
        reads=reads,
        slots=slots,
        tick=_needed(genome.tick, genome.num_tick, jnp.concatenate(roots)),
        beginning=_needed(genome.beginning, genome.num_beginning, jnp.where(slots, genome.initial, NOTHING)),
        remembers=remembers,
    )


def _bits_below(genome: Genome) -> Array:
    """Return for every register the slots, ports and graph values it is computed from, uint32 [50 + L]."""
    leaves = jnp.uint32(1) << jnp.arange(FIRST_CONSTANT, dtype=jnp.uint32)
    rest = jnp.zeros(FIRST_INSTRUCTION - FIRST_CONSTANT + genome.tick.shape[0], jnp.uint32)

    def step(number: Array, bits: Array) -> Array:
        found = jnp.uint32(0)
        for operand in genome.tick[number, 1:]:
            found |= jnp.where(operand < 0, jnp.uint32(0), bits[jnp.maximum(operand, 0)])
        return bits.at[FIRST_INSTRUCTION + number].set(found)

    return jax.lax.fori_loop(0, genome.num_tick, step, jnp.concatenate([leaves, rest]))


def _closure(own: Array, num_slots: Array) -> Array:
    """Return all that slots depend on, over any number of ticks, from what they do in one, uint32 [S]."""

    # Warshall's algorithm: after round k, paths through the slots up to k are known.
    def through(middle: Array, reach: Array) -> Array:
        is_read = ((reach >> middle.astype(jnp.uint32)) & 1) > 0
        return jnp.where(is_read, reach | reach[middle], reach)

    return jax.lax.fori_loop(0, num_slots, through, own)


def _needed(program: Array, size: Array, roots: Array) -> Array:
    """Return which instructions of a program [n, 4] the values of some registers need, bool [n]."""
    # One more place, for operands that are no instruction.
    nowhere = program.shape[0]

    def mark(register: Array, needed: Array) -> Array:
        place = jnp.where(register >= FIRST_INSTRUCTION, register - FIRST_INSTRUCTION, nowhere)
        return needed.at[place].set(True)

    needed = jnp.zeros(nowhere + 1, bool)
    needed = jax.lax.fori_loop(0, roots.shape[0], lambda place, found: mark(roots[place], found), needed)

    def step(back: Array, needed: Array) -> Array:
        number = size - 1 - back
        for operand in program[number, 1:]:
            needed = mark(jnp.where(needed[number], operand, NOTHING), needed)
        return needed

    return jax.lax.fori_loop(0, size, step, needed)[:nowhere]


def pruned(genome: Genome) -> Genome:
    """Return a genome without what is not live, filled places first, in their order.

    Constants stay, used or not: they are a pool that mutations draw from.
    """
    live = live_of(genome)
    num_slots = genome.kind.shape[0]
    places = jnp.arange(FIRST_INSTRUCTION + genome.tick.shape[0], dtype=jnp.int32)
    sources, slot_places, slot_count = _compaction(live.slots, genome.num_slots)
    moved = places.at[:num_slots].set(slot_places)
    tick, moved, tick_count = _compacted(genome.tick, live.tick, genome.num_tick, moved)
    starts = jnp.arange(FIRST_INSTRUCTION + genome.beginning.shape[0], dtype=jnp.int32)
    beginning, starts, beginning_count = _compacted(
        genome.beginning, live.beginning, genome.num_beginning, starts
    )
    is_there = jnp.arange(num_slots) < slot_count

    def slots(values: Array, registers: Array | None = None) -> Array:
        taken = values[sources]
        if registers is not None:
            taken = jnp.where(taken < 0, taken, registers[jnp.maximum(taken, 0)])
        return jnp.where(is_there, taken, NOTHING)

    return replace(
        genome,
        kind=slots(genome.kind),
        initial=slots(genome.initial, starts),
        value=slots(genome.value, moved),
        guard=slots(genome.guard, moved),
        beginning=beginning,
        tick=tick,
        sizes=jnp.stack([slot_count, genome.num_constants, beginning_count, tick_count]),
    )


def _compaction(keep: Array, size: Array) -> tuple[Array, Array, Array]:
    """Return which old place each new one takes, the new place of each old one, and how many are kept."""
    nowhere = jnp.zeros(keep.shape[0], jnp.int32)

    def step(
        old: Array,
        found: tuple[Array, Array, Array],
    ) -> tuple[Array, Array, Array]:
        sources, places, count = found
        # What is not kept is overwritten by the next one that is.
        at = jnp.minimum(count, keep.shape[0] - 1)
        sources = jnp.where(keep[old], sources.at[at].set(old), sources)
        return sources, places.at[old].set(count), count + keep[old]

    return jax.lax.fori_loop(0, size, step, (nowhere, nowhere, jnp.int32(0)))


def _compacted(
    program: Array,
    keep: Array,
    size: Array,
    moved: Array,
) -> tuple[Array, Array, Array]:
    """Return the kept instructions of a program, new registers by old ones, and how many are kept.

    Args:
        program: int32 [n, 4].
        keep: which instructions are kept, bool [n].
        size: how many instructions there are.
        moved: new registers by old ones, those of instructions still the old ones.
    """
    sources, places, count = _compaction(keep, size)
    moved = moved.at[FIRST_INSTRUCTION:].set(FIRST_INSTRUCTION + places)
    rows = program[sources]
    operands = rows[:, 1:]
    operands = jnp.where(operands < 0, operands, moved[jnp.maximum(operands, 0)])
    is_there = jnp.arange(program.shape[0]) < count
    rows = jnp.where(is_there[:, None], rows.at[:, 1:].set(operands), NOTHING)
    return rows, moved, count


# A key of what a genome computes. Two lanes of 32 bits each: 64-bit integers are switched off in JAX.


def structural_key(genome: Genome) -> Array:
    """Return a key of what a genome computes, uint32 [2]: equal for equal rules, else different, mostly.

    It does not depend on names, dead code, the order of slots and instructions, code that is written twice,
    or the order of operands of + * minimum maximum. Slots are told apart by what they store, as states of an
    automaton are by refinement. `rule_hash` is the exact hash, and takes a millisecond.
    """
    live = live_of(genome)
    starts = _program_keys(genome, genome.beginning, genome.num_beginning, jnp.zeros((16, 2), jnp.uint32))
    of_initial = jnp.where(
        (genome.initial >= 0)[:, None], starts[jnp.maximum(genome.initial, 0)], jnp.uint32(1)
    )
    own = jax.vmap(mixed)(of_initial, jax.vmap(both_lanes)(genome.kind))
    padding = ((0, FIRST_PORT - genome.kind.shape[0]), (0, 0))

    def refine(number: Array, slots: Array) -> Array:
        del number
        registers = _program_keys(genome, genome.tick, genome.num_tick, jnp.pad(slots, padding))
        keys = own
        for root in (genome.value, genome.guard):
            stored = jnp.where((root >= 0)[:, None], registers[jnp.maximum(root, 0)], jnp.uint32(2))
            keys = jax.vmap(mixed)(keys, stored)
        return keys

    # A difference between two slots shows after as many rounds as there are slots, at the latest.
    slots = jax.lax.fori_loop(0, genome.num_slots, refine, own)
    total = jnp.where(live.slots[:, None], slots, jnp.uint32(0)).sum(0)
    # Slots that store the same and begin with draws of their own are told from one slot by their number.
    return mixed(mixed(slots[0], total), both_lanes(live.slots.sum()))


def _program_keys(
    genome: Genome,
    program: Array,
    size: Array,
    slots: Array,
) -> Array:
    """Return the key of every register of a program, uint32 [50 + n, 2], from those of the slots [16, 2]."""
    given = jnp.arange(FIRST_PORT, FIRST_CONSTANT, dtype=jnp.uint32)
    numbers = jax.lax.bitcast_convert_type(genome.constants, jnp.uint32) + genome.tuned
    leaves = jnp.concatenate([given, numbers])
    started = jax.vmap(mixed)(jnp.full((leaves.shape[0], 2), 7, jnp.uint32), jax.vmap(both_lanes)(leaves))
    rest = FIRST_INSTRUCTION + program.shape[0] - FIRST_GRAPH_VALUE - len(GRAPH_VALUES)
    keys = jnp.concatenate([slots, started, jnp.zeros((rest - genome.constants.shape[0], 2), jnp.uint32)])
    commutes = jnp.asarray(_COMMUTES)

    def step(number: Array, keys: Array) -> Array:
        operator, *operands = program[number]
        parts = []
        for operand in operands:
            parts.append(jnp.where(operand < 0, jnp.uint32(3), keys[jnp.maximum(operand, 0)]))
        first, second, third = parts
        ordered = mixed(mixed(jnp.full(2, 11, jnp.uint32), first), second)
        in_any_order = mixed(jnp.full(2, 13, jnp.uint32), first + second)
        key = jnp.where(commutes[operator], in_any_order, ordered)
        key = mixed(mixed(key, third), both_lanes(operator))
        return keys.at[FIRST_INSTRUCTION + number].set(key)

    return jax.lax.fori_loop(0, size, step, keys)

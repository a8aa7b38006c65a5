"""A genome made ready to run: what its registers are among the rows of the interpreter."""

import jax.numpy as jnp
from flax import struct

from vsml.rules.machine import TICK_OPERATORS
from vsml.rules.program import NUM_GIVEN
from vsml.rules.rule import FIRST_CONSTANT, FIRST_INSTRUCTION, FIRST_PORT, NODE
from vsml.search.genome import Genome
from vsml.search.union import MOST_DRAWS
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

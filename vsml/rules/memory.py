"""Memory of a rule: one array that runs, and numbers by the names of slots."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np

from vsml.graphs.arrays import GraphArrays
from vsml.rules.rule import NODE, Rule
from vsml.types import Array


def memory_of(
    rule: Rule,
    graph: GraphArrays,
    slots: Mapping[str, Array | np.ndarray],
    num_slots: int | None = None,
) -> Array:
    """Return memory [S, H] that holds given numbers.

    Args:
        rule: whose slots they are.
        graph: the graph; padded places get 0.
        slots: for every slot of the rule its numbers: of a node slot one for each real node, of any other
            kind one for each real half-edge.
        num_slots: S, at least as many as the rule has; by default as many.

    Raises:
        ValueError: a slot is missing or has more numbers than there are places.
    """
    rows: list[Array] = []
    for slot in rule.slots:
        if slot.name not in slots:
            raise ValueError(f"slots: got none named {slot.name}, expected numbers for every slot")
        numbers = jnp.asarray(slots[slot.name])
        if slot.kind == NODE:
            rows.append(graph.to_half_edges(_padded(slot.name, numbers, graph.num_nodes)))
        else:
            rows.append(_padded(slot.name, numbers, graph.num_half_edges))
    memory = jnp.stack(rows)
    unused = (num_slots or len(rows)) - len(rows)
    return jnp.pad(memory, ((0, unused), (0, 0)))


def slots_of(
    rule: Rule,
    graph: GraphArrays,
    memory: Array,
) -> dict[str, Array]:
    """Return what each slot holds, by name: [N] of node slots, [H] of others, padded places included."""
    found: dict[str, Array] = {}
    for number, slot in enumerate(rule.slots):
        values = memory[number]
        found[slot.name] = graph.to_nodes(values) if slot.kind == NODE else values
    return found


def _padded(
    name: str,
    numbers: Array,
    size: int,
) -> Array:
    if numbers.ndim != 1 or len(numbers) > size:
        raise ValueError(f"slot {name}: got numbers of shape {numbers.shape}, expected at most ({size},)")
    return jnp.pad(numbers, (0, size - len(numbers)))

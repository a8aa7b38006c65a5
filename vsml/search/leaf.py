"""Leaves of expressions: slots, ports, graph values and constants."""

from dataclasses import dataclass

import jax.numpy as jnp

from vsml.rules.rule import EDGE_TYPE, FLOAT_TYPE, NODE
from vsml.search.choices import Chances
from vsml.search.genome import ONE, Genome
from vsml.search.growing import REV, TRUTH_OF_EDGE, TRUTH_OF_NODE
from vsml.search.tables import EDGE_LEAVES, NODE_LEAVES, Tables, register_of
from vsml.types import Array

_TRUTHS = [register_of(name) for name in ("x_on", "t_on", "incoming", "outgoing")]


@dataclass(frozen=True)
class Leaf:
    """Draws leaves for one genome.

    Attributes:
        tables: how.
        genome: of whose slots and constants.
    """

    tables: Tables
    genome: Genome

    def draw(self, wanted: Array, chances: Chances) -> Array:
        """Return the register of a leaf of a type."""
        truths = jnp.array(_TRUTHS)
        of_nodes = jnp.array([register_of(name) for name in (*NODE_LEAVES, "x")])
        of_edges = jnp.array([register_of(name) for name in (*EDGE_LEAVES, "incoming")])
        is_edge = (wanted == EDGE_TYPE) | (wanted == REV)
        is_node_slot = self.genome.kind == NODE
        mask = jnp.where(is_edge, self.genome.kind > NODE, is_node_slot)
        slot, is_there = chances.where(mask)
        node_place = chances.one_of(self.tables.node_leaves)
        edge_place = chances.one_of(self.tables.edge_leaves)
        takes_slot = jnp.where(is_edge, edge_place == len(EDGE_LEAVES), node_place == len(NODE_LEAVES))
        given = jnp.where(is_edge, of_edges[edge_place], of_nodes[node_place])
        found = jnp.where(takes_slot & is_there, slot, given)
        number = chances.take()
        # Any constant but 0.
        constant = ONE + jnp.floor(number * (self.genome.num_constants - 1)).astype(jnp.int32)
        found = jnp.where(wanted == FLOAT_TYPE, constant, found)
        truth = truths[jnp.floor(number * jnp.where(wanted == TRUTH_OF_EDGE, 4, 2)).astype(jnp.int32)]
        is_truth = (wanted == TRUTH_OF_NODE) | (wanted == TRUTH_OF_EDGE)
        return jnp.where(is_truth, truth, found).astype(jnp.int32)

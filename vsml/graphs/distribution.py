"""Distributions of graphs: many are drawn on the host once, and each episode gets one of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from flax import struct

from vsml.graphs.arrays import Bucket, GraphArrays, stack
from vsml.graphs.generators import generate
from vsml.graphs.graph import Graph
from vsml.types import Array


@dataclass(frozen=True)
class GraphKind:
    """A kind of graph with sizes to choose from.

    Attributes:
        kind: as `generate` takes it.
        num_hidden: the least and the largest number of hidden nodes; each between them is as likely.
        parameters: of the kind.
        weight: how often it is drawn, beside the weights of other kinds.
    """

    kind: str
    num_hidden: tuple[int, int]
    parameters: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    weight: float = 1.0

    def __post_init__(self) -> None:
        least, largest = self.num_hidden
        if not 0 <= least <= largest:
            raise ValueError(f"num_hidden: got {self.num_hidden}, expected the least and the largest number")
        if not self.weight > 0:
            raise ValueError(f"weight: got {self.weight}, expected a number above 0")


@struct.dataclass
class GraphPool:
    """Graphs of one bucket on the device, one of which is drawn for each episode.

    Attributes:
        arrays: with a leading axis G.
    """

    arrays: GraphArrays

    @property
    def size(self) -> int:
        """G."""
        return self.arrays.node.shape[0]

    def get(self, number: Array | int) -> GraphArrays:
        """Return the graph of a number, which may be traced."""
        return jax.tree.map(lambda array: array[number], self.arrays)

    def draw(self, key: Array) -> GraphArrays:
        """Draw a graph, each as likely."""
        return self.get(jax.random.randint(key, (), 0, self.size))


@dataclass(frozen=True)
class GraphDistribution:
    """Graphs of several kinds and sizes with the same inputs and outputs.

    Attributes:
        kinds: what is drawn from, by weight.
        num_inputs: of every graph.
        num_outputs: of every graph.
        seed: of the draws.
    """

    kinds: Sequence[GraphKind]
    num_inputs: int
    num_outputs: int
    seed: int = 0

    def draw(self, number: int) -> Graph:
        """Return the graph of a number; the same number gives the same graph."""
        random = np.random.default_rng([self.seed, number])
        weights = np.array([kind.weight for kind in self.kinds])
        kind = self.kinds[random.choice(len(self.kinds), p=weights / weights.sum())]
        least, largest = kind.num_hidden
        num_hidden = int(random.integers(least, largest + 1))
        seed = int(random.integers(2**31))
        return generate(kind.kind, self.num_inputs, num_hidden, self.num_outputs, seed, **kind.parameters)

    def draw_all(self, count: int) -> list[Graph]:
        """Return the graphs of numbers 0 to count - 1."""
        return [self.draw(number) for number in range(count)]

    def pool(
        self,
        count: int,
        bucket: Bucket | None = None,
    ) -> GraphPool:
        """Return graphs of numbers 0 to count - 1 on the device, padded to a bucket; see `stack`."""
        return GraphPool(stack(self.draw_all(count), bucket))

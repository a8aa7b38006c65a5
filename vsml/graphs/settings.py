"""Settings of graphs that episodes are on: kinds, sizes and how many."""

import difflib
from collections.abc import Iterator
from typing import Annotated, Self

from pydantic import Field, model_validator

from vsml.graphs.distribution import GraphDistribution, GraphKind
from vsml.graphs.generators import KINDS
from vsml.graphs.graph import Graph
from vsml.settings import Int, Plugin, Positive, Problem, Section, refuse

HiddenNodes = Annotated[tuple[Annotated[Int, Field(ge=0)], ...], Field(min_length=1, max_length=2)]
"""A number of hidden nodes, or the least and the largest one."""


class GraphsConfig(Section):
    """Graphs, drawn once; every fresh state is on one of them."""

    kinds: Annotated[tuple[Plugin, ...], Field(min_length=1)] = Field(
        default=(Plugin(type="waxman"),),
        description="kinds of graphs, each as likely, each a name or the mapping below",
    )
    hidden: HiddenNodes = Field(
        default=(32,),
        description="nodes that are neither inputs nor outputs: a number, or the least and the largest one",
    )
    count: Positive = Field(default=1, description="how many graphs are drawn")
    seed: Annotated[Int, Field(ge=0, lt=2**31)] = Field(default=0, description="seed of the draws")

    @model_validator(mode="after")
    def _check(self) -> Self:
        refuse(self._problems())
        return self

    def _problems(self) -> Iterator[Problem]:
        """Yield kinds that there are not, and sizes in the wrong order."""
        for number, kind in enumerate(self.kinds):
            if kind.type not in KINDS:
                close = difflib.get_close_matches(kind.type, KINDS, 1)
                meant = f"; did you mean {close[0]}?" if close else ""
                expected = f"one of {', '.join(KINDS)}{meant}"
                yield Problem(f"kinds.{number}.type", kind.type, expected)
        # A subclass may leave it open.
        if self.hidden is not None and self.hidden[0] > self.hidden[-1]:
            yield Problem("hidden", self.hidden, "the least number first")

    def draw(self, inputs: int, outputs: int) -> tuple[Graph, ...]:
        """Draw the graphs, the same ones for the same settings.

        Args:
            inputs: how many nodes are inputs.
            outputs: how many nodes are outputs.

        Raises:
            ValueError: a kind does not take a size or a parameter.
        """
        sizes = (self.hidden[0], self.hidden[-1])
        kinds = [GraphKind(kind.type, sizes, dict(kind.options)) for kind in self.kinds]
        distribution = GraphDistribution(kinds, inputs, outputs, self.seed)
        return tuple(distribution.draw_all(self.count))

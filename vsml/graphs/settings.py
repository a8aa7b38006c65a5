"""Settings of graphs that episodes are on: kinds, sizes and how many."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from vsml.graphs.distribution import GraphDistribution, GraphKind
from vsml.graphs.generators import KINDS
from vsml.graphs.graph import Graph
from vsml.settings import Int, Positive, Problem, Section, Text, refuse


class GraphsConfig(Section):
    """Graphs, drawn once; every fresh state is on one of them."""

    kinds: Annotated[tuple[Text, ...], Field(min_length=1)] = Field(
        default=("waxman",), description="kinds of graphs, each as likely"
    )
    hidden: Annotated[tuple[Annotated[Int, Field(ge=0)], ...], Field(min_length=1, max_length=2)] = Field(
        default=(32,),
        description="nodes that are neither inputs nor outputs: a number, or the least and the largest one",
    )
    count: Positive = Field(default=1, description="how many graphs are drawn")
    seed: Annotated[Int, Field(ge=0, lt=2**31)] = Field(default=0, description="seed of the draws")
    parameters: Mapping[Text, Mapping[Text, Any]] = Field(
        default={}, description="parameters of kinds that differ from their defaults: {waxman: {alpha: 0.2}}"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        refuse(self._problems())
        return self

    def _problems(self) -> "list[Problem]":
        known = ", ".join(KINDS)
        problems = []
        for kind in self.kinds:
            if kind not in KINDS:
                problems.append(Problem("kinds", kind, f"kinds of {known}"))
        for kind in self.parameters:
            if kind not in self.kinds:
                expected = f"kinds that are drawn: {', '.join(self.kinds)}"
                problems.append(Problem("parameters", kind, expected, ("kinds",)))
        if self.hidden[0] > self.hidden[-1]:
            problems.append(Problem("hidden", self.hidden, "the least number first"))
        return problems

    def draw(self, inputs: int, outputs: int) -> tuple[Graph, ...]:
        """Draw the graphs, the same ones for the same settings.

        Args:
            inputs: how many nodes are inputs.
            outputs: how many nodes are outputs.

        Raises:
            ValueError: a kind does not take a size or a parameter.
        """
        sizes = (self.hidden[0], self.hidden[-1])
        kinds = [GraphKind(kind, sizes, self.parameters.get(kind, {})) for kind in self.kinds]
        distribution = GraphDistribution(kinds, inputs, outputs, self.seed)
        return tuple(distribution.draw_all(self.count))

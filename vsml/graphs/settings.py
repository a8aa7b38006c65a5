"""Settings of graphs that episodes are on: kinds, sizes and how many."""

import itertools
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from vsml.graphs.generators import KINDS, generate
from vsml.graphs.graph import Graph
from vsml.settings import Int, Positive, Problem, Section, Text, refuse


class GraphsConfig(Section):
    """Graphs, drawn once; every fresh state is on one of them."""

    kinds: Annotated[tuple[Text, ...], Field(min_length=1)] = Field(
        default=("waxman",), description="kinds of graphs: each in turn, with each of the sizes"
    )
    hidden: Annotated[tuple[Annotated[Int, Field(ge=0)], ...], Field(min_length=1)] = Field(
        default=(32,), description="nodes that are neither inputs nor outputs: sizes"
    )
    count: Positive | None = Field(
        default=None, description="how many graphs; null: one of each kind and size"
    )
    seed: Annotated[Int, Field(ge=0, lt=2**31)] = Field(
        default=0, description="seed of the first graph; each further one has the next"
    )
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
        return problems

    def draw(self, inputs: int, outputs: int) -> tuple[Graph, ...]:
        """Draw the graphs, the same ones for the same settings.

        Args:
            inputs: how many nodes are inputs.
            outputs: how many nodes are outputs.

        Raises:
            ValueError: a kind does not take a size or a parameter.
        """
        sorts = list(itertools.product(self.kinds, self.hidden))
        count = len(sorts) if self.count is None else self.count
        graphs = []
        for number, (kind, hidden) in enumerate(itertools.islice(itertools.cycle(sorts), count)):
            own = dict(self.parameters.get(kind, {}))
            graphs.append(generate(kind, inputs, hidden, outputs, self.seed + number, **own))
        return tuple(graphs)

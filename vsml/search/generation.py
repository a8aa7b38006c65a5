"""What a generation of a search has brought: rules, elites and events."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vsml.search.elites import Elite
from vsml.search.genome import Genome
from vsml.search.judge import Survivor

PROPOSED = "proposed"
"""How a rule from outside was made."""


@dataclass(frozen=True, eq=False)
class Bred:
    """A rule that a generation has found, and where it is from.

    Attributes:
        survivor: the rule and how far it came.
        island: where it was found.
        parent: what it was made from; None for a drawn one and for a proposal.
        change: what was changed, or how it was made.
    """

    survivor: Survivor
    island: int
    parent: Genome | None
    change: str


@dataclass(frozen=True)
class Happened:
    """Something that happened to an island.

    Attributes:
        kind: "restart", "migration", "proposal" or "solved".
        island: which.
        detail: more, ready for JSON.
    """

    kind: str
    island: int
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Generation:
    """What a generation has brought.

    Attributes:
        number: counted from 1.
        bred: new rules that passed S1.
        elites: elites whose cell or scores have changed, by island.
        events: what happened.
    """

    number: int
    bred: list[Bred]
    elites: list[tuple[int, Elite]]
    events: list[Happened]

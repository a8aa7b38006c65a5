"""Growth: learners whose network can get more nodes in the middle of an episode."""

from typing import Protocol, runtime_checkable

from vsml.learners.base import Learner
from vsml.types import Array, Params, State


@runtime_checkable
class Grows(Protocol):
    """A learner whose network can grow: what it knew stays, what it can learn grows."""

    def growth_refusal(self) -> str | None:
        """Return why it cannot grow with its settings, None where it can."""

    def grown(self, nodes: int) -> Learner:
        """Return the learner with so many more nodes; it has the same meta-parameters."""

    def grown_state(
        self,
        params: Params,
        state: State,
        nodes: int,
        key: Array,
    ) -> State:
        """Return the state with which the grown learner goes on.

        Args:
            params: meta-parameters.
            state: of this learner, before it grows.
            nodes: how many are added.
            key: of the draws for what is new.
        """

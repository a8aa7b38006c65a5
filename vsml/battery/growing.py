"""Growth in the middle of a stream, as an event of a test."""

from dataclasses import dataclass

from vsml.learners import Learner
from vsml.learners.growth import Grows
from vsml.types import Array, Params, State


@dataclass(frozen=True)
class Growth:
    """An event in which a learner's network gets more nodes; see `vsml.learners.growth`.

    Attributes:
        step: before which it happens.
        nodes: how many are added.
    """

    step: int
    nodes: int

    def refusal(self, learner: Learner) -> str | None:
        """Return why a learner cannot grow."""
        if isinstance(learner, Grows):
            return learner.growth_refusal()
        return f"{type(learner).__name__} cannot grow"

    def learner_after(self, learner: Learner) -> Learner:
        """Return the learner with more nodes."""
        assert isinstance(learner, Grows)
        return learner.grown(self.nodes)

    def state_after(self, learner: Learner, params: Params, state: State, key: Array) -> State:
        """Return the state with which it goes on."""
        assert isinstance(learner, Grows)
        return learner.grown_state(params, state, self.nodes, key)

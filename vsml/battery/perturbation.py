"""A lesion: part of a learner's memory is lost before a step of an episode."""

from dataclasses import dataclass

from vsml.learners import Learner
from vsml.learners.memory import Kind, Remembers, perturb
from vsml.types import Array, Params, State


@dataclass(frozen=True)
class Perturbation:
    """An event that disturbs what a learner marks as its memory; see `vsml.learners.memory.perturb`.

    Attributes:
        step: before which it happens.
        kind: "zero", "noise" or "drop_units".
        fraction: of the memory.
    """

    step: int
    kind: Kind
    fraction: float

    def refusal(self, learner: Learner) -> str | None:
        """Return why a learner cannot be disturbed."""
        if isinstance(learner, Remembers):
            return None
        return f"{type(learner).__name__} does not say what its memory is"

    def learner_after(self, learner: Learner) -> Learner:
        """Return the same learner."""
        return learner

    def state_after(self, learner: Learner, params: Params, state: State, key: Array) -> State:
        """Return the disturbed state."""
        del params
        return perturb(learner, state, key, self.kind, self.fraction)

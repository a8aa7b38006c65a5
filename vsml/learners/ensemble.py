"""Several learners with the same meta-parameters that learn side by side and answer together."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from vsml.learners.base import Learner
from vsml.learners.growing import check_grows
from vsml.learners.memory import Change, HasFixed, NoMemoryError, Remembers
from vsml.types import Array, Outputs, Params, State, Values


@dataclass(frozen=True)
class Ensemble:
    """Learners whose probabilities are averaged: `p(y | x) = 1/K sum_k p_k(y | x)`; or whose values are.

    Each has a fresh state of its own and learns from the error of its own answers, as if it were alone; what
    they do not agree on is averaged away (Hansen & Salamon, 1990). They share meta-parameters.

    Attributes:
        members: K learners with the same input shape, classes and shapes of meta-parameters.
    """

    members: tuple[Learner, ...]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return self.members[0].input_shape

    @property
    def outputs(self) -> Outputs:
        """What it answers with."""
        return self.members[0].outputs

    @property
    def num_classes(self) -> int:
        """The size of its outputs."""
        return self.outputs.size

    def init_params(self, key: Array) -> Params:
        """Draw fresh meta-parameters, which all members share."""
        return self.members[0].init_params(key)

    def init_state(
        self,
        params: Params,
        key: Array,
        batch_size: int = 1,
    ) -> tuple[State, ...]:
        """Draw a fresh state for each member; the first member's is the one that it would have alone."""
        states = []
        for number, member in enumerate(self.members):
            own = key if number == 0 else jax.random.fold_in(key, number)
            states.append(member.init_state(params, own, batch_size))
        return tuple(states)

    def step(
        self,
        params: Params,
        state: tuple[State, ...],
        x: Array,
        y: Array,
        taught: Array | None = None,
    ) -> tuple[tuple[State, ...], Array]:
        """Answer x [B, *input_shape] together, then learn from y, each alone; see `Learner.step`."""
        example = (x, y) if taught is None else (x, y, taught)
        states, answers = [], []
        for member, own in zip(self.members, state, strict=True):
            own, answer = member.step(params, own, *example)
            states.append(own)
            answers.append(answer)
        return tuple(states), self._together(answers)

    def predict(
        self,
        params: Params,
        state: tuple[State, ...],
        x: Array,
    ) -> Array:
        """Return what `step` would answer to x [K, *input_shape]; see `Learner.predict`."""
        answers = []
        for member, own in zip(self.members, state, strict=True):
            answers.append(member.predict(params, own, x))
        return self._together(answers)

    def with_new_outputs(
        self,
        state: tuple[State, ...],
        fresh: tuple[State, ...],
        kept: Array,
    ) -> tuple[State, ...]:
        """Return the states of members with more outputs; see `GrowsOutputs`."""
        members = zip(self.members, state, fresh, strict=True)
        return tuple(check_grows(member).with_new_outputs(own, new, kept) for member, own, new in members)

    def map_memory(
        self,
        state: tuple[State, ...],
        change: Change,
    ) -> tuple[State, ...]:
        """Return the states with other memories of all members.

        Raises:
            NoMemoryError: a member does not mark its memory.
        """
        states = []
        for member, own in zip(self.members, state, strict=True):
            if not isinstance(member, Remembers):
                raise NoMemoryError(f"{type(member).__name__}: got no map_memory, expected one")
            states.append(member.map_memory(own, change))
        return tuple(states)

    def fixed(self, state: tuple[State, ...]) -> dict[str, State]:
        """Return what never changes in the states of the members."""
        fixed: dict[str, State] = {}
        for number, (member, own) in enumerate(zip(self.members, state, strict=True)):
            if isinstance(member, HasFixed):
                for name, part in member.fixed(own).items():
                    fixed[f"{name} of member {number + 1}"] = part
        return fixed

    def _together(self, answers: list[Array]) -> Array:
        """Return the logarithms of the members' mean probabilities [B, C], or their mean values [B, D]."""
        if isinstance(self.outputs, Values):
            return jnp.stack(answers).mean(0)
        likelihoods = jax.nn.log_softmax(jnp.stack(answers))
        return jax.nn.logsumexp(likelihoods, axis=0) - math.log(len(answers))

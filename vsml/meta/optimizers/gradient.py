"""The outer loop by back-propagation through what is judged."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.flatten_util import ravel_pytree

from vsml.learners import Learner
from vsml.meta.objectives.base import MemberResult, Objective
from vsml.meta.objectives.episode import EpisodeLoss
from vsml.meta.optimizers.base import (
    OuterLoop,
    descend,
    evaluate_chunk,
    summarise,
)
from vsml.meta.trials import Chunk, Results
from vsml.settings import NoSettings
from vsml.types import Array, Params


@struct.dataclass
class GradientState:
    """State of the outer loop.

    Attributes:
        params: meta-parameters.
        optimizer: state of the optax optimizer.
    """

    params: Params
    optimizer: optax.OptState


@dataclass(frozen=True)
class BackPropagation:
    """Descend the mean gradient of the trials' losses; a trial has one member.

    A trial whose loss or gradient is not finite is left out of the mean.

    Attributes:
        optimizer: an optax optimizer.
        objective: what is minimised.
    """

    optimizer: optax.GradientTransformation
    objective: Objective = field(default_factory=EpisodeLoss)

    trial_members = 1
    differentiates = True

    @classmethod
    def from_config(cls, config: NoSettings, outer: OuterLoop) -> Self:
        """Build it from the section `optimizer`."""
        return cls(outer.adam(), outer.objective)

    def init(self, key: Array, params: Params) -> GradientState:
        """Start from the given meta-parameters; nothing is drawn."""
        return GradientState(params=params, optimizer=self.optimizer.init(params))

    def params(self, state: GradientState) -> Params:
        """Return the meta-parameters found so far."""
        return state.params

    def ask(self, state: GradientState) -> tuple[GradientState, Params]:
        """Return the meta-parameters: all trials are run with the same."""
        return state, state.params

    def evaluate(
        self,
        members: Params,
        chunk: Chunk,
        key: Array,
    ) -> tuple[Array, Array, Array]:
        """Return loss and score [chunk_size, 1] and the sum of the finite gradients, flat."""
        return evaluate_chunk(differentiate_trial, self.objective, members, chunk, key)

    def tell(
        self,
        state: GradientState,
        members: Params,
        results: Results,
    ) -> tuple[GradientState, dict[str, Any]]:
        """Take one step of the optimizer along the mean gradient."""
        summary = summarise(results)
        finite = len(results.loss) - summary["nonfinite"]
        mean_gradient = results.gradient / max(finite, 1)
        state, measured = self._step(state, mean_gradient)
        return state, summary | measured

    @partial(jax.jit, static_argnames=("self",))
    def _step(self, state: GradientState, gradient: Array) -> tuple[GradientState, dict[str, Array]]:
        params, optimizer, measured = descend(
            self.optimizer,
            state.params,
            state.optimizer,
            gradient,
        )
        return GradientState(params=params, optimizer=optimizer), measured


def differentiate_trial(
    objective: Objective,
    learner: Learner,
    params: Params,
    trial: Array,
    drawn: Any,
) -> tuple[MemberResult, Array]:
    """Return the result of the one member [1] and the gradient of its loss, flat; 0 where not finite."""

    def loss(params: Params) -> tuple[Array, MemberResult]:
        result = objective.judge(learner, params, drawn, differentiated=True)
        return result.loss, result

    gradient, result = jax.grad(loss, has_aux=True)(params)
    flat, _ = ravel_pytree(gradient)
    # The square, which Adam keeps, has to be finite too: else it would never move again.
    square = jnp.vdot(flat, flat)
    finite = jnp.isfinite(result.loss) & jnp.isfinite(square)
    reported = jnp.where(finite, result.loss, jnp.nan)
    member = MemberResult(loss=reported[None], score=result.score[None])
    return member, jnp.where(finite, flat, 0.0)

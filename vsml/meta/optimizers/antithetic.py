"""The outer loop by plain antithetic evolution strategies, which hold no population."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.flatten_util import ravel_pytree

from vsml.learners import Learner
from vsml.meta.objectives.base import MemberResult, Objective
from vsml.meta.objectives.episode import EpisodeLoss
from vsml.meta.optimizers.base import (
    descend,
    evaluate_chunk,
    judge_members,
    summarise,
)
from vsml.meta.trials import Chunk, Results
from vsml.types import Array, Params

ANTITHETIC = "antithetic"
"""What `optimizer.algorithm` calls it."""


@struct.dataclass
class AntitheticState:
    """State of the outer loop.

    Attributes:
        params: meta-parameters.
        key: from which each generation's noise is drawn.
        generation: how many there were, int32 [].
        optimizer: state of the optax optimizer.
    """

    params: Params
    key: Array
    generation: Array
    optimizer: optax.OptState


@struct.dataclass
class Perturbations:
    """The members of a generation: what they are drawn around, how far from it, and from which key.

    Attributes:
        params: meta-parameters theta.
        noise_std: deviation sigma, float32 [].
        key: of the generation; the noise of pair i is drawn from `fold_in(key, i)`.
    """

    params: Params
    noise_std: Array
    key: Array


@dataclass(frozen=True)
class AntitheticEvolution:
    """Descend the slope of the loss that n antithetic pairs of members find; a trial is a pair.

    Both members of a pair share what the objective draws, such as an episode and its initial state (Salimans
    et al., 2017; Kirsch & Schmidhuber, 2021, section 4):

        g = mean over pairs of eps (L(theta + sigma eps) - L(theta - sigma eps)) / (2 sigma).

    This is Open_ES of `vsml.meta.optimizers.evosax` without fitness shaping, with other random numbers. Here
    nobody draws a population: whoever evaluates a pair draws its noise from the generation's key and the
    pair's number, and adds to a sum, so memory does not depend on the number of pairs. A pair with a loss
    that is not finite says nothing: it adds 0, and the mean stays that over all n.

    Attributes:
        optimizer: an optax optimizer.
        noise_std: deviation sigma, a number or a schedule over generations.
        objective: what is minimised.
    """

    optimizer: optax.GradientTransformation
    noise_std: float | Callable[[Any], Any] = 0.05
    objective: Objective = field(default_factory=EpisodeLoss)

    trial_members = 2
    differentiates = False

    def init(self, key: Array, params: Params) -> AntitheticState:
        """Start from the given meta-parameters."""
        # Types as `tell` returns them, not weak ones: else the second generation would compile anew.
        params = jax.tree.map(lambda leaf: jnp.asarray(leaf, leaf.dtype), params)
        optimizer = self.optimizer.init(params)
        return AntitheticState(params=params, key=key, generation=jnp.int32(0), optimizer=optimizer)

    def params(self, state: AntitheticState) -> Params:
        """Return the meta-parameters found so far: the mean of the search distribution."""
        return state.params

    def ask(self, state: AntitheticState) -> tuple[AntitheticState, Perturbations]:
        """Return what the members of a generation are made of; none is drawn."""
        return state, self._ask(state)

    def evaluate(
        self,
        members: Perturbations,
        chunk: Chunk,
        key: Array,
    ) -> tuple[Array, Array, Array]:
        """Return loss and score [chunk_size, 2] and the sum of the pairs' gradients, flat.

        The members of a pair are theta + sigma eps and theta - sigma eps, in this order.
        """
        return evaluate_chunk(evaluate_pair, self.objective, members, chunk, key)

    def tell(
        self,
        state: AntitheticState,
        members: Perturbations,
        results: Results,
    ) -> tuple[AntitheticState, dict[str, Any]]:
        """Take one step of the optimizer along the mean gradient."""
        pairs = np.float32(len(results.loss))
        state, measured = self._step(state, results.gradient / pairs)
        return state, summarise(results) | measured

    @partial(jax.jit, static_argnames=("self",))
    def _ask(self, state: AntitheticState) -> Perturbations:
        std = self.noise_std
        if callable(std):
            std = std(state.generation)
        return Perturbations(
            params=state.params,
            noise_std=jnp.asarray(std, jnp.float32),
            key=jax.random.fold_in(state.key, state.generation),
        )

    @partial(jax.jit, static_argnames=("self",))
    def _step(self, state: AntitheticState, gradient: Array) -> tuple[AntitheticState, dict[str, Array]]:
        params, optimizer, measured = descend(
            self.optimizer,
            state.params,
            state.optimizer,
            gradient,
        )
        generation = state.generation + 1
        return AntitheticState(params, state.key, generation, optimizer), measured


def evaluate_pair(
    objective: Objective,
    learner: Learner,
    members: Perturbations,
    trial: Array,
    drawn: Any,
) -> tuple[MemberResult, Array]:
    """Return the results of both members of a pair [2], and its gradient, flat; 0 where not finite."""
    center, unravel = ravel_pytree(members.params)
    noise = jax.random.normal(jax.random.fold_in(members.key, trial), center.shape)
    step = members.noise_std * noise
    both = jnp.stack([center + step, center - step])
    pair = jax.vmap(unravel)(both)
    result = judge_members(objective, learner, pair, drawn)
    slope = (result.loss[0] - result.loss[1]) / (2 * members.noise_std)
    return result, jnp.where(jnp.isfinite(slope), slope * noise, 0.0)

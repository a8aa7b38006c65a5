"""The outer loop by plain antithetic evolution strategies, which hold no population."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.flatten_util import ravel_pytree

from vsml.learners import Learner
from vsml.meta.objective import (
    Chunk,
    LossType,
    Results,
    descend,
    sample_unit,
    sum_units,
    summarise,
    unit_result,
)
from vsml.tasks import TaskDistribution
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
    """Descend the slope of the loss that n antithetic pairs of members find; a unit is a pair.

    Both members of a pair share an episode and its initial state (Salimans et al., 2017; Kirsch &
    Schmidhuber, 2021, section 4):

        g = mean over pairs of eps (L(theta + sigma eps) - L(theta - sigma eps)) / (2 sigma).

    This is Open_ES of `vsml.meta.evolution` without fitness shaping, with other random numbers. Here nobody
    draws a population: whoever evaluates a pair draws its noise from the generation's key and the pair's
    number, and adds to a sum, so memory does not depend on the number of pairs. A pair with a loss that is
    not finite says nothing: it adds 0, and the mean stays that over all n.

    Attributes:
        optimizer: an optax optimizer.
        noise_std: deviation sigma, a number or a schedule over generations.
        loss_type: what of an episode is minimised.
    """

    optimizer: optax.GradientTransformation
    noise_std: float | Callable[[Any], Any] = 0.05
    loss_type: LossType = "mean"

    unit_members = 2

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

    def evaluate(self, members: Perturbations, chunk: Chunk, key: Array) -> tuple[Array, Array, Array]:
        """Return loss and accuracy [chunk_size, 2] and the sum of the pairs' gradients, flat.

        The members of a pair are theta + sigma eps and theta - sigma eps, in this order.
        """
        group, count = chunk.group, np.int32(chunk.count)
        return _evaluate(
            group.learner, self.loss_type, members, group.tasks, chunk.units, chunk.options, count, key
        )

    def tell(
        self, state: AntitheticState, members: Perturbations, results: Results
    ) -> tuple[AntitheticState, dict[str, Any]]:
        """Take one step of the optimizer along the mean gradient."""
        state, measured = self._step(state, results.gradient / np.float32(len(results.loss)))
        return state, summarise(results) | measured

    @partial(jax.jit, static_argnames=("self",))
    def _ask(self, state: AntitheticState) -> Perturbations:
        std = self.noise_std(state.generation) if callable(self.noise_std) else self.noise_std
        return Perturbations(
            params=state.params,
            noise_std=jnp.asarray(std, jnp.float32),
            key=jax.random.fold_in(state.key, state.generation),
        )

    @partial(jax.jit, static_argnames=("self",))
    def _step(self, state: AntitheticState, gradient: Array) -> tuple[AntitheticState, dict[str, Array]]:
        params, optimizer, measured = descend(self.optimizer, state.params, state.optimizer, gradient)
        generation = state.generation + 1
        return AntitheticState(params, state.key, generation, optimizer), measured


@partial(jax.jit, static_argnames=("learner", "loss_type"))
def _evaluate(
    learner: Learner,
    loss_type: LossType,
    members: Perturbations,
    tasks: tuple[TaskDistribution, ...],
    units: Array,
    options: Array,
    count: Array,
    key: Array,
) -> tuple[Array, Array, Array]:
    def evaluate_pair(unit: tuple[Array, Array], shared: Any) -> tuple[tuple[Array, Array], Array]:
        number, option = unit
        members, tasks, key = shared
        center, unravel = ravel_pytree(members.params)
        noise = jax.random.normal(jax.random.fold_in(members.key, number), center.shape)
        episode, state_key = sample_unit(tasks, option, key, number)
        step = members.noise_std * noise
        pair = jax.vmap(unravel)(jnp.stack([center + step, center - step]))
        result = jax.vmap(lambda params: unit_result(learner, loss_type, params, episode, state_key))(pair)
        slope = (result.loss[0] - result.loss[1]) / (2 * members.noise_std)
        return (result.loss, result.accuracy), jnp.where(jnp.isfinite(slope), slope * noise, 0.0)

    results, gradient = sum_units(evaluate_pair, (units, options), count, (members, tasks, key))
    return *results, gradient

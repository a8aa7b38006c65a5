"""The outer loop by back-propagation through the episode."""

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
    segments_of,
    sum_units,
    summarise,
    unit_result,
)
from vsml.tasks import TaskDistribution
from vsml.types import Array, EpisodeResult, Params


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
    """Descend the mean gradient of the episodes' losses; a unit is one episode.

    An episode whose loss or gradient is not finite is left out of the mean.

    Attributes:
        optimizer: an optax optimizer.
        loss_type: what of an episode is minimised.
        truncation_length: back-propagate through this many steps, the last of an episode, which alone are
            judged: truncated back-propagation through time, from states that the learner reaches by itself.
            None: through all steps.
    """

    optimizer: optax.GradientTransformation
    loss_type: LossType = "mean"
    truncation_length: int | None = None

    unit_members = 1

    def init(self, key: Array, params: Params) -> GradientState:
        """Start from the given meta-parameters; nothing is drawn."""
        return GradientState(params=params, optimizer=self.optimizer.init(params))

    def params(self, state: GradientState) -> Params:
        """Return the meta-parameters found so far."""
        return state.params

    def ask(self, state: GradientState) -> tuple[GradientState, Params]:
        """Return the meta-parameters: all episodes are run with the same."""
        return state, state.params

    def evaluate(self, members: Params, chunk: Chunk, key: Array) -> tuple[Array, Array, Array]:
        """Return loss and accuracy [chunk_size, 1] and the sum of the finite gradients, flat."""
        group, count = chunk.group, np.int32(chunk.count)
        return _evaluate(
            group.learner,
            self.loss_type,
            self.truncation_length,
            members,
            group.tasks,
            chunk.units,
            chunk.options,
            count,
            key,
        )

    def tell(
        self, state: GradientState, members: Params, results: Results
    ) -> tuple[GradientState, dict[str, Any]]:
        """Take one step of the optimizer along the mean gradient."""
        summary = summarise(results)
        finite = len(results.loss) - summary["nonfinite"]
        state, measured = self._step(state, results.gradient / max(finite, 1))
        return state, summary | measured

    @partial(jax.jit, static_argnames=("self",))
    def _step(self, state: GradientState, gradient: Array) -> tuple[GradientState, dict[str, Array]]:
        params, optimizer, measured = descend(self.optimizer, state.params, state.optimizer, gradient)
        return GradientState(params=params, optimizer=optimizer), measured


@partial(jax.jit, static_argnames=("learner", "loss_type", "truncation_length"))
def _evaluate(
    learner: Learner,
    loss_type: LossType,
    truncation_length: int | None,
    params: Params,
    tasks: tuple[TaskDistribution, ...],
    units: Array,
    options: Array,
    count: Array,
    key: Array,
) -> tuple[Array, Array, Array]:
    def evaluate_unit(unit: tuple[Array, Array], shared: Any) -> tuple[tuple[Array, Array], Array]:
        number, option = unit
        params, tasks, key = shared
        episode, state_key = sample_unit(tasks, option, key, number)
        steps, batch_size = episode.y.shape
        segments = segments_of(learner, min(steps, truncation_length or steps), batch_size)

        def loss(params: Params) -> tuple[Array, EpisodeResult]:
            result = unit_result(learner, loss_type, params, episode, state_key, segments, truncation_length)
            return result.loss, result

        gradient, result = jax.grad(loss, has_aux=True)(params)
        flat = ravel_pytree(gradient)[0]
        # The square, which Adam keeps, has to be finite too: else it would never move again.
        finite = jnp.isfinite(result.loss) & jnp.isfinite(jnp.vdot(flat, flat))
        reported = jnp.where(finite, result.loss, jnp.nan)
        return (reported[None], result.accuracy[None]), jnp.where(finite, flat, 0.0)

    results, gradient = sum_units(evaluate_unit, (units, options), count, (params, tasks, key))
    return *results, gradient

"""Shorter steps for meta-parameters that the loss is steep in.

Adam moves every parameter by about as much. In meta-parameters that were written down, such as gradient
descent in synapses, the loss is a thousand times as steep in some as in others: an error that is made
again at every example adds up over an episode. What is a small step for the one is a leap for the other.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from vsml.types import Array, Params

DECAY = 0.98
"""Of the mean square of the gradient, by which steepness is judged: it follows within 50 meta steps."""


class SlopeState(NamedTuple):
    """What is known of the steepness.

    Attributes:
        steps: meta steps so far, int32.
        square: running mean of the squared gradient, like the meta-parameters.
        inner: state of the optimizer whose steps are shortened.
    """

    steps: Array
    square: Params
    inner: optax.OptState


def shorten_steep_steps(
    inner: optax.GradientTransformation,
    max_slope: float,
) -> optax.GradientTransformation:
    """Shorten the steps of another optimizer in each parameter whose gradient is large.

    With r the root mean square of the gradient of a parameter over meta steps,

        step = step of the inner optimizer * min(1, max_slope / r)^2.

    The curvature of a loss that is noisy grows as r^2 (so the square), and Adam's steps do not depend on r.

    Args:
        inner: the optimizer.
        max_slope: in nats for each unit of the meta-parameter.
    """

    def init(params: Params) -> SlopeState:
        nothing = jax.tree.map(jnp.zeros_like, params)
        return SlopeState(jnp.zeros([], jnp.int32), nothing, inner.init(params))

    def update(
        gradient: Params,
        state: SlopeState,
        params: Params | None = None,
    ) -> tuple[Params, SlopeState]:
        updates, inner_state = inner.update(gradient, state.inner, params)
        steps = state.steps + 1
        square = jax.tree.map(lambda mean, g: DECAY * mean + (1 - DECAY) * g**2, state.square, gradient)
        # The mean starts at 0, as Adam's does.
        unbiased = 1 - DECAY ** steps.astype(jnp.float32)

        def shortened(step: Array, mean: Array) -> Array:
            allowed = max_slope**2 * unbiased
            return step * allowed / jnp.maximum(mean, allowed)

        return jax.tree.map(shortened, updates, square), SlopeState(steps, square, inner_state)

    return optax.GradientTransformation(init, update)

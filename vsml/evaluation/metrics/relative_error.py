"""Relative error: the squared error of answers by that of the mean of the targets so far."""

from dataclasses import dataclass

import jax.numpy as jnp

from vsml.evaluation.metrics.base import Better
from vsml.settings import NoSettings
from vsml.types import Array, Outputs, Values


@dataclass(frozen=True)
class RelativeError:
    """`sum |answer - y|^2 / sum |mean so far - y|^2`: 1 is no better than the mean, 0 is perfect.

    The mean is over the targets of all steps before; before the first step it is 0.
    """

    config: NoSettings = NoSettings()

    better: Better = "lower"

    def applies_to(self, outputs: Outputs) -> bool:
        """Return whether the outputs are values."""
        return isinstance(outputs, Values)

    def measure(self, outputs: Outputs, answers: Array, y: Array) -> tuple[Array, Array]:
        """Return the squared error of each answer, and that of the mean so far, both summed over D."""
        del outputs
        squared_error = jnp.square(answers - y).sum(-1)
        error_of_mean = jnp.square(_mean_so_far(y) - y).sum(-1)
        return squared_error, error_of_mean


def _mean_so_far(y: Array) -> Array:
    """Return for each step the mean [T, 1, D] of the targets y [T, B, D] of all steps before it."""
    step_means = y.mean(1, keepdims=True)
    steps = jnp.arange(len(y))[:, None, None]
    sums_before = jnp.cumsum(step_means, axis=0) - step_means
    return sums_before / jnp.maximum(steps, 1)

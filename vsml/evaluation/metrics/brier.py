"""Brier score: the squared distance of probabilities from what came."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from vsml.evaluation.metrics.base import Better
from vsml.settings import NoSettings
from vsml.types import Array, Classes, Outputs


@dataclass(frozen=True)
class Brier:
    """`sum_c (p(c) - [c = y])^2` (Brier, 1950): 0 is perfect, 2 is certain and wrong."""

    config: NoSettings = NoSettings()

    better: Better = "lower"

    def applies_to(self, outputs: Outputs) -> bool:
        """Return whether the outputs are classes."""
        return isinstance(outputs, Classes)

    def measure(self, outputs: Outputs, answers: Array, y: Array) -> tuple[Array, None]:
        """Return the score of each answer."""
        probabilities = jax.nn.softmax(answers)
        what_came = jax.nn.one_hot(y, outputs.size)
        return jnp.square(probabilities - what_came).sum(-1), None

"""Confidence: the probability of the likeliest class."""

from dataclasses import dataclass

import jax

from vsml.evaluation.metrics.base import Better
from vsml.settings import NoSettings
from vsml.types import Array, Classes, Outputs


@dataclass(frozen=True)
class Confidence:
    """`max_c p(c)`: a learner that knows what it knows is as confident as it is accurate."""

    config: NoSettings = NoSettings()

    better: Better = "higher"

    def applies_to(self, outputs: Outputs) -> bool:
        """Return whether the outputs are classes."""
        return isinstance(outputs, Classes)

    def measure(self, outputs: Outputs, answers: Array, y: Array) -> tuple[Array, None]:
        """Return the confidence of each answer; the targets have no part in it."""
        del outputs, y
        return jax.nn.softmax(answers).max(-1), None

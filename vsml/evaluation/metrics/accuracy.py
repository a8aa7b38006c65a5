"""Accuracy: the share of right answers."""

from dataclasses import dataclass

from vsml.evaluation.metrics.base import Better
from vsml.losses import right_answers
from vsml.settings import NoSettings
from vsml.types import Array, Classes, Outputs


@dataclass(frozen=True)
class Accuracy:
    """The share of answers whose largest logit is that of the label."""

    config: NoSettings = NoSettings()

    better: Better = "higher"

    def applies_to(self, outputs: Outputs) -> bool:
        """Return whether the outputs are classes."""
        return isinstance(outputs, Classes)

    def measure(self, outputs: Outputs, answers: Array, y: Array) -> tuple[Array, None]:
        """Return 1 for a right answer and 0 for a wrong one; one that is not finite is wrong."""
        del outputs
        return right_answers(answers, y), None

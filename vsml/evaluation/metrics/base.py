"""The interface of metrics: what answers are measured by beside their loss."""

from typing import Literal, Protocol

from vsml.types import Array, Outputs

Better = Literal["higher", "lower"]


class Metric(Protocol):
    """One measure of answers: over any steps, the sum of values by the sum of weights.

    A metric is hashable (a frozen dataclass), so that it can be a static argument of compiled functions, and
    pure. It is built with `config`, a section of settings; one without settings takes `NoSettings`.
    """

    @property
    def better(self) -> Better:
        """Which values are better."""

    def applies_to(self, outputs: Outputs) -> bool:
        """Return whether it measures answers of this kind."""

    def measure(self, outputs: Outputs, answers: Array, y: Array) -> tuple[Array, Array | None]:
        """Measure the answers to an episode.

        Args:
            outputs: what the answers are.
            answers: logits [T, B, C], or values [T, B, D], each given before its target was seen.
            y: targets, classes int [T, B], or values [T, B, D].

        Returns:
            A value and a weight for each answer, float [T, B]; no weights (None) are weights of 1.
        """

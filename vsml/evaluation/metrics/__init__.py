"""Metrics: what answers are measured by, one a file. A new one is a file here and a line in `METRICS`."""

from collections.abc import Callable

from vsml.evaluation.metrics.accuracy import Accuracy
from vsml.evaluation.metrics.base import Better, Metric
from vsml.evaluation.metrics.brier import Brier
from vsml.evaluation.metrics.confidence import Confidence
from vsml.evaluation.metrics.relative_error import RelativeError
from vsml.registry import Registry
from vsml.types import Outputs

METRICS: Registry[Callable[..., Metric]] = Registry(
    "metric",
    "vsml.metrics",
    {
        "accuracy": Accuracy,
        "relative_error": RelativeError,
        "brier": Brier,
        "confidence": Confidence,
    },
)
"""What `evaluation.metrics` may name, and what builds it from config, a section."""

MAIN = ("accuracy", "relative_error")
"""Metrics that every evaluation has: the first of them that applies."""

__all__ = ["MAIN", "METRICS", "Better", "Metric", "main_metric"]


def main_metric(outputs: Outputs) -> tuple[str, Metric]:
    """Return the name of the metric that learners with such outputs are compared by, and the metric."""
    for name in MAIN:
        metric = METRICS[name]()
        if metric.applies_to(outputs):
            return name, metric
    raise AssertionError(f"no metric in {MAIN} applies to {outputs}")

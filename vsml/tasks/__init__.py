"""Tasks: where examples come from, how they are transformed, and how episodes are drawn from them."""

from vsml.tasks.distribution import TaskDistribution, build_task
from vsml.tasks.errors import DataError, MissingDataError
from vsml.tasks.sources import Dataset, Generator, available, load

__all__ = [
    "DataError",
    "Dataset",
    "Generator",
    "MissingDataError",
    "TaskDistribution",
    "available",
    "build_task",
    "load",
]

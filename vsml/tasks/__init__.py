"""Tasks: where examples come from, how they are transformed, and how episodes are drawn from them."""

from vsml.tasks.data.errors import DataError, MissingDataError
from vsml.tasks.data.sources import Dataset, Generator, available, load
from vsml.tasks.distribution import TaskDistribution, build_task

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

"""Tasks: where examples come from, how they are transformed, and how episodes are drawn from them."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vsml.tasks.data.csv_table import read_csv
    from vsml.tasks.data.dataset import Dataset
    from vsml.tasks.data.errors import DataError, MissingDataError
    from vsml.tasks.data.generator import Generator
    from vsml.tasks.data.sets import DATASETS
    from vsml.tasks.data.sources import available, load
    from vsml.tasks.distribution import TaskDistribution, build_task
    from vsml.tasks.transforms import TRANSFORMS

__all__ = [
    "DATASETS",
    "TRANSFORMS",
    "DataError",
    "Dataset",
    "Generator",
    "MissingDataError",
    "TaskDistribution",
    "available",
    "build_task",
    "load",
    "read_csv",
]

_PLACES = {
    "DATASETS": "vsml.tasks.data.sets",
    "TRANSFORMS": "vsml.tasks.transforms",
    "DataError": "vsml.tasks.data.errors",
    "Dataset": "vsml.tasks.data.dataset",
    "Generator": "vsml.tasks.data.generator",
    "MissingDataError": "vsml.tasks.data.errors",
    "TaskDistribution": "vsml.tasks.distribution",
    "available": "vsml.tasks.data.sources",
    "build_task": "vsml.tasks.distribution",
    "load": "vsml.tasks.data.sources",
    "read_csv": "vsml.tasks.data.csv_table",
}


def __getattr__(name: str) -> Any:
    """Import on first use: what reads a configuration needs the names of transforms, but no data."""
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

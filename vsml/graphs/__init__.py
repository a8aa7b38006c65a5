"""Graphs that learning algorithms run on: generators, padding to buckets, distributions and drawings."""

from typing import Any

from vsml.graphs.arrays import Bucket, GraphArrays, bucket_of, stack, to_arrays
from vsml.graphs.distribution import GraphDistribution, GraphKind, GraphPool
from vsml.graphs.generators import KINDS, generate
from vsml.graphs.graph import Graph

__all__ = [
    "KINDS",
    "Bucket",
    "Graph",
    "GraphArrays",
    "GraphDistribution",
    "GraphKind",
    "GraphPool",
    "bucket_of",
    "draw",
    "generate",
    "stack",
    "to_arrays",
]


def __getattr__(name: str) -> Any:
    """Import what draws only when it is asked for: matplotlib is slow to import."""
    if name != "draw":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from vsml.graphs.drawing import draw

    return draw

"""Graphs that learning algorithms run on: generators, padding to buckets, distributions and drawings."""

from vsml.graphs.arrays import Bucket, GraphArrays, bucket_of, stack, to_arrays
from vsml.graphs.distribution import GraphDistribution, GraphKind, GraphPool
from vsml.graphs.drawing import draw
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

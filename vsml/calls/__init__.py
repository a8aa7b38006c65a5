"""Calls: what a run does, one a file. A new one is a file here and a line in `CALLS`."""

from collections.abc import Callable

from vsml.calls.base import Call
from vsml.calls.battery import Battery
from vsml.calls.clone import Clone
from vsml.calls.evaluate import Evaluate
from vsml.calls.introspect import Introspect
from vsml.calls.search import Search
from vsml.calls.stream import RunStreams
from vsml.calls.train import Train
from vsml.registry import Registry

CALLS: Registry[Callable[..., Call]] = Registry(
    "call",
    "vsml.calls",
    {
        "train": Train,
        "evaluate": Evaluate,
        "clone": Clone,
        "introspect": Introspect,
        "stream": RunStreams,
        "battery": Battery,
        "search": Search,
    },
)
"""What `call` may name, and what builds it from config, a section of its own."""

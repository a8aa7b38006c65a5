"""Streams: examples without an end, one kind a file. A new one is a file here and a line in `STREAMS`."""

from collections.abc import Callable, Sequence
from typing import Protocol

from vsml.registry import Registry
from vsml.tasks.distribution import TaskDistribution
from vsml.tasks.streams.base import Stream
from vsml.tasks.streams.episodes import Episodes, EpisodeStream
from vsml.tasks.streams.gaussians import Gaussians, GaussianStreams
from vsml.tasks.streams.slow_bits import SlowBits, SlowRegression


class StreamKind(Protocol):
    """What builds streams from its settings."""

    @property
    def needs_data(self) -> bool:
        """Whether the streams are made of the data sets of `evaluation.datasets`."""

    def streams(self, tasks: Sequence[tuple[str, TaskDistribution]]) -> list[Stream]:
        """Return the streams.

        Args:
            tasks: names and distributions of episodes; none where no data are needed.
        """


STREAMS: Registry[Callable[..., StreamKind]] = Registry(
    "stream",
    "vsml.streams",
    {
        "episodes": Episodes,
        "slow_bits": SlowRegression,
        "gaussians": GaussianStreams,
    },
)
"""What `stream.kind` may name, and what builds it from config, a section."""

__all__ = [
    "STREAMS",
    "EpisodeStream",
    "Gaussians",
    "SlowBits",
    "Stream",
    "StreamKind",
]

"""Stream of episodes: each task is one episode of a data set, with transforms drawn anew."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
from flax import struct

from vsml.settings import NoSettings
from vsml.tasks.distribution import TaskDistribution
from vsml.tasks.streams.base import Stream
from vsml.types import Array, Episode, Outputs


@struct.dataclass
class EpisodeStream:
    """One episode after the other of a task distribution, to a learner that goes on.

    With `shuffle` it is the input-permuted stream, with `permute_labels` the label-permuted one.

    Attributes:
        distribution: draws the episodes.
        name: of the stream.
    """

    distribution: TaskDistribution
    name: str = struct.field(pytree_node=False)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return self.distribution.input_shape

    @property
    def outputs(self) -> Outputs:
        """What is to be answered."""
        return self.distribution.outputs

    @property
    def task_length(self) -> int:
        """Examples of a task: those of an episode."""
        return self.distribution.episode_length

    def task(self, key: Array, number: Array) -> Episode:
        """Draw an episode, whose examples and transforms follow from the key and the number alone."""
        return self.distribution.sample(jax.random.fold_in(key, number))

    def best_score(self, key: Array, number: Array) -> None:
        """Return None: nobody knows how well the images of a data set can be told apart."""
        del key, number


@dataclass(frozen=True)
class Episodes:
    """`stream.kind: episodes`: the data sets of `evaluation.datasets`, an episode being a task.

    Attributes:
        config: its settings; the data sets have theirs.
    """

    config: NoSettings = NoSettings()

    needs_data = True

    def streams(self, tasks: Sequence[tuple[str, TaskDistribution]]) -> list[Stream]:
        """Return a stream for each of the named distributions of episodes."""
        return [EpisodeStream(distribution=task, name=name) for name, task in tasks]

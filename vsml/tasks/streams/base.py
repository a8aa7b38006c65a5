"""The interface of streams: examples without an end, cut into tasks of equal length."""

from typing import Protocol

from vsml.types import Array, Episode, Outputs


class Stream(Protocol):
    """A long stream of examples that a learner meets once, in one life.

    It is cut into tasks: a task is what stays the same for a while, such as one order of the pixels. Nobody
    tells the learner where a task ends. A stream is a pytree whose leaves are its data, so that compiled
    functions take it as an argument. It draws one task at a time, so memory does not grow with its length.
    """

    @property
    def name(self) -> str:
        """What tables and figures call it."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""

    @property
    def outputs(self) -> Outputs:
        """What is to be answered."""

    @property
    def task_length(self) -> int:
        """Examples of a task."""

    def task(self, key: Array, number: Array) -> Episode:
        """Draw the examples of one task; pure.

        Args:
            key: of the whole stream: what stays the same from task to task follows from it alone.
            number: which task, int [], from 0.

        Returns:
            An episode with T = `task_length` and B = 1.
        """

    def best_score(self, key: Array, number: Array) -> Array | None:
        """Return the score that nobody can exceed on the examples of `task`, float32 []; None: unknown.

        For classes it is the Bayes accuracy, for values the squared error that noise leaves.
        """

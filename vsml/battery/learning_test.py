"""A learning test: what a learner is shown, and how its answers are judged."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from vsml.learners import Learner
from vsml.types import Array, Episode, Outputs, Params, State

Level = int | float | str
"""How hard a test is; of a span, a number that says how much is asked."""


class NotApplicableError(ValueError):
    """A learner cannot take a test, or the test has no data here; the message says why."""


class TooSlowError(NotApplicableError):
    """A learner would take longer for a test than it may; the message has the estimate."""


class Event(Protocol):
    """What happens to a learner before a step of an episode. It is hashable, and pure."""

    @property
    def step(self) -> int:
        """The step before which it happens, from 0 to T."""

    def refusal(self, learner: Learner) -> str | None:
        """Return why it cannot happen to a learner, None where it can."""

    def learner_after(self, learner: Learner) -> Learner:
        """Return the learner that goes on: the same, unless its network has grown."""

    def state_after(self, learner: Learner, params: Params, state: State, key: Array) -> State:
        """Return the state, of one episode, with which the learner after it goes on.

        Args:
            learner: the one before the event.
            params: its meta-parameters, which stay.
            state: its state.
            key: for what is drawn.
        """


@dataclass(frozen=True, eq=False)
class Task:
    """One level of a test.

    Attributes:
        input_shape: shape of one input: (I,), or (H, W, Ch) of an image.
        outputs: what is answered with.
        steps: T. Learners are run in segments, so multiples of 50 compile least.
        draw: returns from a key an episode [T, 1, ...] with an inner batch of 1; pure, compiled with `vmap`.
            Its weight [T, 1] says which answers count.
        events: what happens on the way, in their order.
    """

    input_shape: tuple[int, ...]
    outputs: Outputs
    steps: int
    draw: Callable[[Array], Episode]
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a learner answered in S episodes, each with a seed of its own. All arrays are numpy's.

    Attributes:
        level: of the test.
        task: the task at this level.
        x: inputs [S, T, *input_shape].
        answers: logits [S, T, C], or values [S, T, D].
        targets: labels int [S, T], or values [S, T, D].
        weight: how much each answer counts [S, T].
        taught: 1 where the learner was told the target [S, T].
    """

    level: Level
    task: Task
    x: np.ndarray
    answers: np.ndarray
    targets: np.ndarray
    weight: np.ndarray
    taught: np.ndarray

    @property
    def outputs(self) -> Outputs:
        """What the answers are."""
        return self.task.outputs


@dataclass(frozen=True)
class LearningTest:
    """One thing that a learning algorithm may be able to do.

    Attributes:
        name: unique, such as "xor" or "bits_back".
        tags: groups that it belongs to, such as ("memory",); the first is its place in tables.
        levels: from the easiest to the hardest.
        task: builds the task of a level.

            Raises NotApplicableError: there are no data for it here.
        score: returns the raw score of each episode [S]: higher is better, and 1 is perfect. What a report
            shows is set between the floor (0) and the best of the reference panel (1); see
            `vsml.battery.scores`.
        about: one sentence for readers.
        span: levels are numbers, and the score is how far a learner gets; else the mean over levels.
        floors: what answers without learning from inputs, of `vsml.battery.floors.FLOORS`; the better of
            them has score 0.
    """

    name: str
    tags: tuple[str, ...]
    levels: tuple[Level, ...]
    task: Callable[[Any], Task]
    score: Callable[[Outcome], np.ndarray]
    about: str = ""
    span: bool = False
    floors: tuple[str, ...] = ("majority", "constant")

    def __post_init__(self) -> None:
        if not self.tags or not self.levels:
            raise ValueError(f"{self.name}: got tags {self.tags} and levels {self.levels}, expected some")
        if self.span and not all(isinstance(level, int | float) for level in self.levels):
            raise ValueError(f"{self.name}: got the levels {self.levels} of a span, expected numbers")

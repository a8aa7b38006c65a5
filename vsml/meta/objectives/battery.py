"""Battery: the loss of a learner over learning tests, so that abilities are what is meta-trained."""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

import jax
from flax import struct
from pydantic import Field, model_validator

from vsml.learners import Learner
from vsml.meta.objectives.base import EpisodeShape, MemberResult, OwnTask
from vsml.meta.objectives.episode import (
    FLOAT_BYTES,
    WORKING_COPIES,
    EpisodeLoss,
    episode_result,
    kept_states,
    segments_of,
)
from vsml.meta.trials import state_bytes
from vsml.settings import Problem, Section, Text, refuse
from vsml.types import Array, Episode, Outputs, Params, Values

if TYPE_CHECKING:
    from vsml.battery.learning_test import LearningTest, Level, Task

Levels = Literal["first", "last", "all"]


class BatteryConfig(Section):
    """Which learning tests are what the outer loop optimises; without tests and tags, all of them."""

    tests: tuple[Text, ...] = Field(
        default=(), description="learning tests by name, or package.module:Name (docs/battery.md)"
    )
    tags: tuple[Text, ...] = Field(default=(), description="all learning tests with one of these tags")
    levels: Levels = Field(default="all", description="which levels of each test: first, last or all")

    @model_validator(mode="after")
    def _check(self) -> Self:
        refuse(_battery_problems(self))
        return self


def _battery_problems(config: BatteryConfig) -> Iterator[Problem]:
    """Yield names and tags that no test has."""
    for name in ("tests", "tags"):
        given = getattr(config, name)
        if not given:
            continue
        from vsml.battery.catalogue import learning_tests  # those who name no test need none

        try:
            learning_tests(**{name: given})
        except ValueError as error:
            yield Problem(name, given, f"what there is: {error}")


@struct.dataclass
class Drawn:
    """What the members of a trial share.

    Attributes:
        episode: of one level of a test.
        key: of the first state and of events.
        place: number of the level among the tasks of the objective.
    """

    episode: Episode
    key: Array
    place: int = struct.field(pytree_node=False)


@dataclass(frozen=True)
class BatteryLoss:
    """Judge a learner by its answers to learning tests: trials take their levels in turn.

    The loss of a level is the mean loss of the answers that count, as a share of that of guessing: `log C`
    nats for C classes, `D / 2` for D values, whose variance is about 1. So tests count alike. The score is
    the accuracy, or the share of the targets' variance that is explained.

    Attributes:
        config: which tests.
    """

    config: BatteryConfig = field(default_factory=BatteryConfig)

    @functools.cached_property
    def levels(self) -> "tuple[tuple[LearningTest, Level, Task], ...]":
        """The levels of all tests, each with its task.

        Raises:
            NotApplicableError: the data of one are not there.
        """
        # Those who read a configuration with another objective need no tests.
        from vsml.battery.catalogue import learning_tests

        chosen = {"first": slice(1), "last": slice(-1, None), "all": slice(None)}[self.config.levels]
        levels = []
        for test in learning_tests(self.config.tests, self.config.tags):
            for level in test.levels[chosen]:
                levels.append((test, level, test.task(level)))
        return tuple(levels)

    @functools.cached_property
    def tasks(self) -> tuple[OwnTask, ...]:
        """What trials take in turn; see `HasTasks`."""
        tasks = []
        for place, (_, _, task) in enumerate(self.levels):
            tasks.append(OwnTask(place, tuple(task.input_shape), task.outputs, task.steps))
        return tuple(tasks)

    @property
    def learner_shape(self) -> tuple[tuple[int, ...], Outputs]:
        """The shapes of the first level; other levels have theirs."""
        first = self.tasks[0]
        return first.input_shape, first.outputs

    def score_name(self, learner: Learner) -> str:
        """Return "skill": the accuracy of classes, and the share that is explained of values."""
        del learner
        return "skill"

    def draw(
        self,
        learner: Learner,
        tasks: tuple[Any, ...],
        option: Array,
        key: Array,
        trial: Array,
    ) -> Drawn:
        """Draw an episode of the one level that a group has; see `Objective.draw`."""
        del learner, option
        (own,) = tasks
        _, _, task = self.levels[own.place]
        episode_key, state_key = jax.random.split(jax.random.fold_in(key, trial))
        return Drawn(task.draw(episode_key), state_key, own.place)

    def judge(
        self,
        learner: Learner,
        params: Params,
        drawn: Drawn,
        differentiated: bool = False,
    ) -> MemberResult:
        """Run a member over the episode, events included; see `Objective.judge`."""
        from vsml.battery.running import answers_through_events

        _, _, task = self.levels[drawn.place]
        segments = segments_of(learner, task.steps, 1) if differentiated else 1
        answers = answers_through_events(learner, params, drawn.key, task, drawn.episode, segments)
        result = episode_result(answers, drawn.episode, EpisodeLoss().config.loss_type, task.outputs)
        return MemberResult(loss=result.loss / _guessing(task.outputs), score=result.score)

    def examples(self, shape: EpisodeShape | None) -> int:
        """Return the mean steps of an episode, rounded up."""
        del shape
        steps = [task.episode_length for task in self.tasks]
        return math.ceil(sum(steps) / len(steps))

    def trial_bytes(
        self,
        learner: Learner,
        shape: EpisodeShape | None,
        members: int,
        differentiated: bool,
    ) -> int:
        """Count the states that are kept, and two copies of the longest episode."""
        del shape
        steps = max(task.episode_length for task in self.tasks)
        states = WORKING_COPIES
        if differentiated:
            states += kept_states(steps, segments_of(learner, steps, 1))
        episode = FLOAT_BYTES * steps * math.prod(learner.input_shape)
        return members * states * state_bytes(learner, 1) + 2 * episode

    def model_problems(
        self,
        model_type: str,
        settings: Section,
        reason: str,
    ) -> Iterator[Problem]:
        """Yield nothing: a learner that cannot take a test says so itself."""
        yield from ()


def _guessing(outputs: Outputs) -> float:
    """Return the loss of one who knows nothing: log C of classes, D / 2 of values of variance 1."""
    if isinstance(outputs, Values):
        return outputs.size / 2
    return math.log(max(outputs.size, 2))

"""The interface of an objective: what the outer loop minimises."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from flax import struct

from vsml.learners import Learner
from vsml.settings import Problem, Section
from vsml.tasks import TaskDistribution
from vsml.types import Array, Outputs, Params


@struct.dataclass
class MemberResult:
    """What one member of a trial came to.

    Attributes:
        loss: what is minimised, float32 [].
        score: what is reported beside it, higher is better, float32 [].
    """

    loss: Array
    score: Array


@dataclass(frozen=True)
class EpisodeShape:
    """How long the episode of a trial is, known before any data are loaded.

    Attributes:
        steps: T.
        batch_size: inner batch B.
        projected: each episode draws a matrix that its inputs are multiplied with.
    """

    steps: int
    batch_size: int = 1
    projected: bool = False


@struct.dataclass
class OwnTask:
    """What trials of an objective that has tasks of its own take; a pytree without arrays.

    Attributes:
        place: its number among the objective's tasks.
        input_shape: shape of one input.
        outputs: what is answered with.
        episode_length: steps of an episode.
    """

    place: int = struct.field(pytree_node=False)
    input_shape: tuple[int, ...] = struct.field(pytree_node=False)
    outputs: Outputs = struct.field(pytree_node=False)
    episode_length: int = struct.field(pytree_node=False)


@runtime_checkable
class HasTasks(Protocol):
    """An objective with tasks of its own, of several shapes: each is a group, and trials take them in turn.

    Its `learner_shape` is that of one of them, so that no data are loaded for it.
    """

    @property
    def tasks(self) -> tuple[OwnTask, ...]:
        """The tasks; `draw` is called with one of them alone."""


class Objective(Protocol):
    """Judges the members of a trial by what they share. Hashable (a frozen dataclass), and pure.

    It is built as `Kind(config)`, where the type of the field `config` is its section of settings.
    """

    @property
    def learner_shape(self) -> tuple[tuple[int, ...], Outputs | int] | None:
        """The input shape and the outputs of the learner that it works on; None: those of the tasks.

        An objective that has a shape of its own needs no tasks, and no data are loaded for it.
        """

    def score_name(self, learner: Learner) -> str:
        """Return the name of the score in metrics: "accuracy" for one."""

    def draw(
        self,
        learner: Learner,
        tasks: tuple[TaskDistribution, ...],
        option: Array,
        key: Array,
        trial: Array,
    ) -> Any:
        """Draw what the members of a trial share, from nothing but the key and the trial's number.

        Args:
            learner: the learning algorithm.
            tasks: task distributions with the same shapes; none if the objective needs none.
            option: which of them the trial takes, int [].
            key: of the meta step.
            trial: number of the trial, int [].

        Returns:
            A pytree of arrays.
        """

    def judge(
        self,
        learner: Learner,
        params: Params,
        drawn: Any,
        differentiated: bool = False,
    ) -> MemberResult:
        """Judge one member.

        Args:
            learner: the learning algorithm.
            params: meta-parameters of the member.
            drawn: from `draw`.
            differentiated: the loss is going to be differentiated by params. The result is the same; only
                memory may be saved, at the price of time.
        """

    def examples(self, shape: EpisodeShape | None) -> int:
        """Return how many examples a member sees in a trial.

        Args:
            shape: of the trial's episode; None where no tasks are needed.
        """

    def trial_bytes(
        self,
        learner: Learner,
        shape: EpisodeShape | None,
        members: int,
        differentiated: bool,
    ) -> int:
        """Estimate the memory that a trial takes while it is evaluated, without copies of meta-parameters.

        Args:
            learner: the learning algorithm.
            shape: of the trial's episode; None where no tasks are needed.
            members: of the trial, side by side.
            differentiated: as in `judge`.
        """

    def model_problems(
        self,
        model_type: str,
        settings: Section,
        reason: str,
    ) -> Iterator[Problem]:
        """Yield what it refuses of a model, with paths below `model`.

        Args:
            model_type: what `model.type` names.
            settings: the section of that type.
            reason: how messages refer to the objective, such as "training.objective: clone".
        """

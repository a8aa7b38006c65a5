"""The loss of a learner over an episode."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import jax
import jax.numpy as jnp
from pydantic import Field

from vsml.learners import Learner, continue_episode, run_episode
from vsml.losses import loss as losses_of
from vsml.losses import right_answers
from vsml.meta.objectives.base import EpisodeShape, MemberResult
from vsml.meta.trials import sample_trial, state_bytes
from vsml.settings import Positive, Problem, Section
from vsml.tasks import TaskDistribution
from vsml.types import (
    Array,
    Episode,
    Outputs,
    Params,
    Values,
)

LossType = Literal["mean", "last"]

BACKPROPAGATION_BYTES = 256 * 2**20
"""States of one episode that may be kept for back-propagation; longer episodes are recomputed in segments."""

WORKING_COPIES = 8
"""Estimated memory of one tick, in states: the four gates, the new state and the messages."""

FLOAT_BYTES = 4


class EpisodeConfig(Section):
    """What of an episode is judged."""

    loss_type: LossType = Field(
        default="mean", description="loss of an episode (nats): mean over its steps, or the last step only"
    )
    truncation_length: Positive | None = Field(
        default=None,
        description="gradient: back-propagate through the last so many steps of an episode only, whose loss "
        "alone counts then; what came before is run forward; null: through all steps",
    )


@dataclass(frozen=True)
class EpisodeLoss:
    """Judge a learner by its answers to an episode, from a fresh state; all of a trial meet the same.

    With a `truncation_length` only the last steps are judged, and no gradient flows into those before:
    truncated back-propagation through time, from states that the learner reaches by itself.

    Attributes:
        config: what of an episode is judged.
    """

    config: EpisodeConfig = field(default_factory=EpisodeConfig)

    @property
    def learner_shape(self) -> None:
        """None: learners are built for the tasks."""
        return None

    def score_name(self, learner: Learner) -> str:
        """Return "accuracy" for classes, and "explained" (share of the variance) for values."""
        return "explained" if isinstance(learner.outputs, Values) else "accuracy"

    def draw(
        self,
        learner: Learner,
        tasks: tuple[TaskDistribution, ...],
        option: Array,
        key: Array,
        trial: Array,
    ) -> tuple[Episode, Array]:
        """Draw an episode and the key of the initial state; see `Objective.draw`."""
        return sample_trial(tasks, option, key, trial)

    def judge(
        self,
        learner: Learner,
        params: Params,
        drawn: tuple[Episode, Array],
        differentiated: bool = False,
    ) -> MemberResult:
        """Run a member over the episode; see `Objective.judge`."""
        episode, state_key = drawn
        segments = 1
        if differentiated:
            steps, batch_size = episode.y.shape[:2]
            segments = segments_of(learner, self._judged(steps), batch_size)
        loss_type, truncation_length = self.config.loss_type, self.config.truncation_length
        return trial_result(learner, loss_type, params, episode, state_key, segments, truncation_length)

    def examples(self, shape: EpisodeShape | None) -> int:
        """Return the steps of an episode times its inner batch."""
        assert shape is not None  # it needs tasks
        return shape.steps * shape.batch_size

    def trial_bytes(
        self,
        learner: Learner,
        shape: EpisodeShape | None,
        members: int,
        differentiated: bool,
    ) -> int:
        """Count the states that are kept, two copies of the episode, and its projection."""
        assert shape is not None  # it needs tasks
        inputs = math.prod(learner.input_shape)
        episode = FLOAT_BYTES * self.examples(shape) * inputs
        projection = FLOAT_BYTES * inputs**2 if shape.projected else 0
        states = WORKING_COPIES
        if differentiated:
            judged = self._judged(shape.steps)
            segments = segments_of(learner, judged, shape.batch_size)
            states += kept_states(judged, segments)
        state = state_bytes(learner, shape.batch_size)
        return members * states * state + 2 * episode + projection

    def model_problems(
        self,
        model_type: str,
        settings: Section,
        reason: str,
    ) -> Iterator[Problem]:
        """Yield nothing: every learner goes through episodes."""
        yield from ()

    def _judged(self, steps: int) -> int:
        """Return how many steps of an episode are judged."""
        return min(steps, self.config.truncation_length or steps)


def episode_result(
    answers: Array,
    episode: Episode,
    loss_type: LossType,
    outputs: Outputs,
) -> MemberResult:
    """Judge the answers to an episode.

    For classes the loss is the cross-entropy in nats and the score the accuracy. For values the loss is half
    the squared error, and the score the share of the targets' variance over the episode that is explained,
    at most 1; 0 where they have none.

    Args:
        answers: [T, B, C] or [T, B, D].
        episode: with targets and weights [T, B].
        loss_type: "mean" of the loss over all steps, or that of the "last" step.
        outputs: what the answers are.
    """
    weight = episode.weight
    if loss_type == "last":
        weight = weight.at[:-1].set(0.0)
    weight = weight / weight.sum()
    loss = (losses_of(outputs, answers, episode.y) * weight).sum()
    if isinstance(outputs, Values):
        return MemberResult(loss=loss, score=_explained(loss, episode))
    correct = right_answers(answers, episode.y)
    return MemberResult(loss=loss, score=(correct * weight).sum())


def _explained(loss: Array, episode: Episode) -> Array:
    """Return the share of the variance of an episode's targets [T, B, D] that is explained.

    Args:
        loss: half the mean squared error.
        episode: whose targets have the variance, each counted by its weight.
    """
    weight_TxBx1 = (episode.weight / episode.weight.sum())[..., None]
    mean_D = (episode.y * weight_TxBx1).sum((0, 1))
    distance = jnp.square(episode.y - mean_D[None, None])
    variance = (distance * weight_TxBx1).sum()
    share = 1 - 2 * loss / jnp.where(variance > 0, variance, 1.0)
    return jnp.where(variance > 0, share, 0.0)


def trial_result(
    learner: Learner,
    loss_type: LossType,
    params: Params,
    episode: Episode,
    key: Array,
    segments: int = 1,
    truncation_length: int | None = None,
) -> MemberResult:
    """Run one member over an episode and judge it.

    Args:
        learner: the learning algorithm.
        loss_type: what of an episode is minimised.
        params: its meta-parameters.
        episode: the stream of examples.
        key: for the initial state.
        segments: see `run_episode`; of the part that is judged.
        truncation_length: judge only this many steps, the last of the episode, and let no gradient flow
            into those before. None judges all.
    """
    outputs = learner.outputs
    before = len(episode.y) - (truncation_length or len(episode.y))
    if before <= 0:
        answers = run_episode(learner, params, key, episode, segments)
        return episode_result(answers, episode, loss_type, outputs)
    first = jax.tree.map(lambda a: a[:before], episode)
    last = jax.tree.map(lambda a: a[before:], episode)
    # What comes before is run forward, and is as if it were given.
    fixed = jax.lax.stop_gradient(params)
    state = learner.init_state(fixed, key, episode.y.shape[1])
    reached, _ = continue_episode(learner, fixed, state, first)
    reached = jax.lax.stop_gradient(reached)
    _, answers = continue_episode(learner, params, reached, last, segments)
    return episode_result(answers, last, loss_type, outputs)


def segments_of(
    learner: Learner,
    length: int,
    batch_size: int,
) -> int:
    """Return into how many segments that many steps are cut for back-propagation (see `run_episode`)."""
    kept = length * state_bytes(learner, batch_size)
    return 1 if kept <= BACKPROPAGATION_BYTES else math.ceil(math.sqrt(length))


def kept_states(episode_length: int, segments: int) -> int:
    """Return how many states back-propagation through an episode keeps (see `run_episode`)."""
    between = segments if segments > 1 else 0
    return math.ceil(episode_length / segments) + between

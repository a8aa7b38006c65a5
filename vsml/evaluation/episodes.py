"""A learner on the episodes of a task: the one way in which answers are given and scored."""

import functools
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from vsml.cost.counts import cost_of
from vsml.evaluation.metrics import Metric, main_metric
from vsml.evaluation.scores import RECENT_SHARE, Evaluation, Measured, Price
from vsml.learners import Learner, run_episode
from vsml.learners.memory import state_floats
from vsml.learners.refitted import Refit, refitted_answers
from vsml.losses import loss
from vsml.meta.mapping import map_trials
from vsml.meta.trials import sample_trial
from vsml.setup import EvaluationTask
from vsml.system.comm import Communicator
from vsml.tasks import TaskDistribution
from vsml.types import Array, Classes, Episode, Outputs, Params

Metrics = tuple[tuple[str, Metric], ...]
"""Metrics by name, hashable."""


def score_episode(
    learner: Learner, params: Params, key: Array, episode: Episode, metrics: Metrics = ()
) -> dict[str, Array]:
    """Run a learner over an episode from a fresh state, and score its answers; pure.

    Args:
        learner: built for the episode.
        params: its meta-parameters.
        key: of its first state.
        episode: the stream of examples.
        metrics: what is measured beside the loss and the main metric; those that do not apply are left out.

    Returns:
        Means over the inner batch, [T] each: "loss", "weight" (how much answers count), "score" and, of a
        metric with weights, "baseline"; of other metrics `NAME` and `NAME/weight`.
    """
    return score_answers(learner.outputs, run_episode(learner, params, key, episode), episode, metrics)


def score_answers(
    outputs: Outputs, answers: Array, episode: Episode, metrics: Metrics = ()
) -> dict[str, Array]:
    """Score answers to an episode; pure.

    Args:
        outputs: what the answers are.
        answers: logits [T, B, C], or values [T, B, D].
        episode: the stream of examples.
        metrics: see `score_episode`.

    Returns:
        As of `score_episode`.
    """
    _, main = main_metric(outputs)
    found = {
        "loss": loss(outputs, answers, episode.y).mean(-1),
        "weight": episode.weight.mean(-1),
    }
    value, weight = main.measure(outputs, answers, episode.y)
    found["score"] = value.mean(-1)
    if weight is not None:
        found["baseline"] = weight.mean(-1)
    for name, metric in metrics:
        if metric.applies_to(outputs):
            value, weight = metric.measure(outputs, answers, episode.y)
            found[name] = value.mean(-1)
            if weight is not None:
                found[f"{name}/weight"] = weight.mean(-1)
    return found


@dataclass(frozen=True, eq=False)
class PendingEvaluation:
    """An evaluation that a device may still be at.

    Attributes:
        learner: its name.
        evaluation_task: what it is evaluated on.
        count: how many episodes.
        scores: of this rank's share of them, from `score_episode`, not waited for.
        metric: name of the main metric.
        recent_share, tried, price: as in `Evaluation`.
    """

    learner: str
    evaluation_task: EvaluationTask
    count: int
    scores: Mapping[str, Array]
    metric: str = "accuracy"
    recent_share: float = RECENT_SHARE
    tried: dict[str, Any] = field(default_factory=dict)
    price: Price | None = None

    def collect(self, comm: Communicator) -> Evaluation:
        """Wait for the answers and exchange them; all ranks get the result."""
        names = sorted(self.scores)
        mine = jax.device_get([self.scores[name] for name in names])
        gathered = comm.allgather(np.stack(mine).astype(np.float32))  # [ranks, names, share, T]
        ranks, count, share, _ = gathered.shape
        # Rank r has episodes r, r + ranks, ...: put them into their order, and leave out fillers.
        in_order = gathered.transpose(1, 2, 0, 3).reshape(count, share * ranks, -1)[:, : self.count]
        task = self.evaluation_task.task
        each_example = np.repeat(in_order, task.batch_size, axis=-1)
        found = dict(zip(names, each_example, strict=True))
        counts = found.pop("weight")[0] > 0  # of all episodes of a task the same answers count
        found = {name: values[:, counts] for name, values in found.items()}
        return Evaluation(
            learner=self.learner,
            dataset=self.evaluation_task.name,
            chance=1.0 if task.chance is None else task.chance,
            score=found.pop("score"),
            loss=found.pop("loss"),
            support=int(counts.argmax()),
            repeats_after=task.repeats_after,
            recent_share=self.recent_share,
            tried=self.tried,
            metric=self.metric,
            baseline=found.pop("baseline", None),
            others=_measured(found),
            price=self.price,
        )


def _measured(found: Mapping[str, np.ndarray]) -> dict[str, Measured]:
    """Return what metrics came to from their values `NAME` and their weights `NAME/weight`."""
    names = [name for name in found if not name.endswith("/weight")]
    return {name: Measured(found[name], found.get(f"{name}/weight")) for name in names}


def dispatch(
    name: str,
    learner: Learner,
    params: Params,
    evaluation_task: EvaluationTask,
    count: int,
    key: Array,
    comm: Communicator,
    metrics: Metrics = (),
) -> PendingEvaluation:
    """Start to run a learner over `count` episodes of a task, each rank its share; wait for nothing.

    Args:
        name: of the learner.
        learner: built for the shapes of the task.
        params: its meta-parameters.
        evaluation_task: the task.
        count: how many episodes.
        key: of the episodes and the initial states; learners that get the same key meet the same episodes.
        comm: the ranks.
        metrics: see `score_episode`.
    """
    numbers = _numbers(count, comm)
    scores = _scores(learner, params, evaluation_task.task, numbers, key, metrics)
    metric, _ = main_metric(learner.outputs)
    price = price_of(learner, evaluation_task.task.batch_size)
    return PendingEvaluation(name, evaluation_task, count, scores, metric, price=price)


def dispatch_refitted(
    name: str,
    refit: Refit,
    evaluation_task: EvaluationTask,
    count: int,
    key: Array,
    comm: Communicator,
    metrics: Metrics = (),
) -> PendingEvaluation:
    """Let a classifier of scikit-learn answer the episodes of a task, on the host; return when it has.

    Args:
        name: of the contestant.
        refit: the classifier.
        evaluation_task: the task.
        count: how many episodes.
        key: of the episodes, the same ones as of learners that get this key.
        comm: the ranks.
        metrics: see `score_episode`.

    Raises:
        ValueError: the task asks for values.
    """
    task = evaluation_task.task
    if not isinstance(task.outputs, Classes):
        where = f"evaluation.learners, {name!r} on {evaluation_task.name}"
        raise ValueError(f"{where}: got {task.outputs}, expected classes for {refit.estimator}")
    each_episode = []
    seconds = 0.0
    for number in _numbers(count, comm):
        episode = jax.device_get(_draw(task, number, key))
        start = time.perf_counter()
        answers = refitted_answers(refit, episode.x, episode.y, episode.taught, task.outputs.size)
        seconds += time.perf_counter() - start
        each_episode.append(_score(task.outputs, answers, episode, metrics))
    scores = jax.tree.map(lambda *each: np.stack(each), *each_episode)
    examples = task.episode_length * task.batch_size
    # All examples are kept, each with its label.
    state = examples * (math.prod(task.input_shape) + 1)
    price = Price(state=state, microseconds=1e6 * seconds / (len(each_episode) * examples))
    metric, _ = main_metric(task.outputs)
    return PendingEvaluation(name, evaluation_task, count, scores, metric, price=price)


def _numbers(count: int, comm: Communicator) -> np.ndarray:
    """Return the numbers of the episodes of this rank, each rank as many."""
    share = math.ceil(count / comm.size)
    return np.arange(share, dtype=np.int32) * comm.size + comm.rank


@jax.jit
def _draw(task: TaskDistribution, number: Array, key: Array) -> Episode:
    """Draw the episode of a number, the one that `_scores` draws."""
    return sample_trial((task,), 0, key, number)[0]


_score = jax.jit(score_answers, static_argnames=("outputs", "metrics"))


@functools.lru_cache(maxsize=64)
def price_of(learner: Learner, batch_size: int) -> Price:
    """Return what a learner keeps between steps, and the arithmetic of a step for each example.

    An evaluation of tanh and the like counts as one operation, too.
    """
    kept = state_floats(learner, batch_size)
    cost = cost_of(learner, batch_size)
    fixed = sum(count for _, count in kept.fixed)
    return Price(state=kept.kept, fixed=fixed, flops=cost.flops + cost.transcendentals)


def evaluate(
    name: str,
    learner: Learner,
    params: Params,
    evaluation_task: EvaluationTask,
    count: int,
    key: Array,
    comm: Communicator,
    metrics: Metrics = (),
) -> Evaluation:
    """Run a learner over episodes of a task; arguments as of `dispatch`, all ranks get the result."""
    return dispatch(name, learner, params, evaluation_task, count, key, comm, metrics).collect(comm)


@functools.partial(jax.jit, static_argnames=("learner", "metrics"))
def _scores(
    learner: Learner, params: Params, task: TaskDistribution, numbers: Array, key: Array, metrics: Metrics
) -> dict[str, Array]:
    def score(number: Array, shared: Any) -> dict[str, Array]:
        params, task, key = shared
        episode, state_key = sample_trial((task,), 0, key, number)
        return score_episode(learner, params, state_key, episode, metrics)

    return map_trials(score, numbers, (params, task, key))


def score_episodes(
    learner: Learner, params: Params, episodes: Episode, keys: Array, metrics: Metrics = ()
) -> dict[str, Array]:
    """Score a learner on episodes that are there, each from a fresh state; pure.

    Args:
        learner: built for the episodes.
        params: its meta-parameters.
        episodes: with a leading axis of episodes.
        keys: of the first states, [episodes].
        metrics: see `score_episode`.

    Returns:
        As of `score_episode`, with a leading axis of episodes.
    """

    def score(trial: tuple[Episode, Array], params: Params) -> dict[str, Array]:
        episode, key = trial
        return score_episode(learner, params, key, episode, metrics)

    return map_trials(score, (episodes, keys), params)

"""The interface of a meta-optimizer, and what several of them share."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import jax
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from vsml.learners import Learner
from vsml.meta.mapping import sum_trials
from vsml.meta.objectives.base import MemberResult, Objective
from vsml.meta.optimizers.settings import OptimizerConfig
from vsml.meta.optimizers.slope import DECAY, shorten_steep_steps
from vsml.meta.schedules import schedule
from vsml.meta.trials import Chunk, Results
from vsml.tasks import TaskDistribution
from vsml.types import Array, Params


class MetaOptimizer(Protocol):
    """Finds meta-parameters from what members score. Its state is a pytree, the same on every rank.

    It is built as `Kind.from_config(config, outer)`, or `Kind(config, outer)` where it has no `from_config`;
    the type of the argument `config` is its section of settings, and `outer` an `OuterLoop`.
    """

    trial_members: int
    """Members in a trial."""

    differentiates: bool
    """Whether it differentiates losses by meta-parameters."""

    @property
    def objective(self) -> Objective:
        """What it minimises."""

    def init(self, key: Array, params: Params) -> Any:
        """Start from the given meta-parameters."""

    def params(self, state: Any) -> Params:
        """Return the meta-parameters found so far."""

    def ask(self, state: Any) -> tuple[Any, Any]:
        """Return the state to tell the results to, and the members to evaluate, or what they follow from."""

    def evaluate(
        self,
        members: Any,
        chunk: Chunk,
        key: Array,
    ) -> tuple[Array, Array, Array]:
        """Evaluate the trials of a chunk.

        Returns:
            Loss and score [chunk_size, trial_members], and the sum of the gradients, flat (or empty).
        """

    def tell(
        self,
        state: Any,
        members: Any,
        results: Results,
    ) -> tuple[Any, dict[str, Any]]:
        """Improve the meta-parameters, and wait for nothing.

        Args:
            state: from `ask`.
            members: from `ask`.
            results: of all trials.

        Returns:
            The new state, and metrics: numbers, or arrays of one number that may still be computed.
        """


@dataclass(frozen=True, eq=False)
class OuterLoop:
    """What a meta-optimizer is built for.

    Attributes:
        settings: of the section `optimizer`.
        objective: what is minimised.
        params: meta-parameters, as a template.
        trials: how many a meta step has.
        iterations: how many meta steps there are.
    """

    settings: OptimizerConfig
    objective: Objective
    params: Params
    trials: int
    iterations: int

    def adam(self) -> optax.GradientTransformation:
        """Return Adam with the configured `learning_rate`, `clip_gradnorm` and `max_slope`."""
        settings = self.settings
        learning_rate = schedule(settings.learning_rate, self.iterations)
        return meta_adam(learning_rate, settings.clip_gradnorm, settings.max_slope)

    def noise_std(self) -> float | Callable[[Any], Any]:
        """Return the configured deviation of perturbations, a number or a schedule over meta steps."""
        return schedule(self.settings.noise_std, self.iterations)


TrialFunction = Callable[[Objective, Learner, Any, Array, Any], tuple[MemberResult, Array]]
"""`(objective, learner, members, trial, drawn) -> (results [trial_members], vector [D])`."""


def evaluate_chunk(
    evaluate_trial: TrialFunction,
    objective: Objective,
    members: Any,
    chunk: Chunk,
    key: Array,
) -> tuple[Array, Array, Array]:
    """Evaluate each trial of a chunk on what its members share, and add up the vectors of all.

    Args:
        evaluate_trial: evaluates one trial; a function of a module, as it is a key of compiled functions.
        objective: what is minimised.
        members: of all trials, or what they follow from.
        chunk: the trials.
        key: of the meta step.

    Returns:
        Loss and score [chunk_size, trial_members], and the sum of the vectors of the real trials [D].
    """
    group = chunk.group
    count = np.int32(chunk.count)
    places = chunk.trials, chunk.options
    return _evaluate(evaluate_trial, objective, group.learner, members, group.tasks, *places, count, key)


@partial(jax.jit, static_argnames=("evaluate_trial", "objective", "learner"))
def _evaluate(
    evaluate_trial: TrialFunction,
    objective: Objective,
    learner: Learner,
    members: Any,
    tasks: tuple[TaskDistribution, ...],
    trials: Array,
    options: Array,
    count: Array,
    key: Array,
) -> tuple[Array, Array, Array]:
    def evaluate(place: tuple[Array, Array], shared: Any) -> tuple[MemberResult, Array]:
        trial, option = place
        members, tasks, key = shared
        drawn = objective.draw(learner, tasks, option, key, trial)
        return evaluate_trial(objective, learner, members, trial, drawn)

    results, total = sum_trials(evaluate, (trials, options), count, (members, tasks, key))
    return results.loss, results.score, total


def judge_members(
    objective: Objective,
    learner: Learner,
    members: Params,
    drawn: Any,
) -> MemberResult:
    """Judge members of a trial side by side.

    Args:
        objective: what is minimised.
        learner: the learning algorithm.
        members: meta-parameters; leaves [members, ...].
        drawn: what they share.
    """
    return jax.vmap(lambda params: objective.judge(learner, params, drawn))(members)


def summarise(results: Results) -> dict[str, float]:
    """Return the mean of the finite losses and of their scores, and how many losses are not finite."""
    finite = np.isfinite(results.loss)
    loss = score = math.nan
    if finite.any():
        loss = float(results.loss[finite].mean())
        score = float(results.score[finite].mean())
    return {
        "meta_loss": loss,
        results.score_name: score,
        "nonfinite": int((~finite).sum()),
    }


def meta_adam(
    learning_rate: optax.ScalarOrSchedule,
    clip_gradnorm: float | None = None,
    max_slope: float | None = None,
) -> optax.GradientTransformation:
    """Adam as the outer loop uses it.

    The norm of the gradient is noted, then clipped to `clip_gradnorm`. With a `max_slope` steps are shorter
    where the clipped gradient is steeper, and Adam's mean squares follow as fast; see `shorten_steep_steps`.
    """
    clip = optax.identity() if clip_gradnorm is None else optax.clip_by_global_norm(clip_gradnorm)
    adam = optax.adam(learning_rate)
    if max_slope is not None:
        adam = shorten_steep_steps(optax.adam(learning_rate, b2=DECAY), max_slope)
    return optax.chain(
        optax.snapshot("grad_norm", optax.tree.norm),
        clip,
        adam,
    )


def measurements(state: Any) -> dict[str, Array]:
    """Return what `meta_adam` noted, given a pytree with its state; nothing for another optimizer."""
    norm = optax.tree_utils.tree_get(state, "grad_norm", default=None)
    return {} if norm is None else {"grad_norm": norm}


def descend(
    optimizer: optax.GradientTransformation,
    params: Params,
    state: optax.OptState,
    gradient: Array,
) -> tuple[Params, optax.OptState, dict[str, Array]]:
    """Take one step of an optax optimizer along a flat gradient [D].

    Returns:
        The new meta-parameters, the new state of the optimizer, and its `measurements`.
    """
    _, unravel = ravel_pytree(params)
    updates, state = optimizer.update(unravel(gradient), state, params)
    return optax.apply_updates(params, updates), state, measurements(state)

"""The inner law: how a learner's loss falls with examples, and how much of what these hold it takes.

A learner sees the first n examples of an episode, once or several times, and is then asked about Q others of
the same episode, from which it learns nothing. Its *extraction efficiency* is

    (L0 - L(n)) / (L0 - L_best(n)),

with L0 = log C, the loss before any example, and L_best(n) that of the best reference which was fitted to the
same n examples until there was nothing more to gain (`vsml.laws.references`). Where it is near 1, only more
data help; where it is low, the learning algorithm is the limit. Above 1, meta-training knew something that n
examples do not say. A learner that is worse than knowing nothing is below 0.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vsml.learners import Learner
from vsml.losses import loss
from vsml.meta.mapping import map_trials
from vsml.reporting.intervals import student_t
from vsml.tasks import TaskDistribution
from vsml.types import Array, Episode, Params

_TUNING = 1
"""What the key of the episodes is folded with for those that references are chosen on."""


def draw_episodes(task: TaskDistribution, key: Array, count: int, tuning: bool = False) -> Episode:
    """Return the episodes [E, T, 1, ...] of a task; those for tuning are others."""
    if tuning:
        key = jax.random.fold_in(key, _TUNING)
    return jax.vmap(task.sample)(jax.random.split(key, count))


@dataclass(frozen=True, eq=False)
class Learned:
    """What a learner answered after n examples, shown once or several times.

    Attributes:
        loss: mean over the queries (nats), float64 [counts, sights, E].
        accuracy: likewise.
    """

    loss: np.ndarray
    accuracy: np.ndarray


def learn(
    learner: Learner,
    params: Params,
    episodes: Episode,
    counts: Sequence[int],
    sights: int,
    queries: int,
    key: Array,
) -> Learned:
    """Let a learner see n examples, once or several times, and ask it about others.

    Args:
        learner: for classes, built for the episodes.
        params: its meta-parameters.
        episodes: [E, T, 1, ...], whose last `queries` examples are asked.
        counts: n, ascending.
        sights: how often the n examples are shown, in the same order.
        queries: Q.
        key: of first states.
    """
    keys = jax.random.split(key, len(episodes.y))
    asked = np.array(counts, np.int32)
    found_loss, found_right = _learn(learner, params, episodes, keys, asked, sights, queries)
    # [E, counts, sights] each.
    return Learned(
        np.asarray(found_loss, np.float64).transpose(1, 2, 0),
        np.asarray(found_right, np.float64).transpose(1, 2, 0),
    )


def _learn(
    learner: Learner,
    params: Params,
    episodes: Episode,
    keys: Array,
    counts: np.ndarray,
    sights: int,
    queries: int,
) -> tuple[Array, Array]:
    def of_episode(trial: tuple[Array, Array, Array], shared: Any) -> tuple[Array, Array]:
        x, y, key = trial
        params, counts = shared
        state = learner.init_state(params, key, 1)

        def step(number: Array, state: Any) -> Any:
            return learner.step(params, state, x[number], y[number])[0]

        def ask(state: Any) -> tuple[Array, Array]:
            logits = learner.predict(params, state, x[-queries:, 0])
            labels = y[-queries:, 0]
            right = (logits.argmax(-1) == labels).mean()
            return loss(learner.outputs, logits, labels).mean(), right

        def at_count(carry: tuple[Any, Array], count: Array) -> tuple[tuple[Any, Array], tuple[Array, Array]]:
            state, seen = carry
            # The stream goes on from where the last count has stopped.
            state = jax.lax.fori_loop(seen, count, step, state)

            def at_sight(again: Any, number: Array) -> tuple[Any, tuple[Array, Array]]:
                # The first sight was the stream itself.
                last = jnp.where(number == 0, 0, count)
                again = jax.lax.fori_loop(0, last, step, again)
                return again, ask(again)

            _, answers = jax.lax.scan(at_sight, state, jnp.arange(sights))
            return (state, count), answers

        _, answers = jax.lax.scan(at_count, (state, jnp.int32(0)), counts)
        return answers

    run = jax.jit(lambda trials, shared: map_trials(of_episode, trials, shared))
    return run((episodes.x, episodes.y, keys), (params, jnp.asarray(counts)))


@dataclass(frozen=True)
class Efficiency:
    """An extraction efficiency, with the half width of its 95 % interval over episodes (None for one)."""

    value: float
    half_width: float | None


def efficiency(loss_E: np.ndarray, best_E: np.ndarray, classes: int) -> Efficiency:
    """Return (L0 - L) / (L0 - L_best) of mean losses, with L0 = log C.

    Args:
        loss_E: of a learner in each episode (nats), [E].
        best_E: of the best reference in the same episodes, [E].
        classes: C.

    Raises:
        ValueError: the reference is not better than knowing nothing.
    """
    gained = math.log(classes) - np.asarray(loss_E, float)
    possible = math.log(classes) - np.asarray(best_E, float)
    if possible.mean() <= 0:
        raise ValueError(
            f"efficiency: got a reference of {np.mean(best_E):.3g} nats, expected one below log C, "
            f"{math.log(classes):.3g}: there is nothing to extract"
        )
    value = float(gained.mean() / possible.mean())
    if len(gained) == 1:
        return Efficiency(value, None)
    # Of a ratio of means, to first order: what is left of the gain without its share of the possible one.
    left = gained - value * possible
    half = student_t(len(left)) * left.std(ddof=1) / math.sqrt(len(left)) / possible.mean()
    return Efficiency(value, float(half))

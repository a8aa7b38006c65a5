"""A learner that takes a task: episodes side by side, in segments that are compiled once for each shape."""

import functools
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vsml.battery.floors import answered
from vsml.battery.learning_test import LearningTest, Level, NotApplicableError, Outcome, Task, TooSlowError
from vsml.learners import Learner, continue_episode
from vsml.learners.memory import state_floats
from vsml.system.numerics import standard_numerics
from vsml.types import Array, Episode, Params, State

SEGMENT = 50
"""Steps that are compiled as one."""

SIDE_BY_SIDE = 2**22
"""Numbers of state, of all episodes together, up to which a CPU takes episodes side by side."""

TUNING = 1_000_000
"""Episodes that settings are chosen on are numbered from here on, so they are none that count."""

HOUR_S = 3600.0
"""Time that a learner may take for a level of a test."""

_QUICKLY = {"xla_backend_optimization_level": 0}
"""For what runs once: compiling it takes far longer than running it."""

_EVENTS = 7
_STATES = 8


@dataclass(frozen=True, eq=False)
class Drawn:
    """Episodes of a level of a test.

    Attributes:
        test: the test.
        level: the level.
        task: its task.
        episodes: with a leading axis of S seeds, [S, T, 1, ...].
        keys: of the learners' states and of events [S].
    """

    test: LearningTest
    level: Level
    task: Task
    episodes: Episode
    keys: Array

    def outcome(self, answers: np.ndarray) -> Outcome:
        """Return the outcome of answers [S, T, C] or [S, T, D]."""
        episodes = self.episodes
        weight = np.asarray(episodes.weight)[:, :, 0]
        taught = np.ones_like(weight) if episodes.taught is None else np.asarray(episodes.taught)[:, :, 0]
        return Outcome(
            level=self.level,
            task=self.task,
            x=np.asarray(episodes.x)[:, :, 0],
            answers=answers,
            targets=np.asarray(episodes.y)[:, :, 0],
            weight=weight,
            taught=taught,
        )

    def score_of(self, answering: Any) -> np.ndarray:
        """Return the raw scores [S] of answers made from the episodes; see `vsml.battery.floors`."""
        nobody = self.outcome(np.zeros(0))
        return np.asarray(self.test.score(answered(nobody, answering)), float)


@functools.lru_cache(maxsize=8)
def draw(test: LearningTest, level: Level, seeds: int, seed: int = 0, first: int = 0) -> Drawn:
    """Draw the episodes of a level of a test, the same for every learner.

    Args:
        test: the test.
        level: one of its levels.
        seeds: S, how many.
        seed: of all of them.
        first: number of the first of them.

    Raises:
        NotApplicableError: there are no data for it here.
    """
    with standard_numerics():
        task = test.task(level)
        own = zlib.crc32(f"{test.name}/{level}".encode())
        base = jax.random.fold_in(jax.random.key(seed), own)
        keys = jax.vmap(partial(jax.random.fold_in, base))(jnp.arange(first, first + seeds))
        episodes = jax.jit(jax.vmap(task.draw), compiler_options=_QUICKLY)(keys)
        later = jax.vmap(lambda key: jax.random.fold_in(key, _STATES))(keys)
    _check(test, task, episodes)
    return Drawn(test, level, task, episodes, later)


def _check(test: LearningTest, task: Task, episodes: Episode) -> None:
    """Raise ValueError for episodes that are not what their task says."""
    got = episodes.x.shape[1:]
    expected = (task.steps, 1, *task.input_shape)
    if got != expected:
        raise ValueError(f"{test.name}: got inputs of shape {got}, expected {expected}")


@dataclass(frozen=True)
class Taken:
    """What came of a learner that took a task.

    Attributes:
        answers: [S, T, C] or [S, T, D].
        cpu_s: processor time of all its steps in all episodes, without compilation, in seconds.
        state: numbers that it keeps between steps; fixed ones do not count.
    """

    answers: np.ndarray
    cpu_s: float
    state: int


def take(learner: Learner, params: Params, drawn: Drawn, limit_s: float = HOUR_S) -> Taken:
    """Let a learner go through the episodes of a level of a test.

    Args:
        learner: built for the task.
        params: its meta-parameters.
        drawn: the episodes.
        limit_s: time that it may take.

    Raises:
        NotApplicableError: an event cannot happen to it.
        TooSlowError: it would take longer, with the estimate.
    """
    with standard_numerics():
        return _take(learner, params, drawn, limit_s)


def _take(learner: Learner, params: Params, drawn: Drawn, limit_s: float) -> Taken:
    size = state_floats(learner)
    seeds = len(drawn.keys)
    beside = int(size) * seeds <= SIDE_BY_SIDE or jax.default_backend() != "cpu"
    states = _begin(learner, params, drawn.keys)
    answers, seconds, cpu_s, done = [], 0.0, 0.0, 0
    for part in _parts(drawn.task):
        for event in part.events:
            refusal = event.refusal(learner)
            if refusal is not None:
                raise NotApplicableError(refusal)
            keys = jax.vmap(lambda key, step=event.step: jax.random.fold_in(key, _EVENTS + step))(drawn.keys)
            states = _change(event, learner, params, states, keys)
            learner = event.learner_after(learner)
        for start, stop in part.segments():
            piece = jax.tree.map(lambda a, s=start, e=stop: a[:, s:e], drawn.episodes)
            run = _compiled(learner, beside, params, states, piece)
            began, cpu_began = time.perf_counter(), time.process_time()
            states, given = jax.block_until_ready(run(params, states, piece))
            seconds += time.perf_counter() - began
            # Does not depend on who else uses the machine.
            cpu_s += time.process_time() - cpu_began
            answers.append(np.asarray(given)[:, :, 0])
            done += stop - start
            estimate = seconds / done * drawn.task.steps
            if estimate > limit_s:
                raise TooSlowError(f"it would take about {estimate:,.0f} seconds, more than {limit_s:,.0f}")
    return Taken(np.concatenate(answers, axis=1), cpu_s, int(size))


@dataclass(frozen=True)
class _Part:
    """Steps between events, and the events before them."""

    events: tuple[Any, ...]
    start: int
    stop: int

    def segments(self) -> Iterator[tuple[int, int]]:
        """Yield the first step of each segment, and the one behind it."""
        for start in range(self.start, self.stop, SEGMENT):
            yield start, min(start + SEGMENT, self.stop)


def _parts(task: Task) -> list[_Part]:
    """Cut a task at its events."""
    cuts = sorted({0, task.steps, *(event.step for event in task.events)})
    parts = []
    for start, stop in zip(cuts, [*cuts[1:], task.steps], strict=True):
        events = tuple(event for event in task.events if event.step == start)
        if stop > start or events:
            parts.append(_Part(events, start, stop))
    return parts


def answers_through_events(
    learner: Learner,
    params: Params,
    key: Array,
    task: Task,
    episode: Episode,
    segments: int = 1,
) -> Array:
    """Run a learner over one episode of a task, events included; pure.

    Args:
        learner: built for the task.
        params: its meta-parameters.
        key: of its first state and of events.
        task: the task.
        episode: [T, 1, ...].
        segments: see `vsml.learners.run_episode`; of each part between events.

    Returns:
        Answers [T, 1, C] or [T, 1, D].
    """
    state = learner.init_state(params, key, 1)
    answers = []
    for part in _parts(task):
        for event in part.events:
            own = jax.random.fold_in(key, _EVENTS + event.step)
            state = event.state_after(learner, params, state, own)
            learner = event.learner_after(learner)
        if part.stop == part.start:
            continue
        piece = jax.tree.map(lambda a, p=part: a[p.start : p.stop], episode)
        state, given = continue_episode(learner, params, state, piece, segments)
        answers.append(given)
    return jnp.concatenate(answers)


@partial(jax.jit, static_argnames=("learner",), compiler_options=_QUICKLY)
def _begin(learner: Learner, params: Params, keys: Array) -> State:
    """Return fresh states with a leading axis of episodes."""
    return jax.vmap(lambda key: learner.init_state(params, key, 1))(keys)


@partial(jax.jit, static_argnames=("event", "learner"), compiler_options=_QUICKLY)
def _change(event: Any, learner: Learner, params: Params, states: State, keys: Array) -> State:
    """Let an event happen in each episode."""
    return jax.vmap(lambda state, key: event.state_after(learner, params, state, key))(states, keys)


@partial(jax.jit, static_argnames=("learner", "beside"))
def _segment(
    learner: Learner, beside: bool, params: Params, states: State, piece: Episode
) -> tuple[State, Array]:
    """Go on with each episode."""

    def go_on(each: tuple[State, Episode]) -> tuple[State, Array]:
        return continue_episode(learner, params, *each)

    if beside:
        return jax.vmap(go_on)((states, piece))
    return jax.lax.map(go_on, (states, piece))


_PROGRAMS: dict[Any, Any] = {}


def _compiled(learner: Learner, beside: bool, params: Params, states: State, piece: Episode) -> Any:
    """Return the program of a segment, compiled at the first use, so that no time includes it."""
    leaves, structure = jax.tree.flatten((params, states, piece))
    shapes = tuple((leaf.shape, str(leaf.dtype)) for leaf in leaves)
    name = (learner, beside, structure, shapes)
    if name not in _PROGRAMS:
        _PROGRAMS[name] = _segment.lower(learner, beside, params, states, piece).compile()
    return _PROGRAMS[name]

"""A learner on a long stream, task by task, with a checkpoint from which it goes on exactly."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vsml.config.files import ConfigError
from vsml.learners import Learner, continue_episode
from vsml.losses import loss, right_answers
from vsml.runs.checkpoint import CheckpointStore, load
from vsml.settings import differences
from vsml.system.files import jsonable
from vsml.tasks.streams import Stream
from vsml.types import Array, Params, State, Values

PLACES = 50
"""In how many places, evenly over a task, scores are kept: a learning curve within tasks."""

KEPT = 2
"""Checkpoints of lives that stay: where the newest is damaged, the one before it is taken."""

# Purposes: what the key of a life is folded with. Learners with the same key meet the same stream.
_STREAM, _STATE = range(2)

Sums = dict[str, np.ndarray]
"""What was measured: "score", "loss", "weight" [tasks, S, places], and "best", "nonfinite" [tasks, S]."""


@partial(jax.jit, static_argnames=("learner",))
def live_through_task(
    learner: Learner,
    params: Params,
    states: State,
    stream: Stream,
    keys: Array,
    number: Array,
) -> tuple[State, dict[str, Array]]:
    """Let a learner go through one task of S streams, and score its answers; pure.

    Args:
        learner: built for the stream.
        params: its meta-parameters.
        states: what it has become so far on each of the streams, with a leading axis S.
        stream: draws the task.
        keys: of the streams [S].
        number: of the task, int [].

    Returns:
        The states after the task, and sums over the answers at each of `PLACES` places of it, or of all
        steps where these are fewer, float32 [S, places]: "score" (right answers, or squared errors), "loss"
        and "weight". Beside them [S] "nonfinite", answers that are not finite, and "best", the score that
        nobody can exceed (NaN: unknown).
    """
    go_on = partial(_live_through_task, learner, params, stream, number)
    return jax.vmap(go_on)(states, keys)


def _live_through_task(
    learner: Learner,
    params: Params,
    stream: Stream,
    number: Array,
    state: State,
    key: Array,
) -> tuple[State, dict[str, Array]]:
    """Let a learner go through one task of one stream; see `live_through_task`."""
    episode = stream.task(key, number)
    state, answers = continue_episode(learner, params, state, episode)
    if isinstance(learner.outputs, Values):
        score = jnp.square(answers - episode.y).sum(-1)
    else:
        score = right_answers(answers, episode.y)
    losses = loss(learner.outputs, answers, episode.y)
    T = len(score)
    places = min(PLACES, T)
    place = jnp.arange(T) * places // T

    def sums(values: Array) -> Array:
        weighted = (values * episode.weight).sum(1)
        return jax.ops.segment_sum(weighted, place, places)

    best = stream.best_score(key, number)
    return state, {
        "score": sums(score),
        "loss": sums(losses),
        "weight": sums(jnp.ones_like(score)),
        "nonfinite": (~jnp.isfinite(answers).all(-1)).sum(),
        "best": jnp.float32(jnp.nan) if best is None else best,
    }


@dataclass(eq=False)
class Lives:
    """One learner on one stream with S seeds, side by side, as far as it has come.

    Attributes:
        learner: built for the stream.
        stream: what it meets.
        keys: of the stream and of the first state, one for each seed [S].
        params: its meta-parameters.
        identity: settings that decide what it computes, as JSON has them. A checkpoint of other ones is
            refused.
        states: of the learner, with a leading axis S.
        sums: what was measured so far.
        seconds: spent on all of them, compilation left out.
    """

    learner: Learner
    stream: Stream
    keys: Array
    params: Params
    identity: Mapping[str, Any]
    states: State = None
    sums: Sums = field(default_factory=dict)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if self.states is None:
            self.states = self._first_states()
        if not self.sums:
            self.sums = self._no_sums(0)

    @property
    def done(self) -> int:
        """Tasks that lie behind them."""
        return len(self.sums["score"])

    def go_on(self, tasks: int, after_task: Callable[["Lives"], None] = lambda lives: None) -> None:
        """Live until `tasks` tasks are done.

        Args:
            tasks: in all.
            after_task: called after each task; may raise to end it.
        """
        stream_keys = _fold_in_each(self.keys, _STREAM)
        program: Any = None
        while self.done < tasks:
            arguments = (self.params, self.states, self.stream, stream_keys, jnp.int32(self.done))
            if program is None:
                # Compiled ahead of time, so that the clock below measures what an example costs.
                program = live_through_task.lower(self.learner, *arguments).compile()
            started = time.monotonic()
            self.states, measured = jax.block_until_ready(program(*arguments))
            self.seconds += time.monotonic() - started
            for name, values in measured.items():
                self.sums[name] = np.concatenate([self.sums[name], np.asarray(values)[None]])
            after_task(self)

    def save(self, folder: Path) -> None:
        """Write a checkpoint, which replaces older ones only once it is whole.

        Args:
            folder: of these lives alone; the folder around it must exist.
        """
        metadata = {"identity": jsonable(self.identity), "done": self.done, "seconds": self.seconds}
        CheckpointStore(folder, KEPT).save(self.done, {"states": self.states, "sums": self.sums}, metadata)

    def restore(self, folder: Path) -> bool:
        """Go on from the newest checkpoint that is whole; return False where there is none.

        Raises:
            CheckpointError: all are damaged, or do not fit the learner.
            ConfigError: they are of other settings.
        """
        path = CheckpointStore(folder, KEPT).newest()
        if path is None:
            return False
        _, metadata = load(path)
        changed = list(differences(metadata["identity"], jsonable(self.identity)))
        if changed:
            name, before, now = changed[0]
            raise ConfigError([f"{name}: got {now!r}, expected {before!r} as in {path}; start a new run"])
        template = {"states": self.states, "sums": self._no_sums(metadata["done"])}
        tree, _ = load(path, template)
        self.states, self.sums = tree["states"], tree["sums"]
        self.seconds = metadata["seconds"]
        return True

    def _first_states(self) -> State:
        begin = partial(self.learner.init_state, self.params, batch_size=1)
        return jax.jit(jax.vmap(begin))(_fold_in_each(self.keys, _STATE))

    def _no_sums(self, done: int) -> Sums:
        """Return empty sums of the shapes that they have after so many tasks."""
        seeds = len(self.keys)
        places = min(PLACES, self.stream.task_length)
        shape = (done, seeds, places)
        of_places = {name: np.zeros(shape, np.float32) for name in ("score", "loss", "weight")}
        return {
            **of_places,
            "nonfinite": np.zeros((done, seeds), np.int32),
            "best": np.zeros((done, seeds), np.float32),
        }


def seed_keys(seed: int, seeds: int) -> Array:
    """Return the keys of so many lives, which follow from one seed."""
    return jax.vmap(partial(jax.random.fold_in, jax.random.key(seed)))(jnp.arange(seeds))


def _fold_in_each(keys: Array, purpose: int) -> Array:
    """Return keys [S] for a purpose."""
    return jax.vmap(lambda key: jax.random.fold_in(key, purpose))(keys)

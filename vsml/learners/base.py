"""What a learner is, and how one is run over an episode."""

import math
from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
from flax import struct

from vsml.losses import error_signal
from vsml.types import Array, Episode, Outputs, Params, State, as_outputs


class Learner(Protocol):
    """One learning algorithm with its own inner state: pure functions over pytrees.

    It is built for one input shape and one kind and number of outputs. It must be hashable (a frozen
    dataclass), so that it can be a static argument of compiled functions. Batch over members with `jax.vmap`.
    """

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""

    @property
    def outputs(self) -> Outputs:
        """What it answers with: `Classes(C)` or `Values(D)`."""

    @property
    def num_classes(self) -> int:
        """The size of its outputs."""

    def init_params(self, key: Array) -> Params:
        """Draw fresh meta-parameters (an empty tree for a learner that has none)."""

    def init_state(self, params: Params, key: Array, batch_size: int = 1) -> State:
        """Draw a fresh inner state for one episode, pending feedback included."""

    def step(self, params: Params, state: State, x: Array, y: Array) -> tuple[State, Array]:
        """Answer the inputs x [B, *input_shape], then learn from their labels y [B].

        Returns:
            The new state and the logits [B, C], given before y is seen.
        """

    def predict(self, params: Params, state: State, x: Array) -> Array:
        """Return the logits [K, C] that `step` would answer to x [K, *input_shape]; nothing is learned.

        Each input is answered from the same state. With an inner batch of B > 1, input k is answered by
        element `k % B` of the batch.
        """


@dataclass(frozen=True)
class LearnerBase:
    """What the learners of this library are built for; each has its settings, `config`, beside it.

    Attributes:
        input_shape: shape of one input.
        outputs: what it answers with; an int is a number of classes.
    """

    input_shape: tuple[int, ...]
    outputs: Outputs

    def __post_init__(self) -> None:
        object.__setattr__(self, "outputs", as_outputs(self.outputs))
        self.check()

    def check(self) -> None:
        """Raise ValueError where settings, input shape and outputs do not go together."""

    @property
    def num_classes(self) -> int:
        """The size of its outputs."""
        return self.outputs.size


@struct.dataclass
class Feedback:
    """What a learner is told of its last answers: 0 before the first.

    Attributes:
        error: `d loss / d logits` [B, C].
        label: one-hot [B, C].
    """

    error: Array
    label: Array

    @staticmethod
    def nothing(batch_size: int, num_classes: int) -> "Feedback":
        """Return what is known before the first answer."""
        zeros = jnp.zeros((batch_size, num_classes))
        return Feedback(error=zeros, label=zeros)

    @staticmethod
    def of(logits: Array, y: Array) -> "Feedback":
        """Return the feedback on bounded logits [B, C] whose labels are y [B]."""
        return Feedback(error=error_signal(logits, y), label=jax.nn.one_hot(y, logits.shape[-1]))


def batch_elements(state: State, count: int) -> State:
    """Return, for each of `count` inputs, the state of the element of the inner batch that answers it.

    Args:
        state: a pytree of arrays with a leading axis B.
        count: K; input k is answered by element `k % B`.
    """
    return jax.tree.map(lambda a: a[jnp.arange(count) % len(a)], state)


def run_episode(learner: Learner, params: Params, key: Array, episode: Episode, segments: int = 1) -> Array:
    """Let a learner go through an episode from a fresh state.

    Args:
        learner: the learning algorithm.
        params: its meta-parameters.
        key: for the initial state.
        episode: the stream of examples.
        segments: for back-propagation through the episode. With more than one, only the states between
            segments are kept, and each segment is recomputed when its turn comes: memory falls from T
            states to about `segments + T / segments`, for one more forward pass.

    Returns:
        Logits [T, B, C].
    """
    state = learner.init_state(params, key, episode.y.shape[1])
    return continue_episode(learner, params, state, episode, segments)[1]


def continue_episode(
    learner: Learner, params: Params, state: State, episode: Episode, segments: int = 1
) -> tuple[State, Array]:
    """Let a learner go on from a given state; see `run_episode`.

    Returns:
        The state after the episode and the logits [T, B, C].
    """

    def step(state: State, example: tuple[Array, Array]) -> tuple[State, Array]:
        return learner.step(params, state, *example)

    def run(state: State, examples: tuple[Array, Array]) -> tuple[State, Array]:
        return jax.lax.scan(step, state, examples)

    examples = (episode.x, episode.y)
    if segments == 1:
        return run(state, examples)
    T = len(episode.y)
    length = math.ceil(T / segments)
    whole = T // length * length
    split = jax.tree.map(lambda a: a[:whole].reshape(-1, length, *a.shape[1:]), examples)
    state, logits = jax.lax.scan(jax.checkpoint(run), state, split)
    logits = logits.reshape(whole, *logits.shape[2:])
    if whole < T:
        state, rest = jax.checkpoint(run)(state, jax.tree.map(lambda a: a[whole:], examples))
        logits = jnp.concatenate([logits, rest])
    return state, logits

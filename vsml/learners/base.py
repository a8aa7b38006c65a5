"""What a learner is, and how one is run over an episode."""

import functools
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
from flax import nnx, struct

from vsml.losses import error_signal, label_signal
from vsml.networks.modules import Functional
from vsml.types import Array, Episode, Outputs, Params, State, as_outputs


class Learner(Protocol):
    """One learning algorithm with its own inner state: pure functions over pytrees.

    It is built for one input shape and one kind and number of outputs. It must be hashable (a frozen
    dataclass), so that it can be a static argument of compiled functions. Batch over members with `jax.vmap`.
    """

    def __hash__(self) -> int:
        """Learners with the same settings are the same to compiled functions."""

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

    def init_state(
        self,
        params: Params,
        key: Array,
        batch_size: int = 1,
    ) -> State:
        """Draw a fresh inner state for one episode, pending feedback included."""

    def step(
        self,
        params: Params,
        state: State,
        x: Array,
        y: Array,
        taught: Array | None = None,
    ) -> tuple[State, Array]:
        """Answer the inputs x [B, *input_shape], then learn from their targets y.

        Args:
            params: meta-parameters.
            state: the inner state.
            x: inputs [B, *input_shape].
            y: labels int [B], or values [B, D].
            taught: 1 where the learner is told the target, 0 where it is told nothing, [B]: error and label
                are 0, and there is no other way of learning from y. None: it is always told.

        Returns:
            The new state and the answers, given before y is seen: logits [B, C], or values [B, D].
        """

    def predict(
        self,
        params: Params,
        state: State,
        x: Array,
    ) -> Array:
        """Return what `step` would answer to x [K, *input_shape], [K, C] or [K, D]; nothing is learned.

        Each input is answered from the same state. With an inner batch of B > 1, input k is answered by
        element `k % B` of the batch.
        """


@dataclass(frozen=True)
class LearnerBase:
    """What the learners of this library are built for; each has its settings, `config`, beside it.

    Attributes:
        input_shape: shape of one input.
        outputs: what it answers with; an int is a number of classes.
        fresh: what tables call fresh meta-parameters, of a learner that does not draw them; else None.
    """

    input_shape: tuple[int, ...]
    outputs: Outputs
    fresh: ClassVar[str | None] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "outputs", as_outputs(self.outputs))
        self.check()

    def check(self) -> None:
        """Raise ValueError where settings, input shape and outputs do not go together."""

    @property
    def num_classes(self) -> int:
        """The size of its outputs."""
        return self.outputs.size


@dataclass(frozen=True)
class WrittenLearner(LearnerBase):
    """A learning algorithm that was written and not found: it has no meta-parameters."""

    def init_params(self, key: Array) -> Params:
        """Return no meta-parameters."""
        return {}


@dataclass(frozen=True)
class ModuleLearner(LearnerBase):
    """A learner with the parameters of a flax module: as meta-parameters, unless it says otherwise."""

    def make_module(self, rngs: nnx.Rngs) -> nnx.Module:
        """Make the module, with fresh parameters."""
        raise NotImplementedError

    @functools.cached_property
    def module(self) -> Functional[Any]:
        """The module as pure functions."""
        return Functional(self.make_module)

    def init_params(self, key: Array) -> Params:
        """Draw fresh meta-parameters: truncated-normal kernels with variance 1 / fan-in, biases 0."""
        return self.module.init(key)


def only_if(
    condition: Array,
    new: State,
    old: State,
) -> State:
    """Return the new state where a condition holds, and the old one elsewhere.

    Args:
        condition: bool [], or [B] for states whose arrays have a leading axis B.
        new: a pytree of arrays.
        old: likewise.
    """

    def choose(
        new: Array,
        old: Array,
    ) -> Array:
        fitting = condition.reshape(condition.shape + (1,) * (new.ndim - condition.ndim))
        return jnp.where(fitting, new, old)

    return jax.tree.map(choose, new, old)


@struct.dataclass
class Feedback:
    """What a learner is told of its last answers: 0 before the first, and where it is not taught.

    Attributes:
        error: `d loss / d answers` [B, C] or [B, D].
        label: one-hot [B, C], or the target [B, D].
    """

    error: Array
    label: Array

    @staticmethod
    def nothing(
        batch_size: int,
        size: int,
    ) -> "Feedback":
        """Return what is known before the first answer, of outputs of a size."""
        zeros = jnp.zeros((batch_size, size))
        return Feedback(error=zeros, label=zeros)

    @staticmethod
    def of(
        outputs: Outputs,
        answers: Array,
        y: Array,
        taught: Array | None = None,
    ) -> "Feedback":
        """Return the feedback on answers whose targets are y; see `error_signal` and `label_signal`."""
        error = error_signal(outputs, answers, y, taught)
        return Feedback(error=error, label=label_signal(outputs, y, taught))

    def beside(self, *inputs: Array) -> Array:
        """Return inputs [B, ...] with the feedback behind them, [B, all of them]."""
        return jnp.concatenate([*inputs, self.error, self.label], axis=-1)


def batch_elements(
    state: State,
    count: int,
) -> State:
    """Return, for each of `count` inputs, the state of the element of the inner batch that answers it.

    Args:
        state: a pytree of arrays with a leading axis B.
        count: K; input k is answered by element `k % B`.
    """
    return jax.tree.map(lambda a: a[jnp.arange(count) % len(a)], state)


def run_episode(
    learner: Learner,
    params: Params,
    key: Array,
    episode: Episode,
    segments: int = 1,
) -> Array:
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
        Answers: logits [T, B, C], or values [T, B, D].
    """
    state = learner.init_state(params, key, episode.y.shape[1])
    return continue_episode(learner, params, state, episode, segments)[1]


def continue_episode(
    learner: Learner,
    params: Params,
    state: State,
    episode: Episode,
    segments: int = 1,
) -> tuple[State, Array]:
    """Let a learner go on from a given state; see `run_episode`.

    Returns:
        The state after the episode and the answers: logits [T, B, C], or values [T, B, D].
    """

    def step(
        state: State,
        example: tuple[Array, ...],
    ) -> tuple[State, Array]:
        return learner.step(params, state, *example)

    def run(
        state: State,
        examples: tuple[Array, ...],
    ) -> tuple[State, Array]:
        return jax.lax.scan(step, state, examples)

    examples: tuple[Array, ...] = (episode.x, episode.y)
    if episode.taught is not None:
        examples = (*examples, episode.taught)
    if segments == 1:
        return run(state, examples)
    T = len(episode.y)
    length = math.ceil(T / segments)
    whole = T // length * length
    split = jax.tree.map(lambda a: a[:whole].reshape(-1, length, *a.shape[1:]), examples)
    state, answers = jax.lax.scan(jax.checkpoint(run), state, split)
    answers = answers.reshape(whole, *answers.shape[2:])
    if whole < T:
        state, rest = jax.checkpoint(run)(state, jax.tree.map(lambda a: a[whole:], examples))
        answers = jnp.concatenate([answers, rest])
    return state, answers

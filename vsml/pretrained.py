"""Learning algorithms that come with the library, and files of others: ready to learn in one call.

algorithm = vsml.load_learner("general", input_shape=(13,), num_classes=3)
state = algorithm.start()
state, logits = algorithm.step(state, x, y)     # answers x, then learns from y
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from vsml import checkpoint
from vsml.comm import SerialCommunicator
from vsml.contenders import StoredParams
from vsml.learners import Learner, continue_episode, make_learner
from vsml.types import Array, Episode, Params, State


@dataclass(frozen=True, eq=False)
class LoadedLearner:
    """A learning algorithm: a learner for one input shape and number of classes, with its meta-parameters.

    Inputs are expected as in meta-training: of mean 0 and variance 1, over all inputs or each.

    Attributes:
        name: what it was loaded by.
        learner: the learner.
        params: its meta-parameters.
        metadata: what its file says about it: config, command, commit, results, ...
    """

    name: str
    learner: Learner
    params: Params
    metadata: Mapping[str, Any]

    def start(self, seed: int = 0, batch_size: int = 1) -> State:
        """Draw the state of a learner that has not seen anything, for `batch_size` examples a step."""
        return _start(self.learner, self.params, jax.random.key(seed), batch_size)

    def step(self, state: State, x: Any, y: Any) -> tuple[State, Array]:
        """Answer the inputs x [B, *input_shape], then learn from their labels y [B].

        Returns:
            The new state and the logits [B, C], given before y was seen.
        """
        return _step(self.learner, self.params, state, jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.int32))

    def run(self, state: State, x: Any, y: Any) -> tuple[State, Array]:
        """Take a step for each of x [T, B, *input_shape] and y [T, B] in one compiled call.

        Returns:
            The state after the last and the logits [T, B, C], each given before its label was seen.
        """
        return _run(self.learner, self.params, state, jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.int32))

    def predict(self, state: State, x: Any) -> Array:
        """Return the logits [K, C] of inputs x [K, *input_shape]; nothing is learned."""
        return _predict(self.learner, self.params, state, jnp.asarray(x, jnp.float32))


def load_learner(name: str, *, input_shape: tuple[int, ...], num_classes: int) -> LoadedLearner:
    """Load a learning algorithm for inputs of a shape and a number of classes.

    Args:
        name: one that comes with the library (`available()`), or the path of a file such as
            learner.safetensors, or of a run's folder.
        input_shape: shape of one input, such as (28, 28) or (13,).
        num_classes: C, at least 1.

    Raises:
        FileNotFoundError: there is none of that name.
        CheckpointError: the file is damaged, or its meta-parameters do not fit the shapes.
        ConfigError: its model settings are none that exist here.
        ValueError: a shape or number is out of range, or the file does not say what model it is of.
    """
    if num_classes < 1 or not all(size > 0 for size in input_shape):
        raise ValueError(
            f"load_learner: got input_shape {input_shape} and num_classes {num_classes}, "
            "expected positive numbers"
        )
    path = f"{checkpoint.PRETRAINED_PREFIX}{name}" if name in available() else name
    stored = StoredParams.read(path, SerialCommunicator())
    if stored.model is None:
        raise ValueError(f"{name}: does not say what model it is of; expected a file with its config")
    model = stored.model
    learner = make_learner(model.type, model.settings, tuple(input_shape), num_classes)
    metadata = checkpoint.params_from_bytes(stored.data, name)[1]
    return LoadedLearner(name, learner, stored.fit(learner), metadata)


def available() -> tuple[str, ...]:
    """Return the names of the learning algorithms that come with the library."""
    return checkpoint.pretrained_names()


@partial(jax.jit, static_argnames=("learner", "batch_size"))
def _start(learner: Learner, params: Params, key: Array, batch_size: int) -> State:
    return learner.init_state(params, key, batch_size)


@partial(jax.jit, static_argnames=("learner",))
def _step(learner: Learner, params: Params, state: State, x: Array, y: Array) -> tuple[State, Array]:
    return learner.step(params, state, x, y)


@partial(jax.jit, static_argnames=("learner",))
def _run(learner: Learner, params: Params, state: State, x: Array, y: Array) -> tuple[State, Array]:
    return continue_episode(learner, params, state, Episode(x, y, jnp.ones(y.shape)))


@partial(jax.jit, static_argnames=("learner",))
def _predict(learner: Learner, params: Params, state: State, x: Array) -> Array:
    return learner.predict(params, state, x)

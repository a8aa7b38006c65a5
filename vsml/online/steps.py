"""Compiled calls of online estimators: a fresh learner, learning from rows, answers to rows."""

import json
import math
import warnings
from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vsml.config.model import ModelConfig
from vsml.learners import Learner, make_learner
from vsml.learners.base import only_if
from vsml.learners.growing import FixedOutputsError, check_grows
from vsml.system.numerics import standard_numerics
from vsml.types import Array, Outputs, Params, State

MIN_UNITS = 256
"""Input units at least: few features are spread over more units than there are features."""


MAX_UNITS = 2048
"""Input units at most, where their number is not given: as many as features would make memory quadratic."""


ROWS = (16, 1024)
"""Examples that a compiled call has room for; fewer cost no more than they are."""


@lru_cache(maxsize=64)
def build_learner(model: str, units: int, outputs: Outputs) -> Learner:
    """Build the learner of model settings in JSON; for the same the same object: nothing recompiles."""
    settings = ModelConfig.model_validate(json.loads(model))
    return make_learner(settings.type, settings.settings, (units,), outputs)


def bucket(features: int) -> int:
    """Return the number of features that programs are compiled for, where there are that many."""
    return max(MIN_UNITS, 1 << (features - 1).bit_length())


def default_units(room: int, features: int) -> int:
    """Return how many input units features are projected to; say so where there are fewer than features."""
    if room <= MAX_UNITS:
        return room
    warnings.warn(
        f"units: {features} features are projected to {MAX_UNITS} units, as one for each would take "
        f"{4 * room * room / 2**30:.1f} GiB; units={room} does so all the same",
        UserWarning,
        stacklevel=5,
    )
    return MAX_UNITS


def chunks(count: int) -> Iterator[tuple[int, int, int]]:
    """Yield (first example, room, number of examples) of each compiled call for that many examples.

    A few more than the least room are two calls of it, so that nothing is compiled for them alone.
    """
    start = 0
    while start < count:
        left = count - start
        room = ROWS[0] if left <= 2 * ROWS[0] else ROWS[-1]
        number = min(left, room)
        yield start, room, number
        start += number


def with_rows(array: np.ndarray, rows: int) -> np.ndarray:
    """Return an array [n, ...] with zeros behind it, [rows, ...]."""
    padded = np.zeros((rows, *array.shape[1:]), array.dtype)
    padded[: len(array)] = array
    return padded


@standard_numerics()
@partial(jax.jit, static_argnames=("learner", "room"))
def draw(learner: Learner, room: int, params: Params, features: Array | int, key: Array) -> dict[str, Any]:
    """Draw what a fresh estimator knows: the projection, of which `features` rows count, and the state."""
    projection_key, state_key = jax.random.split(key)
    shape = (room, math.prod(learner.input_shape))
    return {
        "params": params,
        "projection": jax.random.normal(projection_key, shape) / jnp.sqrt(features),
        "state": learner.init_state(params, state_key),
    }


@standard_numerics()
@partial(jax.jit, static_argnames=("units", "room"))
def draw_rows(units: int, room: int, features: Array | int, key: Array) -> Array:
    """Draw more rows of a projection, [room, units]."""
    return jax.random.normal(key, (room, units)) / jnp.sqrt(features)


@standard_numerics()
def grow(learner: Learner, params: Params, state: State, kept: np.ndarray, key: Array) -> State:
    """Return the state of a learner that goes on from one with fewer outputs, or with some that start fresh.

    A learner whose number of outputs is fixed can use those that it has, but not start them afresh.

    Args:
        learner: with as many outputs as the state has, or more.
        params: its meta-parameters.
        state: to go on from.
        kept: which of the outputs of `state` keep what they have learned, bool.
        key: for the synapses of the others.

    Raises:
        FixedOutputsError: this learner cannot get more outputs.
    """
    try:
        check_grows(learner)
        return _grow(learner, params, state, kept, key)
    except FixedOutputsError:
        if len(kept) < learner.outputs.size:
            raise
        return state


@partial(jax.jit, static_argnames=("learner",))
def _grow(learner: Learner, params: Params, state: State, kept: Array, key: Array) -> State:
    return check_grows(learner).with_new_outputs(state, learner.init_state(params, key), kept)


@standard_numerics()
@partial(jax.jit, static_argnames=("learner",))
def learn_rows(
    learner: Learner,
    params: Params,
    projection: Array,
    state: State,
    x: Array,
    y: Array,
    count: Array | int,
    taught: Array | None = None,
) -> tuple[State, Array]:
    """Step through the first `count` of x [rows, d] and y [rows, ...]: the state and the answers.

    With `taught` [rows], the feedback on an example is times it, and one with 0 leaves the state as it is.
    """

    def step(t: Array, carry: tuple[State, Array]) -> tuple[State, Array]:
        state, answers = carry
        x_units, target = (x[t] @ projection)[None], y[t][None]
        if taught is None:
            state, answer = learner.step(params, state, x_units, target)
        else:
            new, answer = learner.step(params, state, x_units, target, taught[t][None])
            state = only_if(taught[t] > 0, new, state)
        return state, answers.at[t].set(answer[0])

    return jax.lax.fori_loop(0, count, step, (state, jnp.zeros((len(x), learner.outputs.size))))


@standard_numerics()
@partial(jax.jit, static_argnames=("learner",))
def start(learner: Learner, params: Params, key: Array) -> State:
    """Draw a fresh state."""
    return learner.init_state(params, key)


@standard_numerics()
@partial(jax.jit, static_argnames=("learner",))
def start_again(learner: Learner, params: Params, key: Array) -> State:
    """Draw the state that `draw` has drawn with the same key."""
    _, state_key = jax.random.split(key)
    return learner.init_state(params, state_key)


@standard_numerics()
@partial(jax.jit, static_argnames=("learner",), donate_argnames=("state",))
def learn_one(
    learner: Learner,
    params: Params,
    state: State,
    x: Array,
    y: Array,
    taught: Array | None = None,
) -> tuple[State, Array, Array]:
    """Step through one example x [units] with target y [] or [D]; the memory of `state` is used again.

    Returns:
        The new state, the answer [C or D] before it, and whether both are sound. Where they are not, the
        state is the one from before.
    """
    new, answer = learner.step(params, state, x[None], y[None], None if taught is None else taught[None])
    floats = [leaf for leaf in jax.tree.leaves(new) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    is_sound = jnp.isfinite(answer).all()
    for leaf in floats:
        is_sound &= ~jnp.isnan(leaf).any()
    return only_if(is_sound, new, state), answer[0], is_sound


@standard_numerics()
@partial(jax.jit, static_argnames=("learner",))
def answer_one(learner: Learner, params: Params, state: State, x: Array) -> Array:
    """Answer one example x [units], [C or D]; nothing is learned."""
    return learner.predict(params, state, x[None])[0]


@standard_numerics()
@partial(jax.jit, static_argnames=("learner",))
def answer_rows(
    learner: Learner, params: Params, projection: Array, state: State, x: Array, count: Array | int
) -> Array:
    """Answer the first `count` of x [rows, d], one at a time, all from the same state: [rows, C or D]."""

    def answer(t: Array, answers: Array) -> Array:
        return answers.at[t].set(learner.predict(params, state, (x[t] @ projection)[None])[0])

    return jax.lax.fori_loop(0, count, answer, jnp.zeros((len(x), learner.outputs.size)))

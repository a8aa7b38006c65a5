"""What is measured: learners that do the same work in different ways, and the programs that run them.

A learner is driven as the outer loop drives it, by `map_trials`: forward over antithetic pairs, two members
side by side in a trial, and the gradient by back-propagation through an episode, one member in a trial.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import jax
import jax.numpy as jnp
from flax import nnx, struct

from benchmarks.cases import NUM_CLASSES, Case
from vsml.learners import Learner, Vsml
from vsml.learners.base import Feedback
from vsml.losses import bound_logits
from vsml.meta.mapping import map_trials
from vsml.meta.objectives.episode import segments_of, trial_result
from vsml.networks.kernels import Kernel, missing
from vsml.networks.modules import Functional
from vsml.types import Array, Classes, Episode, Params

NOISE_STD = 0.05

STATE_SIZE = 16
"""Of all learners here, the default."""

ORACLE = "reference"
"""The nested vmap, what others are compared with."""

ROUNDING = "native_bfloat16"
"""The native kernel with products of bfloat16; its numbers are others."""

FLAX = "flax"
"""Flax LSTM cells, vmapped over the weights; see `FlaxLstms`."""


def contestants() -> tuple[str, ...]:
    """Return what can run on this machine: kernels by name, the oracle and `FLAX` last.

    The one place that says so.
    """
    kernels = [kernel for kernel in get_args(Kernel) if kernel not in ("auto", ORACLE)]
    here = [kernel for kernel in kernels if missing(kernel, STATE_SIZE) is None]
    rounding = [ROUNDING] if "native" in here else []
    return (*here, *rounding, ORACLE, FLAX)


def make_learner(case: Case, contestant: str) -> Learner | None:
    """Make a learner for a case; None if the contestant has no such layers."""
    if contestant == FLAX:
        return None if case.convolutions else FlaxLstms(case.input_shape, NUM_CLASSES, case.hidden_units)
    if contestant == ROUNDING:
        config = case.config("native").model_copy(update={"product_dtype": "bfloat16"})
        return Vsml(case.input_shape, NUM_CLASSES, config)
    kernel: Any = contestant
    return Vsml(case.input_shape, NUM_CLASSES, case.config(kernel))


@struct.dataclass
class FlaxState:
    """States of `FlaxLstms`.

    Attributes:
        carries: (c, h) [I, O, N] of each layer.
        backward: messages [O, M] that arrive behind each layer but the last.
        feedback: error [C] of the step before.
    """

    carries: tuple[tuple[Array, Array], ...]
    backward: tuple[Array, ...]
    feedback: Feedback


class FlaxSynapse(nnx.Module):
    """A ready-made LSTM cell, and what it sends."""

    def __init__(self, state_size: int, message_size: int, rngs: nnx.Rngs):
        self.lstm = nnx.OptimizedLSTMCell(2 * message_size, state_size, rngs=rngs)
        self.forward = nnx.Linear(state_size, message_size, rngs=rngs)
        self.backward = nnx.Linear(state_size, message_size, rngs=rngs)


@dataclass(frozen=True)
class FlaxLstms:
    """What one would write without this library: Flax's LSTM cells, vmapped over the weights of a network.

    Wired as `Vsml` and of the same sizes. It is no other way to compute the same numbers, since Flax's cell
    lacks the offsets that make a fresh synapse keep its state; but it is the same amount of work.
    """

    input_shape: tuple[int, ...]
    num_classes: int
    hidden: tuple[int, ...] = ()
    state_size: int = STATE_SIZE
    message_size: int = 8
    micro_ticks: int = 2
    logit_bound: float = 100.0
    output_channel: int = 1

    @property
    def outputs(self) -> Classes:
        """What is answered: one of the classes."""
        return Classes(self.num_classes)

    @functools.cached_property
    def _synapse(self) -> Functional[FlaxSynapse]:
        return Functional(lambda rngs: FlaxSynapse(self.state_size, self.message_size, rngs))

    def init_params(self, key: Array) -> Params:
        return self._synapse.init(key)

    def init_state(self, params: Params, key: Array, batch_size: int = 1) -> FlaxState:
        sizes = (math.prod(self.input_shape), *self.hidden, self.num_classes)

        def carry(layer: int) -> tuple[Array, Array]:
            shape = (batch_size, sizes[layer], sizes[layer + 1], self.state_size)
            c = jax.random.normal(jax.random.fold_in(key, layer), shape) / sizes[layer] ** 0.5
            return c, jnp.zeros(shape)

        carries = tuple(carry(layer) for layer in range(len(sizes) - 1))
        backward = tuple(jnp.zeros((batch_size, size, self.message_size)) for size in self.hidden)
        return FlaxState(carries, backward, Feedback.nothing(batch_size, self.num_classes))

    def step(self, params: Params, state: FlaxState, x: Array, y: Array) -> tuple[FlaxState, Array]:
        carries, backward, logits = jax.vmap(functools.partial(self._sweep, params))(
            state.carries, state.backward, x, state.feedback.error
        )
        return FlaxState(carries, backward, Feedback.of(self.outputs, logits, y)), logits

    def predict(self, params: Params, state: FlaxState, x: Array) -> Array:
        raise NotImplementedError("this learner is only for measuring; run_episode does all that is needed")

    def _sweep(
        self, params: Params, carries: Any, backward: tuple[Array, ...], x: Array, error: Array
    ) -> tuple[Any, tuple[Array, ...], Array]:
        synapse = self._synapse.with_params(params)

        def tick(carry: Any, forward_M: Array, backward_M: Array) -> Any:
            return synapse.lstm(carry, jnp.concatenate([forward_M, backward_M]))[0]

        over_outputs = jax.vmap(tick, in_axes=(0, None, 0))
        over_both = jax.vmap(over_outputs, in_axes=(0, 0, None))
        carries, behind = list(carries), [*backward, _message(error, self.message_size)]
        forward = _message(x.reshape(-1), self.message_size)
        for k, carry in enumerate(carries):
            for _ in range(self.micro_ticks):
                carry = over_both(carry, forward, behind[k])
            carries[k] = carry
            _, h_IxOxN = carry
            forward = synapse.forward(h_IxOxN).mean(0)
            if k > 0:
                behind[k - 1] = synapse.backward(h_IxOxN).mean(1)
        logits = bound_logits(forward[:, self.output_channel], self.logit_bound)
        return tuple(carries), tuple(behind[:-1]), logits


def _message(values: Array, message_size: int) -> Array:
    """Put values [units] into channel 0 of messages [units, M]."""
    return jnp.pad(values[:, None], ((0, 0), (0, message_size - 1)))


@dataclass
class Program:
    """A compiled function, and what draws its arguments."""

    compiled: Any
    draw: Callable[[], tuple[Any, ...]]

    @property
    def memory_bytes(self) -> int:
        """What it needs on one device while it runs: temporary buffers, arguments and results."""
        memory = self.compiled.memory_analysis()
        return memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes


def build(case: Case, learner: Learner) -> Program:
    """Compile the program of a case; nothing is drawn yet."""
    side_by_side = case.members_of_unit
    length, trials = case.episode_length, case.members // side_by_side
    segments = segments_of(learner, length, 1) if case.segmented else 1

    def draw() -> tuple[Any, ...]:
        key = jax.random.key(0)
        labels = jax.random.randint(jax.random.fold_in(key, 1), (trials, length, 1), 0, NUM_CLASSES)
        x = jax.random.normal(key, (trials, length, 1, *learner.input_shape))
        episodes = Episode(x=x, y=labels, weight=jnp.ones(labels.shape))
        keys, params = jax.random.split(key, trials), learner.init_params(key)
        if case.what == "forward":
            return (episodes, keys, _members(key, params, trials, side_by_side)), ()
        return (episodes, keys), params

    def evaluate_members(trial: tuple[Episode, Array, Params], shared: Any) -> Array:
        episode, key, members = trial
        return jax.vmap(lambda params: trial_result(learner, "mean", params, episode, key).loss)(members)

    def differentiate(trial: tuple[Episode, Array], params: Params) -> Params:
        episode, key = trial
        return jax.grad(lambda p: trial_result(learner, "mean", p, episode, key, segments).loss)(params)

    function: Callable[..., Any] = evaluate_members if case.what == "forward" else differentiate
    spread = jax.jit(lambda trials, shared: map_trials(function, trials, shared))
    return Program(spread.lower(*jax.eval_shape(draw)).compile(), jax.jit(draw))


def _members(key: Array, params: Params, trials: int, members: int) -> Params:
    """Draw members around `params`, antithetic where a trial has two; leaves [trials, members, ...]."""
    leaves, structure = jax.tree.flatten(params)
    signs = jnp.array([1.0, -1.0])[:members]
    drawn = []
    for number, leaf in enumerate(leaves):
        noise = jax.random.normal(jax.random.fold_in(key, number), (trials, 1, *leaf.shape))
        drawn.append(leaf + NOISE_STD * noise * signs.reshape(-1, *[1] * leaf.ndim))
    return jax.tree.unflatten(structure, drawn)

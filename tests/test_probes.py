"""Probe tasks with known answers, each trained for real: the first that fails names the broken part.

VSML does not know one class, or one input, from another before an episode begins. So every answer is learned
inside the episode, a fixed label too, and the first answer of an episode is a guess.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flat_vsml import flat_vsml
from flax import struct

from vsml.learners import Vsml, run_episode
from vsml.meta.optimizers.base import meta_adam
from vsml.meta.optimizers.evosax import Evolution
from vsml.meta.optimizers.gradient import BackPropagation
from vsml.meta.trials import Chunk, Group, Results
from vsml.networks.wirings.dense import DenseLayer
from vsml.types import Array, Episode

KEY = jax.random.key(0)
STATIC = functools.partial(struct.field, pytree_node=False)


@struct.dataclass
class Copy:
    """Episodes of random bits, -1 or 1, one of which is the label, as it is or inverted.

    Attributes:
        position: which; -1: none, the label is constant.
        inputs, length: number of inputs, and T.
        redrawn: whether it is inverted is drawn per episode; else it never is.
    """

    position: Array
    inputs: int = STATIC(default=2)
    length: int = STATIC(default=10)
    redrawn: bool = STATIC(default=True)

    def sample(self, key):
        bit_key, label_key = jax.random.split(key)
        bits = jax.random.bernoulli(bit_key, 0.5, (self.length, self.inputs)).astype(jnp.int32)
        labels = jnp.where(self.position < 0, 0, bits[:, self.position])
        if self.redrawn:
            labels = labels ^ jax.random.bernoulli(label_key).astype(jnp.int32)
        return make_episode(bits, labels)


@struct.dataclass
class TwoBits:
    """Episodes of two random bits and a constant; the label is a function of both, drawn per episode.

    Attributes:
        exclusive: probability that it is their exclusive or, or its inverse; else any of all 16 functions.
        length: T.
    """

    exclusive: Array
    length: int = STATIC(default=24)

    def sample(self, key):
        bit_key, table_key, kind_key = jax.random.split(key, 3)
        bits = jax.random.bernoulli(bit_key, 0.5, (self.length, 2)).astype(jnp.int32)
        table = jax.random.bernoulli(table_key, 0.5, (4,)).astype(jnp.int32)
        exclusive_or = jnp.array([0, 1, 1, 0]) ^ table[0]
        table = jnp.where(jax.random.bernoulli(kind_key, self.exclusive), exclusive_or, table)
        constant = jnp.ones((self.length, 1), jnp.int32)
        return make_episode(jnp.concatenate([bits, constant], axis=1), table[2 * bits[:, 0] + bits[:, 1]])


def make_episode(bits, labels):
    weight = jnp.ones((len(labels), 1))
    return Episode(x=2.0 * bits[:, None] - 1, y=labels[:, None], weight=weight)


def copy(position, **settings):
    return Copy(position=jnp.array(position), **settings)


def make_learner(inputs, **settings):
    sizes = {"state_size": 8, "message_size": 4, "micro_ticks": 1}
    return flat_vsml((inputs,), 2, layer_norm=True, **(sizes | settings))


def train(optimizer, learner, task, steps, episodes=32):
    """Return the meta-parameters found."""
    trials = np.arange(episodes, dtype=np.int32)
    chunk = Chunk(Group(learner, (task,), trials, 0 * trials), trials, 0 * trials, episodes)
    state = optimizer.init(KEY, learner.init_params(KEY))
    for step in range(steps):
        state, members = optimizer.ask(state)
        results = optimizer.evaluate(members, chunk, jax.random.fold_in(KEY, step))
        state, _ = optimizer.tell(state, members, Results(*map(np.asarray, results)))
    return optimizer.params(state)


def back_propagation():
    return BackPropagation(meta_adam(0.01, clip_gradnorm=25.0))


@functools.partial(jax.jit, static_argnums=(0, 3))
def accuracy(learner, params, task, truthful=True):
    """Return the share of right answers at each step [T]; learning from random labels if not truthful."""

    def run(key):
        sample_key, state_key, lie_key = jax.random.split(key, 3)
        episode = task.sample(sample_key)
        lies = jax.random.randint(lie_key, episode.y.shape, 0, learner.num_classes)
        heard = episode.replace(y=episode.y if truthful else lies)
        logits = run_episode(learner, params, state_key, heard)
        return (logits.argmax(-1) == episode.y)[:, 0]

    return jax.vmap(run)(jax.random.split(jax.random.key(1), 200)).mean(0)


@pytest.mark.parametrize("outer_loop", ["gradient", "evolution"])
def test_a_constant_label_is_learned(outer_loop):
    learner, task, guess = make_learner(2), copy(-1, length=6), copy(0, length=6)
    if outer_loop == "gradient":
        params = train(back_propagation(), learner, task, 80)
    else:
        evolution = Evolution(64, learner.init_params(KEY), optax.adam(0.05), noise_std=0.1)
        params = train(evolution, learner, task, 250, episodes=64)
    learned = accuracy(learner, params, task)
    assert 0.35 < learned[0] < 0.65
    assert learned[1:].min() > 0.9
    assert 0.35 < accuracy(learner, params, guess).mean() < 0.65


@pytest.fixture(
    scope="module",
    params=[{}, pytest.param({"backward_pass": True}, marks=pytest.mark.slow)],
    ids=["forward", "backward pass"],
)
def copying(request):
    """Return a learner and meta-parameters that were trained on a bit copied to the label, or inverted."""
    learner = make_learner(2, init_scale=2.0, **request.param)
    return learner, train(back_propagation(), learner, copy(0), 500)


def test_a_bit_copied_to_the_label_is_learned(copying):
    learned = accuracy(*copying, copy(0, redrawn=False))
    assert learned[-4:].min() > 0.9


def test_a_label_mapping_that_is_redrawn_is_learned_from_feedback_and_not_without(copying):
    learned = accuracy(*copying, copy(0))
    assert 0.35 < learned[0] < 0.65
    assert learned[-4:].min() > 0.9
    assert 0.4 < accuracy(*copying, copy(0), False).mean() < 0.6


def test_permuted_inputs_are_learned_as_well(copying):
    assert accuracy(*copying, copy(1))[-4:].min() > 0.9


def test_longer_episodes_than_those_of_meta_training_are_learned_as_well(copying):
    assert accuracy(*copying, copy(0, length=30))[-10:].min() > 0.9


class MuteLayer(DenseLayer):
    """A layer that sends nothing back."""

    def visit(self, *arguments):
        state, forward, backward = super().visit(*arguments)
        return state, forward, 0 * backward


class MuteVsml(Vsml):
    """VSML of two layers, without backward messages between them."""

    @functools.cached_property
    def network(self):
        network = Vsml.network.func(self)
        *others, last = network.layers
        layers = (*others, MuteLayer(last.fan_in, last.fan_out))
        return dataclasses.replace(network, layers=layers)


@pytest.mark.slow
def test_exclusive_or_is_learned_through_two_layers_by_backward_messages():
    settings = {"hidden": (6,), "backward_pass": True, "init_scale": 2.0}
    learner = make_learner(3, **settings)
    # Among all functions of two bits are easier ones, from which the way to the exclusive or is short.
    params = train(back_propagation(), learner, TwoBits(exclusive=jnp.float32(0.3)), 600)
    only = TwoBits(exclusive=jnp.float32(1))
    assert accuracy(learner, params, only)[-8:].min() > 0.9
    mute = MuteVsml(learner.input_shape, learner.outputs, learner.config)
    assert accuracy(mute, params, only)[-8:].mean() < 0.75
    assert accuracy(learner, params, only, False)[-8:].mean() < 0.6

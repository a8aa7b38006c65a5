"""Antithetic evolution without a population: its gradient, its noise, its order, its memory."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import psutil
import pytest
from comparing import Ranks
from flat_vsml import flat_vsml
from flax import struct
from jax.flatten_util import ravel_pytree
from stand_ins import Brightness

from vsml.meta.objectives import EpisodeLoss
from vsml.meta.optimizers import base
from vsml.meta.optimizers.antithetic import AntitheticEvolution, evaluate_pair
from vsml.meta.optimizers.base import meta_adam
from vsml.meta.optimizers.evosax import Evolution
from vsml.meta.optimizers.gradient import BackPropagation
from vsml.meta.step import meta_step
from vsml.meta.trials import Group, Results, chunks_of, group_trials
from vsml.runs import checkpoint
from vsml.system.comm import SerialCommunicator
from vsml.tasks import Dataset, build_task
from vsml.types import Classes, Episode

KEY = jax.random.key(0)
SERIAL = SerialCommunicator()
START = {"matrix": jnp.full((2, 2), 0.5), "vector": jnp.array([1.0, -1.0])}
OPTIMUM = np.array([1.0, -1.0, 2.0, 0.0, 0.0, 0.0])
WEIGHT = np.arange(1, 7)


@struct.dataclass
class Nothing:
    """Stand in for a task: an episode of one step, of which nothing matters but that it is there."""

    def sample(self, key):
        return Episode(x=jnp.zeros((1, 1, 1)), y=jnp.zeros((1, 1), jnp.int32), weight=jnp.ones((1, 1)))


@dataclass(frozen=True)
class Quadratic:
    """Stand in for a learner: its loss is half the squared distance from OPTIMUM, each axis weighted.

    Up to a shift, which keeps the one logit from being certain; and it may break on one side of START.
    """

    broken: bool = False
    input_shape: tuple[int, ...] = (1,)
    num_classes: int = 2
    outputs: Classes = Classes(2)

    def init_params(self, key):
        return START

    def init_state(self, params, key, batch_size=1):
        return jnp.zeros(())

    def step(self, params, state, x, y):
        flat = ravel_pytree(params)[0]
        loss = (jnp.asarray(WEIGHT) * (flat - OPTIMUM) ** 2).sum() / 2 + 0.1
        if self.broken:
            loss = jnp.where(flat[0] > 0.55, jnp.nan, loss)
        # The cross-entropy of label 0 between the logits 0 and b is log(1 + exp(b)).
        return state, jnp.stack([jnp.zeros(1), jnp.log(jnp.expm1(loss))[None]], axis=1)


def exact(flat):
    return (WEIGHT * (np.asarray(flat, np.float64) - OPTIMUM) ** 2).sum(-1) / 2 + 0.1


def chunks(pairs, size=None, learner=None):
    trials = np.arange(pairs, dtype=np.int32)
    return chunks_of([Group(learner or Quadratic(), (Nothing(),), trials, 0 * trials)], size or pairs)


def flat(params):
    return np.asarray(ravel_pytree(params)[0])


def noise(evolution, state, pairs):
    """Return the noise [pairs, D] of a generation, by other means than the library's."""
    members = evolution.ask(state)[1]
    keys = [jax.random.fold_in(members.key, pair) for pair in range(pairs)]
    return np.array([jax.random.normal(key, (6,)) for key in keys])


def run(evolution, steps, pairs=16, state=None, learner=None):
    state = evolution.init(KEY, START) if state is None else state
    metrics = {}
    for _ in range(steps):
        state, metrics = meta_step(evolution, state, chunks(pairs, learner=learner), KEY, SERIAL)
    return state, metrics


def test_a_step_is_the_mean_over_pairs_of_the_noise_times_the_slope_of_the_loss():
    evolution = AntitheticEvolution(optax.sgd(1.0), noise_std=0.3)
    state = evolution.init(KEY, START)
    eps = noise(evolution, state, 4)
    slope = (exact(flat(START) + 0.3 * eps) - exact(flat(START) - 0.3 * eps)) / 0.6
    moved = flat(evolution.params(run(evolution, 1, pairs=4)[0]))
    np.testing.assert_allclose(moved, flat(START) - (eps * slope[:, None]).mean(0), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_it_is_the_step_of_evosax_with_the_same_noise():
    """It is told the losses of the members that it would have drawn with our noise."""
    pairs, std = 5, 0.2
    evolution = AntitheticEvolution(meta_adam(0.05), std)
    theirs = Evolution(pairs, START, meta_adam(0.05), std)
    state, their_state = evolution.init(KEY, START), theirs.init(KEY, START)
    unravel = ravel_pytree(START)[1]
    for _ in range(3):
        step = std * noise(evolution, state, pairs)
        center = flat(evolution.params(state))
        members = np.concatenate([center + step, center - step]).astype(np.float32)
        loss = exact(members).astype(np.float32).reshape(2, pairs).T
        their_state, _ = theirs.ask(their_state)
        results = Results(loss, np.zeros_like(loss), np.zeros(0))
        their_state, _ = theirs.tell(their_state, jax.vmap(unravel)(members), results)
        state, _ = run(evolution, 1, pairs, state)
        np.testing.assert_allclose(
            flat(evolution.params(state)), flat(theirs.params(their_state)), rtol=1e-3, atol=1e-4
        )


def test_on_a_quadratic_the_step_points_along_the_analytic_gradient():
    state, metrics = run(AntitheticEvolution(meta_adam(1.0, clip_gradnorm=1.0)), 1, pairs=4096)
    gradient = WEIGHT * (flat(START) - OPTIMUM)
    mean = optax.tree_utils.tree_get(state.optimizer, "mu")  # a tenth of the clipped gradient
    cosine = flat(mean) @ gradient / np.linalg.norm(flat(mean)) / np.linalg.norm(gradient)
    assert cosine > 0.99
    np.testing.assert_allclose(np.linalg.norm(flat(mean)), 0.1, rtol=1e-3)
    np.testing.assert_allclose(metrics["grad_norm"], np.linalg.norm(gradient), rtol=0.1)


def test_the_optimum_is_found():
    evolution = AntitheticEvolution(meta_adam(optax.cosine_decay_schedule(0.1, 150)))
    state, metrics = run(evolution, 150, pairs=32)
    np.testing.assert_allclose(flat(evolution.params(state)), OPTIMUM, atol=0.05)
    assert metrics["meta_loss"] < 0.15
    assert metrics["nonfinite"] == 0


def test_each_generation_has_the_deviation_that_the_schedule_gives_it_and_is_divided_by():
    schedule = optax.piecewise_constant_schedule(0.4, {1: 0.5, 2: 0.5})
    evolution = AntitheticEvolution(optax.sgd(0.1), noise_std=schedule)
    state = evolution.init(KEY, START)
    for generation, std in enumerate((0.4, 0.2, 0.1, 0.1)):
        members = evolution.ask(state)[1]
        assert float(members.noise_std) == pytest.approx(std), generation
        eps, center = noise(evolution, state, 3), flat(state.params)
        slope = (exact(center + std * eps) - exact(center - std * eps)) / (2 * std)
        state, _ = run(evolution, 1, 3, state)
        np.testing.assert_allclose(
            flat(state.params), center - 0.1 * (eps * slope[:, None]).mean(0), rtol=1e-3, atol=1e-4
        )


def test_each_step_has_the_learning_rate_that_the_schedule_gives_it():
    schedule = optax.piecewise_constant_schedule(0.1, {1: 0.5, 2: 0.0})
    state, moved = None, []
    evolution = AntitheticEvolution(optax.sgd(schedule))
    for _ in range(4):
        before = flat(START) if state is None else flat(state.params)
        state, _ = run(evolution, 1, 2048, state)
        gradient = WEIGHT * (before - OPTIMUM)
        moved.append(np.linalg.norm(flat(state.params) - before) / np.linalg.norm(gradient))
    np.testing.assert_allclose(moved, [0.1, 0.05, 0, 0], rtol=0.2, atol=1e-6)


def test_the_same_key_draws_the_same_noise_and_each_generation_and_pair_its_own():
    evolution = AntitheticEvolution(optax.sgd(0.0))
    state = evolution.init(KEY, START)
    first = noise(evolution, state, 3)
    np.testing.assert_array_equal(first, noise(evolution, evolution.init(KEY, START), 3))
    later = noise(evolution, run(evolution, 1)[0], 3)
    other = noise(evolution, evolution.init(jax.random.key(1), START), 3)
    assert len(np.unique(np.concatenate([first, later, other]))) == 3 * 3 * 6


def test_noise_is_normal():
    evolution = AntitheticEvolution(optax.sgd(0.0))
    eps = noise(evolution, evolution.init(KEY, START), 1000)
    np.testing.assert_allclose(eps.mean(0), 0, atol=0.15)
    np.testing.assert_allclose(np.cov(eps.T), np.eye(6), atol=0.2)


def test_a_pair_with_a_loss_that_is_not_finite_adds_nothing_and_the_mean_stays_that_over_all():
    pairs, std = 6, 0.1
    evolution = AntitheticEvolution(optax.sgd(1.0), noise_std=std)
    state = evolution.init(KEY, START)
    eps = noise(evolution, state, pairs)
    slope = (exact(flat(START) + std * eps) - exact(flat(START) - std * eps)) / (2 * std)
    sound = abs(std * eps[:, 0]) <= 0.05
    assert 0 < sound.sum() < pairs
    state, metrics = run(evolution, 1, pairs, learner=Quadratic(broken=True))
    step = (eps * (slope * sound)[:, None]).sum(0) / pairs
    np.testing.assert_allclose(flat(state.params), flat(START) - step, rtol=1e-3, atol=1e-3)
    assert metrics["nonfinite"] == pairs - sound.sum()
    assert np.isfinite(metrics["meta_loss"])


def test_fillers_add_nothing():
    evolution = AntitheticEvolution(optax.sgd(1.0))
    state = evolution.init(KEY, START)
    moved = [flat(meta_step(evolution, state, chunks(5, size), KEY, SERIAL)[0].params) for size in (5, 8, 16)]
    np.testing.assert_allclose(moved[1], moved[0], rtol=1e-5)
    np.testing.assert_array_equal(moved[2], moved[1])


def test_a_state_that_was_saved_goes_on_as_if_it_had_not_been(tmp_path):
    evolution = AntitheticEvolution(meta_adam(0.1), optax.linear_schedule(0.2, 0.1, 4))
    half = run(evolution, 2)[0]
    checkpoint.save(tmp_path / "state", half, {})
    loaded = checkpoint.load(tmp_path / "state", evolution.init(KEY, START))[0]
    for one, other in zip(
        jax.tree.leaves(run(evolution, 2, state=half)[0]),
        jax.tree.leaves(run(evolution, 2, state=loaded)[0]),
        strict=True,
    ):
        assert (one == other).all()


def test_from_the_second_generation_on_nothing_is_compiled():
    evolution = AntitheticEvolution(meta_adam(0.1))
    compiled = (base._evaluate, AntitheticEvolution._ask, AntitheticEvolution._step)
    state, _ = run(evolution, 1)
    before = [function._cache_size() for function in compiled]
    run(evolution, 2, state=state)
    assert [function._cache_size() for function in compiled] == before


def textured(size):
    random = np.random.default_rng(0)
    images = jnp.asarray(random.integers(0, 256, (12, size, size, 1)), jnp.uint8)
    return Dataset(images, jnp.arange(12, dtype=jnp.int32) % 3, "textured", 3, mean=0.5, std=0.25)


def small_vsml(*shapes):
    return flat_vsml(*shapes, state_size=4, message_size=2, micro_ticks=1)


@pytest.mark.parametrize("learner", [Brightness, pytest.param(small_vsml, marks=pytest.mark.slow)])
@pytest.mark.parametrize("optimizer", [AntitheticEvolution(meta_adam(0.1)), BackPropagation(meta_adam(0.1))])
def test_neither_ranks_nor_chunks_of_a_power_of_two_change_a_bit(optimizer, learner):
    """Two groups, of 7 and 4 trials, so that every size but 1 has fillers."""
    mixture = [build_task(textured(3), 3), build_task(textured(2), 3), build_task(textured(3), 3)]
    groups = group_trials(mixture, 11, learner)
    assert [len(group.trials) for group in groups] == [7, 4]
    start = optimizer.init(KEY, groups[0].learner.init_params(KEY))
    found = {}
    sizes = (1, 2, 4, 8) if learner is Brightness else (1, 8)  # each compiles anew
    for size in sizes:
        cut = chunks_of(groups, size)
        for ranks in (1, 2, 3) if len(cut) >= 3 else (1, 2):
            told = Ranks.run(ranks, lambda comm, cut=cut: meta_step(optimizer, start, cut, KEY, comm)[0])
            for rank, state in enumerate(told):
                found[size, ranks, rank] = flat(optimizer.params(state))
    for case, params in found.items():
        np.testing.assert_array_equal(params, found[1, 1, 0], err_msg=str(case))
    assert len(found) == 6 * len(sizes[:-1]) + 3


PAIRS = 50_000
META_PARAMETERS = 2384


@dataclass(frozen=True)
class Wide(Quadratic):
    """Stand in for a learner with as many meta-parameters as VSML's: half their mean square."""

    def init_params(self, key):
        return {"w": jnp.ones(META_PARAMETERS)}

    def step(self, params, state, x, y):
        loss = (params["w"] ** 2).mean() / 2 + 0.1
        return state, jnp.stack([jnp.zeros(1), jnp.log(jnp.expm1(loss))[None]], axis=1)


def needed_bytes(compiled):
    analysis = compiled.memory_analysis()
    return analysis.temp_size_in_bytes + analysis.output_size_in_bytes


@pytest.mark.slow
def test_memory_does_not_grow_with_the_population():
    evolution = AntitheticEvolution(meta_adam(0.1))
    state = evolution.init(KEY, Wide().init_params(KEY))
    members = evolution.ask(state)[1]
    needed = {}
    for size in (64, 1024, 65_536):
        chunk = chunks(size, learner=Wide())[0]
        static = (evaluate_pair, EpisodeLoss(), Wide())
        arguments = (members, chunk.group.tasks, chunk.trials, chunk.options, np.int32(PAIRS), KEY)
        needed[size] = needed_bytes(base._evaluate.lower(*static, *arguments).compile())
    vector = 4 * META_PARAMETERS
    assert needed[64] < 2**20
    # Beside numbers for each trial, only the nodes of the tree: one a level.
    assert needed[1024] - needed[64] < 100 * 1024 + 16 * vector
    assert needed[65_536] - needed[64] < 100 * 65_536 + 32 * vector < 10 * 2**20


def test_evosax_needs_gigabytes_for_as_many(monkeypatch):
    class Memory:
        available = 2**40

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    params = Wide().init_params(KEY)
    evolution = Evolution(PAIRS, params, meta_adam(0.1))
    state = jax.eval_shape(evolution.init, KEY, params)
    assert needed_bytes(evolution._ask.lower(evolution, state).compile()) > 2**30


@pytest.mark.slow
def test_100_000_members_are_evaluated_and_told():
    evolution = AntitheticEvolution(optax.sgd(META_PARAMETERS))
    cut = chunks(PAIRS, 1024, learner=Wide())
    assert len(cut) == 49
    state = evolution.init(KEY, Wide().init_params(KEY))
    state, metrics = meta_step(evolution, state, cut, KEY, SERIAL)
    assert metrics["meta_loss"] == pytest.approx(0.1 + (1 + 0.05**2) / 2, rel=1e-3)
    # The gradient is all ones; the mean of n pairs has the variance D / n.
    step = 1 - flat(state.params)
    assert step.mean() == pytest.approx(1, rel=0.02)
    assert step.std() == pytest.approx((META_PARAMETERS / PAIRS) ** 0.5, rel=0.1)

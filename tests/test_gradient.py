"""Back-propagation through the episode: the gradient, what is left out of it, and the step along it."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flat_vsml import flat_vsml
from jax.flatten_util import ravel_pytree

from vsml.learners import run_episode
from vsml.learners.base import continue_episode
from vsml.losses import cross_entropy
from vsml.meta.objectives import EpisodeConfig, EpisodeLoss
from vsml.meta.objectives import episode as episodes
from vsml.meta.optimizers import base
from vsml.meta.optimizers.base import meta_adam
from vsml.meta.optimizers.gradient import BackPropagation
from vsml.meta.trials import Chunk, Group, Results, sample_trial
from vsml.tasks import Dataset, build_task
from vsml.types import Classes

pytestmark = pytest.mark.usefixtures("hasty", "explicit_ranks")

KEY = jax.random.key(0)
RANDOM = np.random.default_rng(0)


def make_task(length=4):
    images = jnp.asarray(RANDOM.integers(0, 256, (12, 2, 2, 1)), jnp.uint8)
    labels = jnp.arange(12, dtype=jnp.int32) % 3
    return build_task(Dataset(images, labels, "textured", 3, mean=0.5, std=0.25), length)


TASK = make_task()


@dataclass(frozen=True)
class Linear:
    """Stand in for a learner: a linear map of the input, and an initial state that may break it."""

    broken: str = ""
    inputs: int = 4
    outputs: Classes = Classes(3)

    def init_params(self, key):
        return {"weights": jax.random.normal(key, (self.inputs, 3)), "bias": jnp.zeros(3)}

    def init_state(self, params, key, batch_size=1):
        return jax.random.bernoulli(key)

    def step(self, params, state, x, y):
        weights = params["weights"]
        if self.broken == "loss":
            weights = jnp.where(state, jnp.nan, weights)
        logits = x.reshape(len(x), -1) @ weights + params["bias"][None]
        if self.broken == "gradient":
            zero = jnp.where(state, weights[0, 0] - weights[0, 0], 1.0)
            logits = logits + jnp.sqrt(zero)  # at 0 the slope of the root is infinite
        return state, logits


def make_chunk(learner, trials, count=None):
    trials = np.asarray(trials, np.int32)
    group = Group(learner, (TASK,), trials, np.zeros_like(trials))
    return Chunk(group, trials, np.zeros_like(trials), len(trials) if count is None else count)


def mean_loss(learner, params, trials, last=None, before=None):
    """Return the mean loss over the last steps of some trials' episodes, by other means than the library's.

    Steps that are not counted are run with the meta-parameters `before`, where given.
    """
    losses = []
    for trial in trials:
        episode, state_key = sample_trial((TASK,), jnp.array(0), KEY, jnp.array(trial))
        if before is None:
            logits = run_episode(learner, params, state_key, episode)
        else:
            state = learner.init_state(before, state_key, 1)
            for x, y in zip(episode.x[:-last], episode.y[:-last], strict=True):
                state, _ = jax.jit(learner.step)(before, state, x, y)
            logits = continue_episode(learner, params, state, jax.tree.map(lambda a: a[-last:], episode))[1]
        losses.append(cross_entropy(logits, episode.y[-len(logits) :])[-(last or 0) :].mean())
    return jnp.stack(losses).mean()


def breaks(trial):
    return bool(jax.random.bernoulli(sample_trial((TASK,), jnp.array(0), KEY, jnp.array(trial))[1]))


def step(optimizer, state, gradient, loss=(1.0, 1.0)):
    loss = np.asarray(loss, np.float32)[:, None]
    results = Results(loss, np.zeros_like(loss), ravel_pytree(gradient)[0])
    return optimizer.tell(state, state.params, results)


@pytest.mark.parametrize(
    ("learner", "segments", "loss_type"),
    [
        (flat_vsml((2, 2, 1), 3, state_size=4, message_size=2, micro_ticks=1), 1, "mean"),
        (Linear(), 1, "last"),
        (Linear(), 2, "mean"),
    ],
    ids=["vsml", "last", "segments"],
)
def test_the_sum_of_gradients_is_the_gradient_of_the_episodes_losses(
    learner, segments, loss_type, monkeypatch
):
    jax.clear_caches()  # how an episode is cut is decided when it is compiled
    monkeypatch.setattr(episodes, "segments_of", lambda *_: segments)
    params, trials = learner.init_params(KEY), [0, 1, 2]
    optimizer = BackPropagation(meta_adam(0.01), EpisodeLoss(EpisodeConfig(loss_type=loss_type)))
    loss, _, total = optimizer.evaluate(params, make_chunk(learner, trials), KEY)
    want, want_gradient = jax.jit(
        jax.value_and_grad(
            lambda params: mean_loss(learner, params, trials, 1 if loss_type == "last" else None)
        )
    )(params)
    assert loss.shape == (3, 1)
    np.testing.assert_allclose(loss.mean(), want, rtol=1e-5)
    np.testing.assert_allclose(total / 3, ravel_pytree(want_gradient)[0], rtol=1e-4, atol=1e-6)
    assert abs(total).max() > 1e-3


@pytest.mark.parametrize("length", [3, 9])
def test_a_truncated_gradient_is_that_of_the_last_steps_from_a_fixed_state(length):
    learner, trials = flat_vsml((2, 2, 1), 3, state_size=4, message_size=2, micro_ticks=1), [0, 1]
    params = learner.init_params(KEY)
    optimizer = BackPropagation(meta_adam(0.01), EpisodeLoss(EpisodeConfig(truncation_length=length)))
    loss, _, total = optimizer.evaluate(params, make_chunk(learner, trials), KEY)
    last = length if length < TASK.episode_length else None
    before = params if last else None
    want, want_gradient = jax.jit(
        jax.value_and_grad(lambda free: mean_loss(learner, free, trials, last, before))
    )(params)
    np.testing.assert_allclose(loss.mean(), want, rtol=1e-5)
    np.testing.assert_allclose(total / 2, ravel_pytree(want_gradient)[0], rtol=1e-4, atol=1e-6)


def test_fillers_add_nothing_to_the_gradient():
    learner = Linear()
    params, optimizer = learner.init_params(KEY), BackPropagation(meta_adam(0.01))
    _, _, total = optimizer.evaluate(params, make_chunk(learner, [0, 1, 1, 1], count=2), KEY)
    want = jax.grad(lambda params: mean_loss(learner, params, [0, 1]))(params)
    np.testing.assert_allclose(total / 2, ravel_pytree(want)[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_an_episode_whose_loss_or_gradient_is_not_finite_is_left_out(broken):
    learner, whole = Linear(broken), Linear()
    trials = list(range(6))
    sound = [trial for trial in trials if not breaks(trial)]
    assert 0 < len(sound) < len(trials)
    params, optimizer = learner.init_params(KEY), BackPropagation(optax.sgd(1.0))
    loss, accuracy, total = optimizer.evaluate(params, make_chunk(learner, trials), KEY)
    assert np.flatnonzero(np.isfinite(loss[:, 0])).tolist() == sound
    want = jax.grad(lambda params: mean_loss(whole, params, sound))(params)
    state, metrics = optimizer.tell(
        optimizer.init(KEY, params),
        params,
        Results(np.asarray(loss), np.asarray(accuracy), np.asarray(total)),
    )
    moved = jax.tree.map(lambda old, new: old - new, params, state.params)
    np.testing.assert_allclose(ravel_pytree(moved)[0], ravel_pytree(want)[0], rtol=1e-4, atol=1e-5)
    assert metrics["nonfinite"] == 6 - len(sound)
    assert np.isfinite(metrics["meta_loss"])


def test_without_a_finite_loss_the_meta_parameters_stay_finite():
    params = {"w": jnp.ones(2)}
    optimizer = BackPropagation(optax.sgd(1.0))
    state, metrics = step(optimizer, optimizer.init(KEY, params), {"w": jnp.zeros(2)}, [np.nan, np.inf])
    np.testing.assert_array_equal(state.params["w"], np.ones(2))
    assert metrics["nonfinite"] == 2
    assert np.isnan(metrics["meta_loss"])


@pytest.mark.parametrize(("limit", "expected"), [(None, 5.0), (10.0, 5.0), (1.0, 1.0)])
def test_the_gradient_is_clipped_by_its_norm(limit, expected):
    optimizer = BackPropagation(
        optax.chain(*([] if limit is None else [optax.clip_by_global_norm(limit)]), optax.sgd(1.0))
    )
    params = {"v": jnp.zeros(1), "w": jnp.zeros(1)}
    state, _ = step(optimizer, optimizer.init(KEY, params), {"v": jnp.array([6.0]), "w": jnp.array([8.0])})
    np.testing.assert_allclose(np.hypot(state.params["v"], state.params["w"]), expected, rtol=1e-5)
    np.testing.assert_allclose(state.params["w"] / state.params["v"], 8 / 6, rtol=1e-5)


def test_the_norm_of_the_gradient_is_measured_before_it_is_clipped():
    optimizer = BackPropagation(meta_adam(0.1, clip_gradnorm=1.0))
    params = {"v": jnp.zeros(1), "w": jnp.zeros(1)}
    _, metrics = step(optimizer, optimizer.init(KEY, params), {"v": jnp.array([6.0]), "w": jnp.array([8.0])})
    np.testing.assert_allclose(metrics["grad_norm"], 5.0, rtol=1e-5)


def test_clipping_shrinks_a_step_after_smaller_ones():
    params = {"w": jnp.zeros(1)}
    moved = {}
    for limit in (None, 1.0):
        optimizer = BackPropagation(meta_adam(0.1, limit))
        state = optimizer.init(KEY, params)
        for size in (1.0, 100.0):
            state, _ = step(optimizer, state, {"w": jnp.array([2 * size])})
        moved[limit] = float(state.params["w"][0])
    # Adam does not see the size of a steady gradient; clipped to 1, both steps are as large.
    np.testing.assert_allclose(moved[1.0], -0.2, rtol=1e-3)
    assert moved[None] > -0.19


def test_steps_are_shorter_by_the_square_where_the_loss_is_steep():
    params = {"flat": jnp.zeros([]), "steep": jnp.zeros([]), "idle": jnp.zeros([])}
    slopes = {"flat": 0.05, "steep": 3.0, "idle": 0.0}
    moved = {}
    for limit in (None, 0.1):
        optimizer = meta_adam(0.1, max_slope=limit)
        state = optimizer.init(params)
        reached = params
        for _ in range(3):
            gradient = {name: jnp.float32(slope) for name, slope in slopes.items()}
            steps, state = optimizer.update(gradient, state, reached)
            reached = optax.apply_updates(reached, steps)
        moved[limit] = {name: float(value) for name, value in reached.items()}
    assert moved[0.1]["flat"] == pytest.approx(moved[None]["flat"], rel=1e-4)
    assert moved[0.1]["steep"] == pytest.approx(moved[None]["steep"] * (0.1 / 3.0) ** 2, rel=1e-3)
    assert moved[0.1]["idle"] == 0


def test_a_narrow_valley_is_followed_only_with_a_bound_on_the_slope():
    """A loss that is 10,000 times as steep in one parameter as in the other, with noise in the steep one."""

    def loss(params, noise):
        return 50 * jnp.square(100 * params["steep"] - noise) + jnp.square(params["flat"] - 1) / 200

    reached = {}
    for limit in (None, 0.1):
        optimizer = meta_adam(0.02, max_slope=limit)
        params = {"flat": jnp.zeros([]), "steep": jnp.zeros([])}
        state = optimizer.init(params)
        step = jax.jit(optimizer.update)
        for noise in np.random.default_rng(0).normal(size=200):
            steps, state = step(jax.grad(loss)(params, 0.1 * noise), state, params)
            params = optax.apply_updates(params, steps)
        reached[limit] = float(loss(params, 0.0))
        assert float(params["flat"]) == pytest.approx(1, abs=0.1)
    assert reached[0.1] < 1e-3 < 1 < reached[None]


def test_each_step_has_the_learning_rate_that_the_schedule_gives_it():
    schedule = optax.piecewise_constant_schedule(1.0, {1: 0.5, 2: 0.5})
    optimizer = BackPropagation(meta_adam(schedule))
    state, positions = optimizer.init(KEY, {"w": jnp.zeros(1)}), [0.0]
    for _ in range(4):
        state, _ = step(optimizer, state, {"w": jnp.array([2.0])})
        positions.append(float(state.params["w"][0]))
    np.testing.assert_allclose(-np.diff(positions), [1.0, 0.5, 0.25, 0.25], rtol=1e-3)


def test_all_episodes_are_run_with_the_same_meta_parameters_and_nothing_is_drawn():
    params, optimizer = {"w": jnp.ones(2)}, BackPropagation(meta_adam(0.1))
    state = optimizer.init(KEY, params)
    asked, members = optimizer.ask(state)
    for tree in (members, optimizer.params(state), optimizer.params(asked)):
        np.testing.assert_array_equal(tree["w"], params["w"])
    assert optimizer.trial_members == 1


def test_a_linear_classifier_is_found():
    learner, optimizer = Linear(), BackPropagation(meta_adam(0.1))
    params = learner.init_params(KEY)
    state, chunk = optimizer.init(KEY, params), make_chunk(learner, [0, 1, 2, 3])
    losses = []
    for number in range(100):
        state, members = optimizer.ask(state)
        loss, accuracy, total = optimizer.evaluate(members, chunk, jax.random.fold_in(KEY, number))
        state, metrics = optimizer.tell(state, members, Results(*map(np.asarray, (loss, accuracy, total))))
        losses.append(metrics["meta_loss"])
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:5])


def test_the_second_meta_step_compiles_nothing():
    learner, optimizer = Linear(), BackPropagation(meta_adam(0.1))
    state, sizes = optimizer.init(KEY, learner.init_params(KEY)), []
    for number in range(3):
        state, members = optimizer.ask(state)
        results = optimizer.evaluate(members, make_chunk(Linear(), [number, 5]), jax.random.key(number))
        state, _ = optimizer.tell(state, members, Results(*map(np.asarray, results)))
        sizes.append((base._evaluate._cache_size(), BackPropagation._step._cache_size()))
    assert sizes[1:] == sizes[:-1]


def test_the_number_of_segments_follows_from_the_size_of_the_states(monkeypatch):
    seen = []

    def run_and_note(learner, params, key, episode, segments):
        seen.append(segments)
        return run_episode(learner, params, key, episode, segments)

    monkeypatch.setattr(episodes, "BACKPROPAGATION_BYTES", 1)
    monkeypatch.setattr(episodes, "run_episode", run_and_note)
    jax.clear_caches()
    learner = Linear()
    BackPropagation(meta_adam(0.1)).evaluate(learner.init_params(KEY), make_chunk(learner, [0, 1]), KEY)
    assert seen == [2]  # the root of 4 steps
    jax.clear_caches()

"""Evolution strategies: their gradient, their noise, what they do with losses that are not finite."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import psutil
import pytest
from evosax.algorithms import distribution_based_algorithms

from vsml.meta.optimizers.base import meta_adam
from vsml.meta.optimizers.evosax import UNSUPPORTED, Evolution, finite_losses
from vsml.meta.trials import Results

pytestmark = pytest.mark.usefixtures("hasty")

KEY = jax.random.key(0)
START = {"matrix": np.full((2, 2), 0.5, np.float32), "vector": np.array([1.0, -1.0], np.float32)}
OPTIMUM = {"matrix": np.array([[1.0, -1.0], [2.0, 0.0]], np.float32), "vector": np.zeros(2, np.float32)}
USABLE = sorted(set(distribution_based_algorithms) - set(UNSUPPORTED))


def flat(tree, members=None):
    """Return leaves side by side: [D], or [members, D]."""
    rows = [np.asarray(leaf).reshape(members or 1, -1) for leaf in jax.tree.leaves(tree)]
    return np.concatenate(rows, axis=1)[() if members else 0]


def quadratic(members, pairs):
    """Return all members' losses [pairs, 2]: half the squared distance from OPTIMUM, each axis weighted."""
    weight = np.arange(1, 7)
    distance = flat(members, 2 * pairs) - flat(OPTIMUM)
    return (weight * distance**2).sum(1).astype(np.float32).reshape(2, pairs).T / 2


def results_of(loss):
    return Results(loss=loss, score=np.zeros_like(loss), gradient=np.zeros(0))


def run(evolution, steps, key=KEY):
    state, metrics = evolution.init(key, START), {}
    for _ in range(steps):
        state, members = evolution.ask(state)
        loss = quadratic(members, evolution.population_size)
        state, metrics = evolution.tell(state, members, results_of(loss))
    return state, metrics


def make(pairs=16, optimizer=None, **settings):
    return Evolution(pairs, START, meta_adam(0.05) if optimizer is None else optimizer, **settings)


def test_members_of_a_pair_lie_opposite_each_other_around_the_mean():
    evolution = make(pairs=3, noise_std=0.1)
    state, members = evolution.ask(evolution.init(KEY, START))
    noise = flat(members, 6) - flat(START)
    np.testing.assert_allclose(noise[:3], -noise[3:], atol=1e-6)
    assert (abs(noise[:3]) > 0).all()
    np.testing.assert_array_equal(flat(evolution.params(state)), flat(START))


def test_noise_has_the_given_deviation():
    evolution = make(pairs=1000, noise_std=0.2)
    noise = flat(evolution.ask(evolution.init(KEY, START))[1], 2000) - flat(START)
    np.testing.assert_allclose(noise.std(0), 0.2, rtol=0.1)


def test_a_step_is_the_mean_over_pairs_of_the_noise_times_the_slope_of_the_loss():
    pairs, std = 4, 0.3
    evolution = make(pairs, optax.sgd(1.0), noise_std=std)
    state, members = evolution.ask(evolution.init(KEY, START))
    loss = quadratic(members, pairs)
    moved = flat(evolution.params(evolution.tell(state, members, results_of(loss))[0]))
    noise = (flat(members, 2 * pairs)[:pairs] - flat(START)) / std
    gradient = (noise * (loss[:, :1] - loss[:, 1:]) / (2 * std)).mean(0)
    np.testing.assert_allclose(moved, flat(START) - gradient, rtol=1e-4, atol=1e-4)


def test_on_a_quadratic_the_step_points_along_the_analytic_gradient():
    evolution = make(4096, optax.sgd(1.0), noise_std=0.05)
    state, _ = run(evolution, 1)
    step = flat(START) - flat(evolution.params(state))
    gradient = np.arange(1, 7) * (flat(START) - flat(OPTIMUM))
    cosine = step @ gradient / np.linalg.norm(step) / np.linalg.norm(gradient)
    assert cosine > 0.99
    np.testing.assert_allclose(np.linalg.norm(step), np.linalg.norm(gradient), rtol=0.1)


def test_the_optimum_is_found():
    evolution = make(pairs=32, optimizer=meta_adam(optax.cosine_decay_schedule(0.1, 150)))
    state, metrics = run(evolution, 150)
    np.testing.assert_allclose(flat(evolution.params(state)), flat(OPTIMUM), atol=0.05)
    assert metrics["meta_loss"] < 0.05
    assert metrics["nonfinite"] == 0


def test_the_norm_of_the_gradient_is_measured_before_it_is_clipped():
    _, metrics = run(make(pairs=2048, optimizer=meta_adam(0.1, clip_gradnorm=1.0)), 1)
    gradient = np.arange(1, 7) * (flat(START) - flat(OPTIMUM))
    np.testing.assert_allclose(metrics["grad_norm"], np.linalg.norm(gradient), rtol=0.1)


def test_each_generation_has_the_deviation_that_the_schedule_gives_it():
    schedule = optax.piecewise_constant_schedule(0.4, {1: 0.5, 2: 0.5})
    evolution = make(pairs=1000, optimizer=optax.sgd(0.0), noise_std=schedule)
    state = evolution.init(KEY, START)
    for generation in range(4):
        state, members = evolution.ask(state)
        noise = flat(members, 2000) - flat(START)
        np.testing.assert_allclose(noise.std(), float(schedule(generation)), rtol=0.05)
        state, _ = evolution.tell(state, members, results_of(quadratic(members, 1000)))


def test_the_deviation_of_a_generation_is_the_one_its_slope_is_divided_by():
    schedule = optax.piecewise_constant_schedule(0.4, {1: 0.25})
    evolution = make(pairs=2048, optimizer=optax.sgd(1.0), noise_std=schedule)
    state = evolution.init(KEY, START)
    for _ in range(3):
        before = flat(evolution.params(state))
        state, members = evolution.ask(state)
        state, _ = evolution.tell(state, members, results_of(quadratic(members, 2048)))
        gradient = np.arange(1, 7) * (before - flat(OPTIMUM))
        np.testing.assert_allclose(
            np.linalg.norm(before - flat(evolution.params(state))), np.linalg.norm(gradient), rtol=0.15
        )


def test_the_same_key_draws_the_same_members_and_each_generation_others():
    evolution = make(pairs=2, optimizer=optax.sgd(0.0))
    state, first = evolution.ask(evolution.init(KEY, START))
    again = evolution.ask(make(pairs=2).init(KEY, START))[1]
    np.testing.assert_array_equal(flat(first), flat(again))
    other = evolution.ask(evolution.init(jax.random.key(1), START))[1]
    assert (flat(first) != flat(other)).any()
    state, _ = evolution.tell(state, first, results_of(quadratic(first, 2)))
    assert (flat(first) != flat(evolution.ask(state)[1])).any()


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("pairs", [1, 3])
def test_finite_losses_stay_as_they_are(paired, pairs):
    loss = np.arange(2 * pairs, dtype=np.float32).reshape(pairs, 2)
    np.testing.assert_array_equal(finite_losses(loss, paired), loss)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_both_members_of_a_pair_with_a_loss_that_is_not_finite_get_the_mean_of_the_finite(bad):
    loss = np.array([[1.0, 2.0], [bad, 6.0], [bad, bad]], np.float32)
    np.testing.assert_array_equal(finite_losses(loss, True), [[1, 2], [3, 3], [3, 3]])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_where_members_are_ranked_a_loss_that_is_not_finite_ranks_last(bad):
    loss = np.array([[1.0, 2.0], [bad, 6.0]], np.float32)
    got = finite_losses(loss, False)
    assert np.isfinite(got).all()
    assert got[1, 0] > 6
    np.testing.assert_array_equal(got[[0, 0, 1], [0, 1, 1]], [1, 2, 6])


@pytest.mark.parametrize("paired", [True, False])
def test_a_generation_without_a_finite_loss_says_nothing(paired):
    np.testing.assert_array_equal(
        finite_losses(np.full((3, 2), np.nan, np.float32), paired), np.zeros((3, 2))
    )


def test_a_pair_with_a_loss_that_is_not_finite_adds_nothing_to_the_step():
    pairs, std = 4, 0.1
    evolution = make(pairs, optax.sgd(1.0), noise_std=std)
    state, members = evolution.ask(evolution.init(KEY, START))
    loss = quadratic(members, pairs)
    broken = loss.copy()
    broken[2, 1] = np.nan
    state, metrics = evolution.tell(state, members, results_of(broken))
    noise = (flat(members, 2 * pairs)[:pairs] - flat(START)) / std
    slopes = (loss[:, :1] - loss[:, 1:]) / (2 * std)
    slopes[2] = 0
    np.testing.assert_allclose(
        flat(evolution.params(state)), flat(START) - (noise * slopes).mean(0), rtol=1e-3, atol=1e-3
    )
    assert metrics["nonfinite"] == 1
    np.testing.assert_allclose(metrics["meta_loss"], np.nanmean(broken), rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"algorithm": "OpenES"},
            r"optimizer\.algorithm: OpenES: .*did you mean Open_ES\?.*usable: .*CMA_ES",
        ),
        ({"algorithm": "antithetc"}, r"did you mean antithetic\?.*usable: antithetic, ARS"),
        ({"algorithm": "PersistentES"}, "PersistentES: needs episodes in truncated parts"),
        ({"algorithm": "SV_CMA_ES"}, "SV_CMA_ES: keeps several means"),
        ({"algorithm": "DiffusionEvolution"}, "no distribution-based algorithm of that name"),
        (
            {"options": {"elite": 1}},
            r"algorithm_options: Open_ES has no option elite; expected any of .*use_antithetic",
        ),
        (
            {"options": {"fitness_shaping_fn": "rank"}},
            "fitness_shaping_fn: got 'rank', expected one of identity",
        ),
        ({"algorithm": "CMA_ES", "options": {"population_size": 3}}, "has no option population_size"),
    ],
)
def test_what_is_unknown_or_unsuitable_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make(pairs=2, **settings)


def test_an_algorithm_that_needs_more_memory_than_there_is_is_refused(monkeypatch):
    class Memory:
        available = 1

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    with pytest.raises(
        MemoryError, match=r"CMA_ES needs .* GiB for 6 meta-parameters and 4 members, and 0\.0 GiB"
    ):
        make(pairs=2, algorithm="CMA_ES")


def test_options_reach_the_algorithm():
    shaped = make(pairs=8, optimizer=optax.sgd(1.0), options={"fitness_shaping_fn": "centered_rank"})
    plain = make(pairs=8, optimizer=optax.sgd(1.0))
    assert (flat(shaped.params(run(shaped, 1)[0])) != flat(plain.params(run(plain, 1)[0]))).any()
    wide = make(pairs=500, algorithm="CMA_ES", noise_std=0.1, options={"std_init": 2.0})
    noise = flat(wide.ask(wide.init(KEY, START))[1], 1000) - flat(START)
    np.testing.assert_allclose(noise.std(), 2.0, rtol=0.1)


def test_the_deviation_is_the_initial_one_of_algorithms_that_adapt_it():
    evolution = make(pairs=500, algorithm="CMA_ES", noise_std=0.5)
    noise = flat(evolution.ask(evolution.init(KEY, START))[1], 1000) - flat(START)
    np.testing.assert_allclose(noise.std(), 0.5, rtol=0.1)


def test_a_schedule_of_the_deviation_is_refused_by_algorithms_that_adapt_it():
    with pytest.raises(ValueError, match="noise_std: got a schedule, expected a number: CMA_ES"):
        make(pairs=2, algorithm="CMA_ES", noise_std=optax.linear_schedule(0.5, 0.1, 10))


def test_from_the_second_generation_on_nothing_is_compiled():
    evolution = make(pairs=2)
    run(evolution, 1)
    before = Evolution._ask._cache_size(), Evolution._tell._cache_size()
    run(evolution, 2, jax.random.key(1))
    assert (Evolution._ask._cache_size(), Evolution._tell._cache_size()) == before


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", USABLE)
def test_every_usable_algorithm_improves_on_a_quadratic(algorithm):
    pairs = 4 if algorithm == "LM_MA_ES" else 16  # NaN with more than two members for each meta-parameter
    evolution = make(pairs=pairs, algorithm=algorithm, noise_std=0.1)
    state, members = evolution.ask(evolution.init(KEY, START))
    loss = quadratic(members, pairs)
    assert np.isfinite(loss).all()
    first = loss.mean()
    for _ in range(30):
        state, _ = evolution.tell(state, members, results_of(loss))
        state, members = evolution.ask(state)
        loss = quadratic(members, pairs)
        assert np.isfinite(loss).all()
    assert jax.tree.structure(evolution.params(state)) == jax.tree.structure(START)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(evolution.params(state)))
    assert loss.mean() < first

"""Generators of targets that are values: what there is to learn in an episode of each."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vsml.tasks import build_task, load
from vsml.types import Values

pytestmark = pytest.mark.usefixtures("hasty")

KEY = jax.random.key(0)
TRAIN, TEST = 400, 400


def episode(name, key=KEY):
    """Return the inputs [n, 16] and targets [n] of an episode."""
    drawn = jax.jit(build_task(load(name, "train"), TRAIN + TEST).sample)(key)
    return np.asarray(drawn.x).reshape(-1, 16), np.asarray(drawn.y)[:, 0, 0]


def explained(predictions, targets):
    """Return the share of the variance of targets that predictions explain."""
    return 1 - np.mean((targets - predictions) ** 2) / np.var(targets)


def least_squares(x, y):
    """Return what the closed form of linear regression on the first examples predicts of the others."""
    with_bias = np.column_stack([x, np.ones(len(x))])
    weights, *_ = np.linalg.lstsq(with_bias[:TRAIN], y[:TRAIN], rcond=None)
    return with_bias[TRAIN:] @ weights


def tanh_network(x, y, hidden=32, steps=600):
    """Return what a tanh network, trained on the first examples, predicts of the others."""
    keys = jax.random.split(jax.random.key(1), 2)
    params = {
        "first": jax.random.normal(keys[0], (x.shape[1], hidden)) / x.shape[1] ** 0.5,
        "first_bias": jnp.zeros(hidden),
        "second": jax.random.normal(keys[1], (hidden,)) / hidden**0.5,
        "second_bias": jnp.zeros(()),
    }

    def answer(params, x):
        units = jnp.tanh(x @ params["first"] + params["first_bias"])
        return units @ params["second"] + params["second_bias"]

    def loss(params):
        weights = (params["first"] ** 2).sum() + (params["second"] ** 2).sum()
        return jnp.mean((answer(params, x[:TRAIN]) - y[:TRAIN]) ** 2) + 1e-4 * weights

    optimizer = optax.adam(0.02)

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, updates), state), None

    train = jax.jit(lambda carry: jax.lax.scan(step, carry, None, length=steps)[0])
    params, _ = train((params, optimizer.init(params)))
    return np.asarray(answer(params, x[TRAIN:]))


def test_least_squares_explain_nearly_all_of_a_linear_map():
    x, y = episode("linear_map")
    assert explained(least_squares(x, y), y[TRAIN:]) > 0.97


def test_a_tanh_network_explains_more_of_a_tanh_network_than_a_linear_map_does():
    x, y = episode("tanh_network")
    linear = explained(least_squares(x, y), y[TRAIN:])
    network = explained(tanh_network(x, y), y[TRAIN:])
    assert linear < 0.9
    assert network > linear + 0.03
    assert network > 0.85


def test_noisy_functions_differ_in_noise_bend_and_inputs_that_matter():
    drawn = [episode("noisy_functions", jax.random.key(seed)) for seed in range(12)]
    shares = [explained(least_squares(x, y), y[TRAIN:]) for x, y in drawn]
    assert max(shares) > 0.85 and min(shares) < 0.55
    # Where a line explains little, it is for noise, or as the function is bent.
    gains = [
        explained(tanh_network(x, y), y[TRAIN:]) - share
        for (x, y), share in zip(drawn[:4], shares, strict=False)
    ]
    assert max(gains) > 0.1
    weights = np.stack([np.abs(np.linalg.lstsq(x, y, rcond=None)[0]) for x, y in drawn])
    assert np.median(weights.max(1) / np.median(weights, axis=1)) > 4
    assert np.std([y.std() for _, y in drawn]) < 0.1


@pytest.mark.parametrize("name", ["linear_map", "tanh_network", "noisy_functions"])
def test_every_episode_has_a_function_of_its_own_and_targets_of_about_unit_size(name):
    task = build_task(load(name, "train"), 200, 2)
    assert task.outputs == task.targets == Values(1) and task.chance is None
    keys = jax.random.split(KEY, 60)
    episodes = jax.jit(jax.vmap(task.sample))(keys)
    assert (episodes.y.shape, episodes.y.dtype) == ((60, 200, 2, 1), jnp.float32)
    assert episodes.taught is None
    assert 0.5 < float(episodes.y.std()) < 2
    x, y = (np.asarray(each).reshape(60, 400, -1) for each in (episodes.x, episodes.y))
    maps = [np.linalg.lstsq(one_x, one_y, rcond=None)[0][:, 0] for one_x, one_y in zip(x, y, strict=True)]
    similarity = np.corrcoef(maps)[np.triu_indices(60, 1)]
    assert abs(similarity.mean()) < 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"filter_classes": [0]}, r"filter_classes: got \[0\], expected null: the targets of linear_map"),
        (
            {"permute_labels": True},
            r"permute_labels: got true, expected false for the 1 values",
        ),
        ({"relabel": True}, r"relabel: got true, expected false for the 1 values"),
        ({"pad_output": 10}, r"pad\.output: got 10, expected null for the 1 values of linear_map"),
        ({"ways": 5}, "few_shot: got linear_map"),
    ],
)
def test_what_is_about_classes_is_refused_for_values(options, message):
    with pytest.raises(ValueError, match=message):
        build_task(load("linear_map", "train"), 20, **options)


def test_inputs_of_values_are_transformed_like_others():
    task = build_task(load("linear_map", "train"), 20, pad_input=[1, 20, 1], shuffle=True)
    assert task.input_shape == (1, 20, 1)
    assert task.sample(KEY).x.shape == (20, 1, 1, 20, 1)


@pytest.mark.parametrize(
    ("name", "truth"),
    [
        ("logic_and", lambda a, b: 0.8 * (a > 0) * (b > 0)),
        ("logic_or", lambda a, b: 0.8 * ((a > 0) | (b > 0))),
        ("logic_xor", lambda a, b: 0.8 * (a * b < 0)),
        ("a_plus_b", lambda a, b: a + b),
    ],
)
def test_small_tasks_are_what_they_are_called(name, truth):
    task = build_task(load(name, "train"), 200)
    assert task.input_shape == (1, 3, 1) and task.outputs == Values(1)
    episode = task.sample(KEY)
    a, b, one = np.asarray(episode.x).reshape(200, 3).T
    np.testing.assert_array_equal(one, 1)
    np.testing.assert_allclose(episode.y.ravel(), truth(a, b), atol=1e-6)
    assert 0.1 < float(episode.y.std()) < 0.5, "all answers occur"

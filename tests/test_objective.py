"""What the outer loop minimises: chunks, the loss of an episode, and trials that depend on nobody."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flat_vsml import flat_vsml
from flax import struct
from stand_ins import Brightness

from vsml.learners import run_episode
from vsml.losses import cross_entropy
from vsml.meta import mapping
from vsml.meta.mapping import map_trials, sum_trials, tree_sum
from vsml.meta.objectives import episode as episodes
from vsml.meta.objectives.episode import episode_result, segments_of
from vsml.meta.optimizers.antithetic import AntitheticEvolution
from vsml.meta.optimizers.base import meta_adam, summarise
from vsml.meta.optimizers.gradient import BackPropagation
from vsml.meta.step import meta_train
from vsml.meta.trials import Group, Results, chunks_of, group_trials, sample_trial
from vsml.tasks import Dataset, build_task
from vsml.types import Classes, Episode, Values

KEY = jax.random.key(0)


def textured(size=3, classes=3, name="textured", brightest=255):
    random = np.random.default_rng(0)
    images = jnp.asarray(random.integers(0, brightest + 1, (12, size, size, 1)), jnp.uint8)
    labels = jnp.arange(12, dtype=jnp.int32) % classes
    return Dataset(images=images, labels=labels, name=name, num_classes=classes, mean=0.5, std=0.25)


def make_group(count, first=0, options=None, learner=None, tasks=()):
    options = np.zeros(count) if options is None else options
    trials = np.arange(first, first + count)
    return Group(learner, tasks, trials.astype(np.int32), np.asarray(options, np.int32))


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [
        (1, 1, [([0], 1)]),
        (1, 3, [([0, 0, 0], 1)]),
        (3, 3, [([0, 1, 2], 3)]),
        (4, 3, [([0, 1, 2], 3), ([3, 3, 3], 1)]),
        (5, 2, [([0, 1], 2), ([2, 3], 2), ([4, 4], 1)]),
        (2, 1, [([0], 1), ([1], 1)]),
    ],
)
def test_a_group_is_cut_into_chunks_and_the_last_is_filled(count, size, expected):
    chunks = chunks_of([make_group(count)], size)
    assert [(chunk.trials.tolist(), chunk.count) for chunk in chunks] == expected
    assert all(len(chunk.options) == size for chunk in chunks)


def test_no_chunk_has_trials_of_two_groups():
    even = Group(None, (), np.array([0, 2, 4], np.int32), np.array([1, 0, 1], np.int32))
    odd = Group(None, (), np.array([1, 3], np.int32), np.array([0, 2], np.int32))
    chunks = chunks_of([even, odd], 2)
    assert [chunk.group for chunk in chunks] == [even, even, odd]
    assert [chunk.trials.tolist() for chunk in chunks] == [[0, 2], [4, 4], [1, 3]]
    assert [chunk.options.tolist() for chunk in chunks] == [[1, 0], [1, 1], [0, 2]]
    assert [chunk.count for chunk in chunks] == [2, 1, 2]


def make_answers(length=4, batch=2, classes=3):
    random = np.random.default_rng(1)
    logits = random.normal(size=(length, batch, classes)).astype(np.float32)
    labels = random.integers(0, classes, (length, batch)).astype(np.int32)
    weight = random.integers(1, 4, (length, batch)).astype(np.float32)
    return jnp.asarray(logits), Episode(x=jnp.zeros((length, batch, 1)), y=labels, weight=weight)


@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(("loss_type", "counted"), [("mean", slice(None)), ("last", slice(-1, None))])
def test_the_loss_is_the_weighted_mean_over_all_steps_or_the_last(length, batch, loss_type, counted):
    logits, episode = make_answers(length, batch)
    episode = episode.replace(weight=jnp.asarray(episode.weight))
    result = episode_result(logits, episode, loss_type, Classes(3))
    weight = np.asarray(episode.weight[counted])
    losses = np.asarray(cross_entropy(logits, episode.y))[counted]
    right = (np.asarray(logits).argmax(-1) == episode.y)[counted]
    np.testing.assert_allclose(result.loss, (losses * weight).sum() / weight.sum(), rtol=1e-5)
    np.testing.assert_allclose(result.score, (right * weight).sum() / weight.sum(), rtol=1e-5)


def test_answers_of_weight_zero_do_not_count():
    logits, episode = make_answers(3, 1)
    episode = episode.replace(weight=jnp.array([[0.0], [1.0], [0.0]]))
    result = episode_result(logits, episode, "mean", Classes(3))
    np.testing.assert_allclose(result.loss, cross_entropy(logits[1], episode.y[1])[0], rtol=1e-5)


@pytest.mark.parametrize(("loss_type", "counted"), [("mean", slice(None)), ("last", slice(-1, None))])
def test_values_are_judged_by_half_the_squared_error_and_the_variance_explained(loss_type, counted):
    random = np.random.default_rng(3)
    answers, targets = random.normal(size=(2, 5, 2, 3)).astype(np.float32)
    weight = random.integers(1, 4, (5, 2)).astype(np.float32)
    episode = Episode(x=jnp.zeros((5, 2, 1)), y=jnp.asarray(targets), weight=jnp.asarray(weight))
    result = episode_result(jnp.asarray(answers), episode, loss_type, Values(3))
    squares = ((answers - targets) ** 2).sum(-1)
    error = np.average(squares[counted], weights=weight[counted])
    mean = np.average(targets.reshape(10, 3), axis=0, weights=weight.reshape(10))
    variance = np.average(((targets - mean) ** 2).sum(-1), weights=weight)
    np.testing.assert_allclose(result.loss, error / 2, rtol=1e-5)
    np.testing.assert_allclose(result.score, 1 - error / variance, rtol=1e-5)


def test_targets_without_variance_leave_nothing_to_explain():
    episode = Episode(x=jnp.zeros((3, 1, 1)), y=jnp.ones((3, 1, 2)), weight=jnp.ones((3, 1)))
    assert episode_result(jnp.zeros((3, 1, 2)), episode, "mean", Values(2)).score == 0


@dataclass(frozen=True)
class Line:
    """Stand in for a learner of values: a linear map, which is meta-learned."""

    outputs = Values(2)

    def init_params(self, key):
        return {"map": jnp.zeros((3, 2))}

    def init_state(self, params, key, batch_size=1):
        return jnp.zeros(())

    def step(self, params, state, x, y, taught=None):
        return state, x @ params["map"]


@struct.dataclass
class LinearTask:
    """Stand in for a task of values: always the same map."""

    def sample(self, key):
        x = jax.random.normal(key, (6, 2, 3))
        return Episode(x=x, y=x @ jnp.array([[1.0, 2.0], [0.0, 1.0], [-1.0, 0.0]]), weight=jnp.ones((6, 2)))


@pytest.mark.parametrize("optimizer", [BackPropagation, AntitheticEvolution])
def test_a_map_to_values_is_found_and_told_by_its_own_score(optimizer):
    group = Group(Line(), (LinearTask(),), np.arange(8, dtype=np.int32), np.zeros(8, np.int32))
    steps = meta_train(optimizer(meta_adam(0.1)), Line().init_params(KEY), [group], 60, KEY)
    metrics = [metrics for _, _, metrics in steps]
    assert "accuracy" not in metrics[0]
    # Answering 0 explains nothing; the mean of an episode is 0 but for chance.
    assert metrics[0]["explained"] < 0.1
    assert metrics[-1]["explained"] > 0.9


def test_what_is_not_finite_is_counted_and_left_out_of_the_summary():
    loss = np.array([[1.0, np.nan], [3.0, 2.0], [np.inf, 2.0]], np.float32)
    accuracy = np.array([[0.0, 0.9], [0.5, 1.0], [0.9, 0.5]], np.float32)
    assert summarise(Results(loss, accuracy, np.zeros(0))) == {
        "meta_loss": 2.0,
        "accuracy": 0.5,
        "nonfinite": 2,
    }
    nothing = summarise(Results(np.full((2, 1), np.nan), np.zeros((2, 1)), np.zeros(0)))
    assert nothing["nonfinite"] == 2
    assert np.isnan(nothing["meta_loss"])


def score(trial, shared):
    """Stand in for the evaluation of a trial: a sum and a transcendental function, so that order matters."""
    number, values = trial
    return {"trial": number, "score": jnp.tanh(values @ shared).sum()}


@pytest.mark.parametrize("count", [1, 2, 33])
def test_trials_are_mapped_in_order_whatever_the_number_of_devices(count, monkeypatch):
    random = np.random.default_rng(2)
    values = random.normal(size=(count, 3, 4)).astype(np.float32)
    shared = random.normal(size=(4, 5)).astype(np.float32)
    trials = (np.arange(count, dtype=np.int32), values)
    assert len(jax.local_devices()) > 1

    def map_and_sum(trials):
        results = map_trials(score, trials, shared)
        return results | {"sum": results["score"].sum()}

    spread = jax.jit(map_and_sum)(trials)
    devices = jax.local_devices()[:1]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    alone = jax.jit(lambda trials: map_and_sum(trials))(trials)
    np.testing.assert_array_equal(spread["trial"], np.arange(count))
    np.testing.assert_array_equal(alone["trial"], np.arange(count))
    np.testing.assert_allclose(alone["score"], np.tanh(values @ shared).sum((1, 2)), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(spread["score"], alone["score"])
    np.testing.assert_array_equal(spread["sum"], alone["sum"])


@pytest.mark.parametrize("dtype", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("count", [1, 2, 3, 13, 16])
def test_runs_of_a_power_of_two_rows_are_nodes_of_the_tree_over_all(count, dtype):
    rows = np.random.default_rng(3).normal(size=(count, 50)).astype(np.float32)
    total = tree_sum(dtype(rows))
    np.testing.assert_allclose(total, rows.sum(0), rtol=1e-4, atol=1e-5)
    for size in (1, 2, 4, 8, 16, 32):
        parts = [tree_sum(dtype(rows[start : start + size])) for start in range(0, count, size)]
        filled = np.concatenate([rows, np.zeros((-count % size, 50), np.float32)])
        np.testing.assert_array_equal(tree_sum(np.stack(parts)), total)
        np.testing.assert_array_equal(tree_sum(dtype(filled)), total)


@pytest.mark.parametrize(("size", "count"), [(1, 1), (3, 2), (16, 16), (37, 37), (64, 40), (100, 99)])
def test_vectors_of_trials_are_added_up_in_the_order_of_a_tree_whatever_the_devices(size, count, monkeypatch):
    values = np.random.default_rng(4).normal(size=(size, 50)).astype(np.float32)

    def scaled(trial, shared):
        number, value = trial
        return number, value.sum() * value * shared  # a product that could be fused with the sum

    def add_up(devices, trials_per_device):
        monkeypatch.setattr(jax, "local_devices", lambda: devices)
        monkeypatch.setattr(mapping, "TRIALS_PER_DEVICE", trials_per_device)
        trials = (np.arange(size), values)
        return jax.jit(lambda trials, count: sum_trials(scaled, trials, count, jnp.float32(0.3)))(
            trials, count
        )

    devices = jax.local_devices()
    _, vectors = jax.jit(lambda trials: map_trials(scaled, trials, jnp.float32(0.3)))(
        (np.arange(size), values)
    )
    want = tree_sum(np.asarray(vectors)[:count])
    for number, trials_per_device in ((2, 8), (1, 8), (2, 1), (1, 1)):
        numbers, total = add_up(devices[:number], trials_per_device)
        np.testing.assert_array_equal(numbers, np.arange(size))
        np.testing.assert_array_equal(total, want)


def evaluate(optimizer, params, group, size):
    """Evaluate a group in chunks of the given size: losses in the order of the trials, and the gradient."""
    losses, total = {}, 0.0
    for chunk in chunks_of([group], size):
        loss, _, gradient = optimizer.evaluate(params, chunk, KEY)
        losses |= dict(zip(chunk.trials[: chunk.count].tolist(), np.asarray(loss)[:, 0], strict=False))
        total = total + np.asarray(gradient)
    return losses, total


@pytest.mark.slow
def test_what_a_trial_comes_to_does_not_depend_on_its_chunk():
    learner = flat_vsml((3, 3, 1), 3, state_size=4, message_size=2, micro_ticks=1)
    optimizer = BackPropagation(meta_adam(0.01))
    params = learner.init_params(KEY)
    group = make_group(5, learner=learner, tasks=(build_task(textured(), 4),))
    want, want_gradient = evaluate(optimizer, params, group, 1)
    assert len(set(want.values())) == 5
    got, gradient = evaluate(optimizer, params, group, 4)
    assert got == want  # to the last bit
    np.testing.assert_allclose(gradient, want_gradient, rtol=1e-4, atol=1e-6)


def test_each_trial_takes_its_own_option_of_a_mixture():
    dark, bright = build_task(textured(brightest=9), 4), build_task(textured(), 4)
    assert abs(sample_trial((dark, bright), jnp.array(0), KEY, jnp.array(7))[0].x).std() < 0.3
    assert abs(sample_trial((dark, bright), jnp.array(1), KEY, jnp.array(7))[0].x).std() > 0.3
    for option, task in enumerate((dark, bright)):
        episode, state_key = sample_trial((dark, bright), jnp.array(option), KEY, jnp.array(7))
        alone, key_alone = sample_trial((task,), jnp.array(0), KEY, jnp.array(7))
        np.testing.assert_allclose(episode.x, alone.x, atol=1e-6)
        np.testing.assert_array_equal(episode.y, alone.y)
        assert state_key == key_alone


@pytest.mark.slow
def test_trials_of_two_shapes_are_evaluated_group_by_group_with_the_same_meta_parameters():
    learner, optimizer = Brightness(), BackPropagation(meta_adam(0.01))
    params = learner.init_params(KEY)
    groups = [
        Group(learner, (build_task(textured(2), 3),), np.array([0, 2], np.int32), np.zeros(2, np.int32)),
        Group(learner, (build_task(textured(3), 3),), np.array([1], np.int32), np.zeros(1, np.int32)),
    ]
    for chunk in chunks_of(groups, 2):
        loss = optimizer.evaluate(params, chunk, KEY)[0][:, 0]
        assert loss.shape == (2,)
        for k in range(chunk.count):
            episode, key = sample_trial(chunk.group.tasks, jnp.array(0), KEY, jnp.asarray(chunk.trials[k]))
            logits = run_episode(learner, params, key, episode)
            np.testing.assert_allclose(loss[k], cross_entropy(logits, episode.y).mean(), rtol=1e-5)


@pytest.mark.parametrize("other", [{"key": jax.random.key(1)}, {"trial": 4}])
def test_a_trial_is_determined_by_the_key_and_its_number(other):
    task = (build_task(textured(), 4, rand_proj=True),)

    def draw(key=KEY, trial=3):
        return sample_trial(task, jnp.array(0), key, jnp.array(trial))

    jax.tree.map(np.testing.assert_array_equal, draw()[0], draw()[0])
    assert draw()[1] == draw()[1]
    assert (draw()[0].x != draw(**other)[0].x).any()
    assert draw()[1] != draw(**other)[1]


def test_long_episodes_are_cut_into_segments_before_their_states_fill_the_memory(monkeypatch):
    learner = Brightness(num_classes=6)
    state_bytes = 4 * 6
    monkeypatch.setattr(episodes, "BACKPROPAGATION_BYTES", 10 * state_bytes)
    assert segments_of(learner, 10, 1) == 1
    assert segments_of(learner, 11, 1) == 4
    assert segments_of(learner, 6, 2) == 3
    assert segments_of(learner, 100, 1) == 10


def test_trials_take_the_tasks_of_a_mixture_in_turn_and_are_grouped_by_shape():
    small, large, other = (
        build_task(textured(size, name=name), 3) for size, name in ((2, "a"), (3, "b"), (2, "c"))
    )
    asked = []

    def make_learner(shape, classes):
        asked.append((shape, classes))
        return Brightness(num_classes=classes)

    groups = group_trials([small, large, other, small], 6, make_learner)
    assert asked == [((2, 2, 1), 3), ((3, 3, 1), 3)]
    assert [group.trials.tolist() for group in groups] == [[0, 2, 3, 4], [1, 5]]
    assert [[task.name for task in group.tasks] for group in groups] == [["a", "c"], ["b"]]
    assert [group.options.tolist() for group in groups] == [[0, 1, 0, 0], [0, 0]]
    assert [group.trials.tolist() for group in group_trials([small, large, other], 1, make_learner)] == [[0]]


def test_tasks_that_cannot_share_meta_parameters_are_refused():
    small = build_task(textured(), 3)
    more = build_task(textured(classes=4), 3)
    with pytest.raises(
        ValueError, match=r"inputs \(3, 3, 1\) with 3 classes need others than .* with 4; pad both"
    ):
        group_trials([small, more], 2, lambda shape, classes: Brightness(num_classes=classes))

"""An episodic memory in front of VSML: against numpy, by its symmetries, and what it refuses."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError

from vsml.cost.counts import cost_of, counted_cost
from vsml.learners import Vsml, continue_episode, run_episode
from vsml.learners.memory import perturb, state_floats
from vsml.learners.vsml import VsmlConfig
from vsml.losses import cross_entropy
from vsml.networks.episodic import EpisodicMemory, Sharpnesses, key_of
from vsml.networks.image_features import ImageFeatures
from vsml.settings import deep_merge
from vsml.types import Classes, Episode, Values

pytestmark = pytest.mark.usefixtures("hasty", "explicit_ranks")

KEY = jax.random.key(0)
SHAPE, CLASSES, SLOTS = (7,), 3, 8
run = jax.jit(run_episode, static_argnums=(0, 4))
go_on = jax.jit(continue_episode, static_argnums=(0, 4))
step = jax.jit(Vsml.step, static_argnums=0)
predict = jax.jit(Vsml.predict, static_argnums=0)

BASE = {
    "memory": {"slots": SLOTS},
    "backward_pass": True,
    "feed_label": True,
    "micro_ticks": 1,
    "synapse": {"init": "memory", "random_fraction": 0.25},
}


def config(**changes):
    return VsmlConfig.model_validate(deep_merge(BASE, changes))


def make(shape=SHAPE, outputs=CLASSES, **changes):
    return Vsml(shape, outputs, config(**changes))


def make_episode(length=20, batch=1, seed=0, shape=SHAPE):
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLASSES, (length, batch)).astype(np.int32)
    x = random.normal(size=(length, batch, *shape)).astype(np.float32)
    return Episode(x=x, y=labels, weight=np.ones(labels.shape, np.float32))


def disturbed(learner, seed=0):
    """Return fresh meta-parameters with noise on all of them, so that nothing is 0."""
    random = np.random.default_rng(seed)
    params = learner.init_params(KEY)
    return jax.tree.map(lambda a: a + random.normal(0, 0.1, a.shape).astype(np.float32), params)


def close(got, want, atol=1e-5):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=atol), got, want)


# The start that is written down.


def soft_neighbours(episode, slots, sharpness=10.0, gain=6.0):
    """Answer as a softmax over the last examples, by cosine of centred inputs; in float64."""
    answers = []
    inputs = np.float64(episode.x[:, 0])
    centred = inputs - inputs.mean(1, keepdims=True)
    keys = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    one_hot = np.eye(CLASSES)[episode.y[:, 0]]
    for t, key in enumerate(keys):
        known = slice(max(0, t - slots), t)
        if t == 0:
            answers.append(np.zeros(CLASSES))
            continue
        distance = 1 - keys[known] @ key
        mean = max(distance.mean(), 0.05) if len(distance) > 2 else 0.5
        weights = np.exp(-sharpness * distance / mean)
        answers.append(gain * weights @ one_hot[known] / weights.sum())
    return np.stack(answers)


def test_it_starts_as_a_soft_nearest_neighbour_classifier():
    learner = make(memory={"smooth_gain": 0.0})
    episode = make_episode(3 * SLOTS)
    got = run(learner, learner.init_params(KEY), KEY, episode)[:, 0]
    np.testing.assert_allclose(got, soft_neighbours(episode, SLOTS), atol=0.02)


def test_with_the_smooth_reading_gradient_descent_is_added():
    only_labels = make(memory={"smooth_gain": 0.0})
    both = make()
    episode = make_episode(10)
    first = run(only_labels, only_labels.init_params(KEY), KEY, episode)
    second = run(both, both.init_params(KEY), KEY, episode)
    assert abs(first - second).max() > 0.1


RIDGE = {"gain": 5.0, "width": 1.5, "ridge": 0.2}


def test_with_a_ridge_it_starts_as_kernel_ridge_regression():
    learner = make(memory={"smooth_gain": 0.0, "nearest_gain": 0.0, "ridge": RIDGE})
    episode = make_episode(6)
    params = learner.init_params(KEY)
    state, _ = go_on(learner, params, learner.init_state(params, KEY), episode)
    asked = make_episode(3, seed=4).x[:, 0]
    got = predict(learner, params, state, asked)

    keys = unit_length(np.float64(episode.x[:, 0]))
    distance = 1 - keys @ keys.T
    mean = distance[np.triu_indices(len(keys), 1)].mean()
    kernel = np.exp(-1.5 * distance / mean)
    to_asked = np.exp(-1.5 * (1 - unit_length(np.float64(asked)) @ keys.T) / mean)
    solved = np.linalg.solve(kernel + 0.201 * np.eye(len(keys)), np.eye(CLASSES)[episode.y[:, 0]])
    np.testing.assert_allclose(got, 5 * to_asked @ solved, atol=0.02)


def unit_length(inputs):
    centred = inputs - inputs.mean(1, keepdims=True)
    return centred / np.linalg.norm(centred, axis=1, keepdims=True)


def test_weights_of_the_ridge_are_kept_while_an_example_is_written():
    memory = EpisodicMemory(5, has_ridge=True)
    sharpnesses = Sharpnesses(3.0, 10.0, 8.0, (2.0, 0.1))
    state = memory.init_state(KEY, 4)
    x = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    for each in x[:3]:
        state = memory.write(state, each, 0, jnp.zeros(5))[0]
    answered = memory.messages(sharpnesses, state, x[3])
    assert abs(answered[:3, 5]).min() > 0
    np.testing.assert_array_equal(answered[3:, 5], 0)
    written_into = memory.messages(sharpnesses, state, x[3], jnp.array(1), answered[:, 5])
    np.testing.assert_array_equal(written_into[:, 5], [answered[0, 5], 0, answered[2, 5], 0, 0])


def test_many_inputs_meet_the_ridge_as_one_does():
    learner = make(memory={"ridge": RIDGE})
    params, episode = disturbed(learner), make_episode(batch=2)
    state, _ = go_on(learner, params, learner.init_state(params, KEY, 2), episode)
    asked = make_episode(4, seed=4).x[:, 0]
    together = predict(learner, params, state, asked)
    for number, each in enumerate(asked):
        # Input k is answered by element k % B.
        own = jax.tree.map(lambda a, b=number % 2: a[b : b + 1], state)
        close(predict(learner, params, own, each[None])[0], together[number])


# The memory against numpy.


@pytest.mark.parametrize("filled", [0, 1, 2, 5])
def test_messages_are_what_the_equations_say(filled):
    memory = EpisodicMemory(5)
    state = memory.init_state(KEY, 4)
    random = np.random.default_rng(filled)
    for _ in range(filled):
        state = memory.write(state, random.normal(size=4).astype(np.float32), 0, jnp.zeros(5))[0]
    x = random.normal(size=4).astype(np.float32)
    got = memory.messages(Sharpnesses(3.0, 10.0, 8.0), state, x, new=jnp.array(2))

    cosine = np.float64(state.keys[:filled]) @ np.float64(key_of(x))
    mean = (1 - cosine).mean() if filled > 2 else 0.5
    d = (1 - cosine) / max(mean, 0.05)
    want = np.zeros((5, 5))
    want[:filled, 0] = np.exp(-3 * d)
    want[:filled, 1] = np.exp(-10 * d) / np.exp(-10 * d).sum()
    want[:filled, 2] = np.exp(-8 * d)
    want[:filled, 3] = np.log1p(filled) / 5
    want[2, 4] = 1
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-6)


def written(memory, labels, usefulness=None):
    """Return the numbers of the examples that the memory holds after labels were written one by one."""
    state = memory.init_state(KEY, 2)
    usefulness = jnp.zeros(memory.slots) if usefulness is None else jnp.asarray(usefulness)
    for label in labels:
        state = memory.write(state, jnp.array([label, 1.0]), jnp.array(label), usefulness)[0]
    return sorted(np.asarray(state.written).tolist())


def test_the_oldest_example_gives_way():
    assert written(EpisodicMemory(3), [0] * 3) == [0, 1, 2]
    assert written(EpisodicMemory(3), [0] * 8) == [5, 6, 7]


def test_balanced_replacement_keeps_the_rare_class():
    labels = [1, 2, *[0] * 10]
    assert written(EpisodicMemory(4, "balanced"), labels) == [0, 1, 10, 11]


def test_the_least_useful_slot_gives_way():
    # Slots are filled in order, so that slot 1 held example 1.
    assert written(EpisodicMemory(3, "least_useful"), [0] * 4, [0.5, -1.0, 0.0]) == [0, 2, 3]


def test_usefulness_is_what_synapses_say():
    learner = make(memory={"replacement": "least_useful"})
    params, episode = disturbed(learner), make_episode(3 * SLOTS)
    state, _ = go_on(learner, params, learner.init_state(params, KEY), episode)
    kept = set(np.asarray(state.memory.written[0]).tolist())
    assert len(kept) == SLOTS
    assert kept != set(range(2 * SLOTS, 3 * SLOTS))


# As a learner.


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"layers": [{"out_size": 4}, {}], "separate_backward": True, "synapse": {"init": "backprop"}},
        {"memory": {"ridge": RIDGE}},
    ],
    ids=["one layer", "hidden layer", "ridge"],
)
def test_kernels_agree(changes):
    plain = make(**changes, kernel="reference")
    params, episode = disturbed(plain), make_episode()
    want = run(plain, params, KEY, episode)
    for kernel in ("tiled", "auto"):
        close(run(make(**changes, kernel=kernel), params, KEY, episode), want, atol=1e-4)


@pytest.mark.slow
def test_kernels_agree_on_the_gradient():
    episode = make_episode(10)

    @functools.partial(jax.jit, static_argnums=0)
    @functools.partial(jax.grad, argnums=1)
    def gradient(learner, params):
        return cross_entropy(run_episode(learner, params, KEY, episode), episode.y).mean()

    plain = make(kernel="reference", memory={"ridge": RIDGE})
    params = disturbed(plain)
    want = gradient(plain, params)
    close(gradient(make(memory={"ridge": RIDGE}), params), want, atol=1e-4)
    assert abs(want[1]["log_sharpness"][:2]).min() > 1e-5  # they are learned, too
    assert abs(want[1]["log_ridge"]).min() > 1e-5


def test_predict_is_what_step_answers_and_remembers_nothing():
    learner = make()
    params, episode = disturbed(learner), make_episode()
    state, _ = go_on(learner, params, learner.init_state(params, KEY), episode)
    x = make_episode(1, seed=5).x[0]
    _, answers = step(learner, params, state, x, jnp.zeros(1, jnp.int32))
    close(predict(learner, params, state, x), answers)


def test_elements_of_a_batch_remember_their_own_examples():
    # The error is that of the mean over the batch.
    learner, in_batch = make(), make(error_scale=2.0)
    params, episode = disturbed(learner), make_episode(batch=2)
    both = run(in_batch, params, KEY, episode)
    for element in range(2):
        own = jax.tree.map(lambda a, b=element: a[:, b : b + 1], episode)
        close(both[:, element], run(learner, params, KEY, own)[:, 0])


def test_what_is_not_taught_is_not_remembered():
    learner = make()
    params, episode = disturbed(learner), make_episode(4)
    state, _ = go_on(learner, params, learner.init_state(params, KEY), episode)
    x, y = make_episode(1, seed=3).x[0], jnp.zeros(1, jnp.int32)
    after, _ = step(learner, params, state, x, y, jnp.zeros(1))
    np.testing.assert_array_equal(after.memory.keys, state.memory.keys)
    assert int(after.memory.steps[0]) == 4
    taught, _ = step(learner, params, state, x, y, jnp.ones(1))
    assert int(taught.memory.steps[0]) == 5


def test_the_order_the_scale_and_the_offset_of_inputs_do_not_matter():
    learner = make()
    params, episode = disturbed(learner), make_episode()
    order = np.random.default_rng(1).permutation(SHAPE[0])
    changed = dataclasses.replace(episode, x=3 * episode.x[..., order] + 2)
    close(run(learner, params, KEY, changed), run(learner, params, KEY, episode), atol=1e-3)


def test_inputs_without_contrast_do_no_harm():
    learner = make()
    episode = dataclasses.replace(make_episode(12), x=np.ones((12, 1, *SHAPE), np.float32))
    answers = run(learner, disturbed(learner), KEY, episode)
    assert np.isfinite(answers).all()


def test_a_hidden_layer_behind_it_learns():
    learner = make(
        memory={"smooth_gain": 0.1, "nearest_gain": 0.0},
        layers=[{"out_size": 8}, {}],
        separate_backward=True,
        synapse={"init": "backprop", "init_weights": 0.5, "init_rate": 2.0},
    )
    random = np.random.default_rng(0)
    episode = make_episode(200)
    episode = dataclasses.replace(episode, x=random.normal(size=(3, *SHAPE)).astype(np.float32)[episode.y])
    losses = cross_entropy(run(learner, learner.init_params(KEY), KEY, episode), episode.y)[:, 0]
    assert losses[-50:].mean() < 0.5 * losses[:10].mean()


def test_values_are_answered():
    learner = make(outputs=Values(2))
    episode = make_episode(6)
    episode = dataclasses.replace(
        episode, y=np.random.default_rng(1).normal(size=(6, 1, 2)).astype(np.float32)
    )
    assert run(learner, learner.init_params(KEY), KEY, episode).shape == (6, 1, 2)
    with pytest.raises(ValueError, match="balanced for Values"):
        make(outputs=Values(2), memory={"replacement": "balanced"})


def test_lost_units_are_slots_with_what_they_hold():
    learner = make()
    params, episode = disturbed(learner), make_episode()
    state, _ = go_on(learner, params, learner.init_state(params, KEY), episode)
    after = perturb(learner, state, KEY, "drop_units", 0.5)
    lost_keys = (after.memory.keys[0] == 0).all(-1)
    lost_cells = (after.network.layers[0].c[0] == 0).all((0, 1, 2))
    assert lost_keys.sum() == SLOTS // 2
    np.testing.assert_array_equal(lost_keys, lost_cells)


def test_its_state_is_counted():
    synapses = SLOTS * CLASSES * 2 * 16
    keys = SLOTS * SHAPE[0]
    written_and_steps = SLOTS + 1
    seed, feedback = 2, 2 * CLASSES
    assert int(state_floats(make())) == synapses + keys + written_and_steps + seed + feedback


def test_its_cost_is_near_to_what_is_counted():
    learner = make(shape=(196,), outputs=10, memory={"slots": 64})
    got, want = cost_of(learner), counted_cost(learner)
    assert got.matrix_flops == pytest.approx(want.matrix_flops, rel=0.05)
    assert got.state_bytes == pytest.approx(want.state_bytes, rel=0.05)


def test_the_ridge_costs_a_kernel_and_its_factor():
    plain, ridge = (cost_of(make(shape=(20,), memory={"slots": 16, **more})) for more in ({}, {"ridge": {}}))
    kernel, factor, solution = 2 * 16**2 * 20, 16**3 / 3, 4 * 16**2
    read = 2 * 2 * 16 * 16 * CLASSES  # a third reading, at both visits
    assert ridge.matrix_flops - plain.matrix_flops == pytest.approx(kernel + factor + solution + read)


# Features of images.


def test_orientations_against_loops():
    image = np.random.default_rng(0).normal(size=(9, 11, 2)).astype(np.float32)
    features = ImageFeatures((9, 11, 2), "orientations", cell=4, count=8)
    got = features(jnp.asarray(image)[None])[0]
    down, right = np.gradient(np.float64(image.mean(-1)))
    pooled = np.zeros((2, 2, 8))
    for row in range(8):
        for column in range(8):
            length = np.hypot(down[row, column], right[row, column])
            turn = (np.arctan2(down[row, column], right[row, column]) + np.pi) / (2 * np.pi) * 8
            lower = int(np.floor(turn))
            pooled[row // 4, column // 4, lower % 8] += length * (1 - turn + lower) / 16
            pooled[row // 4, column // 4, (lower + 1) % 8] += length * (turn - lower) / 16
    want = (pooled - pooled.mean()) / pooled.std()
    assert features.size == want.size
    np.testing.assert_allclose(got, want.ravel(), atol=1e-4)


def test_cells_overlap_and_are_weighed_by_tents():
    image = np.random.default_rng(1).normal(size=(10, 8, 1)).astype(np.float32)
    plain = ImageFeatures((10, 8, 1), "orientations", cell=1, count=3)
    maps = np.float64(plain._orientations(jnp.asarray(image)[None])[0])
    features = ImageFeatures((10, 8, 1), "orientations", 4, 3, stride=3, window="tent", root=True)
    tent = np.array([0.5, 1.5, 1.5, 0.5]) / 4
    want = np.zeros((3, 2, 3))
    for row in range(3):
        for column in range(2):
            cell = maps[3 * row : 3 * row + 4, 3 * column : 3 * column + 4]
            want[row, column] = np.sqrt(np.einsum("h,w,hwc->c", tent, tent, cell))
    want = (want - want.mean()) / want.std()
    assert features.size == want.size
    np.testing.assert_allclose(features(jnp.asarray(image)[None])[0], want.ravel(), atol=1e-4)


def test_filters_are_the_same_each_time_and_see_both_signs():
    features = ImageFeatures((8, 8, 1), "filters", cell=4, count=6)
    image = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8, 8, 1)).astype(np.float32))
    first, second = features(image), ImageFeatures((8, 8, 1), "filters", cell=4, count=6)(image)
    np.testing.assert_array_equal(first, second)
    assert first.shape == (1, features.size) == (1, 48)
    by_sign = first.reshape(4, 2, 6)
    flipped = features(-image).reshape(4, 2, 6)
    np.testing.assert_allclose(by_sign[:, 0], flipped[:, 1], atol=1e-5)


@pytest.mark.parametrize("memory", [None, {"slots": SLOTS}])
def test_images_are_described_and_tables_are_not(memory):
    changes = {"memory": memory, "image_features": {"kind": "orientations", "cell": 4}}
    if memory is None:
        changes["synapse"] = {"init": "backprop"}
    image = make(shape=(8, 8), **changes)
    seen = image.features(image.init_state(image.init_params(KEY), KEY), jnp.ones((2, 8, 8)))
    assert seen.shape == (2, 2 * 2 * 8)
    table = make(shape=(64,), **changes)
    seen = table.features(table.init_state(table.init_params(KEY), KEY), jnp.ones((2, 64)))
    assert seen.shape == (2, 64)
    answers = run(image, image.init_params(KEY), KEY, make_episode(4, shape=(8, 8)))
    assert np.isfinite(answers).all()


def test_a_cell_larger_than_an_image_is_refused():
    learner = make(shape=(5, 5), image_features={"kind": "orientations", "cell": 7})
    with pytest.raises(ValueError, match="got 7, expected at most 5 pixels"):
        learner.init_state(learner.init_params(KEY), KEY)


# What is refused.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backward_pass": False}, "backward_pass: got False, expected true with a memory"),
        ({"synapse": {"layer_norm": True}}, "layer_norm: got True, expected false"),
        ({"synapse": {"message_size": 4}}, "message_size: got 4, expected at least 5"),
        ({"synapse": {"message_size": 5}, "memory": {"ridge": {}}}, "got 5, expected at least 6"),
        ({"output_channel": 3}, "output_channel: got 3, expected 0 or 1 with a memory"),
        ({"feed_label": False}, "feed_label: got False, expected true with synapse.init: memory"),
        ({"layers": [{"out_size": 3}, {}], "separate_backward": True}, "layers: got '2 layers', expected a"),
        ({"synapse": {"init_activation": "relu"}}, "init_activation: got 'relu', expected tanh"),
        ({"synapse": {"random_fraction": 0.5}}, "random_fraction: got 0.5, expected"),
        ({"memory": None}, "synapse.init: got 'memory', expected random or backprop without a memory"),
        ({"synapse": {"init_weights": 0.1}}, "init_weights: got 0.1, expected 0 with a memory"),
        ({"image_features": {"cell": 3}}, "image_features.cell: got 3, expected its default"),
        ({"image_features": {"root": True}}, "image_features.root: got True, expected its default"),
        ({"memory": {"replacement": "newest"}}, "oldest"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        config(**changes)


def test_the_sizes_of_outputs_need_not_be_known_in_meta_training():
    params = make(outputs=CLASSES).init_params(KEY)
    wider = make(shape=(11,), outputs=Classes(5), memory={"slots": 4})
    assert jax.tree.map(jnp.shape, wider.init_params(KEY)) == jax.tree.map(jnp.shape, params)

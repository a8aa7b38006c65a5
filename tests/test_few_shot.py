"""Few-shot episodes: what is in the support, what is asked, and that images keep their classes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vsml.meta.objectives.episode import episode_result
from vsml.tasks import Dataset, build_task, load, transforms
from vsml.tasks.few_shot import distinct
from vsml.types import Classes

pytestmark = pytest.mark.usefixtures("hasty")

KEY = jax.random.key(0)
EPISODES = 1400
KEYS = jax.random.split(KEY, EPISODES)
sample = jax.jit(lambda task, key: task.sample(key))
sample_many = jax.jit(jax.vmap(lambda task, key: task.sample(key), in_axes=(None, 0)))


def drawings(classes=7, each=6, shape=(3, 3, 1)):
    """Make a data set whose image i has i in its upper left corner, else 0, and the class i mod classes."""
    images = np.zeros((classes * each, *shape), np.uint8)
    images[:, 0, 0, 0] = np.arange(classes * each)
    labels = jnp.arange(classes * each, dtype=jnp.int32) % classes
    return Dataset(jnp.asarray(images), labels, "drawings", classes, mean=0.5, std=0.25)


def numbers(episodes):
    """Return which images of `drawings` episodes built with normalize=False have, turned or not."""
    return np.rint(np.asarray(episodes.x).max(axis=(-3, -2, -1)) * 255).astype(int)


def sampled(*, dataset=None, **options):
    """Return image numbers, labels and weights [episodes, T] of many episodes."""
    task = build_task(dataset or drawings(), 9, ways=3, shots=2, normalize=False, **options)
    episodes = sample_many(task, KEYS)
    return numbers(episodes)[..., 0], np.asarray(episodes.y)[..., 0], np.asarray(episodes.weight)[..., 0]


@pytest.mark.parametrize(("length", "ways", "shots"), [(3, 2, 1), (10, 2, 3)])
def test_an_episode_has_the_documented_shapes_and_counts_its_queries_only(length, ways, shots):
    task = build_task(drawings(each=12), length, ways=ways, shots=shots)
    episode = jax.eval_shape(task.sample, KEY)
    assert (episode.x.shape, episode.x.dtype) == ((length, 1, 3, 3, 1), jnp.float32)
    assert (episode.y.shape, episode.y.dtype) == ((length, 1), jnp.int32)
    assert (episode.weight.shape, episode.weight.dtype) == ((length, 1), jnp.float32)
    weight = sample(task, KEY).weight
    assert weight[:, 0].tolist() == [0.0] * (ways * shots) + [1.0] * (length - ways * shots)
    assert (task.real_classes, task.num_classes) == (ways, ways)


def test_the_support_has_every_label_shots_times_in_random_order_and_queries_ask_for_all():
    _, labels, _ = sampled()
    assert (np.sort(labels[:, :6], axis=1) == [0, 0, 1, 1, 2, 2]).all()
    assert len({tuple(order) for order in labels[:, :6]}) == 90
    for step in range(9):
        np.testing.assert_allclose(np.bincount(labels[:, step], minlength=3), EPISODES / 3, atol=90)


def test_a_label_stands_for_one_class_throughout_an_episode():
    images, labels, _ = sampled()
    for classes, of in zip(images % 7, labels, strict=True):
        assert len(set(zip(classes, of, strict=True))) == len(set(classes)) == 3


def test_no_image_comes_twice():
    images, _, _ = sampled()
    assert all(len(set(episode)) == 9 for episode in images)
    whole, _, _ = sampled(dataset=drawings(each=5))  # a class may be used up
    assert all(len(set(episode)) == 9 for episode in whole)


def test_all_classes_and_images_are_equally_likely_under_any_label():
    images, labels, _ = sampled()
    for label in range(3):
        first = images[np.arange(EPISODES), (labels == label).argmax(1)]
        np.testing.assert_allclose(np.bincount(first % 7, minlength=7), 200, atol=60)
    assert len(np.unique(images)) == 42
    np.testing.assert_allclose(np.bincount(images[:, 0], minlength=42), EPISODES / 42, atol=25)


def test_rotations_make_four_times_as_many_classes():
    task = build_task(drawings(classes=2), 9, ways=8, rotations=True, normalize=False)
    episodes = sample_many(task, KEYS)
    corners = np.asarray(episodes.x)[:, :, 0][..., [0, 2, 2, 0], [0, 0, 2, 2], 0]  # counter-clockwise
    turns, classes, labels = corners.argmax(-1), numbers(episodes)[..., 0] % 2, episodes.y[..., 0]
    marked = corners.any(-1)  # image number 0 is blank: it has no direction
    for episode in range(EPISODES):
        seen = np.stack([turns[episode], classes[episode], labels[episode]], axis=1)[marked[episode]]
        kinds = len(np.unique(seen[:, :2], axis=0))
        assert len(np.unique(seen, axis=0)) == kinds == len(np.unique(seen[:, 2]))
        assert kinds == 8 or not marked[episode].all()
    assert marked.mean() > 0.8


def test_images_are_turned_as_numpy_turns_them():
    images = jax.random.normal(KEY, (6, 4, 4, 2))
    turns = jnp.array([0, 1, 2, 3, 1, 0])
    for one, turn, turned in zip(images, turns, transforms.rotate(images, turns), strict=True):
        np.testing.assert_array_equal(turned, np.rot90(one, int(turn)))


def test_without_rotations_images_stay_upright():
    task = build_task(drawings(), 9, ways=3, shots=2, normalize=False)
    upright = np.asarray(sample_many(task, KEYS).x)
    assert (upright[..., 0, 0, 0].sum(), upright.sum()) == pytest.approx((upright.sum(),) * 2)


def test_classes_are_drawn_out_of_the_chosen_ones_and_of_those_that_have_images():
    images, labels, _ = sampled(filter_classes=[6, 1, 3])
    assert set(np.unique(images % 7)) == {1, 3, 6}
    named = {frozenset(zip(*pair, strict=True)) for pair in zip(labels, images % 7, strict=True)}
    assert len(named) == 6  # labelled anew for every episode
    data = drawings(classes=3)
    images, _, _ = sampled(dataset=data.replace(labels=data.labels * 2, num_classes=20), filter_classes=None)
    assert all(len(set(episode)) == 3 for episode in (images % 3)[:, :6])


def test_distinct_numbers_are_different_and_every_order_of_them_is_equally_likely():
    draw = jax.jit(jax.vmap(distinct, (0, None, None)), static_argnums=2)
    drawn = np.asarray(draw(jax.random.split(KEY, 24_000), 4, 3))
    orders, counts = np.unique(drawn, axis=0, return_counts=True)
    assert all(len(set(order)) == 3 for order in orders.tolist()) and orders.min() == 0 and orders.max() == 3
    assert len(orders) == 24
    np.testing.assert_allclose(counts, 1000, atol=160)
    assert sorted(distinct(KEY, 1000, 1000).tolist()) == list(range(1000))
    assert distinct(KEY, 1, 1).tolist() == [0]


def test_the_same_key_gives_the_same_episode_under_vmap_too_and_compiles_once():
    options = {"ways": 3, "shots": 2, "rotations": True, "resize": [5, 4], "rand_proj": True}
    task = build_task(drawings(), 9, **options)
    one, before = sample(task, KEYS[2]), sample._cache_size()
    assert (one.x != sample(task, KEYS[1]).x).any()
    for seed in range(3):
        again = sample(build_task(drawings(), 9, task_seed=seed, **options), KEYS[2])
        jax.tree.map(np.testing.assert_array_equal, again, one)
    assert sample._cache_size() == before
    many = sample_many(task, KEYS[:4])
    np.testing.assert_allclose(many.x[2], one.x, atol=1e-5)
    np.testing.assert_array_equal(many.y[2], one.y)


def test_transforms_change_no_draw_of_images_and_padded_classes_are_never_the_label():
    options = {"ways": 3, "shots": 2, "normalize": False}
    plain = sample(build_task(drawings(), 9, **options), KEY)
    for change in ({"shuffle": True, "pad_output": 62}, {"permute_labels": True, "pad_output": 62}):
        task = build_task(drawings(), 9, **options, **change)
        changed = sample(task, KEY)
        if "permute_labels" in change:
            np.testing.assert_array_equal(changed.x, plain.x)
        else:
            np.testing.assert_array_equal(changed.y, plain.y)
        assert (task.real_classes, task.num_classes) == (3, 62)
        assert set(np.unique(changed.y)) == {0, 1, 2}


def test_tasks_with_and_without_few_shot_can_be_switched_between_inside_jit():
    few, many = build_task(drawings(each=7), 9, ways=3, pad_output=7), build_task(drawings(), 9)
    switch = jax.jit(lambda tasks, i: jax.lax.switch(i, [task.sample for task in tasks], KEY))
    for i, task in enumerate((few, many)):
        episode = switch((few, many), i)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), episode, sample(task, KEY))


def test_only_the_images_of_an_episode_are_turned_and_resized():
    data = drawings(classes=30, each=8)
    jaxpr = jax.make_jaxpr(lambda task, key: task.sample(key))(
        build_task(data, 6, ways=5, rotations=True, resize=[2, 2]), KEY
    )
    images = [v.aval for e in jaxpr.jaxpr.eqns for v in e.outvars if v.aval.ndim >= 4]
    assert max(aval.size for aval in images) == 4 * 6 * 9  # four directions of six images


@pytest.mark.parametrize("loss_type", ["mean", "last"])
def test_loss_and_accuracy_are_those_of_the_queries(loss_type):
    episode = sample(build_task(drawings(), 9, ways=3, shots=2), KEY)
    right, wrong = jax.nn.one_hot(episode.y, 3), jax.nn.one_hot((episode.y + 1) % 3, 3)
    support = (episode.weight == 0)[..., None]
    only_queries = episode_result(jnp.where(support, wrong, right) * 50, episode, loss_type, Classes(3))
    only_support = episode_result(jnp.where(support, right, wrong) * 50, episode, loss_type, Classes(3))
    assert (float(only_queries.score), float(only_support.score)) == (1, 0)
    np.testing.assert_allclose([only_queries.loss, only_support.loss], [0, 50], atol=1e-4)


def test_the_nearest_image_of_the_support_has_the_label_of_a_digit_more_often_than_chance():
    task = build_task(load("digits", "test"), 6, ways=5, rotations=True, shuffle=True)
    episodes = sample_many(task, KEYS)
    x, labels = episodes.x.reshape(EPISODES, 6, -1), episodes.y[..., 0]
    nearest = ((x[:, :5] - x[:, 5:]) ** 2).sum(-1).argmin(1)
    answers = jnp.take_along_axis(labels, nearest[:, None], 1)[:, 0]
    assert 0.6 < float((answers == labels[:, 5]).mean()) < 1  # chance: 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ways": 1}, "few_shot.ways: got 1, expected 2 to 7, the classes of drawings"),
        ({"ways": 8}, "few_shot.ways: got 8, expected 2 to 7, the classes of drawings$"),
        ({"ways": 29, "rotations": True}, "got 29, expected 2 to 28, .* rotated ones included"),
        ({"filter_classes": [0, 1]}, "few_shot.ways: got 3, expected 2 to 2"),
        ({"shots": 0}, "few_shot.shots: got 0"),
        ({"episode_length": 6}, r"episode_length: got 6, expected more than few_shot\.ways \* shots, 6"),
        ({"batch_size": 2}, "batch_size: got 2, expected 1 with few_shot"),
        (
            {"episode_length": 11},
            r"got 6 images of class 0 of drawings \(and too few of 6 other classes\), expected at least 7: 2",
        ),
        (
            {"dataset": drawings().replace(labels=drawings().labels.at[3].set(0))},
            "got 5 images of class 3 of drawings, expected at least 6",
        ),
        ({"dataset": load("random", "train")}, "few_shot: got random, expected a data set that has images"),
        ({"dataset": drawings(shape=(3, 2, 1)), "rotations": True}, "few_shot.rotations: got true .* 3x2"),
        ({"pad_output": 2}, r"preprocess\.pad\.output: got 2, expected at least the 3 of few_shot\.ways"),
    ],
)
def test_what_does_not_fit_is_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        build_task(**{"dataset": drawings(), "episode_length": 10, "ways": 3, "shots": 2} | options)


def test_queries_that_are_not_taught_are_marked_and_nothing_else_changes():
    task = build_task(drawings(), 9, ways=3, shots=2)
    untold = build_task(drawings(), 9, ways=3, shots=2, teach_queries=False)
    before, after = sample(task, KEY), sample(untold, KEY)
    assert before.taught is None
    assert after.taught[:, 0].tolist() == [1.0] * 6 + [0.0] * 3
    assert (after.taught.shape, after.taught.dtype) == ((9, 1), jnp.float32)
    for name in ("x", "y", "weight"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))

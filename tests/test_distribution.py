"""Task distributions: which examples an episode has, how they are transformed, and which keys matter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vsml.tasks import Dataset, build_task, load, transforms

pytestmark = pytest.mark.usefixtures("hasty")

KEY = jax.random.key(0)
sample_many = jax.jit(jax.vmap(lambda task, key: task.sample(key), in_axes=(None, 0)))


def numbered(n=12, classes=4, shape=(4, 4, 1)):
    """Make a data set whose image i has i in every pixel and the class i mod classes."""
    images = jnp.broadcast_to(jnp.arange(n, dtype=jnp.uint8)[:, None, None, None], (n, *shape))
    labels = jnp.arange(n, dtype=jnp.int32) % classes
    return Dataset(images=images, labels=labels, name="numbered", num_classes=classes, mean=0.5, std=0.25)


def textured(n=12, classes=4, shape=(4, 4, 1)):
    images = jax.random.randint(KEY, (n, *shape), 0, 256).astype(jnp.uint8)
    return Dataset(images, jnp.arange(n, dtype=jnp.int32) % classes, "textured", classes, 255.0, 0.4, 0.3)


def numbers(episode):
    """Return which images of `numbered` an episode built with normalize=False has."""
    return np.rint(np.asarray(episode.x[..., 0, 0, 0]) * 255).astype(int)


@pytest.mark.parametrize(("length", "batch"), [(1, 1), (1, 3), (30, 1), (5, 4)])
def test_an_episode_has_the_documented_shapes_and_types(length, batch):
    task = build_task(numbered(), length, batch)
    episode = task.sample(KEY)
    assert (episode.x.shape, episode.x.dtype) == ((length, batch, *task.input_shape), jnp.float32)
    assert (episode.y.shape, episode.y.dtype) == ((length, batch), jnp.int32)
    assert (episode.weight.shape, episode.weight.dtype) == ((length, batch), jnp.float32)
    assert (episode.weight == 1).all()


def test_images_keep_their_labels_and_are_scaled_and_standardised():
    episode = build_task(numbered(), 50, normalize=False).sample(KEY)
    np.testing.assert_array_equal(numbers(episode) % 4, episode.y)
    standardised = build_task(numbered(), 50).sample(KEY)
    np.testing.assert_allclose(standardised.x, (episode.x - 0.5) / 0.25, rtol=1e-6)


def test_the_same_key_gives_the_same_episode_and_another_key_another():
    task = build_task(textured(), 20, rand_proj=True, permute_labels=True)
    first, again, other = (task.sample(key) for key in (KEY, KEY, jax.random.key(1)))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert (first.x != other.x).any()


def test_without_replacement_every_image_is_seen_once_before_any_is_seen_again():
    seen = numbers(build_task(numbered(), 10, 3, normalize=False, replacement=False).sample(KEY)).reshape(-1)
    assert sorted(seen[:12]) == sorted(seen[12:24]) == list(range(12))
    assert len(set(seen[24:])) == 6
    assert list(seen[:12]) != list(seen[12:24])


def test_with_replacement_images_repeat_and_all_are_equally_likely():
    seen = numbers(build_task(numbered(), 2400, normalize=False).sample(KEY)).reshape(-1)
    assert len(set(seen[:12])) < 12
    np.testing.assert_allclose(np.bincount(seen, minlength=12), 200, atol=60)


@pytest.mark.parametrize("replacement", [True, False])
def test_chosen_classes_are_relabelled_in_the_order_given(replacement):
    task = build_task(numbered(), 60, filter_classes=[3, 1], normalize=False, replacement=replacement)
    episode = task.sample(KEY)
    assert task.num_classes == 2
    assert set(numbers(episode).reshape(-1) % 4) == {1, 3}
    np.testing.assert_array_equal(np.asarray([3, 1])[episode.y], numbers(episode) % 4)


def test_turning_a_transform_on_changes_no_other_draw():
    plain = build_task(textured(), 20, normalize=False).sample(KEY)
    for options in ({"rand_proj": True}, {"shuffle": True}, {"permute_labels": True}, {"pad_output": 9}):
        changed = build_task(textured(), 20, normalize=False, **options).sample(KEY)
        if "permute_labels" in options:
            np.testing.assert_array_equal(changed.x, plain.x)
        else:
            np.testing.assert_array_equal(changed.y, plain.y)
    both = build_task(textured(), 20, shuffle=True, permute_labels=True, normalize=False).sample(KEY)
    np.testing.assert_array_equal(
        both.x, build_task(textured(), 20, shuffle=True, normalize=False).sample(KEY).x
    )


def test_transforms_are_applied_in_the_documented_order():
    data = textured()
    raw = build_task(data, 7, normalize=False).sample(KEY).x[:, 0]
    task = build_task(data, 7, resize=[3, 2], pad_input=[5, 4, 2])
    padded = transforms.pad(
        transforms.standardise(transforms.resize(raw, (3, 2)), data.mean, data.std), (5, 4, 2)
    )
    np.testing.assert_allclose(task.sample(KEY).x[:, 0], padded, atol=1e-5)
    assert task.input_shape == (5, 4, 2)
    for options in ({"shuffle": True}, {"rand_proj": True}):
        x = build_task(data, 7, resize=[3, 2], pad_input=[5, 4, 2], **options).sample(KEY).x[:, 0]
        assert (x[:, 3:] != 0).any()  # the padding is permuted or projected with the rest
    x = build_task(data, 7, resize=[3, 2], pad_input=[5, 4, 2], shuffle=True).sample(KEY).x[:, 0]
    np.testing.assert_allclose(jnp.sort(x.reshape(7, -1)), jnp.sort(padded.reshape(7, -1)), atol=1e-5)


def test_padded_classes_are_never_the_label():
    task = build_task(numbered(), 200, permute_labels=True, pad_output=62, filter_classes=[0, 2, 3])
    assert task.num_classes == 62
    labels = sample_many(task, jax.random.split(KEY, 20)).y
    assert set(np.asarray(labels).reshape(-1)) == {0, 1, 2}


def test_relabelling_permutes_the_labels_of_the_second_half_alone():
    before = build_task(numbered(), 21, 2).sample(KEY)
    after = build_task(numbered(), 21, 2, relabel=True).sample(KEY)
    np.testing.assert_array_equal(before.x, after.x)
    np.testing.assert_array_equal(before.y[:10], after.y[:10])
    renamed = set(zip(*(e.y[10:].flatten().tolist() for e in (before, after)), strict=True))
    assert len(renamed) == len(dict(renamed)) == len({new for _, new in renamed}) == 4
    assert any(old != new for old, new in renamed)
    with pytest.raises(ValueError, match=r"preprocess.relabel: got true, expected false with few_shot"):
        build_task(numbered(), 21, relabel=True, ways=2)


def test_projections_and_permutations_are_drawn_per_episode_or_from_a_finite_set():
    keys = jax.random.split(KEY, 40)

    def permutations(**options):
        task = build_task(numbered(), 200, permute_labels=True, normalize=False, **options)
        episodes = sample_many(task, keys)
        classes = np.rint(np.asarray(episodes.x[..., 0, 0, 0]) * 255).astype(int) % 4
        return {
            tuple(int(labels[where == c][0]) for c in range(4))
            for where, labels in zip(classes, np.asarray(episodes.y), strict=True)
        }

    assert len(permutations()) > 10
    assert len(permutations(num_tasks=1)) == 1
    assert 2 <= len(permutations(num_tasks=3)) <= 3
    assert permutations(num_tasks=3) != permutations(num_tasks=3, task_seed=1)
    projected = sample_many(build_task(numbered(1), 1, rand_proj=True, num_tasks=2), keys).x
    assert len({x.tobytes() for x in np.asarray(projected)}) == 2


def test_sampling_compiles_once_and_works_under_vmap_and_map():
    sample = jax.jit(lambda task, key: task.sample(key))
    options = {"episode_length": 6, "rand_proj": True, "num_tasks": 3}
    for seed in range(3):
        sample(build_task(textured(), task_seed=seed, **options), jax.random.key(seed))
    assert sample._cache_size() == 1
    task, keys = build_task(textured(), **options), jax.random.split(KEY, 4)
    one = task.sample(keys[2])
    for many in (jax.vmap(task.sample)(keys), jax.lax.map(task.sample, keys)):
        np.testing.assert_allclose(many.x[2], one.x, atol=1e-5)
        np.testing.assert_array_equal(many.y[2], one.y)


@pytest.mark.slow
def test_tasks_of_one_shape_can_be_switched_between_inside_jit():
    tasks = (
        build_task(numbered(), 5, 2, pad_input=[28, 28, 1], pad_output=10),
        build_task(textured(30), 5, 2, resize=[28, 28], rand_proj=True, pad_output=10),
        build_task(load("random", "train"), 5, 2),
        build_task(load("sum", "train"), 5, 2, pad_output=10),
    )
    assert {(task.input_shape, task.num_classes) for task in tasks} == {((28, 28, 1), 10)}

    @jax.jit
    def sample(tasks, i, key):
        return jax.lax.switch(i, [task.sample for task in tasks], key)

    for i, task in enumerate(tasks):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), sample(tasks, i, KEY), task.sample(KEY)
        )


def test_data_are_leaves_and_stay_bytes():
    task = build_task(numbered(), 5)
    assert any(leaf is task.source.images for leaf in jax.tree.leaves(task))
    jaxpr = jax.make_jaxpr(lambda task, key: task.sample(key))(build_task(numbered(1000), 5), KEY)
    floats = [v.aval for e in jaxpr.jaxpr.eqns for v in e.outvars if v.aval.dtype == jnp.float32]
    assert max(aval.size for aval in floats) == 5 * 16


def test_random_repeats_twenty_images_within_an_episode_and_draws_new_ones_for_the_next():
    task = build_task(load("random", "train"), 300)
    episode, other = task.sample(KEY), task.sample(jax.random.key(1))
    images = {x.tobytes(): int(y) for x, y in zip(np.asarray(episode.x), episode.y[:, 0], strict=True)}
    assert len(images) == 20
    pairs = {(x.tobytes(), int(y)) for x, y in zip(np.asarray(episode.x), episode.y[:, 0], strict=True)}
    assert len(pairs) == 20
    assert not images.keys() & {x.tobytes() for x in np.asarray(other.x)}
    few = build_task(load("random", "train"), 300, filter_classes=[7, 8, 2]).sample(KEY)
    assert set(np.asarray(few.y).reshape(-1)) == {0, 1, 2}


def test_every_example_of_sum_is_new():
    for replacement in (True, False):
        task = build_task(load("sum", "train"), 40, 2, replacement=replacement)
        episode = task.sample(KEY)
        assert len({x.tobytes() for x in np.asarray(episode.x).reshape(80, -1)}) == 80
        np.testing.assert_array_equal(episode.y, episode.x.sum(axis=(2, 3, 4)) > 0)
        assert 10 < episode.y.sum() < 70


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rand_proj": True, "shuffle": True}, "both shuffle and rand_proj"),
        ({"episode_length": 0}, "episode_length: got 0"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"num_tasks": 0}, "num_tasks: got 0"),
        ({"filter_classes": [4]}, r"filter_classes: got \[4\], expected different classes out of 0\.\.3"),
        ({"filter_classes": [1, 1]}, r"filter_classes: got \[1, 1\]"),
        ({"filter_classes": []}, r"filter_classes: got \[\]"),
        ({"filter_classes": [-1]}, r"filter_classes: got \[-1\]"),
        ({"dataset": numbered(2), "filter_classes": [1, 2]}, r"no examples of \[2\]"),
        ({"dataset": load("sum", "train"), "filter_classes": [1]}, "sum draws all classes"),
        ({"pad_output": 3}, r"preprocess\.pad\.output: got 3, expected at least the 4 classes of numbered"),
        ({"pad_input": [4, 3, 1]}, r"preprocess\.pad\.input: got \[4, 3, 1\]"),
        ({"resize": [0, 3]}, r"preprocess\.resize: got \[0, 3\]"),
    ],
)
def test_what_does_not_fit_the_data_set_is_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        build_task(**{"dataset": numbered(), "episode_length": 5} | options)


def test_a_task_knows_after_how_many_examples_its_images_come_again():
    digits = load("digits", "test")
    assert build_task(digits, 5, replacement=False).repeats_after == 497
    assert build_task(digits, 5, filter_classes=[0, 1], replacement=False).repeats_after < 497
    assert build_task(digits, 5).repeats_after is None, "at random"
    assert build_task(digits, 5, ways=2, replacement=False).repeats_after is None
    assert build_task(load("random", "test"), 5, replacement=False).repeats_after == 20
    assert build_task(load("sum", "test"), 5, replacement=False).repeats_after is None


@pytest.mark.parametrize("label", [-1, 4])
def test_labels_that_are_no_classes_are_refused(label):
    data = numbered()
    wrong = data.replace(labels=data.labels.at[3].set(label))
    with pytest.raises(ValueError, match=r"numbered: got labels .*, expected 0\.\.3"):
        build_task(wrong, 3)

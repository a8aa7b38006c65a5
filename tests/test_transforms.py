"""Transforms: what each does to a batch of images, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vsml.tasks import build_task, load, transforms
from vsml.tasks.preprocess import read_settings, shape_after

IMAGES = jax.random.normal(jax.random.key(0), (5, 6, 4, 2))


def test_resize_keeps_constants_averages_when_it_shrinks_and_allows_one_pixel():
    np.testing.assert_allclose(
        transforms.resize(jnp.ones((2, 6, 4, 3)), (9, 2)), jnp.ones((2, 9, 2, 3)), rtol=1e-6
    )
    corner = jnp.zeros((1, 8, 8, 1)).at[0, 0, 0, 0].set(1.0)
    assert transforms.resize(corner, (2, 2))[0, 0, 0, 0] > 0.01  # without antialiasing the corner is not read
    assert transforms.resize(IMAGES, (1, 1)).shape == (5, 1, 1, 2)
    np.testing.assert_allclose(transforms.resize(IMAGES, (6, 4)), IMAGES, rtol=1e-6)


def test_standardise_with_the_images_own_statistics_gives_mean_0_and_std_1():
    images = 3 + 2 * IMAGES
    result = transforms.standardise(images, float(images.mean()), float(images.std()))
    np.testing.assert_allclose([result.mean(), result.std()], [0, 1], atol=1e-5)


def test_pad_appends_zeros_at_the_bottom_the_right_and_the_last_channels():
    padded = transforms.pad(IMAGES, (7, 6, 3))
    assert padded.shape == (5, 7, 6, 3)
    np.testing.assert_array_equal(padded[:, :6, :4, :2], IMAGES)
    assert jnp.abs(padded).sum() == jnp.abs(IMAGES).sum()
    np.testing.assert_array_equal(transforms.pad(IMAGES, (6, 4, 2)), IMAGES)


@pytest.mark.parametrize("shape", [(5, 4, 2), (6, 3, 2), (6, 4, 1), (6, 4)])
def test_padding_to_something_smaller_is_an_error(shape):
    with pytest.raises(ValueError, match=r"preprocess\.pad\.input: got .* of at least \[6, 4, 2\]"):
        transforms.pad(IMAGES, shape)


def test_a_projection_is_linear_the_same_for_all_and_keeps_norms_in_expectation():
    key = jax.random.key(1)
    together = transforms.project(key, IMAGES)
    np.testing.assert_allclose(together[2:3], transforms.project(key, IMAGES[2:3]), atol=1e-5)
    np.testing.assert_allclose(
        transforms.project(key, 2 * IMAGES + 1 * IMAGES[:1]), 2 * together + together[:1], atol=1e-4
    )
    projected = jax.vmap(lambda k: transforms.project(k, IMAGES))(jax.random.split(key, 2000))
    ratio = (projected**2).sum(axis=(2, 3, 4)).mean(axis=0) / (IMAGES**2).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(ratio, 1, atol=0.03)


def test_a_projection_mixes_all_inputs():
    one_hot = jnp.zeros((1, 6, 4, 2)).at[0, 3, 1, 1].set(1.0)
    column = transforms.project(jax.random.key(2), one_hot)
    assert (column != 0).all()
    assert column.shape == one_hot.shape


def test_a_shuffle_is_one_bijection_of_all_inputs():
    places = jnp.arange(48.0).reshape(1, 6, 4, 2)
    images = jnp.concatenate([places, 100 + places])
    shuffled = transforms.shuffle(jax.random.key(3), images)
    assert shuffled.shape == images.shape
    np.testing.assert_array_equal(shuffled[1] - 100, shuffled[0])
    np.testing.assert_array_equal(jnp.sort(shuffled[0].reshape(-1)), jnp.arange(48))
    assert (shuffled[0] != places[0]).any()


def test_label_permutations_are_bijections_and_differ_between_keys():
    keys = jax.random.split(jax.random.key(4), 50)
    renamed = jax.vmap(lambda k: transforms.permute_labels(k, jnp.arange(5), 5))(keys)
    np.testing.assert_array_equal(jnp.sort(renamed, axis=1), jnp.tile(jnp.arange(5), (50, 1)))
    assert len({tuple(row) for row in renamed.tolist()}) > 20


def test_the_output_shape_is_known_before_anything_runs():
    def shape(image_shape, **settings):
        return shape_after(image_shape, read_settings(settings))

    assert shape((8, 8, 1)) == (8, 8, 1)
    assert shape((8, 8, 3), resize=[4, 5]) == (4, 5, 3)
    assert shape((8, 8, 1), resize=[4, 5], pad={"input": [6, 6, 2]}) == (6, 6, 2)
    with pytest.raises(ValueError, match="at least \\[9, 9, 1\\]"):
        shape((8, 8, 1), resize=[9, 9], pad={"input": [8, 8, 1]})
    for size in ([0, 4], [4], [4, -1]):
        with pytest.raises(ValueError, match=r"preprocess\.resize: got \["):
            shape((8, 8, 1), resize=size)
    with pytest.warns(DeprecationWarning, match="shape_after"):
        assert transforms.output_shape((8, 8, 1), size=[4, 5], padded=[6, 6, 2]) == (6, 6, 2)


def test_no_two_transforms_share_the_number_that_their_draws_come_from():
    numbers = [transform.number for transform in transforms.TRANSFORMS.values() if transform.drawn]
    assert sorted(numbers) == sorted(set(numbers)) == [3, 4, 5, 6]
    purposes_of_tasks = {0, 1, 2}
    assert not purposes_of_tasks & set(numbers)


def test_settings_are_read_in_the_order_in_which_transforms_act_whatever_their_order():
    one = read_settings({"relabel": True, "pad": {"input": [9, 9, 1]}, "resize": [4, 5]})
    assert [each.transform.name for each in one] == ["resize", "normalize", "pad", "relabel"]
    assert read_settings({"normalize": False}) == ()


DOUBLE = transforms.Transform(
    name="double",
    setting=int | None,
    default=None,
    description="multiply inputs",
    act=lambda x, y, factor, context: (factor * x, y),
)


def test_a_transform_of_another_module_acts_after_all_others():
    name = f"{__name__}:DOUBLE"
    preprocessing = read_settings({"shuffle": True, "extra": {name: 3}})
    assert [each.transform.name for each in preprocessing] == ["normalize", "shuffle", "double"]
    data = load("digits", "train")
    plain = build_task(data, 5).sample(jax.random.key(0))
    tripled = build_task(data, 5, extra={name: 3}).sample(jax.random.key(0))
    np.testing.assert_allclose(tripled.x, 3 * plain.x, rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rand_prj": True}, "preprocess: got 'rand_prj', expected .*did you mean 'rand_proj'"),
        ({"shuffle": True, "rand_proj": True}, "got both shuffle and rand_proj"),
        ({"shuffle": 1}, "preprocess.shuffle: got 1, expected a valid boolean"),
        ({"pad": {"outptu": 3}}, "preprocess.pad: got .* at outptu"),
        ({"extra": {"shuffle": True}}, "preprocess.extra: got 'shuffle', expected the key shuffle beside"),
        ({"extra": {f"{__name__}:DUBLE": 3}}, "did you mean .*:DOUBLE"),
        ({"extra": {f"{__name__}:IMAGES": 3}}, "expected a vsml.tasks.transforms.Transform"),
        ({"extra": {f"{__name__}:DOUBLE": "x"}}, "preprocess.extra.*DOUBLE: got 'x', expected a valid int"),
    ],
)
def test_settings_that_no_transform_has_are_errors_that_say_what_there_is(settings, message):
    with pytest.raises(ValueError, match=message):
        read_settings(settings)

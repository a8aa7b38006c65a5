"""VSML as a learner: symmetries, causality, prediction, inner batches, segments and settings."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flat_vsml import changed, conv, flat_vsml

from vsml.learners import Vsml, continue_episode, make_learner, run_episode
from vsml.learners.flat import PATHS
from vsml.learners.vsml import VsmlConfig
from vsml.losses import cross_entropy
from vsml.networks.wirings.base import from_tiles
from vsml.types import Classes, Episode, Values

pytestmark = pytest.mark.usefixtures("hasty", "explicit_ranks")

KEY = jax.random.key(0)
SHAPE, CLASSES = (5,), 3
run = jax.jit(run_episode, static_argnums=(0, 4))
go_on = jax.jit(continue_episode, static_argnums=(0, 4))
step = jax.jit(Vsml.step, static_argnums=0)
predict = jax.jit(Vsml.predict, static_argnums=0)


def make(**settings):
    """Build a learner that compiles fast: its size is of no matter, the number of its ticks is."""
    small = {
        "input_shape": SHAPE,
        "outputs": CLASSES,
        "state_size": 6,
        "message_size": 4,
        "micro_ticks": 1,
    }
    return flat_vsml(**(small | settings))


def make_params(learner, seed=0):
    """Draw meta-parameters that do more than fresh ones: larger, and no bias is 0 or scale 1."""
    random = np.random.default_rng(seed)
    shapes = jax.eval_shape(learner.init_params, KEY)
    return jax.tree.map(lambda leaf: random.normal(0.2, 0.7, leaf.shape).astype(np.float32), shapes)


def make_episode(length=6, batch=1, seed=0, shape=SHAPE, classes=CLASSES):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, (length, batch)).astype(np.int32)
    x = random.normal(size=(length, batch, *shape)).astype(np.float32)
    return Episode(x=x, y=labels, weight=np.ones(labels.shape, np.float32))


def make_cells(learner, seed=1):
    """Draw the cells [I, O, N] of each layer."""
    random = np.random.default_rng(seed)
    return [
        random.normal(size=(layer.fan_in, layer.fan_out, learner.config.synapse.state_size)).astype(
            np.float32
        )
        for layer in learner.network.layers
    ]


def start(learner, cells, batch=1):
    layers = learner.network.layers
    states = tuple(layer.with_cells(c) for layer, c in zip(layers, cells, strict=True))
    return learner.with_network(learner.network.with_layers(states), batch)


def close(got, want, atol=1e-5):
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=atol), got, want)


def identical(got, want):
    jax.tree.map(np.testing.assert_array_equal, got, want)


OPTIONS = {
    "default": {"micro_ticks": 2},
    "label and norm": {"feed_label": True, "layer_norm": True},
    "deep, backward pass": {"backward_pass": True, "hidden": (4,)},
    "deep, separate backward, layerwise": {
        "backward_pass": True,
        "separate_backward": True,
        "layerwise": True,
        "hidden": (4,),
        "feed_label": True,
    },
    "convolution, separate backward, layerwise": {
        "backward_pass": True,
        "separate_backward": True,
        "layerwise": True,
        "hidden": (conv(2, stride=2),),
        "feed_label": True,
    },
    "random features, deep": {"random_features": 7, "activation": "tanh", "hidden": (4,)},
    "one message channel, unbounded": {"message_size": 1, "output_channel": 0, "logit_bound": 0.0},
}


def each_option(*names):
    return pytest.mark.parametrize("settings", [OPTIONS[name] for name in names], ids=names)


@each_option(*OPTIONS)
def test_the_fast_kernel_gives_the_answers_of_the_plain_one(settings):
    fast, plain = make(**settings), make(**settings, kernel="reference")
    params, episode = make_params(fast), make_episode()
    close(run(fast, params, KEY, episode), run(plain, params, KEY, episode))


@pytest.mark.parametrize("kernel", ["auto", "tiled", "reference"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@each_option("label and norm", "convolution, separate backward, layerwise")
def test_states_that_are_kept_shorter_change_answers_a_little(settings, dtype, kernel):
    learner = make(**settings, kernel=kernel, state_dtype=dtype)
    params, episode = make_params(learner), make_episode(batch=2)
    state, got = go_on(learner, params, learner.init_state(params, KEY, 2), episode)
    kept = {leaf.dtype for layer in state.network.layers for leaf in (layer.h, layer.c)}
    assert kept == {jnp.dtype(dtype)}
    want = run(make(**settings, kernel=kernel), params, KEY, episode)
    distance = abs(got - want).max() / abs(want).max()
    assert 0 < distance < 20 * jnp.finfo(dtype).eps


@each_option("default", "label and norm", "random features, deep")
def test_the_fast_kernel_gives_the_gradient_of_the_plain_one(settings):
    episode = make_episode()

    @functools.partial(jax.jit, static_argnums=0)
    @functools.partial(jax.grad, argnums=1)
    def gradient(learner, params):
        return cross_entropy(run_episode(learner, params, KEY, episode), episode.y).mean()

    fast, plain = make(**settings), make(**settings, kernel="reference")
    want = gradient(plain, make_params(plain))
    close(gradient(fast, make_params(fast)), want)
    assert max(abs(leaf).max() for leaf in jax.tree.leaves(want)) > 1e-3


@each_option("default", "label and norm", "deep, separate backward, layerwise")
def test_permuted_inputs_hidden_units_and_classes_give_permuted_answers(settings):
    learner = make(**settings)
    params, episode, cells = make_params(learner), make_episode(), make_cells(learner)
    sizes = [cells[0].shape[0], *(c.shape[1] for c in cells)]
    orders = [np.roll(np.arange(size), 1) for size in sizes]
    orders[0] = np.array([2, 0, 4, 1, 3])
    moved_cells = [c[orders[k]][:, orders[k + 1]] for k, c in enumerate(cells)]
    new_label = np.argsort(orders[-1]).astype(np.int32)
    moved = episode.replace(x=episode.x[:, :, orders[0]], y=new_label[episode.y])
    logits = go_on(learner, params, start(learner, cells), episode)[1]
    moved_logits = go_on(learner, params, start(learner, moved_cells), moved)[1]
    close(moved_logits, logits[..., orders[-1]])
    # It is the state that breaks the symmetry: left as it was, the answers change.
    assert abs(go_on(learner, params, start(learner, cells), moved)[1] - moved_logits).max() > 1e-3


@each_option("default", "deep, separate backward, layerwise", "convolution, separate backward, layerwise")
def test_an_answer_depends_on_inputs_up_to_its_own_and_on_labels_before(settings, monkeypatch):
    learner = make(**settings)
    params, episode = make_params(learner), make_episode(4)
    one_hot = np.eye(CLASSES, dtype=np.float32)[episode.y]
    # With labels that are one-hot already, one can differentiate with respect to them.
    monkeypatch.setattr(jax.nn, "one_hot", lambda labels, *_, **__: labels)

    @jax.jit
    @functools.partial(jax.jacrev, argnums=(0, 1))
    def slopes(x, labels):
        return run_episode(learner, params, KEY, episode.replace(x=x, y=labels))

    by_input, by_label = (
        np.abs(slope).max(axis=(1, 2, 4, 5)) for slope in slopes(episode.x, one_hot)
    )  # [T, T]
    earlier = np.tril_indices(4, -1)
    assert (np.triu(by_input, 1) == 0).all()
    assert (np.diag(by_input) > 0).all()
    assert (by_input[earlier] > 0).all()
    assert (np.triu(by_label) == 0).all()
    assert (by_label[earlier] > 0).all()


def test_a_changed_label_changes_later_answers_only():
    learner = make()
    params, episode = make_params(learner), make_episode()
    labels = episode.y.copy()
    labels[2] = (labels[2] + 1) % CLASSES
    changed = episode.replace(y=labels)
    before, after = run(learner, params, KEY, episode), run(learner, params, KEY, changed)
    identical(after[:3], before[:3])
    assert (after[3:] != before[3:]).any(axis=(1, 2)).all()


@each_option("default", "deep, separate backward, layerwise")
def test_predict_gives_the_answers_of_step(settings):
    learner = make(**settings)
    params, episode = make_params(learner), make_episode(3, batch=2)
    state = go_on(learner, params, learner.init_state(params, KEY, 2), episode)[0]
    x = make_episode(1, batch=2, seed=1).x[0]
    close(predict(learner, params, state, x), step(learner, params, state, x, jnp.zeros(2, int))[1], 1e-6)


@pytest.mark.parametrize("count", [1, 7])
def test_predict_answers_any_number_of_inputs_from_the_same_state(count):
    learner = make(feed_label=True)
    params, episode = make_params(learner), make_episode(3)
    state = go_on(learner, params, learner.init_state(params, KEY), episode)[0]
    x = make_episode(1, batch=count, seed=1).x[0]
    singly = [step(learner, params, state, x[k : k + 1], jnp.zeros(1, int))[1][0] for k in range(count)]
    close(predict(learner, params, state, x), jnp.stack(singly), 1e-6)


def test_predict_deals_inputs_to_the_elements_of_an_inner_batch_in_turn():
    learner = make()
    params, episode = make_params(learner), make_episode(3, batch=2)
    state = go_on(learner, params, learner.init_state(params, KEY, 2), episode)[0]
    x = np.broadcast_to(make_episode(1).x[0], (5, *SHAPE))
    logits = predict(learner, params, state, x)
    identical(logits[::2], jnp.broadcast_to(logits[0], (3, CLASSES)))
    identical(logits[1::2], jnp.broadcast_to(logits[1], (2, CLASSES)))
    assert (logits[0] != logits[1]).any()


@pytest.mark.parametrize(("state_size", "hidden"), [(6, ()), (5, ()), (5, (conv(2),))])
def test_an_inner_batch_shares_the_first_half_of_its_state(state_size, hidden):
    learner = make(state_size=state_size, hidden=hidden)
    params, episode = make_params(learner), make_episode(3, batch=3)
    state = go_on(learner, params, learner.init_state(params, KEY, 3), episode)[0]
    half = state_size // 2

    def merge(array_BxGxNxRxI):
        array = np.array(array_BxGxNxRxI)
        array[:, :, :half] = array[:, :, :half].mean(0)
        return jnp.asarray(array)

    merged = dataclasses.replace(state.network, layers=jax.tree.map(merge, state.network.layers))
    x = make_episode(1, batch=3, seed=1).x[0]
    logits = predict(learner, params, state, x)
    for b in range(3):
        alone = jax.tree.map(lambda a, b=b: a[b : b + 1], state.replace(network=merged))
        close(predict(learner, params, alone, x[b : b + 1])[0], logits[b])


@pytest.mark.parametrize("hidden", [(), (conv(2, stride=2),)])
def test_elements_of_an_inner_batch_start_alike_and_do_not_depend_on_their_order(hidden):
    learner = make(feed_label=True, hidden=hidden)
    params, episode = make_params(learner), make_episode(4, batch=3)
    logits = run(learner, params, KEY, episode)
    close(logits[0, 1:2], run(learner, params, KEY, jax.tree.map(lambda a: a[:, 1:2], episode))[0])
    turned = jax.tree.map(lambda a: a[:, np.array([2, 0, 1])], episode)
    close(run(learner, params, KEY, turned), logits[:, np.array([2, 0, 1])])


def test_equal_streams_in_an_inner_batch_get_equal_answers():
    learner = make()
    params, single = make_params(learner), make_episode(5)
    copies = jax.tree.map(lambda a: jnp.repeat(a, 2, axis=1), single)
    logits = run(learner, params, KEY, copies)
    identical(logits[:, 0], logits[:, 1])
    # The loss is averaged over the inner batch, so each copy is told half of the error.
    close(logits[0, 0], run(learner, params, KEY, single)[0, 0])


def test_members_run_together_answer_as_each_does_alone():
    learner = make(feed_label=True)
    members = [make_params(learner, seed) for seed in range(3)]
    episodes = [make_episode(seed=seed) for seed in range(3)]
    keys = jax.random.split(KEY, 3)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *members)
    episode = jax.tree.map(lambda *leaves: np.stack(leaves), *episodes)
    together = jax.jit(jax.vmap(functools.partial(run_episode, learner)))(stacked, keys, episode)
    for k in range(3):
        close(together[k], run(learner, members[k], keys[k], episodes[k]))


@pytest.mark.parametrize("segments", [3, 20])
def test_an_episode_in_segments_has_the_same_answers_and_gradient(segments):
    learner = make()
    params, episode = make_params(learner), make_episode(7)

    @functools.partial(jax.jit, static_argnums=1)
    @functools.partial(jax.grad, has_aux=True)
    def evaluate(params, segments):
        logits = run_episode(learner, params, KEY, episode, segments)
        return cross_entropy(logits, episode.y).mean(), logits

    gradient, logits = evaluate(params, segments)
    want_gradient, want = evaluate(params, 1)
    assert logits.shape == (7, 1, CLASSES)
    close(logits, want)
    close(gradient, want_gradient)


def test_an_episode_may_be_interrupted():
    learner = make(backward_pass=True)
    params, episode = make_params(learner), make_episode(6, batch=2)
    state, first = go_on(
        learner, params, learner.init_state(params, KEY, 2), jax.tree.map(lambda a: a[:2], episode)
    )
    state, second = go_on(learner, params, state, jax.tree.map(lambda a: a[2:], episode))
    close(jnp.concatenate([first, second]), run(learner, params, KEY, episode))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"output_channel": 4}, "output_channel: got 4, expected less than synapse.message_size, 4"),
        ({"output_channel": -1}, "output_channel\n.*greater than or equal to 0"),
        ({"separate_backward": True}, "separate_backward: got True, expected false unless backward_pass"),
        ({"feed_label": True, "message_size": 1, "output_channel": 0}, "feed_label: got True"),
        (
            {"random_features": 4, "hidden": (conv(2),)},
            "random_features.count: got 4, expected null, as random features",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({}, 2384),
        ({"layer_norm": True}, 2384 + 4 * 8),
        ({"hidden": (32, 7)}, 2384),
        ({"hidden": (conv(8, 5, 3), conv(4, axes=1), 7)}, 2384),
        ({"hidden": (32, 7), "layerwise": True}, 3 * 2384),
        ({"hidden": (32,), "layerwise": True, "backward_pass": True}, 2 * 2384),
        (
            {"hidden": (32,), "layerwise": True, "backward_pass": True, "separate_backward": True},
            4 * 2384,
        ),
    ],
)
@pytest.mark.parametrize("shape", [(1,), (28, 28, 1)])
def test_the_number_of_meta_parameters_depends_on_nothing_but_the_synapse(settings, count, shape):
    learner = flat_vsml(shape, 10, **settings)
    params = jax.eval_shape(learner.init_params, KEY)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count


def test_meta_parameters_serve_any_number_of_inputs_and_classes():
    params = make_params(make())
    learner = make(input_shape=(2, 3, 1), outputs=7)
    logits = run(learner, params, KEY, make_episode(3, shape=(2, 3, 1), classes=7))
    assert logits.shape == (3, 1, 7)
    assert np.isfinite(logits).all()


@pytest.mark.parametrize(("shape", "classes", "length"), [((1,), 1, 1), ((1,), 2, 1), ((2, 1, 1), 1, 2)])
def test_the_smallest_problems_run(shape, classes, length):
    learner = make(input_shape=shape, outputs=classes)
    episode = make_episode(length, shape=shape, classes=classes)
    logits = run(learner, make_params(learner), KEY, episode)
    assert logits.shape == (length, 1, classes)
    assert np.isfinite(logits).all()


@pytest.mark.parametrize(
    ("shape", "hidden", "fans"),
    [
        ((6, 5, 2), (conv(3, stride=2), 4), [(60, 27), (27, 4), (4, 3)]),
        ((6, 5), (conv(3, stride=2),), [(30, 27), (27, 3)]),
        ((6,), (conv(3, stride=2),), [(6, 9), (9, 3)]),
        ((2, 2, 2, 2), (conv(1, stride=4),), [(16, 4), (4, 3)]),
        ((6, 5, 2), (7, conv(3, stride=2, axes=1)), [(60, 7), (7, 12), (12, 3)]),
        ((6, 5, 2), (conv(3, stride=2, axes=1), conv(2, 5, 3)), [(60, 54), (54, 4), (4, 3)]),
        ((), (), [(1, 3)]),
    ],
)
def test_layers_read_what_the_one_before_feeds(shape, hidden, fans):
    layers = make(input_shape=shape, hidden=hidden).network.layers
    assert [(layer.fan_in, layer.fan_out) for layer in layers] == fans


def test_logits_stay_within_their_bound():
    learner, unbounded = make(logit_bound=0.01), make(logit_bound=0.0)
    params, episode = make_params(learner), make_episode(1)
    raw = run(unbounded, params, KEY, episode)
    assert abs(raw).max() > 0.01
    close(run(learner, params, KEY, episode), 0.01 * np.tanh(raw / 0.01), 1e-6)


def test_the_same_key_draws_the_same_and_another_key_another():
    learner = make()
    identical(learner.init_params(KEY), learner.init_params(KEY))
    first, other = (learner.init_params(jax.random.key(seed))[0] for seed in (0, 1))
    assert (first["lstm"]["kernel"] != other["lstm"]["kernel"]).any()
    params = learner.init_params(KEY)
    identical(learner.init_state(params, KEY), learner.init_state(params, KEY))
    cells = [learner.init_state(params, jax.random.key(seed)).network.layers[0].c for seed in (0, 1)]
    assert (cells[0] != cells[1]).any()


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_fresh_meta_parameters_are_cut_normal_with_variance_one_over_fan_in(scale):
    learner = flat_vsml(SHAPE, CLASSES, state_size=64, message_size=32, layer_norm=True, init_scale=scale)
    (synapse,) = learner.init_params(KEY).values()
    for name, fan_in in (("lstm", 128), ("forward_message", 64), ("backward_message", 64)):
        kernel = synapse[name]["kernel"] * fan_in**0.5 / scale
        assert kernel.shape[0] == fan_in
        assert abs(kernel).max() <= 2
        # The deviation of a standard normal cut at +-2, which is not corrected for.
        np.testing.assert_allclose(kernel.std(), 0.8796, atol=0.03)
        np.testing.assert_allclose(kernel.mean(), 0, atol=0.05)
        identical(synapse[name]["bias"], np.zeros(kernel.shape[1]))
    for name in ("forward_norm", "backward_norm"):
        identical(synapse[name], {"scale": np.ones(32), "bias": np.zeros(32)})


def test_a_learner_built_again_is_not_compiled_again():
    before = run._cache_size()
    for seed in range(3):
        learner = make(hidden=(2,))
        run(learner, make_params(learner, seed), jax.random.key(seed), make_episode(5, seed=seed))
    assert run._cache_size() == before + 1


@pytest.mark.parametrize("activation", ["linear", "relu", "tanh"])
def test_random_features_of_standard_inputs_are_of_mean_0_and_variance_1(activation):
    learner = make(input_shape=(50,), random_features=10_000, activation=activation)
    state = learner.init_state(make_params(learner), KEY)
    features = learner.features(state, jax.random.normal(jax.random.key(1), (500, 50)))
    assert features.shape == (500, 10_000)
    assert abs(features.mean()) < 0.02
    assert abs(features.std() - 1) < 0.02


def test_an_input_may_be_kept_beside_its_features():
    learner = make(random_features=6, keep_input=True)
    params, episode = make_params(learner), make_episode()
    state = learner.init_state(params, KEY)
    both = jnp.concatenate([episode.x, episode.x @ state.features[:-1]], axis=-1)
    plain = make(input_shape=(SHAPE[0] + 6,))
    state = start(
        plain, [from_tiles(layer.c) for layer in jax.tree.map(lambda a: a[0], state.network).layers]
    )
    got = run(learner, params, KEY, episode)
    close(got, go_on(plain, params, state, Episode(both, episode.y, episode.weight))[1])


def test_linear_random_features_are_a_projection_drawn_with_the_state_and_kept():
    learner, plain = make(random_features=6), make(input_shape=(6,))
    params, episode = make_params(learner), make_episode()
    state = learner.init_state(params, KEY)
    projected = Episode(episode.x @ state.features[:-1], episode.y, episode.weight)
    after, got = go_on(learner, params, state, episode)
    identical(after.features, state.features)
    close(got, run(plain, params, KEY, projected))
    assert (learner.init_state(params, jax.random.key(1)).features != state.features).all()


def test_the_configuration_names_every_setting():
    config = VsmlConfig.model_validate(
        {
            "layers": [{"type": "dense", "out_size": 4}, {"type": "dense"}],
            "micro_ticks": 3,
            "logit_bound": 7.0,
            "output_channel": 2,
            "backward_pass": True,
            "separate_backward": True,
            "feed_label": True,
            "layerwise": True,
            "random_features": {"count": 9, "activation": "relu", "keep_input": True},
            "synapse": {
                "state_size": 6,
                "message_size": 5,
                "random_fraction": 0.25,
                "layer_norm": True,
                "init_scale": 2.0,
            },
        }
    )
    learner = make_learner("vsml", config, [2, 2, 1], 3)
    assert learner == Vsml((2, 2, 1), Classes(3), config)
    network = learner.network
    assert [(layer.fan_in, layer.fan_out) for layer in network.layers] == [(13, 4), (4, 3)]
    assert (network.state_size, network.message_size, network.random_fraction) == (6, 5, 0.25)
    assert (network.micro_ticks, network.init_scale) == (3, 2.0)
    assert network.layerwise and network.separate_backward and network.layer_norm
    assert make_learner("vsml", VsmlConfig(), (5,), 3) == Vsml((5,), 3)


def test_flat_settings_of_version_0_1_work_with_a_warning_that_says_the_new_form():
    with pytest.warns(
        DeprecationWarning, match=r"config=VsmlConfig.model_validate\({'synapse': {'init_scale': 4}"
    ):
        old = Vsml(SHAPE, CLASSES, init_scale=4, hidden=(32, conv(2)), random_features=None)
    assert old == flat_vsml(SHAPE, CLASSES, (32, conv(2)), init_scale=4)
    with pytest.warns(DeprecationWarning):
        assert Vsml(input_shape=SHAPE, num_classes=CLASSES, feed_label=True).config.feed_label
    with pytest.warns(DeprecationWarning):
        assert dataclasses.replace(old, kernel="tiled") == changed(old, kernel="tiled")
    with pytest.warns(DeprecationWarning, match=r"Vsml\.init_scale is Vsml\.config\.synapse\.init_scale now"):
        assert old.init_scale == 4
    with pytest.raises(TypeError, match="unexpected keyword argument 'init_scal'"):
        Vsml(SHAPE, CLASSES, init_scal=4)
    with pytest.raises(AttributeError, match="'Vsml' object has no attribute 'init_scal'"):
        old.init_scal  # noqa: B018


def test_every_flat_setting_has_a_place_and_every_setting_of_version_0_1_a_flat_name():
    def leaves(config, path=()):
        for key, value in config.items():
            yield from leaves(value, (*path, key)) if isinstance(value, dict) else [(*path, key)]

    newer = {"layers", "views", "graph", "memory", "regression", "restart", "image_features"}
    places = {path for path in leaves(VsmlConfig().model_dump()) if path[0] not in newer}
    assert set(PATHS.values()) == places


@pytest.mark.parametrize("outputs", [0, Values(0), None, "3"])
def test_outputs_that_are_none_are_refused(outputs):
    with pytest.raises((ValueError, TypeError), match="expected Classes"):
        Vsml(SHAPE, outputs)


def test_the_configuration_has_layers_of_each_type():
    layers = [
        {"type": "conv", "out_channels": 8},
        {"type": "conv1d", "kernel_size": 5, "stride": 2, "out_channels": 4},
        {"type": "dense", "out_size": 6},
        {"out_size": 7},
        {},
    ]
    learner = make_learner("vsml", VsmlConfig.model_validate({"layers": layers}), (4, 4, 1), 3)
    assert learner == flat_vsml((4, 4, 1), 3, (conv(8), conv(4, 5, 2, axes=1), 6, 7))
    assert VsmlConfig.model_validate(VsmlConfig.model_validate({"layers": layers}).model_dump()).layers

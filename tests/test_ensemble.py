"""Several learners that answer together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flat_vsml import flat_vsml

from vsml.config.files import ConfigError
from vsml.cost.counts import cost_of
from vsml.launching.schema import load_config
from vsml.learners import Ensemble, Sgd, make_learner, run_episode
from vsml.learners.vsml import VsmlConfig
from vsml.types import Episode

pytestmark = pytest.mark.usefixtures("hasty", "explicit_ranks")

KEY = jax.random.key(0)
MEMBER = make_learner("sgd", load_config(overrides=["model.sgd.learning_rate=0.5"]).model.sgd, (4,), 3)


def make_episode(length=6, batch_size=1):
    x = jax.random.normal(jax.random.key(1), (length, batch_size, 4))
    labels = jax.random.randint(jax.random.key(2), (length, batch_size), 0, 3)
    return Episode(x, labels, jnp.ones(labels.shape))


@pytest.mark.parametrize("batch_size", [1, 2])
def test_it_answers_with_the_mean_of_what_its_members_would_say_alone(batch_size):
    episode = make_episode(batch_size=batch_size)
    keys = [KEY, jax.random.fold_in(KEY, 1), jax.random.fold_in(KEY, 2)]
    alone = [jax.nn.softmax(run_episode(MEMBER, {}, key, episode)) for key in keys]
    assert np.abs(alone[0] - alone[1]).max() > 0.1  # each starts elsewhere
    together = run_episode(Ensemble((MEMBER,) * 3), {}, KEY, episode)
    np.testing.assert_allclose(jnp.exp(together), np.mean(alone, axis=0), rtol=1e-5)


def test_one_member_answers_as_it_would_alone():
    episode = make_episode()
    alone = jax.nn.log_softmax(run_episode(MEMBER, {}, KEY, episode))
    np.testing.assert_allclose(run_episode(Ensemble((MEMBER,)), {}, KEY, episode), alone, atol=1e-6)


def test_predicting_is_what_the_next_step_would_answer():
    ensemble, episode = Ensemble((MEMBER, MEMBER)), make_episode()
    state = ensemble.init_state({}, KEY)
    for x, y in zip(episode.x, episode.y, strict=True):
        predicted = ensemble.predict({}, state, x)
        state, answered = ensemble.step({}, state, x, y)
        np.testing.assert_allclose(predicted, answered, atol=1e-6)


def test_views_make_an_ensemble_of_networks_that_share_meta_parameters():
    views = [{"count": 7, "activation": "tanh"}, {}, {"count": 5, "keep_input": True}]
    learner = make_learner("vsml", VsmlConfig.model_validate({"views": views}), (2, 2), 3)
    pixels = flat_vsml((2, 2), 3)
    assert learner.members == (
        pixels,
        flat_vsml((2, 2), 3, random_features=7, activation="tanh"),
        pixels,
        flat_vsml((2, 2), 3, random_features=5, keep_input=True),
    )
    assert (learner.input_shape, learner.num_classes) == ((2, 2), 3)
    params = learner.init_params(KEY)
    assert jax.tree.all(jax.tree.map(np.array_equal, params, pixels.init_params(KEY)))
    first, _, third, _ = learner.init_state(params, KEY)
    assert not np.array_equal(first.network.layers[0].c, third.network.layers[0].c)
    costs = [cost_of(member) for member in learner.members]
    assert cost_of(learner).synapses == sum(cost.synapses for cost in costs) == 3 * (4 + 7 + 4 + 9)
    assert cost_of(learner, what="gradient").flops > 2 * sum(cost.flops for cost in costs)


def test_a_view_is_checked_as_random_features_are():
    with pytest.raises(ConfigError, match=r"model\.vsml\.views\.1\.keep_input: got True, expected false"):
        load_config(overrides=["model.vsml.views=[{count: 3}, {keep_input: true}]"])
    conv = "model.vsml={views: [{count: 3}], layers: [{type: conv, out_channels: 2}, {}]}"
    with pytest.raises(ConfigError, match=r"model\.vsml\.views\.0\.count: got 3, expected null"):
        load_config(overrides=[conv])


def test_members_of_one_kind_are_one_program():
    compiled = jax.jit(run_episode, static_argnums=0)
    before = compiled._cache_size()  # of all that any test has compiled of it
    for seed in range(2):
        members = (MEMBER, Sgd(MEMBER.input_shape, MEMBER.num_classes, MEMBER.config))
        compiled(Ensemble(members), {}, jax.random.key(seed), make_episode())
    assert compiled._cache_size() == before + 1

"""How many numbers a learner keeps between steps, and perturbations of its memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flat_vsml import flat_vsml
from test_values import MAKERS, OJA, ONLY_CLASSES, SHAPE, make

from vsml.learners import Ensemble, Sgd
from vsml.learners.memory import NoMemoryError, perturb, state_floats
from vsml.types import Classes, Values

pytestmark = pytest.mark.usefixtures("hasty", "explicit_ranks")

KEY = jax.random.key(0)
C = 3
EVERY = [name for name in (*MAKERS, *ONLY_CLASSES, *OJA) if not name.startswith("floor")]
KEPT = {  # worked out by hand: memory, then what is pending
    "vsml": 2 * 6 * 4 * C + 2 * C,
    "vsml, backward pass": 2 * 6 * (4 * 3 + 3 * C) + 3 * 4 + 2 * C,
    "meta_rnn": 2 * 5 + 2 * C,
    "fwp": 3 * C + C + 2 * C,
    "fw_memory": 2 * 5 + 3 * 9 + 2 * C,
    "sgd": 4 * C + C,
    "hebbian, oja": (4 + 2 * C) * C,
    "upgd": 2 * (4 * 3 + 3 + 3 * C + C) + 1 + 2,  # weights and utilities, steps, a key
    "continual_backprop": 4 * 3 + 3 + 3 * C + C + 2 * 3 + 1 + 2,  # and utility and age of units, what is due
    "neighbours": 3 * 4 + 3 + 1,  # inputs, labels, a count
    "kernel_ridge": 3 * 4 + 3 + 1,
    "least_squares": 7 * 7 + 7 * C + 1,
    "nearest_mean": 4 * C + C,
    "naive_bayes": 2 * 4 * C + C,
    "ngrams": 3 * 1024 * C + 2,  # counts of contexts of 0, 1 and 2 symbols, the two latest symbols
    "floor": C + 1,
}


def grown(learner):
    """Return a state that is nowhere 0."""
    state = learner.init_state(learner.init_params(KEY), KEY)
    leaves, structure = jax.tree.flatten(state)
    return jax.tree.unflatten(structure, [jnp.ones_like(leaf) for leaf in leaves])


@pytest.mark.parametrize("name", KEPT)
def test_what_is_kept_between_steps_is_counted(name):
    assert int(state_floats(make(name, Classes(C)))) == KEPT[name]


def test_random_features_are_named_and_not_counted():
    learner = flat_vsml(SHAPE, C, random_features=7, state_size=6, message_size=4)
    counted = state_floats(learner)
    assert (counted.kept, counted.fixed) == (2 * 6 * 7 * C + 2 * C, (("random features", 5 * 7),))
    assert str(counted) == "258, and 35 fixed (random features)"
    both = state_floats(Ensemble((learner, learner)))
    assert both.kept == 2 * counted.kept
    assert both.fixed == (("random features of member 1", 35), ("random features of member 2", 35))
    assert state_floats(learner, 2).kept == 2 * counted.kept


def test_moments_of_the_optimizer_are_kept_between_steps_too():
    plain, adam = (state_floats(make(name, Values(2))).kept for name in ("sgd", "sgd, adam"))
    weights = 4 * 3 + 3 + 3 * 2 + 2
    assert plain == 4 * 2 + 2
    assert adam == 3 * weights + 1  # two moments of each, and a count


@pytest.mark.parametrize("kind", ["zero", "noise", "drop_units"])
@pytest.mark.parametrize("name", EVERY)
def test_nothing_is_perturbed_by_a_fraction_of_0_and_shapes_stay(name, kind):
    learner = make(name, Classes(C))
    state = grown(learner)
    jax.tree.map(np.testing.assert_array_equal, perturb(learner, state, KEY, kind, 0.0), state)
    after = perturb(learner, state, KEY, kind, 0.5)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), after) == jax.tree.map(
        lambda a: (a.shape, a.dtype), state
    )
    changed = [bool((a != b).any()) for a, b in zip(*map(jax.tree.leaves, (after, state)), strict=True)]
    assert any(changed)


@pytest.mark.parametrize("name", EVERY)
def test_all_of_the_memory_and_nothing_else_is_zeroed_by_a_fraction_of_1(name):
    learner = make(name, Classes(C))
    state = grown(learner)
    seen = []
    learner.map_memory(state, lambda part, axis: (seen.append(part), part)[1])
    numbers = sum(leaf.size for leaf in jax.tree.leaves(seen))
    after = perturb(learner, state, KEY, "zero", 1.0)
    zeros = sum(int((leaf == 0).sum()) for leaf in jax.tree.leaves(after))
    assert zeros == numbers > 0
    if name == "sgd":
        assert after.weights["dense"][0]["bias"].all()


def test_half_of_the_numbers_are_lost():
    learner = flat_vsml((50,), C)
    after = perturb(learner, grown(learner), KEY, "zero", 0.5)
    (layer,) = after.network.layers
    assert (layer.c == 0).mean() == pytest.approx(0.5, abs=0.03)
    assert (layer.h == 0).mean() == pytest.approx(0.5, abs=0.03)
    assert ((layer.h == 0) != (layer.c == 0)).any()


def test_noise_is_as_large_as_a_share_of_the_memory():
    learner = flat_vsml((50,), C)
    state = jax.tree.map(lambda a: 4 * a, grown(learner))
    (layer,) = perturb(learner, state, KEY, "noise", 0.25).network.layers
    assert (layer.c - 4).std() == pytest.approx(1, rel=0.05)
    assert abs((layer.c - 4).mean()) < 0.05


def test_dropped_units_are_gone_from_all_arrays_at_once():
    learner = flat_vsml((8,), C)
    (layer,) = perturb(learner, grown(learner), KEY, "drop_units", 0.25).network.layers
    lost = (layer.c == 0).all((0, 1, 2, 3))
    assert lost.sum() == 2
    assert (layer.c[..., ~lost] == 1).all()
    np.testing.assert_array_equal(layer.h, layer.c)
    learner = make("meta_rnn", Classes(C))
    after = perturb(learner, grown(learner), KEY, "drop_units", 0.4)
    assert (after.h == 0).sum() == 2
    np.testing.assert_array_equal(after.h, after.c)


def test_what_cannot_be_perturbed_is_said():
    class Mute:
        """A learner that marks nothing."""

    with pytest.raises(NoMemoryError, match="Mute: got no map_memory"):
        perturb(Mute(), None, KEY, "zero", 0.1)
    with pytest.raises(NoMemoryError, match="Mute"):
        perturb(Ensemble((Mute(),)), (None,), KEY, "zero", 0.1)
    learner = Sgd(SHAPE, Classes(C))
    for kind, fraction, message in (("zeros", 0.1, "kind: got 'zeros'"), ("zero", 1.1, "fraction: got 1.1")):
        with pytest.raises(ValueError, match=message):
            perturb(learner, grown(learner), KEY, kind, fraction)

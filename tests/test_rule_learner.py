"""Local rules as learners: constants are meta-parameters, and streams may be cut anywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pydantic import ValidationError

from vsml.config.model import ModelConfig, model_choices
from vsml.config.sections import ComparedLearner
from vsml.learners import continue_episode, make_learner, run_episode
from vsml.learners.memory import perturb, state_floats
from vsml.learners.rule import RuleConfig
from vsml.learners.sgd import SgdConfig
from vsml.losses import cross_entropy
from vsml.pretrained import load_learner
from vsml.types import Episode, Values

pytestmark = pytest.mark.usefixtures("hasty", "explicit_ranks")

KEY = jax.random.key(0)
RANDOM = np.random.default_rng(0)
ONE_LAYER = {"kinds": [{"type": "layered", "options": {"sizes": []}}], "hidden": [0]}
SEVERAL = {"kinds": ["dag", "ring"], "hidden": [3, 4], "count": 3}


def make(outputs=3, inputs=4, **settings):
    config = RuleConfig.model_validate({"rule": "delta", "graph": ONE_LAYER} | settings)
    return make_learner("rule", config, (inputs,), outputs)


def episode(steps=5, batch_size=1, values=False):
    x = RANDOM.normal(size=(steps, batch_size, 4)).astype(np.float32)
    y = RANDOM.integers(3, size=(steps, batch_size)).astype(np.int32)
    if values:
        y = RANDOM.normal(size=(steps, batch_size, 3)).astype(np.float32)
    return Episode(jnp.asarray(x), jnp.asarray(y), jnp.ones((steps, batch_size)))


def test_the_delta_rule_is_least_mean_squares():
    learner = make(Values(3))
    stream = episode(8, values=True)
    got = run_episode(learner, {"lr": jnp.float32(0.2)}, KEY, stream)[:, 0]
    weights = np.zeros((4, 3))
    for x, y, answer in zip(stream.x[:, 0], stream.y[:, 0], got, strict=True):
        want = np.asarray(x) @ weights
        np.testing.assert_allclose(answer, want, atol=1e-5)
        weights -= 0.2 * np.outer(x, want - np.asarray(y))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"rule": "backprop", "graph": SEVERAL},
        {"rule": "node_perturbation", "graph": SEVERAL, "reward": "correct"},
        {"rule": "feedback_alignment", "graph": SEVERAL, "teach": "broadcast_error", "reset": "signals"},
    ],
)
def test_a_stream_may_be_cut_anywhere(settings):
    learner = make(**settings)
    params = learner.init_params(KEY)
    stream = episode(batch_size=2)
    want = run_episode(learner, params, KEY, stream)
    state = learner.init_state(params, KEY, batch_size=2)
    parts = []
    for start, end in ((0, 2), (2, 5)):
        part = jax.tree.map(lambda a, start=start, end=end: a[start:end], stream)
        state, answers = continue_episode(learner, params, state, part)
        parts.append(answers)
    np.testing.assert_array_equal(jnp.concatenate(parts), want)


@pytest.mark.slow
def test_predict_gives_the_answers_of_step_from_the_element_that_is_asked():
    learner = make(rule="backprop", graph=SEVERAL)
    params = learner.init_params(KEY)
    stream = episode(3, batch_size=2)
    state, _ = continue_episode(learner, params, learner.init_state(params, KEY, 2), stream)
    _, want = learner.step(params, state, stream.x[0], stream.y[0])
    answers = learner.predict(params, state, jnp.concatenate([stream.x[0], stream.x[0]]))
    np.testing.assert_allclose(answers, np.tile(want, (2, 1)), rtol=1e-6)
    # Draws of their own: the two elements do not answer the same.
    same = learner.predict(params, state, jnp.stack([stream.x[0, 0]] * 2))
    assert np.abs(same[0] - same[1]).max() > 1e-4


@pytest.mark.slow
def test_steps_without_teaching_tell_nothing():
    learner = make(rule="backprop")
    params = learner.init_params(KEY)
    state = learner.init_state(params, KEY)
    x = jnp.asarray(RANDOM.normal(size=(1, 4)), jnp.float32)
    states = [learner.step(params, state, x, jnp.array([label]), jnp.zeros(1))[0] for label in (0, 2)]
    told = learner.step(params, state, x, jnp.array([2]), jnp.ones(1))[0]
    for one, other in zip(*map(jax.tree.leaves, states), strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.any(states[1].stream.memory != told.stream.memory)


@pytest.mark.slow
def test_constants_are_meta_parameters_that_gradients_reach():
    learner = make(rule="delta")
    params = learner.init_params(KEY)
    assert set(params) == {"lr"} and float(params["lr"]) == pytest.approx(0.1)
    stream = episode(6)

    @jax.jit
    def loss(params):
        return cross_entropy(run_episode(learner, params, KEY, stream), stream.y).mean()

    slope = jax.grad(loss)(params)["lr"]
    higher, lower = loss({"lr": jnp.float32(0.11)}), loss({"lr": jnp.float32(0.09)})
    assert float(slope) == pytest.approx(float(higher - lower) / 0.02, rel=0.05)


@pytest.mark.slow
def test_members_with_other_constants_run_at_once():
    learner = make()
    stream = episode()
    rates = jnp.array([0.01, 0.3])
    together = jax.vmap(lambda lr: run_episode(learner, {"lr": lr}, KEY, stream))(rates)
    for rate, answers in zip(rates, together, strict=True):
        np.testing.assert_allclose(answers, run_episode(learner, {"lr": rate}, KEY, stream), atol=1e-6)


def test_its_memory_is_counted_and_can_be_disturbed():
    learner = make(rule="delta", teach="broadcast_error")
    params = learner.init_params(KEY)
    count = state_floats(learner)
    assert count.kept >= 2 * 12 * len(learner.rule.slots)
    assert dict(count.fixed)["feedback"] == 3 * learner._pool.arrays.first.shape[-1]
    state = learner.init_state(params, KEY)
    state, _ = learner.step(params, state, jnp.ones((1, 4)), jnp.array([1]))
    disturbed = perturb(learner, state, KEY, "zero", 1.0)
    assert np.any(state.stream.memory != 0) and not np.any(disturbed.stream.memory)


def test_a_rule_from_a_file_is_read_and_its_mistakes_are_told(tmp_path):
    right, wrong = tmp_path / "right.rule", tmp_path / "wrong.rule"
    right.write_text("a : node\na <- x if x_on\nout = a\n")
    wrong.write_text("a : node\na <- xx\nout = a\n")
    assert make(rule=str(right)).init_params(KEY) == {}
    with pytest.raises(ValidationError, match=r"(?s)wrong\.rule.*line 2: xx is not defined"):
        RuleConfig(rule=str(wrong))
    with pytest.raises(ValidationError, match="did you mean backprop"):
        RuleConfig(rule="bakcprop")


def test_timings_that_contradict_each_other_are_refused_before_anything_runs():
    with pytest.raises(ValueError, match=r"model\.rule: read_tick: got 7"):
        make(ticks=3, read_tick=7)
    with pytest.raises(ValueError, match=r"reward: got 'correct'"):
        make(Values(3), reward="correct")


def test_known_rules_are_taught_as_their_texts_say():
    settings = make(rule="predictive_coding", ticks=20, read_tick=5).harness.settings
    assert (settings.teach, settings.announce, settings.teach_hold) == ("target", True, 14)
    assert make(rule="backprop").harness.settings.x_ticks == 1
    assert make(rule="backprop", x_hold=2).harness.settings.x_ticks == 2


def test_settings_of_a_known_rule_outlive_a_file_and_a_comparison():
    """Both repeat all settings, also those that nobody has given."""
    given = {"type": "rule", "rule": {"rule": "predictive_coding", "ticks": 20, "reset": "signals"}}
    model = ModelConfig.model_validate(given)
    again = ModelConfig.model_validate(model.model_dump(mode="json"))
    ((_, compared),) = model_choices(ModelConfig(), ComparedLearner(name="other", model=given))
    for each in (model, again, compared):
        settings = each.rule.settings(3, "classes")
        assert (settings.teach, settings.announce, settings.teach_hold) == ("target", True, 16)
        assert settings.reset == "signals"


@pytest.mark.parametrize("rule", ["delta", "hebb", "oja"])
def test_rules_of_one_layer_have_no_hidden_nodes_unless_the_settings_say_so(rule):
    (graph,) = make_learner("rule", RuleConfig(rule=rule), (4,), 3).graphs
    assert graph.num_nodes == 4 + 3
    asked = RuleConfig.model_validate({"rule": rule, "graph": {"kinds": ["waxman"], "hidden": [5]}})
    assert asked.graphs.hidden == (5,)
    assert RuleConfig(rule="backprop").graphs.hidden == (32,)
    # A file and a comparison repeat all settings, also those that nobody has given.
    given = {"rule": {"rule": rule}}
    ((_, compared),) = model_choices(ModelConfig(type="rule"), ComparedLearner(name="one", model=given))
    again = ModelConfig.model_validate(compared.model_dump(mode="json"))
    assert compared.rule.graphs.hidden == again.rule.graphs.hidden == (0,)


def test_constants_may_have_other_values():
    learner = make(constants={"lr": 0.5})
    assert float(learner.init_params(KEY)["lr"]) == 0.5
    with pytest.raises(ValidationError, match="constants: got 'rl', expected one of lr"):
        RuleConfig(rule="delta", constants={"rl": 1})
    with pytest.raises(ValidationError, match="lr: got 'much', expected a finite number"):
        RuleConfig(rule="delta", constants={"lr": "much"})


@pytest.mark.slow
def test_backprop_and_gradient_descent_from_equal_weights_answer_alike_at_every_step():
    rate = 0.05
    graph = {"kinds": [{"type": "layered", "options": {"sizes": [6, 6]}}], "hidden": [12]}
    by_rule = make(rule="backprop", graph=graph, constants={"lr": rate})
    params = by_rule.init_params(KEY)
    start = by_rule.init_state(params, KEY)
    settings = {"num_layers": 3, "hidden_size": 6, "activation": "leaky_relu", "activate_last": True}
    settings |= {"bias": False, "logit_bound": 0, "learning_rate": rate}
    sgd = make_learner("sgd", SgdConfig.model_validate(settings), (4,), 3)

    # Edges of a layered graph are sorted by their lower node, then by the higher one: layer by layer.
    slot = [slot.name for slot in by_rule.rule.slots].index("w")
    by_edge = start.stream.memory[0, slot, 1::2]
    layers = []
    for fan_in, fan_out in ((4, 6), (6, 6), (6, 3)):
        layers.append({"kernel": by_edge[: fan_in * fan_out].reshape(fan_in, fan_out)})
        by_edge = by_edge[fan_in * fan_out :]
    assert len(by_edge) == 0
    weights = {"dense": dict(enumerate(layers))}

    stream = episode(200)
    _, want = continue_episode(sgd, {}, sgd.with_weights(weights), stream)
    _, got = continue_episode(by_rule, params, start, stream)
    assert np.abs(want[-1] - want[0]).max() > 0.1, "something was learned"
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_a_ready_node_is_one_output_more():
    learner = make(rule="delta", read="ready")
    assert len(learner.graphs[0].outputs) == 4
    params = learner.init_params(KEY)
    _, answers = learner.step(params, learner.init_state(params, KEY), jnp.ones((1, 4)), jnp.array([1]))
    assert answers.shape == (1, 3)


@pytest.mark.slow
def test_rules_are_loaded_by_name():
    loaded = load_learner("rule:delta", input_shape=(4,), num_classes=3, model={"rule": {"graph": ONE_LAYER}})
    assert loaded.model.type == "rule" and set(loaded.params) == {"lr"}
    state, answers = loaded.step(loaded.start(), np.ones((1, 4)), np.array([2]))
    _, later = loaded.step(state, np.ones((1, 4)), np.array([2]))
    assert later[0, 2] > answers[0, 2]

"""The cost of a step by formula: against what JAX is told to do, and against figures worked out by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from flat_vsml import changed, conv, flat_vsml

from vsml.cost.counts import Cost, cost_of, count, counted_cost, visit_cost, vsml_cost
from vsml.launching.version_0_1 import step_flops
from vsml.learners import LEARNERS, make_learner
from vsml.learners import config_type as settings_of
from vsml.meta.objectives.episode import trial_result
from vsml.meta.trials import params_shapes, state_bytes
from vsml.types import Episode

TANH_FLOPS = 21
"""Of the rational tanh, which the fast kernels have in place of a transcendental."""

SHAPE = (8, 8, 1)
CASES = {
    "one layer": (flat_vsml(SHAPE, 10), 1),
    "MNIST": (flat_vsml((28, 28, 1), 10), 1),
    "layer norm": (flat_vsml(SHAPE, 10, layer_norm=True), 1),
    "two layers": (flat_vsml(SHAPE, 10, (32,)), 1),
    "backward pass": (flat_vsml(SHAPE, 10, (32,), backward_pass=True), 1),
    "four ticks": (flat_vsml(SHAPE, 10, micro_ticks=4), 1),
    "other sizes": (flat_vsml(SHAPE, 10, (12,), state_size=8, message_size=4), 1),
    "inner batch": (flat_vsml(SHAPE, 10), 4),
    "convolution": (flat_vsml((14, 14, 1), 10, (conv(8, 3, 2),)), 1),
    "convolution along the width": (flat_vsml((8, 8, 2), 10, (conv(4, 3, 1, axes=1),)), 1),
    "convolution, layer norm": (flat_vsml((14, 14, 1), 10, (conv(8, 3, 2),), layer_norm=True), 1),
}
each_case = pytest.mark.parametrize(("learner", "batch_size"), CASES.values(), ids=CASES)


def traced(learner, batch_size, steps, segments, gradient):
    """Count an episode, for each example, in the kernel that hides nothing."""
    learner = changed(learner, kernel="tiled") if learner.config.kernel == "auto" else learner
    x = jax.ShapeDtypeStruct((steps, batch_size, *learner.input_shape), jnp.float32)
    labels = jax.ShapeDtypeStruct((steps, batch_size), jnp.int32)

    def loss(params, x, labels):
        episode = Episode(x=x, y=labels, weight=jnp.ones(labels.shape))
        return trial_result(learner, "mean", params, episode, jax.random.key(0), segments).loss

    function = jax.grad(loss) if gradient else loss
    jaxpr = jax.make_jaxpr(function)(params_shapes(learner), x, labels).jaxpr
    return count(jaxpr).times(1 / (steps * batch_size))


def assert_counted(cost, counted, tolerance, tanh_flops=TANH_FLOPS):
    elementwise = cost.elementwise_flops + tanh_flops * cost.transcendentals
    assert cost.matrix_flops == pytest.approx(counted.matrix_flops, rel=tolerance)
    assert elementwise == pytest.approx(counted.elementwise_flops, rel=tolerance)


@each_case
def test_a_step_is_what_jax_is_told_to_do_within_a_hundredth(learner, batch_size):
    cost = cost_of(learner, batch_size)
    assert_counted(cost, counted_cost(learner, batch_size), tolerance=0.01)
    with_tanh = cost.flops + TANH_FLOPS * cost.transcendentals
    assert batch_size * with_tanh == pytest.approx(step_flops(learner, batch_size), rel=0.01)


@each_case
@pytest.mark.parametrize("segments", [1, 2])
def test_a_gradient_is_what_jax_is_told_to_do_within_a_tenth(learner, batch_size, segments):
    """Products with messages are not recomputed, and the formula takes all to be."""
    counted = traced(learner, batch_size, steps=6, segments=segments, gradient=True)
    cost = cost_of(learner, batch_size, "gradient", segments)
    assert_counted(cost, counted, tolerance=0.1)


@each_case
def test_the_plain_formulation_is_counted_too(learner, batch_size):
    plain = changed(learner, kernel="reference")
    counted = traced(plain, batch_size, steps=100, segments=1, gradient=False)
    cost = vsml_cost(learner, batch_size, formulation="plain")
    assert_counted(cost, counted, tolerance=0.1, tanh_flops=0)
    # The bounded logits, the loss and the initial state have a few more.
    assert cost.transcendentals == pytest.approx(counted.transcendentals, rel=0.01)


def test_an_mnist_example_costs_what_the_arithmetic_says():
    learner = flat_vsml((28, 28, 1), 10)
    cost = cost_of(learner)
    assert cost.synapses == 7840
    assert cost.matrix_flops == pytest.approx(32e6, rel=0.05)
    assert cost.transcendentals == 5 * 16 * 2 * 7840  # 1.25 million
    assert cost.state_bytes == pytest.approx(1e6, rel=0.01)
    assert cost.moved_bytes == 2 * cost.state_bytes
    gates = cost.unfused_bytes - 2 * 2 * cost.state_bytes
    assert gates == pytest.approx(8e6, rel=0.01)  # written and read


def test_before_the_rewrites_it_cost_more_than_twice_as_much():
    learner = flat_vsml((28, 28, 1), 10)
    assert vsml_cost(learner, formulation="plain").matrix_flops == pytest.approx(68e6, rel=0.01)
    # Two visits of one tick, that is with messages sent at every tick.
    every_tick = vsml_cost(changed(learner, micro_ticks=1), formulation="plain").times(2)
    assert every_tick.matrix_flops == pytest.approx(72e6, rel=0.01)


@each_case
def test_the_state_is_as_large_as_that_of_the_learner_but_for_messages(learner, batch_size):
    expected = state_bytes(learner, batch_size) / batch_size
    assert cost_of(learner, batch_size).state_bytes == pytest.approx(expected, rel=0.35)
    assert cost_of(learner, batch_size).state_bytes <= expected


def test_a_convolution_of_one_position_costs_as_a_dense_layer_but_for_what_it_averages():
    one_position = flat_vsml((1, 1, 6), 3, (conv(5, 1),)).network
    dense = flat_vsml((6,), 3, (5,)).network
    one, other = visit_cost(one_position, one_position.layers[0]), visit_cost(dense, dense.layers[0])
    assert (one.synapses, one.transcendentals, one.moved_bytes) == (
        30,
        other.transcendentals,
        2 * 4 * 32 * 30,
    )
    assert other.moved_bytes == one.moved_bytes
    assert one.flops > other.flops


def test_a_second_sweep_doubles_the_work_and_not_the_state():
    one, two = (cost_of(flat_vsml(SHAPE, 10, backward_pass=both)) for both in (False, True))
    assert two == dataclasses.replace(one.times(2), state_bytes=one.state_bytes, synapses=one.synapses)


def test_costs_add_up_and_are_repeated():
    cost = Cost(synapses=2, matrix_flops=10, state_bytes=3, moved_bytes=6)
    assert cost + cost == Cost(synapses=4, matrix_flops=20, state_bytes=6, moved_bytes=12)
    assert cost.times(3) == Cost(synapses=2, matrix_flops=30, state_bytes=3, moved_bytes=18)


def test_the_gradient_of_the_plain_formulation_is_not_known():
    network = flat_vsml(SHAPE, 10).network
    with pytest.raises(ValueError, match="what: got 'gradient', expected 'forward' for the plain"):
        visit_cost(network, network.layers[0], "gradient", "plain")


@pytest.mark.parametrize("name", [name for name in LEARNERS if name != "vsml"])
def test_other_learners_are_counted(name):
    learner = make_learner(name, settings_of(name)(), SHAPE, 10)
    cost = cost_of(learner, 2)
    assert cost == counted_cost(learner, 2)
    assert cost.flops > 0 and cost.synapses == 0
    assert 2 * (cost.flops + cost.transcendentals) == pytest.approx(step_flops(learner, 2))
    assert cost_of(learner, 2, "gradient").flops == pytest.approx(3 * cost.flops)


def test_a_product_counts_two_a_term_a_sum_one_a_term_and_a_loop_each_turn():
    def function(a, b):
        turned, _ = jax.lax.scan(lambda carry, _: (jnp.tanh(carry + 1), None), a @ b, length=5)
        return turned.sum()

    counted = count(jax.make_jaxpr(function)(jnp.ones((2, 3)), jnp.ones((3, 4))).jaxpr)
    assert counted == Cost(matrix_flops=2 * 2 * 3 * 4, elementwise_flops=5 * 8 + 8, transcendentals=5 * 8)


def test_a_convolution_counts_two_for_each_product():
    image, kernel = jnp.ones((1, 3, 6, 6)), jnp.ones((5, 3, 3, 3))
    jaxpr = jax.make_jaxpr(lambda x, k: jax.lax.conv(x, k, (1, 1), "SAME"))(image, kernel).jaxpr
    assert count(jaxpr) == Cost(matrix_flops=2 * 5 * 36 * 27)


def test_states_of_16_bits_are_half_as_large_and_half_as_much_to_move():
    full, half = (cost_of(flat_vsml(SHAPE, 10, state_dtype=dtype)) for dtype in ("float32", "bfloat16"))
    assert half == dataclasses.replace(
        full,
        state_bytes=full.state_bytes / 2,
        moved_bytes=full.moved_bytes / 2,
        unfused_bytes=half.unfused_bytes,
    )
    assert half.unfused_bytes < full.unfused_bytes

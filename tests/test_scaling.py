"""The model of a meta step's time: what it must say in cases that one can work out by hand."""

import jax
import numpy as np
import pytest

from benchmarks.scaling import fit, machine_of, predict
from vsml.config.files import ConfigError
from vsml.cost.counts import cost_of
from vsml.cost.ranks import (
    GRADIENT_PASSES,
    Machine,
    Work,
    efficiency,
    efficient_ranks,
    exchange_time,
    meta_step_time,
    work_of,
)
from vsml.launching.schema import load_config
from vsml.meta.trials import chunks_of
from vsml.setup import Setup
from vsml.system.comm import SerialCommunicator

EIGHT = Work(chunk_flops=(1e9,) * 8, steps=100, replicated_numbers=1000, row_bytes=64)


def tiny(*overrides: str) -> Setup:
    training = "training={dataset: digits, population_size: 10, episode_length: 4}"
    return Setup(load_config([], [training, "evaluation.datasets=[]", *overrides]))


def test_all_parts_of_one_rank_add_up():
    machine = Machine(flops_per_s=1e9, call_s=0.01, replicated_s=0.5, number_s=1e-3, latency_s=1.0)
    predicted = meta_step_time(machine, EIGHT, 1)
    assert predicted.evaluation_s == pytest.approx(8)
    assert predicted.calls_s == pytest.approx(0.08)
    assert predicted.replicated_s == pytest.approx(1.5)
    assert predicted.exchange_s == 0  # with nobody
    assert predicted.total_s == pytest.approx(9.58)


@pytest.mark.parametrize(("ranks", "rounds"), [(1, 8), (2, 4), (3, 3), (4, 2), (7, 2), (8, 1)])
def test_whole_chunks_are_dealt_in_rounds(ranks, rounds):
    predicted = meta_step_time(Machine(flops_per_s=1e9, call_s=0.25), EIGHT, ranks)
    assert predicted.evaluation_s == pytest.approx(rounds)
    assert predicted.calls_s == pytest.approx(rounds / 4)


def test_the_rank_with_most_to_do_counts():
    uneven = Work(chunk_flops=(1.0, 5.0, 1.0, 5.0, 1.0), steps=1, replicated_numbers=0, row_bytes=0)
    assert meta_step_time(Machine(flops_per_s=1), uneven, 2).evaluation_s == 10


def test_more_ranks_than_chunks_are_an_error():
    with pytest.raises(ValueError, match="ranks: got 9, expected 1 to 8, the number of chunks"):
        meta_step_time(Machine(flops_per_s=1), EIGHT, 9)


def test_steps_that_wait_for_each_other_end_the_scaling():
    machine = Machine(flops_per_s=1e9, step_s=0.02)  # an episode of 100 steps takes 2 s at least
    times = {ranks: meta_step_time(machine, EIGHT, ranks).total_s for ranks in (1, 4, 8)}
    assert times == {1: 16, 4: 4, 8: 2}
    cut = {1: Work((8e9,), 100, 0, 64), 8: EIGHT}  # one chunk a rank, as is the default
    assert efficiency(machine, cut.__getitem__, 8) == pytest.approx(0.5)


def test_ranks_that_share_a_device_divide_its_rate_but_not_its_least_times():
    fast, shared = Machine(flops_per_s=1e9), Machine(flops_per_s=1e9, devices=2)
    assert meta_step_time(shared, EIGHT, 2) == meta_step_time(fast, EIGHT, 2)
    assert meta_step_time(shared, EIGHT, 4).evaluation_s == meta_step_time(fast, EIGHT, 2).evaluation_s
    waiting = Machine(flops_per_s=1e12, step_s=0.02, devices=2)
    assert meta_step_time(waiting, EIGHT, 8).evaluation_s == pytest.approx(2)


@pytest.mark.parametrize(("ranks", "messages"), [(1, 0), (2, 1), (3, 2), (4, 2), (1024, 10)])
def test_an_exchange_takes_a_message_for_each_doubling_and_all_bytes_of_the_others(ranks, messages):
    machine = Machine(flops_per_s=1, latency_s=1e-3, bytes_per_s=1e6)
    assert exchange_time(machine, 1000, ranks) == pytest.approx(messages * 1e-3 + (ranks - 1) * 1e-3)


@pytest.mark.parametrize("ranks", [2, 8, 128, 1024])
def test_exchanging_1024_pairs_takes_less_than_a_hundredth_of_a_second_on_a_slow_network(ranks):
    slow = Machine(flops_per_s=1, latency_s=1e-4, bytes_per_s=1e8)  # 1 Gbit/s, and a tenth of a millisecond
    assert exchange_time(slow, 16 * 1024 // ranks, ranks) < 0.01


def test_perfect_machines_are_used_perfectly_and_no_machine_better():
    perfect = Machine(flops_per_s=1e9)
    for ranks in range(1, 9):
        found = efficiency(perfect, lambda ranks: EIGHT, ranks)
        assert found <= 1 and (found == pytest.approx(1)) == (8 % ranks == 0)


def test_what_is_replicated_bounds_the_efficient_ranks():
    machine = Machine(flops_per_s=1e9, replicated_s=2.0)  # 10 s alone; 2 ranks 6 s, 4 ranks 4 s, 8 ranks 3 s
    found = [efficiency(machine, lambda ranks: EIGHT, ranks) for ranks in (2, 4, 8)]
    assert found == pytest.approx([10 / 12, 10 / 16, 10 / 24])
    assert efficient_ranks(machine, lambda ranks: EIGHT, (1, 2, 4, 8)) == 4
    assert efficient_ranks(machine, lambda ranks: EIGHT, (1, 2, 4, 8), least=0.8) == 2
    assert efficient_ranks(machine, lambda ranks: EIGHT, (8,)) == 1


@pytest.mark.parametrize(
    ("overrides", "members"),
    [
        ((), 2),
        (("optimizer.algorithm=Open_ES",), 2),
        (("optimizer={type: gradient}", "training.chunk_size=4"), 1),
    ],
)
def test_the_work_of_a_run_is_cut_as_the_run_cuts_it(overrides, members):
    setup = tiny(*overrides)
    groups = setup.load_groups(SerialCommunicator())
    for ranks in (1, 3):
        size = setup.chunk_size(ranks)
        chunks = chunks_of(groups, size)
        work = work_of(setup, ranks)
        steps = 4 * (1 if members == 2 else GRADIENT_PASSES)
        what = "forward" if members == 2 else "gradient"
        step = cost_of(groups[0].learner, 1, what)
        trial_flops = members * 4 * (step.flops + step.transcendentals)
        assert work.chunk_flops == pytest.approx([size * trial_flops] * len(chunks))
        assert work.steps == steps
        params = groups[0].learner.init_params(jax.random.key(0))
        numbers = sum(leaf.size for leaf in jax.tree.leaves(params))
        drawn = setup.config.optimizer.algorithm == "Open_ES"
        assert work.replicated_numbers == numbers * (20 if drawn else len(chunks))
        optimizer = setup.optimizer(params)
        _, asked = optimizer.ask(optimizer.init(jax.random.key(0), params))
        parts = jax.eval_shape(
            lambda asked, optimizer=optimizer, chunk=chunks[0]: optimizer.evaluate(
                asked, chunk, jax.random.key(0)
            ),
            asked,
        )
        assert work.row_bytes == sum(part.size * part.dtype.itemsize for part in parts)


def test_groups_of_different_shapes_make_chunks_of_different_cost():
    work = work_of(tiny("data.preprocess.resize={split: [null, [4, 4]]}", "training.chunk_size=5"), 2)
    large, small = work.chunk_flops
    assert 2 < large / small <= 4  # 64 and 16 inputs


def test_a_run_with_fewer_chunks_than_ranks_is_refused_as_by_the_run():
    with pytest.raises(ConfigError, match="fewer than the 11 ranks"):
        work_of(tiny(), 11)


def test_the_fit_gives_back_what_was_measured_on_one_rank():
    one = {"evaluation_s": 4.0, "call_s": 0.125, "ask_tell_s": 0.5}
    two = {"messages": {"empty": 1e-5, "large": 1e-5 + 4 * 2**20 / 1e9}}
    machine = fit(EIGHT, one, two, devices=2)
    predicted = meta_step_time(machine, EIGHT, 1)
    assert predicted.evaluation_s + predicted.calls_s == pytest.approx(4.0)
    assert predicted.replicated_s == pytest.approx(0.5)
    assert (machine.latency_s, machine.bytes_per_s) == (1e-5, pytest.approx(1e9))


def test_a_machine_is_described_on_the_command_line():
    assert machine_of(["flops_per_s=1e9", "devices=2"]) == Machine(flops_per_s=1e9, devices=2)
    with pytest.raises(ValueError, match="got 'latency=1', expected NAME=VALUE with one of bytes_per_s"):
        machine_of(["latency=1"])
    with pytest.raises(ValueError, match="got 'step_s=fast', expected a number"):
        machine_of(["step_s=fast"])
    with pytest.raises(ValueError, match="expected flops_per_s=VALUE"):
        machine_of(["step_s=1"])


def test_a_prediction_has_a_line_for_each_number_of_ranks():
    table, record = predict(tiny("training.population_size=16"), Machine(flops_per_s=1e9), [2, 4])
    assert len(table.rows) == 2
    np.testing.assert_allclose([record["ranks"][n]["speedup"] for n in (2, 4)], [2, 4])

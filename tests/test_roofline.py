"""Rates of the machine: kept in the user's cache, and the least time that follows from them."""

import dataclasses
import json

import jax
import pytest
from rates import RATES

from benchmarks import roofline as measuring
from vsml.cost import roofline
from vsml.cost.counts import Cost
from vsml.cost.roofline import TANH_INSTRUCTIONS, bound, load, resident_bytes, save, slug, stored_path
from vsml.meta.objectives.episode import kept_states

WORK = Cost(matrix_flops=300.0, elementwise_flops=100.0, transcendentals=8.0, moved_bytes=50.0)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VSML_CACHE_DIR", str(tmp_path))


def test_what_shares_a_unit_adds_up():
    least = bound(WORK, RATES, resident_bytes=64)
    assert (least.matrix_s, least.elementwise_s, least.tanh_s, least.memory_s) == (3.0, 1.0, 2.0, 0.05)
    assert least.total_s == 6.0
    assert least.bottleneck == "matrix products"


def test_a_tanh_is_no_dearer_than_its_instructions():
    slow = dataclasses.replace(RATES, rational_tanh_per_s=2.0)
    assert bound(WORK, slow, resident_bytes=64).tanh_s == WORK.transcendentals * TANH_INSTRUCTIONS / 50


def test_units_of_their_own_work_side_by_side():
    accelerator = dataclasses.replace(RATES, shared_units=False)
    least = bound(WORK, accelerator, resident_bytes=64)
    assert least.elementwise_s == 2.0  # at the rate of multiply-adds, matrix products having another
    assert least.total_s == 4.0  # elementwise arithmetic and tanh
    assert least.bottleneck in ("elementwise arithmetic", "tanh")
    slow = dataclasses.replace(accelerator, matrix_flops_per_s=60.0, small_matrix_flops_per_s=60.0)
    assert bound(WORK, slow, resident_bytes=64).bottleneck == "matrix products"


def test_what_does_not_fit_into_the_cache_comes_from_memory():
    moving = dataclasses.replace(WORK, moved_bytes=500.0)
    assert bound(moving, RATES, resident_bytes=64).memory_s == 0.5
    least = bound(moving, RATES, resident_bytes=65)
    assert (least.total_s, least.bottleneck) == (50.0, "memory")


def test_nothing_can_be_faster_than_each_part():
    least = bound(WORK, RATES, resident_bytes=0)
    assert least.total_s >= max(least.matrix_s, least.elementwise_s, least.tanh_s, least.memory_s)


def test_rates_are_found_again():
    assert load(RATES.machine) is None
    path = save(RATES)
    assert path == stored_path(RATES.machine) and path.name == "a-processor-x-2.json"
    assert load(RATES.machine) == RATES
    assert load("Another Processor x 2") is None
    save(dataclasses.replace(RATES, tanh_per_s=3.0))
    assert load(RATES.machine).tanh_per_s == 3.0
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"version": 1}',
        json.dumps({"version": 0} | dataclasses.asdict(RATES)),
        json.dumps({"version": 1} | dataclasses.asdict(dataclasses.replace(RATES, tanh_per_s=0.0))),
        json.dumps({"version": 1} | dataclasses.asdict(RATES) | {"tanh_per_s": "fast"}),
    ],
)
def test_a_damaged_file_is_named_with_what_to_do(text):
    path = save(RATES)
    path.write_text(text)
    with pytest.raises(ValueError, match=f"{path.name}: .*; measure again: make roofline"):
        load(RATES.machine)


def test_the_name_of_this_machine_has_its_number_of_devices():
    assert roofline.machine_name().endswith(f" x {jax.local_device_count()}")
    assert slug("Intel(R) Xeon(R) CPU @ 2.20GHz x 4") == "intel-xeon-cpu-2-20ghz-x-4"


def test_a_cpu_has_one_unit_under_way_on_each_device():
    assert resident_bytes(100, units=8, states_of_unit=2) == 200
    assert kept_states(500, 1) == 500
    assert kept_states(500, 23) == 22 + 23


TINY = measuring.Sizes(
    matrices=(8,),
    synapses=(8,),
    elements=(16,),
    tanhs=1,
    copied_bytes=(64, 2**18, 2**19),
    least_s=0.0,
)


@pytest.fixture(scope="module")
def tiny():
    return measuring.measure(TINY, repetitions=1)


def test_all_rates_are_measured(tiny):
    assert tiny.machine == roofline.machine_name() and tiny.shared_units
    assert all(value > 0 for name, value in dataclasses.asdict(tiny).items() if name != "machine")
    assert tiny.cache_bytes in TINY.copied_bytes[1:]
    save(tiny)
    assert load() == tiny
    assert len(measuring.table_of(tiny).rows) == 8


def test_programs_keep_their_numbers_in_bounds():
    for program in measuring.programs(TINY):
        y = jax.numpy.ones(program.start)
        for _ in range(5):
            y = program.step(y)
        assert y.shape == program.start
        assert (abs(y) <= 1.001).all() and (abs(y) > 0.1).all(), program.resource


def test_the_better_of_two_measurements_counts_rate_by_rate():
    other = dataclasses.replace(RATES, tanh_per_s=5.0, memory_bytes_per_s=1.0)
    assert measuring.better(RATES, other) == dataclasses.replace(RATES, tanh_per_s=5.0)
    assert measuring.better(other, RATES) == measuring.better(RATES, other)


def test_both_widths_of_vectors_and_what_was_stored_count(monkeypatch, capsys):
    def measured(repetitions, flag=""):
        return dataclasses.replace(RATES, tanh_per_s=9.0) if flag else RATES

    monkeypatch.setattr(measuring, "measure_in_a_process", measured)
    save(dataclasses.replace(RATES, memory_bytes_per_s=11.0))
    measuring.main([])
    assert load(RATES.machine) == dataclasses.replace(RATES, tanh_per_s=9.0, memory_bytes_per_s=11.0)
    assert "9 G/s" in capsys.readouterr().out
    measuring.main(["--fresh"])
    assert load(RATES.machine) == dataclasses.replace(RATES, tanh_per_s=9.0)

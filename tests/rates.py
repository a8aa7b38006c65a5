"""Rates of a machine that there is none of, in round numbers."""

from vsml.cost.roofline import Roofline

RATES = Roofline(
    machine="A Processor(R) x 2",
    shared_units=True,
    matrix_flops_per_s=100.0,
    small_matrix_flops_per_s=50.0,
    multiply_add_flops_per_s=50.0,
    tanh_per_s=1.0,
    rational_tanh_per_s=4.0,
    cache_bytes_per_s=1000.0,
    memory_bytes_per_s=10.0,
    cache_bytes=64,
)

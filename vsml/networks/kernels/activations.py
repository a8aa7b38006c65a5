"""The hyperbolic tangent as a clamped rational function: the dearest operation of a synapse on a CPU."""

import jax
import jax.numpy as jnp

from vsml.types import Array

# tanh(x) = x P(x^2) / Q(x^2) on [-BOUND, BOUND]; P and Q are fitted by iteratively reweighted least squares
# to the smallest maximal absolute error, 1.2e-8. Rounding in float32 then costs more than the fit, and
# clamping at BOUND as little.
BOUND = 8.6
P = (9.99999939e-01, 1.33996886e-01, 3.51804562e-03, 2.09914794e-05, 1.39125489e-08)
Q = (1.0, 4.67329975e-01, 2.59616556e-02, 3.32289630e-04, 7.99871638e-07)


@jax.custom_jvp
def tanh(x: Array) -> Array:
    """Return the hyperbolic tangent to within 4e-7 (float32), elementwise.

    It is cheaper than XLA's own. The derivative is `1 - tanh(x)^2`.
    """
    x = jnp.clip(x, -BOUND, BOUND)
    square = x * x
    return x * _horner(P, square) / _horner(Q, square)


@tanh.defjvp
def _tanh_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    y = tanh(primals[0])
    return y, (1 - y * y) * tangents[0]


def _horner(coefficients: tuple[float, ...], x: Array) -> Array:
    total = jnp.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * x + coefficient
    return total

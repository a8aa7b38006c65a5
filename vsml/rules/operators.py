"""Operators of rules: their names, operands and meaning, and what they compute on arrays."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from vsml.types import Array

BOUND = 10_000.0
"""Every number that a rule meets is clipped to [-BOUND, BOUND]."""

SMALLEST_DIVISOR = 1e-6
"""Division by anything smaller in size gives 0; a logarithm takes no smaller number."""


@dataclass(frozen=True)
class Operator:
    """An operator of the language.

    Attributes:
        name: as a program is read: what is called, or a name for the sign.
        family: elementwise, rev, reducer, count or draw.
        operands: how many it takes; a reducer takes its filter beside.
        meaning: what it gives, before repair.
        sign: how it is written between its operands, or before its only one; empty where it is called.
        compute: of an elementwise one, from arrays that can be broadcast to one array; of a reducer, from
            values [H], which of them pass [H] and a `Summary`, to one number for each node [N].
    """

    name: str
    family: str
    operands: int
    meaning: str
    sign: str = ""
    compute: Callable[..., Array] | None = None

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers of operands that it may be written with."""
        if self.family == "reducer":
            return (1, 2)
        return (self.operands,)


def repair(value: Array) -> Array:
    """Return a value with 0 for NaN, clipped to [-10000, 10000]."""
    known = jnp.where(jnp.isnan(value), 0, value)
    return jnp.clip(known, -BOUND, BOUND)


def _truth(
    condition: Array,
    like: Array,
) -> Array:
    return condition.astype(like.dtype)


# Where a derivative would be infinite or NaN, the argument is replaced on the side that is not taken, so
# that the gradient of a rule stays finite: the "double where" of the JAX FAQ.


def _divide(
    a: Array,
    b: Array,
) -> Array:
    is_divisor = jnp.abs(b) >= SMALLEST_DIVISOR
    divisor = jnp.where(is_divisor, b, 1)
    return jnp.where(is_divisor, a / divisor, 0)


def _square_root(a: Array) -> Array:
    size = jnp.abs(a)
    is_positive = size > 0
    positive = jnp.where(is_positive, size, 1)
    return jnp.where(is_positive, jnp.sqrt(positive), 0)


def _exponential(a: Array) -> Array:
    # Beyond log(BOUND) the result is clipped anyway, and a gradient of infinity times 0 would be NaN.
    return jnp.exp(jnp.minimum(a, 10.0))


def _logarithm(a: Array) -> Array:
    return jnp.log(jnp.maximum(jnp.abs(a), SMALLEST_DIVISOR))


def _greater(
    a: Array,
    b: Array,
) -> Array:
    return _truth(a > b, a)


def _greater_or_equal(
    a: Array,
    b: Array,
) -> Array:
    return _truth(a >= b, a)


def _select(
    c: Array,
    a: Array,
    b: Array,
) -> Array:
    return jnp.where(c > 0, a, b)


def _relu(a: Array) -> Array:
    return jnp.maximum(a, 0)


@dataclass(frozen=True)
class Summary:
    """Sums over the half-edges of each node.

    Attributes:
        node: of each half-edge its node, int [H].
        num_nodes: N.
    """

    node: Array
    num_nodes: int

    def add(self, value: Array) -> Array:
        """Return the sum [N] of a value [H] over the half-edges of each node."""
        return jax.ops.segment_sum(value, self.node, self.num_nodes)

    def largest(self, value: Array) -> Array:
        """Return the largest of a value [H] over the half-edges of each node, [N]."""
        return jax.ops.segment_max(value, self.node, self.num_nodes)

    def count(
        self,
        passes: Array,
        like: Array,
    ) -> Array:
        """Return how many half-edges of each node pass, [N], as numbers of an array's type."""
        return self.add(_truth(passes, like))

    def spread(self, value: Array) -> Array:
        """Return a value [N] of nodes at their half-edges, [H]."""
        return value[self.node]


def _sum(
    value: Array,
    passes: Array,
    summary: Summary,
) -> Array:
    return summary.add(jnp.where(passes, value, 0))


def _mean(
    value: Array,
    passes: Array,
    summary: Summary,
) -> Array:
    count = summary.count(passes, value)
    # Where none passes the sum is 0, and so is the mean.
    return _sum(value, passes, summary) / jnp.maximum(count, 1)


def _max(
    value: Array,
    passes: Array,
    summary: Summary,
) -> Array:
    # Values are repaired, so that whatever is below them all can stand for those that do not pass.
    below = -2 * BOUND
    largest = summary.largest(jnp.where(passes, value, below))
    return jnp.where(largest > -1.5 * BOUND, largest, 0)


def _min(
    value: Array,
    passes: Array,
    summary: Summary,
) -> Array:
    return -_max(-value, passes, summary)


def _std(
    value: Array,
    passes: Array,
    summary: Summary,
) -> Array:
    deviation = value - summary.spread(_mean(value, passes, summary))
    return _square_root(_mean(deviation * deviation, passes, summary))


def _called(
    name: str,
    meaning: str,
    compute: Callable[..., Array],
    operands: int = 1,
) -> Operator:
    return Operator(name, "elementwise", operands, meaning, compute=compute)


def _written(
    name: str,
    sign: str,
    meaning: str,
    compute: Callable[..., Array],
    operands: int = 2,
) -> Operator:
    return Operator(name, "elementwise", operands, meaning, sign, compute)


def _reducer(
    name: str,
    meaning: str,
    compute: Callable[..., Array],
) -> Operator:
    return Operator(name, "reducer", 1, meaning, compute=compute)


# The number of an operator is its place in this table. Hashes of rules depend on it: new ones go to the end.
OPERATORS = (
    _written("add", "+", "a + b", jnp.add),
    _written("sub", "-", "a - b", jnp.subtract),
    _written("mul", "*", "a * b", jnp.multiply),
    _written("neg", "-", "-a", jnp.negative, 1),
    _written("div", "/", "a / b if abs(b) >= 1e-6, else 0", _divide),
    _written("gt", ">", "1 if a > b, else 0; `a < b` is `b > a`", _greater),
    _written("ge", ">=", "1 if a >= b, else 0; `a <= b` is `b >= a`", _greater_or_equal),
    _called("minimum", "the smaller of a and b, place by place", jnp.minimum, 2),
    _called("maximum", "the larger of a and b, place by place", jnp.maximum, 2),
    _called("sel", "b where a > 0, else c", _select, 3),
    _called("abs", "size of a", jnp.abs),
    _called("square", "a * a", jnp.square),
    _called("sin", "sine of a in radians", jnp.sin),
    _called("tanh", "hyperbolic tangent of a", jnp.tanh),
    _called("relu", "a if a > 0, else 0", _relu),
    _called("sign", "-1, 0 or 1", jnp.sign),
    _called("sigmoid", "1 / (1 + exp(-a))", jax.nn.sigmoid),
    _called("exp", "e to the power of a: 10000 from 9.22 on", _exponential),
    _called("log", "natural logarithm of the size of a, or of 1e-6 if that is more", _logarithm),
    _called("sqrt", "square root of the size of a", _square_root),
    Operator("rev", "rev", 1, "what the other end of the edge holds in the private edge slot a"),
    _reducer("sum", "sum over the half-edges of the node", _sum),
    _reducer("mean", "mean over the half-edges of the node", _mean),
    _reducer("max", "largest over the half-edges of the node", _max),
    _reducer("min", "smallest over the half-edges of the node", _min),
    _reducer("std", "standard deviation over the half-edges of the node", _std),
    Operator("count", "count", 1, "how many half-edges of the node have a > 0"),
    Operator("normal", "draw", 0, "a draw of mean 0 and variance 1; in initialisations only"),
    Operator("uniform", "draw", 0, "a draw from [0, 1); in initialisations only"),
)

OPCODE = {operator.name: number for number, operator in enumerate(OPERATORS)}
"""The number of each operator."""

CALLED = {operator.name: operator for operator in OPERATORS if not operator.sign}
"""Operators that are written as calls; their names are reserved."""

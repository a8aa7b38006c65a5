"""Kernel ridge regression on the latest examples, solved anew at each step."""

from dataclasses import dataclass, field
from typing import Annotated

import jax
import jax.numpy as jnp
from pydantic import Field

from vsml.learners.buffer import Buffer
from vsml.learners.buffered import BufferedLearner
from vsml.learners.distances import Metric, distances
from vsml.learners.shares import Doubt, share_logits
from vsml.settings import Float, Positive, Section
from vsml.types import Array, Classes

LEAST_MEDIAN = 1e-6
"""Distances are divided by at least this, where more than half of them are 0."""

_SIGNLESS_BITS = 31
"""Bits of a float32 of 0 or more."""


class KernelRidgeConfig(Section):
    """Kernel ridge regression on the latest examples."""

    buffer: Annotated[Positive, Field(le=2000)] = Field(
        default=500, description="examples that are kept, the latest; a step costs their number cubed"
    )
    ridge: Annotated[Float, Field(gt=0)] = Field(default=0.1, description="added to the kernel's diagonal")
    width: Annotated[Float, Field(gt=0)] = Field(
        default=2.0, description="the kernel of two examples at distance d is exp(-width d / median d)"
    )
    metric: Metric = "cosine"
    doubt: Doubt = 0.02


@dataclass(frozen=True)
class KernelRidge(BufferedLearner):
    """Answer by kernel ridge regression on the last K examples.

    With the distances d of the N examples in the buffer and their median over all pairs m,

        k(a, b) = exp(-width d(a, b) / m)
        answer(x) = k(x, X) (k(X, X) + ridge I)^-1 (Y - offset) + offset.

    Y are one-hot labels with the offset 1 / C, or values with their mean as the offset. Answers for classes
    become shares of probability. Before the first example all classes are as likely, and values are 0.

    Only inputs and targets are kept: the kernel is computed and solved at every step, in N^2 D + N^3 / 3
    multiplications. The buffer is shared by the inner batch. There are no meta-parameters.

    Attributes:
        input_shape: shape of one input.
        outputs: what it answers with; an int is a number of classes.
        config: settings.
    """

    config: KernelRidgeConfig = field(default_factory=KernelRidgeConfig)

    section = "kernel_ridge"

    @property
    def buffer_settings(self) -> KernelRidgeConfig:
        """Its settings."""
        return self.config

    def answer(
        self,
        buffer: Buffer,
        inputs: Array,
    ) -> Array:
        """Return the answers to prepared inputs [K, D]."""
        config, filled_N = self.config, buffer.filled
        distance_NxN = distances(buffer.inputs, buffer.inputs, config.metric)
        above_diagonal = jnp.triu(jnp.ones(distance_NxN.shape, bool), 1)
        pairs_NxN = filled_N[:, None] & filled_N[None, :] & above_diagonal
        median = jnp.maximum(masked_median(distance_NxN, pairs_NxN), LEAST_MEDIAN)
        kernel_NxN = jnp.exp(-config.width * distance_NxN / median)
        to_inputs_KxN = jnp.exp(-config.width * distances(inputs, buffer.inputs, config.metric) / median)
        targets_NxV, offset_V = self._targets(buffer)
        # Empty slots are coupled to nothing. Their targets are 0, so is what is solved for them.
        both_NxN = filled_N[:, None] & filled_N[None, :]
        system_NxN = jnp.where(both_NxN, kernel_NxN, 0.0) + config.ridge * jnp.eye(buffer.size)
        factor = jax.scipy.linalg.cho_factor(system_NxN, lower=True)
        solution_NxV = jax.scipy.linalg.cho_solve(factor, targets_NxV)
        answers_KxV = to_inputs_KxN @ solution_NxV + offset_V[None]
        if isinstance(self.outputs, Classes):
            return share_logits(answers_KxV, config.doubt)
        return answers_KxV

    def _targets(self, buffer: Buffer) -> tuple[Array, Array]:
        """Return the targets less their offset, 0 in empty slots [N, V], and the offset [V]."""
        filled_Nx1 = buffer.filled[:, None]
        if isinstance(self.outputs, Classes):
            targets_NxV = jax.nn.one_hot(buffer.targets, self.outputs.size)
            offset_V = jnp.full(self.outputs.size, 1 / self.outputs.size)
        else:
            targets_NxV = buffer.targets
            count = jnp.maximum(buffer.filled.sum(), 1)
            offset_V = jnp.where(filled_Nx1, targets_NxV, 0.0).sum(0) / count
        return jnp.where(filled_Nx1, targets_NxV - offset_V[None], 0.0), offset_V


def masked_median(
    values: Array,
    mask: Array,
) -> Array:
    """Return the median of float32 values of 0 or more where a mask holds; 1 where it holds nowhere.

    It is exact, that of an even number is the mean of the middle two, and nothing is sorted: the bits of
    such floats are in the order of their values, so that each is found by halving the range of bits.

    Args:
        values: float32, any shape.
        mask: bool, likewise.
    """
    # abs: -0 would have the bits of a negative number.
    bits = jax.lax.bitcast_convert_type(jnp.abs(values).astype(jnp.float32), jnp.int32)
    count = mask.sum()

    def at_most(bound: Array) -> Array:
        return (mask & (bits <= bound)).sum()

    def smallest(rank: Array) -> Array:
        """Return the bits of the value below which `rank` others are."""

        def halve(k: Array, bound: Array) -> Array:
            # The largest bound, bit by bit, that has at most `rank` values below it.
            tried = bound + (jnp.int32(1) << (_SIGNLESS_BITS - 1 - k))
            return jnp.where(at_most(tried - 1) <= rank, tried, bound)

        return jax.lax.fori_loop(0, _SIGNLESS_BITS, halve, jnp.zeros((), jnp.int32))

    lower = smallest((count - 1) // 2)
    # The next one is the same value again, or the least of those above it.
    above = jnp.where(mask & (bits > lower), bits, jnp.iinfo(jnp.int32).max).min()
    upper = jnp.where((count % 2 == 1) | (at_most(lower) > count // 2), lower, above)
    middle = jax.lax.bitcast_convert_type(jnp.stack([lower, upper]), jnp.float32).mean()
    return jnp.where(count > 0, middle, 1.0)

"""Slowly changing regression: bits, most of which stay for long, and a fixed network of threshold units.

Dohare et al., Loss of plasticity in deep continual learning (Nature 2024), methods, and the code that comes
with the paper (`lop/slowly_changing_regression`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
from flax import struct
from pydantic import Field

from vsml.settings import Float, Int, Positive, Section
from vsml.tasks.distribution import TaskDistribution
from vsml.tasks.streams.base import Stream
from vsml.types import Array, Episode, Outputs, Values

# Purposes: what a key is folded with.
_NETWORK, _SLOW, _FAST = range(3)


class SlowBitsConfig(Section):
    """Settings of the slowly changing regression."""

    inputs: Positive = Field(default=20, description="bits of an input")
    slow: Annotated[Int, Field(ge=0)] = Field(
        default=15, description="of these, the first so many stay the same within a task"
    )
    units: Positive = Field(default=100, description="threshold units of the network that is the target")
    beta: Annotated[Float, Field(gt=0, lt=1)] = Field(
        default=0.7, description="share of the inputs that have to agree with a unit's weights to turn it on"
    )
    task_length: Positive = Field(default=10_000, description="examples between changes of slow bits")
    change: Literal["redraw", "flip"] = Field(
        default="redraw", description="what a new task does: redraw all slow bits, or flip one of them"
    )


@struct.dataclass
class SlowBits:
    """Regression on a fixed random network of threshold units, whose inputs change slowly.

    Target: `y = sum_i v_i [w_i . x + b_i > theta_i] + c` with all weights and biases -1 or 1, and
    `theta_i = beta (m + 1) - S_i`, where `S_i = (m - sum_j w_ij + b_i) / 2` and m is the number of inputs.

    Attributes:
        config: settings.
    """

    config: SlowBitsConfig = struct.field(pytree_node=False, default=SlowBitsConfig())

    @property
    def name(self) -> str:
        """What tables call it."""
        return "slowly_changing_regression"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """A row of bits, as an image."""
        return (1, self.config.inputs, 1)

    @property
    def outputs(self) -> Outputs:
        """One value."""
        return Values(1)

    @property
    def task_length(self) -> int:
        """Examples between changes."""
        return self.config.task_length

    def task(self, key: Array, number: Array) -> Episode:
        """Draw the examples of a task: x in {0, 1}, [T, 1, 1, inputs, 1], and y [T, 1, 1]."""
        config = self.config
        T = config.task_length
        slow_bits = self._slow_bits(jax.random.fold_in(key, _SLOW), number)
        fast_key = jax.random.fold_in(jax.random.fold_in(key, _FAST), number)
        fast_bits = jax.random.bernoulli(fast_key, 0.5, (T, config.inputs - config.slow))
        every_step = jnp.broadcast_to(slow_bits, (T, config.slow))
        x = jnp.concatenate([every_step, fast_bits.astype(jnp.float32)], axis=1)
        y = self._target(jax.random.fold_in(key, _NETWORK), x)
        return Episode(
            x=x.reshape(T, 1, *self.input_shape),
            y=y.reshape(T, 1, 1),
            weight=jnp.ones((T, 1)),
        )

    def best_score(self, key: Array, number: Array) -> Array:
        """Return 0: the target has no noise."""
        del key, number
        return jnp.zeros(())

    def _slow_bits(self, key: Array, number: Array) -> Array:
        """Return the slow bits of a task, float32 [slow]."""
        config = self.config
        if config.change == "redraw":
            bits = jax.random.bernoulli(jax.random.fold_in(key, number), 0.5, (config.slow,))
            return bits.astype(jnp.float32)
        first = jax.random.bernoulli(key, 0.5, (config.slow,))

        def flip_one(task: Array, bits: Array) -> Array:
            place = jax.random.randint(jax.random.fold_in(key, task), (), 0, config.slow)
            return bits.at[place].set(~bits[place])

        # A task follows from all flips before it, which are few and cheap: nothing has to be kept.
        bits = jax.lax.fori_loop(0, number, flip_one, first)
        return bits.astype(jnp.float32)

    def _target(self, key: Array, x: Array) -> Array:
        """Return the target of inputs x [T, inputs], [T]."""
        config = self.config
        keys = jax.random.split(key, 4)
        weights = _signs(keys[0], (config.inputs, config.units))
        biases = _signs(keys[1], (config.units,))
        outward = _signs(keys[2], (config.units,))
        constant = _signs(keys[3], ())
        negative = (config.inputs - weights.sum(0) + biases) / 2
        thresholds = config.beta * (config.inputs + 1) - negative
        sums = x @ weights + biases[None, :]
        # Sums are whole numbers, in float32 without rounding.
        is_on = sums > thresholds[None, :]
        return is_on.astype(jnp.float32) @ outward + constant


def _signs(key: Array, shape: tuple[int, ...]) -> Array:
    """Draw -1 and 1 with equal chance."""
    return jax.random.rademacher(key, shape, jnp.float32)


@dataclass(frozen=True)
class SlowRegression:
    """`stream.kind: slow_bits`: the slowly changing regression.

    Attributes:
        config: its settings.
    """

    config: SlowBitsConfig = SlowBitsConfig()

    needs_data = False

    def streams(self, tasks: Sequence[tuple[str, TaskDistribution]]) -> list[Stream]:
        """Return the one stream."""
        del tasks
        return [SlowBits(config=self.config)]

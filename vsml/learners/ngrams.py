"""N-grams: counts of what followed the latest symbols, the simplest learner of texts."""

import dataclasses
import math
from dataclasses import dataclass, field

import jax.numpy as jnp
from flax import struct
from pydantic import Field

from vsml.learners.base import WrittenLearner
from vsml.learners.memory import Change
from vsml.losses import known_targets
from vsml.settings import Float, Positive, Section
from vsml.types import Array, Classes, Params

_MULTIPLIER = 0x9E3779B1
"""Of the hash: 2^32 by the golden ratio, an odd number that spreads contexts over the table."""


class NgramsConfig(Section):
    """Counts of what followed contexts of 0, 1, ... symbols."""

    order: Positive = Field(default=2, description="symbols of the longest context, the present one included")
    rows: Positive = Field(
        default=1024,
        description="contexts of each length that there is room for; more share rows, by a hash",
    )
    strength: Float = Field(
        default=1.0,
        gt=0,
        description="examples that the prediction of the next shorter context counts as",
    )


@struct.dataclass
class NgramsState:
    """What was counted. Letters: L lengths of contexts, R rows, C classes.

    Attributes:
        counts: float32 [L, R, C]; length 0 uses one row.
        recent: numbers of the latest symbols, the newest first, int32 [B, order].
    """

    counts: Array
    recent: Array


@dataclass(frozen=True)
class Ngrams(WrittenLearner):
    """Answer with interpolated counts: `p_n(c) = (count_n(c) + s p_{n-1}(c)) / (count_n + s)`.

    An input is read as a symbol: the place of its largest number. The symbol and those before it are the
    context, whose counts are in a table. Below all of them is the equal distribution. The inner batch shares
    the table. There are no meta-parameters.

    Attributes:
        input_shape: shape of one input.
        outputs: classes; an int is their number.
        config: settings.
    """

    config: NgramsConfig = field(default_factory=NgramsConfig)

    def check(self) -> None:
        """Refuse values, which cannot be counted."""
        if not isinstance(self.outputs, Classes):
            raise ValueError(f"outputs: got {self.outputs}, expected Classes, as values cannot be counted")

    def init_state(
        self,
        params: Params,
        key: Array,
        batch_size: int = 1,
    ) -> NgramsState:
        """Return empty counts; no draw is made."""
        order, rows = self.config.order, self.config.rows
        return NgramsState(
            counts=jnp.zeros((order + 1, rows, self.outputs.size)),
            recent=jnp.zeros((batch_size, order), jnp.int32),
        )

    def step(
        self,
        params: Params,
        state: NgramsState,
        x: Array,
        y: Array,
        taught: Array | None = None,
    ) -> tuple[NgramsState, Array]:
        """Answer the inputs x [B, *input_shape], then count their labels y; see `Learner.step`."""
        recent = self._with(state.recent, x)
        answers = self._answer(state.counts, recent)
        told = jnp.ones(len(x)) if taught is None else (taught > 0).astype(jnp.float32)
        labels = known_targets(y, taught)
        rows_BxL = self._rows(recent)
        lengths = jnp.arange(self.config.order + 1)
        counts = state.counts.at[lengths[None, :], rows_BxL, labels[:, None]].add(told[:, None])
        return NgramsState(counts=counts, recent=recent), answers

    def predict(
        self,
        params: Params,
        state: NgramsState,
        x: Array,
    ) -> Array:
        """Return what `step` would answer to x [K, *input_shape]; see `Learner.predict`."""
        which = jnp.arange(len(x)) % len(state.recent)
        return self._answer(state.counts, self._with(state.recent[which], x))

    def map_memory(
        self,
        state: NgramsState,
        change: Change,
    ) -> NgramsState:
        """Return the state with other counts, of which units are rows; none falls below 0."""
        counts = jnp.maximum(change(state.counts, 1), 0)
        return dataclasses.replace(state, counts=counts)

    def _with(self, recent: Array, x: Array) -> Array:
        """Return the latest symbols [B, order] with those of inputs x [B, *input_shape] before them."""
        symbol = jnp.argmax(x.reshape(len(x), -1), axis=1).astype(jnp.int32)
        return jnp.concatenate([symbol[:, None], recent[:, :-1]], axis=1)

    def _rows(self, recent: Array) -> Array:
        """Return the rows of contexts of all lengths from 0 on, int32 [B, order + 1]."""
        size = math.prod(self.input_shape)
        number = jnp.zeros(len(recent), jnp.uint32)
        rows = [number]
        exact = 1
        for place in range(self.config.order):
            number = number * jnp.uint32(size) + recent[:, place].astype(jnp.uint32)
            exact *= size
            # As long as there is a row for each context, no two share one.
            spread = number if exact <= self.config.rows else (number * jnp.uint32(_MULTIPLIER)) >> 7
            rows.append(spread % jnp.uint32(self.config.rows))
        return jnp.stack(rows, axis=1).astype(jnp.int32)

    def _answer(self, counts: Array, recent: Array) -> Array:
        """Return the logarithms of the probabilities [B, C]."""
        rows_BxL = self._rows(recent)
        strength = self.config.strength
        share = jnp.full((len(recent), self.outputs.size), 1 / self.outputs.size)
        for length in range(self.config.order + 1):
            found_BxC = counts[length, rows_BxL[:, length]]
            total_Bx1 = found_BxC.sum(1, keepdims=True)
            share = (found_BxC + strength * share) / (total_Bx1 + strength)
        return jnp.log(share)

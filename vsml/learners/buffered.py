"""A learner that keeps the latest examples: what nearest neighbours and kernel ridge have in common."""

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

from vsml.learners.base import WrittenLearner
from vsml.learners.buffer import Buffer, check_batch
from vsml.learners.distances import Metric, prepared
from vsml.learners.memory import Change
from vsml.types import Array, Params


class BufferSettings(Protocol):
    """Settings of a learner with a buffer.

    Attributes:
        buffer: examples that are kept, the latest.
        metric: how inputs are compared.
    """

    buffer: int
    metric: Metric


@dataclass(frozen=True)
class BufferedLearner(WrittenLearner):
    """A learner whose inner state is a buffer of the latest examples, which the inner batch shares.

    Attributes:
        section: of its settings in `model`, for messages.
    """

    section: ClassVar[str]

    @property
    def buffer_settings(self) -> BufferSettings:
        """Its settings."""
        raise NotImplementedError

    def answer(
        self,
        buffer: Buffer,
        inputs: Array,
    ) -> Array:
        """Return the answers to prepared inputs [K, D]."""
        raise NotImplementedError

    def init_state(
        self,
        params: Params,
        key: Array,
        batch_size: int = 1,
    ) -> Buffer:
        """Return an empty buffer; no draw is made."""
        size = self.buffer_settings.buffer
        check_batch(batch_size, size, f"model.{self.section}.buffer")
        return Buffer.empty(size, math.prod(self.input_shape), self.outputs)

    def step(
        self,
        params: Params,
        state: Buffer,
        x: Array,
        y: Array,
        taught: Array | None = None,
    ) -> tuple[Buffer, Array]:
        """Answer the inputs x [B, *input_shape], then keep them with their targets y; see `Learner.step`."""
        inputs_BxD = prepared(x, self.buffer_settings.metric)
        return state.add(inputs_BxD, y, taught), self.answer(state, inputs_BxD)

    def predict(
        self,
        params: Params,
        state: Buffer,
        x: Array,
    ) -> Array:
        """Return what `step` would answer to x [K, *input_shape]; see `Learner.predict`."""
        return self.answer(state, prepared(x, self.buffer_settings.metric))

    def map_memory(
        self,
        state: Buffer,
        change: Change,
    ) -> Buffer:
        """Return the buffer with other inputs, of which units are examples; targets stay."""
        return state.with_inputs(change(state.inputs, 0))

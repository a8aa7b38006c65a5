"""The floor: learners that look at no input."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import jax
import jax.numpy as jnp
from flax import struct
from pydantic import Field

from vsml.learners.base import WrittenLearner
from vsml.learners.shares import Doubt, share_logits
from vsml.losses import label_signal
from vsml.settings import Section
from vsml.types import Array, Classes, Params


class FloorConfig(Section):
    """An answer that does not depend on the input."""

    answer: Literal["prior", "majority", "last"] = Field(
        default="prior",
        description="prior: the shares of classes so far, or the mean of values; majority: the class that "
        "came most often; last: the last target",
    )
    doubt: Doubt = 0.1


@struct.dataclass
class FloorState:
    """Targets so far, labels as one-hot.

    Attributes:
        total: their sum, [C] or [V]; with `last` the last one.
        count: how many there were, float32 [], to 2^24.
    """

    total: Array
    count: Array


@dataclass(frozen=True)
class Floor(WrittenLearner):
    """Answer with the prior, the majority or the last target: what a learner has to beat to have learned.

    The inner batch shares the state; its last element that is taught is the last one. Before the first
    example all classes are as likely, and values are 0. There are no meta-parameters.

    Attributes:
        input_shape: shape of one input.
        outputs: what it answers with; an int is a number of classes. Values have no majority.
        config: settings.
    """

    config: FloorConfig = field(default_factory=FloorConfig)

    def check(self) -> None:
        """Refuse a majority of values."""
        if self.config.answer == "majority" and not isinstance(self.outputs, Classes):
            raise ValueError(
                f"outputs: got {self.outputs}, expected Classes with model.floor.answer=majority"
            )

    def init_state(
        self,
        params: Params,
        key: Array,
        batch_size: int = 1,
    ) -> FloorState:
        """Return the state that has seen nothing; no draw is made."""
        return FloorState(total=jnp.zeros(self.outputs.size), count=jnp.zeros(()))

    def step(
        self,
        params: Params,
        state: FloorState,
        x: Array,
        y: Array,
        taught: Array | None = None,
    ) -> tuple[FloorState, Array]:
        """Answer the inputs x [B, *input_shape], then count their targets y; see `Learner.step`."""
        targets_BxV = label_signal(self.outputs, y, taught)
        is_taught = jnp.ones(len(y), bool) if taught is None else taught > 0
        if self.config.answer == "last":
            newest = len(y) - 1 - jnp.argmax(is_taught[::-1])
            total = jnp.where(is_taught.any(), targets_BxV[newest], state.total)
        else:
            total = state.total + targets_BxV.sum(0)
        new = FloorState(total=total, count=state.count + is_taught.sum())
        return new, self.predict(params, state, x)

    def predict(
        self,
        params: Params,
        state: FloorState,
        x: Array,
    ) -> Array:
        """Return what `step` would answer to x [K, *input_shape]; see `Learner.predict`."""
        answer_V = _ANSWERS[self.config.answer](state)
        if isinstance(self.outputs, Classes):
            answer_V = share_logits(answer_V, self.config.doubt)
        return jnp.broadcast_to(answer_V, (len(x), self.outputs.size))


def _mean(state: FloorState) -> Array:
    return state.total / jnp.maximum(state.count, 1)


def _majority(state: FloorState) -> Array:
    most = jax.nn.one_hot(state.total.argmax(), len(state.total))
    return jnp.where(state.count > 0, most, 0.0)


def _last(state: FloorState) -> Array:
    return state.total


_ANSWERS: dict[str, Callable[[FloorState], Array]] = {"prior": _mean, "majority": _majority, "last": _last}

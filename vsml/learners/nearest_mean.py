"""The nearest mean of a class, with decay: a vector a class, for streams that change."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Annotated

import jax
import jax.numpy as jnp
from flax import struct
from pydantic import Field

from vsml.learners.base import WrittenLearner
from vsml.learners.distances import Metric, distances, prepared
from vsml.learners.memory import Change
from vsml.learners.shares import Doubt, share_logits
from vsml.losses import label_signal
from vsml.settings import Float, Section
from vsml.types import Array, Classes, Params


class NearestMeanConfig(Section):
    """The nearest mean of a class."""

    decay: Annotated[Float, Field(ge=0, lt=1)] = Field(
        default=0.02,
        description="least share that an example has in the mean of its class: 0 weighs all alike, 1/50 "
        "counts about the last 50",
    )
    scale: Annotated[Float, Field(gt=0)] = Field(
        default=20.0, description="classes at distance d have probabilities as exp(-scale d)"
    )
    metric: Metric = "euclidean"
    doubt: Doubt = 0.1


@struct.dataclass
class NearestMeanState:
    """The classes as far as they are known.

    Attributes:
        means: of the inputs of each class, float32 [C, D].
        counts: of the examples of each class, float32 [C], to 2^24.
    """

    means: Array
    counts: Array


@dataclass(frozen=True)
class NearestMean(WrittenLearner):
    """Answer with the class whose mean is nearest: `m_c <- m_c + max(1 / n_c, decay) (x - m_c)`.

    Of an inner batch, which shares the means, n examples of a class move it by their own mean, at once, with
    the rate `max(n / n_c, 1 - (1 - decay)^n)`. By the cosine, the mean is that of normalised inputs, and is
    normalised itself before it is compared. Classes not yet seen have the share `doubt / C`.

    Attributes:
        input_shape: shape of one input.
        outputs: classes; an int is their number.
        config: settings.
    """

    config: NearestMeanConfig = field(default_factory=NearestMeanConfig)

    def check(self) -> None:
        """Refuse outputs that are not classes."""
        if not isinstance(self.outputs, Classes):
            raise ValueError(f"outputs: got {self.outputs}, expected Classes, each of which has a mean")

    def init_state(
        self,
        params: Params,
        key: Array,
        batch_size: int = 1,
    ) -> NearestMeanState:
        """Return the state that has seen nothing; no draw is made."""
        C, D = self.outputs.size, math.prod(self.input_shape)
        return NearestMeanState(means=jnp.zeros((C, D)), counts=jnp.zeros(C))

    def step(
        self,
        params: Params,
        state: NearestMeanState,
        x: Array,
        y: Array,
        taught: Array | None = None,
    ) -> tuple[NearestMeanState, Array]:
        """Answer the inputs x [B, *input_shape], then move the means of their labels; see `Learner.step`."""
        inputs_BxD = prepared(x, self.config.metric)
        one_hot_BxC = label_signal(self.outputs, y, taught)
        added_C = one_hot_BxC.sum(0)
        counts_C = state.counts + added_C
        batch_means_CxD = one_hot_BxC.T @ inputs_BxD / jnp.maximum(added_C, 1)[:, None]
        decayed_C = 1 - (1 - self.config.decay) ** added_C
        rate_C = jnp.maximum(added_C / jnp.maximum(counts_C, 1), decayed_C)
        means_CxD = state.means + rate_C[:, None] * (batch_means_CxD - state.means)
        new = NearestMeanState(means=means_CxD, counts=counts_C)
        return new, self._answer(state, inputs_BxD)

    def predict(
        self,
        params: Params,
        state: NearestMeanState,
        x: Array,
    ) -> Array:
        """Return what `step` would answer to x [K, *input_shape]; see `Learner.predict`."""
        return self._answer(state, prepared(x, self.config.metric))

    def map_memory(
        self,
        state: NearestMeanState,
        change: Change,
    ) -> NearestMeanState:
        """Return the state with other means, of which units are the numbers of an input; counts stay."""
        return dataclasses.replace(state, means=change(state.means, 1))

    def _answer(
        self,
        state: NearestMeanState,
        inputs: Array,
    ) -> Array:
        """Return the logits [K, C] of prepared inputs [K, D]."""
        means_CxD = state.means
        if self.config.metric == "cosine":
            norm_Cx1 = jnp.linalg.norm(means_CxD, axis=-1, keepdims=True)
            means_CxD = means_CxD / jnp.where(norm_Cx1 > 0, norm_Cx1, 1.0)
        distance_KxC = distances(inputs, means_CxD, self.config.metric)
        is_known_C = state.counts > 0
        closeness_KxC = jnp.where(is_known_C[None], -self.config.scale * distance_KxC, -jnp.inf)
        shares_KxC = jnp.where(is_known_C.any(), jax.nn.softmax(closeness_KxC), 0.0)
        return share_logits(shares_KxC, self.config.doubt)

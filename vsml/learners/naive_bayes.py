"""Gaussian naive Bayes with decay."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Annotated

import jax
import jax.numpy as jnp
from flax import struct
from pydantic import Field

from vsml.learners.base import WrittenLearner
from vsml.learners.memory import Change
from vsml.learners.shares import Doubt, share_logits
from vsml.losses import label_signal
from vsml.settings import Float, Section
from vsml.types import Array, Classes, Params

LEAST_VARIANCE = 1e-9
"""Of a number of the inputs, at least, where all inputs so far are equal."""


class NaiveBayesConfig(Section):
    """Gaussian naive Bayes."""

    decay: Annotated[Float, Field(gt=0, le=1)] = Field(
        default=1.0, description="what each example leaves of the weight of earlier ones; 1 forgets nothing"
    )
    smoothing: Annotated[Float, Field(gt=0)] = Field(
        default=0.1,
        description="share of the largest variance of a number of the inputs that is added to all variances",
    )
    doubt: Doubt = 0.02


@struct.dataclass
class NaiveBayesState:
    """Weighted moments of the inputs of each class.

    Attributes:
        weights: of its examples, float32 [C].
        means: [C, D].
        squares: weighted sums of the squared distances from the mean, [C, D].
    """

    weights: Array
    means: Array
    squares: Array


@dataclass(frozen=True)
class NaiveBayes(WrittenLearner):
    """Answer with `p(c | x)` of classes whose inputs are independent Gaussians, with weights that decay.

    An example of age a has the weight `decay^a`. Moments are merged as by Chan, Golub and LeVeque (1983),
    which cancels no digits. The inner batch shares the state, and its examples are of the same age.
    Classes not yet seen have the share `doubt / C`. There are no meta-parameters.

    Attributes:
        input_shape: shape of one input.
        outputs: classes; an int is their number.
        config: settings.
    """

    config: NaiveBayesConfig = field(default_factory=NaiveBayesConfig)

    def check(self) -> None:
        """Refuse outputs that are not classes."""
        if not isinstance(self.outputs, Classes):
            raise ValueError(f"outputs: got {self.outputs}, expected Classes, each with a Gaussian")

    def init_state(
        self,
        params: Params,
        key: Array,
        batch_size: int = 1,
    ) -> NaiveBayesState:
        """Return the state that has seen nothing; no draw is made."""
        C, D = self.outputs.size, math.prod(self.input_shape)
        nothing = jnp.zeros((C, D))
        return NaiveBayesState(weights=jnp.zeros(C), means=nothing, squares=nothing)

    def step(
        self,
        params: Params,
        state: NaiveBayesState,
        x: Array,
        y: Array,
        taught: Array | None = None,
    ) -> tuple[NaiveBayesState, Array]:
        """Answer the inputs x [B, *input_shape], then count them for their labels y; see `Learner.step`."""
        inputs_BxD = x.reshape(len(x), -1)
        one_hot_BxC = label_signal(self.outputs, y, taught)
        kept = self.config.decay ** one_hot_BxC.sum()
        old_C, added_C = kept * state.weights, one_hot_BxC.sum(0)
        weights_C = old_C + added_C
        batch_means_CxD = one_hot_BxC.T @ inputs_BxD / jnp.maximum(added_C, 1)[:, None]
        from_mean_BxD = inputs_BxD - one_hot_BxC @ batch_means_CxD
        batch_squares_CxD = one_hot_BxC.T @ jnp.square(from_mean_BxD)
        share_C = added_C / jnp.where(weights_C > 0, weights_C, 1.0)
        between_CxD = batch_means_CxD - state.means
        apart_CxD = (old_C * share_C)[:, None] * jnp.square(between_CxD)
        new = NaiveBayesState(
            weights=weights_C,
            means=state.means + share_C[:, None] * between_CxD,
            squares=kept * state.squares + batch_squares_CxD + apart_CxD,
        )
        return new, self.predict(params, state, x)

    def predict(
        self,
        params: Params,
        state: NaiveBayesState,
        x: Array,
    ) -> Array:
        """Return what `step` would answer to x [K, *input_shape]; see `Learner.predict`."""
        is_known_C = state.weights > 0
        weight_Cx1 = jnp.where(is_known_C, state.weights, 1.0)[:, None]
        variance_CxD = state.squares / weight_Cx1 + self._smoothing(state)
        deviation_KxCxD = x.reshape(len(x), 1, -1) - state.means[None]
        fit_KxC = -(jnp.square(deviation_KxCxD) / variance_CxD[None]).sum(-1) / 2
        scale_C = -jnp.log(variance_CxD).sum(-1) / 2
        prior_C = jnp.log(weight_Cx1[:, 0])
        joint_KxC = jnp.where(is_known_C[None], fit_KxC + (scale_C + prior_C)[None], -jnp.inf)
        shares_KxC = jnp.where(is_known_C.any(), jax.nn.softmax(joint_KxC), 0.0)
        return share_logits(shares_KxC, self.config.doubt)

    def map_memory(
        self,
        state: NaiveBayesState,
        change: Change,
    ) -> NaiveBayesState:
        """Return the state with other means, of which units are the numbers of an input; the rest stays."""
        return dataclasses.replace(state, means=change(state.means, 1))

    def _smoothing(self, state: NaiveBayesState) -> Array:
        """Return what is added to every variance, []: a share of the largest one over all classes."""
        total = jnp.maximum(state.weights.sum(), LEAST_VARIANCE)
        mean_D = state.weights @ state.means / total
        between_CxD = state.weights[:, None] * jnp.square(state.means - mean_D[None])
        variance_D = (state.squares + between_CxD).sum(0) / total
        return jnp.maximum(self.config.smoothing * variance_D.max(), LEAST_VARIANCE)

"""Recursive least squares on random features: a closed form in constant memory."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Annotated

import jax
import jax.numpy as jnp
from flax import struct
from pydantic import Field

from vsml.learners.base import WrittenLearner, only_if
from vsml.learners.distances import normalised
from vsml.learners.memory import Change
from vsml.learners.shares import Doubt, share_logits
from vsml.losses import known_targets
from vsml.networks.regression import observe
from vsml.settings import Bool, Float, Positive, Section
from vsml.types import Array, Classes, Params, State


class LeastSquaresConfig(Section):
    """Recursive least squares on random ReLU features."""

    features: Positive = Field(default=490, description="random features F; the state has F^2 numbers")
    forgetting: Annotated[Float, Field(ge=0.5, le=1)] = Field(
        default=1.0, description="what each example leaves of the weight of earlier ones; 1 forgets nothing"
    )
    ridge: Annotated[Float, Field(gt=0)] = Field(
        default=10.0, description="penalty of squared weights, which is not forgotten"
    )
    normalise: Bool = Field(
        default=True, description="take inputs less their own mean, scaled to norm 1; false: as they are"
    )
    bias: Annotated[Float, Field(ge=0)] = Field(
        default=0.0, description="standard deviation of the biases of random features"
    )
    doubt: Doubt = 0.02


@struct.dataclass
class LeastSquaresState:
    """What is known of the examples of an episode.

    Attributes:
        root: S [F, F] with P = S S^T, the inverse of `sum_t forgetting^age phi_t phi_t^T` + ridge.
        weights: of the features, [F, C] or [F, V].
        refreshed: the feature whose ridge is renewed next, int32 [].
        kernel: of the random features [D, F]; fixed.
        bias: likewise [F].
    """

    root: Array
    weights: Array
    refreshed: Array
    kernel: Array
    bias: Array


@dataclass(frozen=True)
class LeastSquares(WrittenLearner):
    """Answer with `W^T phi(x)`, W the ridge regression on all examples so far, old ones less and less.

    phi(x) = relu(A^T x + b) with A, b drawn once per episode. Targets are one-hot labels - 1 / C, or values;
    answers for classes become shares of probability. Equations are in `vsml.networks.regression`. With a
    forgetting factor l < 1 the ridge is forgotten, too, and P would grow without end where features are
    silent. So some coordinates of W get their ridge back at each step, in turn, as by an example with the
    target 0: each keeps between about `ridge / e` and `ridge`. The inner batch shares the state, one example
    after the other.

    Attributes:
        input_shape: shape of one input.
        outputs: what it answers with; an int is a number of classes.
        config: settings.
    """

    config: LeastSquaresConfig = field(default_factory=LeastSquaresConfig)

    def init_state(
        self,
        params: Params,
        key: Array,
        batch_size: int = 1,
    ) -> LeastSquaresState:
        """Draw random features: kernels from a standard normal, biases with the deviation `bias`."""
        F, D = self.config.features, math.prod(self.input_shape)
        kernel_key, bias_key = jax.random.split(key)
        return LeastSquaresState(
            root=jnp.eye(F) / math.sqrt(self.config.ridge),
            weights=jnp.zeros((F, self.outputs.size)),
            refreshed=jnp.zeros((), jnp.int32),
            kernel=jax.random.normal(kernel_key, (D, F)),
            bias=self.config.bias * jax.random.normal(bias_key, (F,)),
        )

    def fixed(self, state: LeastSquaresState) -> dict[str, State]:
        """Return the random features."""
        return {"random features": (state.kernel, state.bias)}

    def step(
        self,
        params: Params,
        state: LeastSquaresState,
        x: Array,
        y: Array,
        taught: Array | None = None,
    ) -> tuple[LeastSquaresState, Array]:
        """Answer the inputs x [B, *input_shape], then learn from their targets y; see `Learner.step`."""
        features_BxF = self._features(state, x)
        y = known_targets(y, taught)
        if isinstance(self.outputs, Classes):
            targets_BxV = jax.nn.one_hot(y, self.outputs.size) - 1 / self.outputs.size
        else:
            targets_BxV = y
        new = state
        for b in range(len(x)):
            learned = self._learn(new, features_BxF[b], targets_BxV[b])
            new = learned if taught is None else only_if(taught[b] > 0, learned, new)
        return new, self._answer(state, features_BxF)

    def predict(
        self,
        params: Params,
        state: LeastSquaresState,
        x: Array,
    ) -> Array:
        """Return what `step` would answer to x [K, *input_shape]; see `Learner.predict`."""
        return self._answer(state, self._features(state, x))

    def map_memory(
        self,
        state: LeastSquaresState,
        change: Change,
    ) -> LeastSquaresState:
        """Return the state with other weights, of which units are features; how sure they are stays."""
        return dataclasses.replace(state, weights=change(state.weights, 0))

    def _features(
        self,
        state: LeastSquaresState,
        x: Array,
    ) -> Array:
        """Return the features [K, F] of inputs [K, *input_shape]."""
        inputs_KxD = normalised(x) if self.config.normalise else x.reshape(len(x), -1)
        return jax.nn.relu(inputs_KxD @ state.kernel + state.bias[None])

    def _answer(
        self,
        state: LeastSquaresState,
        features: Array,
    ) -> Array:
        """Return the answers to features [K, F]."""
        answers_KxV = features @ state.weights
        if isinstance(self.outputs, Classes):
            return share_logits(answers_KxV + 1 / self.outputs.size, self.config.doubt)
        return answers_KxV

    def _learn(
        self,
        state: LeastSquaresState,
        feature: Array,
        target: Array,
    ) -> LeastSquaresState:
        """Return the state after one example: features [F], target [C] or [V]."""
        forgetting, F = self.config.forgetting, self.config.features
        root, weights, *_ = observe(state.root, state.weights, feature, target, forgetting)
        if forgetting == 1:
            return dataclasses.replace(state, root=root, weights=weights)
        # As many coordinates as let each have its turn before its ridge has fallen by a factor of about e.
        turns = math.ceil(F * (1 - forgetting))
        given_back = self.config.ridge * (1 - forgetting ** (F / turns))

        def refresh(
            turn: Array,
            known: tuple[Array, Array],
        ) -> tuple[Array, Array]:
            unit = jax.nn.one_hot((state.refreshed + turn) % F, F) * math.sqrt(given_back)
            root, weights, *_ = observe(*known, unit, jnp.zeros_like(target), 1.0)
            return root, weights

        root, weights = jax.lax.fori_loop(0, turns, refresh, (root, weights))
        refreshed = (state.refreshed + turns) % F
        return dataclasses.replace(state, root=root, weights=weights, refreshed=refreshed)
